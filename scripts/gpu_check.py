"""`python -m jseg gpu_check`: whether, how exactly and how fast a GPU computes."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["gpu_check"] + sys.argv[1:]))
