"""`python -m jseg train`: the challenge's reviewer command for training: the UNet of IIDM."""

import os
import sys

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

from jseg.__main__ import main

sys.exit(main(["train"] + sys.argv[1:]))
