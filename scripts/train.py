"""`python -m jseg train`: the UNet of IIDM; the command of the challenge."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["train"] + sys.argv[1:]))
