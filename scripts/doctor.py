"""`python -m jseg doctor`."""
import sys

from jseg.commands.cli import run
from jseg.commands.doctor import main

sys.exit(run(main))
