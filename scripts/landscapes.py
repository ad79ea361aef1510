"""`python -m jseg landscapes`: procedural landscapes with label maps in the challenge's layout."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["landscapes"] + sys.argv[1:]))
