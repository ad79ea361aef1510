"""`python -m jseg segment`: images into label maps with FlowSeg."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["segment"] + sys.argv[1:]))
