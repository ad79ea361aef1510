"""`python -m jseg compare_official`: the official release and ours side by side."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))    # a clone need not be installed

from jseg.commands.cli import run  # noqa: E402
from jseg.commands.compare_official import main  # noqa: E402

sys.exit(run(main))
