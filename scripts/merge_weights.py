"""Average the weights of several files: `python scripts/merge_weights.py --help`."""
import sys

from jseg.commands import cli, merge_weights

sys.exit(cli.run(merge_weights.main))
