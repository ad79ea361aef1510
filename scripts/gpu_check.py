"""`python -m jseg gpu_check`: what a GPU machine can do."""

import os
import sys

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

from jseg.__main__ import main

sys.exit(main(["gpu_check"] + sys.argv[1:]))
