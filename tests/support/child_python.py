"""Python in a child process, with fake packages first on its path or fake programs on PATH."""

import os
import subprocess
import sys

from support.places import ROOT

JITTOR_VARIABLES = (
    "nvcc_path",
    "use_mpi",
    "gdb_path",
    "FIX_TORCH_ERROR",
    "cache_name",
    "use_cutlass",
    "use_cutt",
    "python_config_path",
    "log_silent",
    "cc_path",
    "use_mkl",
    "use_parallel_op_compiler",
    "OMPI_COMM_WORLD_SIZE",
    "mpicc_path",
    "JITTOR_HOME",
    "use_cuda",
)
REFUSED = """
import sys
from jseg.machine.facts import RuntimeProblem
try:
    import jseg.runtime
except RuntimeProblem as problem:
    assert "jittor" not in sys.modules, "refused too late"
    print(problem)
"""


def environment(fakes=None, **variables):
    """A clean environment whose Python finds `fakes` first, then this clone."""
    clean = {name: value for name, value in os.environ.items() if name not in JITTOR_VARIABLES}
    clean["PYTHONPATH"] = os.pathsep.join([str(fakes), str(ROOT)] if fakes else [str(ROOT)])
    clean.update({name: str(value) for name, value in variables.items()})
    return clean


def child(code, fakes=None, **variables):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(fakes, **variables),
        cwd=os.sep,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=300,
    )


def refusal(fakes=None, **variables):
    """The one line with which `import jseg.runtime` is refused."""
    done = child(REFUSED, fakes, **variables)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
    return done.stdout.strip()


def write(path, text="", executable=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if executable:
        path.chmod(0o755)
    return path


def program(path, text):
    return write(path, "#!/bin/sh\n" + text, executable=True)
