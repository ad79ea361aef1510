"""`python -m jseg merge_weights`: the weighted average of several weight files."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["merge_weights"] + sys.argv[1:]))
