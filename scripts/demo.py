"""`python -m jseg demo`: the pipeline on procedural landscapes with small untrained networks."""
import sys

from jseg.commands.cli import run
from jseg.commands.demo import main

sys.exit(run(main))
