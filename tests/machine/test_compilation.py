"""jseg/machine/compilation.py: the first compilation fails, is interrupted, is waited for; with
fake compilers.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from support.child_python import environment, program, refusal

from jseg.machine import compilation
from jseg.machine.facts import RuntimeProblem


def broken_compiler(folder, body):
    return program(
        folder / "g++", f'case "$1" in --version) echo "g++ (Fake) 12.2.0";; *) {body};; esac'
    )


def test_a_compilation_that_fails_is_one_line_and_a_log(tmp_path):
    compiler = broken_compiler(
        tmp_path, "echo 'x.cc:1: fatal error: disk quota exceeded' >&2; exit 1"
    )
    line = refusal(cc_path=compiler, HOME=tmp_path / "home")
    assert "cannot be compiled here (x.cc:1: fatal error: disk quota exceeded)" in line
    with open(line.rpartition(" is in ")[2]) as log:
        assert "disk quota exceeded" in log.read()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_jittor_compiles_is_one_line_and_leaves_no_compiler_running(tmp_path):
    compiler = broken_compiler(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 300")
    doctor = subprocess.Popen(
        [sys.executable, "-m", "jseg", "doctor"],
        env=environment(cc_path=compiler, HOME=tmp_path / "home"),
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
    )
    deadline = time.time() + 60
    while not (tmp_path / "pid").exists() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(doctor.pid, signal.SIGINT)
    _, errors = doctor.communicate(timeout=30)
    assert doctor.returncode == 130, errors
    assert errors.splitlines()[-1] == "jseg doctor: interrupted", errors
    assert "Traceback" not in errors
    try:
        with open(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat") as file:
            assert file.read().rpartition(")")[2].split()[0] == "Z", (
                "a compiler was left running"
            )  # Z: ended, not yet collected
    except FileNotFoundError:
        pass


def test_progress_is_shown_on_one_line_and_the_output_kept(tmp_path, capfd):
    code = (
        "import sys; sys.stdout.write('[i] Found g++\\nCompiling jittor_core(37/150) used: 20.1s "
        "eta: 60s\\r')"
    )
    speaker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with open(tmp_path / "log", "wb") as log:
        compilation._watch(speaker, log, show=True)
    speaker.wait()
    speaker.stdout.close()
    assert "\rjseg: compiling, 37 of 150 files, " in capfd.readouterr().err
    assert "Found g++" in (tmp_path / "log").read_text()


LAUNCHED = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_MCA_ess": "hnp",
    "PMIX_RANK": "1",
    "PMI_RANK": "1",
    "PRTE_X": "1",
    "SLURM_PROCID": "1",
    "MPI_LOCALRANKID": "1",
}


def test_the_compiling_child_is_no_process_of_the_mpi_program(tmp_path, monkeypatch):
    """It would announce itself under its parent's rank, which ends the whole program; it compiles
    the MPI part all the same.
    """
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("use_mpi", "")
    monkeypatch.setattr(
        compilation,
        "_CHILD",
        f"import json, os\njson.dump(dict(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))",
    )
    compilation.ensure(str(tmp_path), lambda line: None)
    seen = json.loads((tmp_path / "seen").read_text())
    assert not set(LAUNCHED) & set(seen) and seen["use_mpi"] == "1"
    assert {
        name: value
        for name, value in os.environ.items()
        if name not in (*LAUNCHED, "use_mpi", "log_silent")
    }.items() <= seen.items()


def test_the_mpi_part_is_compiled_where_jittor_alone_was(tmp_path, monkeypatch):
    """Jittor compiled without mpirun is not ready for it; once it is, nothing is compiled again."""
    count, told = tmp_path / "count", []
    monkeypatch.setattr(
        compilation,
        "_CHILD",
        f"import os; print(os.environ['use_mpi'], file=open({str(count)!r}, 'a'))",
    )
    (tmp_path / "jittor_core.so").write_bytes(b"")
    compilation.ensure(str(tmp_path), told.append)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    compilation.ensure(str(tmp_path), told.append)
    compilation.ensure(str(tmp_path), told.append)
    assert count.read_text().split() == ["0", "1"]
    assert told == [
        "Jittor's MPI part is compiled, for about a minute, once; the other processes wait"
    ]


TOGETHER = """
import sys
from jseg.machine import compilation
count = "open(" + repr({counted!r}) + ", 'a').write('compiled ')"
compilation._CHILD = "import time; time.sleep(0.5); " + count
compilation.ensure({cache!r}, lambda line: print(line, flush=True))
import os
assert any(name.startswith("jseg_ready") for name in os.listdir({cache!r}))
"""


@pytest.mark.parametrize(
    "variables, waits",
    [({"OMPI_COMM_WORLD_SIZE": "3"}, 0), ({}, 2)],
    ids=["under mpirun", "started at once"],
)
def test_of_several_processes_one_compiles_and_the_others_wait(tmp_path, variables, waits):
    (tmp_path / "cache").mkdir()
    code = TOGETHER.format(counted=str(tmp_path / "counted"), cache=str(tmp_path / "cache"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        for _ in range(3)
    ]
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert (tmp_path / "counted").read_text() == "compiled "
    assert "".join(told).count("the first use of Jittor here compiles it") == 1
    assert "".join(told).count("another process compiles Jittor here") <= waits


def test_a_full_disk_is_refused_before_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(
        compilation.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 << 20)
    )
    with pytest.raises(RuntimeProblem, match="10 MB left on its disk"):
        compilation.ensure(str(tmp_path), print)


def test_compilers_at_once_follow_cores_and_memory(monkeypatch):
    monkeypatch.setattr(
        compilation.os, "sched_getaffinity", lambda process: range(64), raising=False
    )
    monkeypatch.setattr(
        compilation.os,
        "sysconf",
        lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (3 << 30) // 4096}[name],
    )
    assert compilation.workers() <= 3
    monkeypatch.setattr(
        compilation.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}[name]
    )
    assert compilation.workers() == 1
