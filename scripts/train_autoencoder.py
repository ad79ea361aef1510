"""`python -m jseg train_autoencoder`: the VQ autoencoder between images and latents."""

import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jseg.__main__ import main

sys.exit(main(["train_autoencoder"] + sys.argv[1:]))
