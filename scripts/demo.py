"""`python -m jseg demo`: IIDM on procedural landscapes with the small weights that ship."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["demo"] + sys.argv[1:]))
