"""`python -m jseg test`: images by IIDM; the command of the challenge."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["test"] + sys.argv[1:]))
