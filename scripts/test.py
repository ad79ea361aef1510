"""The challenge's reviewer command: `python scripts/test.py --help`."""
import sys

from jseg.commands import cli, test

sys.exit(cli.run(test.main))
