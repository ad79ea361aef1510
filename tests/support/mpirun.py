"""Python under mpirun, for the tests of several processes; they are skipped where Open MPI is not
installed (`make venv` installs it where it may).
"""

import os
import shutil
import subprocess
import sys

import pytest
from support.places import ROOT

from jseg.machine import facts

needs_mpirun = pytest.mark.skipif(
    not all(map(shutil.which, ("mpirun", "mpicc"))) or bool(facts.mpi().problem),
    reason="Open MPI is not installed: sudo apt install openmpi-bin libopenmpi-dev",
)
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def python(processes, *arguments):
    """What `python ARGUMENTS` did in so many processes of one thread; .stdout has all output."""
    start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(processes)]
    return subprocess.run(
        [*(start if processes > 1 else []), sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **ROOT_MAY, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=600,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def lines(done):
    """The lines of a command in its output, without those of mpirun."""
    return [line for line in done.stdout.splitlines() if line.startswith("jseg ")]
