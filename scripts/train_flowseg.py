"""`python -m jseg train_flowseg`: the network of FlowSeg from images and label maps."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["train_flowseg"] + sys.argv[1:]))
