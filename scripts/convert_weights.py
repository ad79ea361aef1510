"""`python -m jseg convert_weights`: weights of other programs into a file of ours."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["convert_weights"] + sys.argv[1:]))
