"""`python -m jseg compare_official`: the official release and ours side by side."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["compare_official"] + sys.argv[1:]))
