"""Procedural landscapes with label maps in the challenge's layout: `python scripts/landscapes.py --help`."""
import sys

from jseg.commands import cli, landscapes

sys.exit(cli.run(landscapes.main))
