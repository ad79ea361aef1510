"""Weights of other programs into a file of ours: `python scripts/convert_weights.py --help`."""
import sys

from jseg.commands import cli, convert_weights

sys.exit(cli.run(convert_weights.main))
