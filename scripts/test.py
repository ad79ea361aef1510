"""`python -m jseg test`: the challenge's reviewer command."""
import sys

from jseg.commands.cli import run
from jseg.commands.test import main

sys.exit(run(main))
