"""`python -m jseg train_autoencoder`: the VQ autoencoder that turns images into latents and
back.
"""

import os
import sys

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

from jseg.__main__ import main

sys.exit(main(["train_autoencoder"] + sys.argv[1:]))
