"""jseg/runtime.py with jseg/machine behind it: what is refused, set, undone and repaired, under
faked conditions.

Most tests run a child process with fake packages first on its path or fake programs on PATH. The
refusals come before Jittor is imported, so those children are quick; the few that import Jittor use
the cache that is warm by then.
"""

import json
import os
import platform
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.child_python import child, program, refusal, write
from support.places import ROOT

from jseg import runtime
from jseg.machine import environment as jittor_environment
from jseg.machine import facts
from jseg.machine.facts import RuntimeProblem

# --- what is refused before Jittor is imported ----------------------------------------------------


def test_numpy_2_is_refused(tmp_path):
    write(tmp_path / "numpy/__init__.py", "__version__ = '2.1.0'")
    assert "NumPy 2.1.0" in refusal(tmp_path) and "install 'numpy<2'" in refusal(tmp_path)


@pytest.mark.parametrize(
    "metadata, author",
    [("Author: Jittor Group", "Jittor/JSeg"), ("Author: Someone", "not this project")],
)
def test_the_other_distributions_called_jseg_are_refused(tmp_path, metadata, author):
    write(
        tmp_path / "jseg-0.0.4.dist-info/METADATA",
        f"Metadata-Version: 2.1\nName: jseg\nVersion: 0.0.4\n{metadata}\n",
    )
    line = refusal(tmp_path)
    assert "jseg 0.0.4" in line and author in line and "uninstall jseg" in line


def test_a_package_that_shadows_ours_is_refused(tmp_path):
    write(tmp_path / "jseg/__init__.py", f"__path__.append({os.path.join(ROOT, 'jseg')!r})")
    assert str(tmp_path) in refusal(tmp_path) and "uninstall jseg" in refusal(tmp_path)


def test_files_of_another_jseg_among_ours_are_found(tmp_path, monkeypatch):
    write(tmp_path / "jseg/runner/runner.py")
    monkeypatch.setattr(facts, "__file__", str(tmp_path / "jseg/machine/facts.py"))
    monkeypatch.setitem(
        sys.modules, "jseg", SimpleNamespace(__file__=str(tmp_path / "jseg/__init__.py"))
    )
    assert "runner belongs to another package" in facts.other_jseg().problem


def test_an_old_jittor_is_refused(tmp_path):
    write(tmp_path / "jittor/__init__.py", "__version__ = '1.3.7.16'")
    write(tmp_path / "jittor_utils/__init__.py")
    assert "Jittor 1.3.7.16 is older" in refusal(tmp_path)


def test_a_missing_jittor_is_refused(monkeypatch):
    monkeypatch.setattr(facts.importlib.util, "find_spec", lambda name: None)
    assert "Jittor is not installed" in facts.jittor().problem
    assert "jittor_offline" in facts.jittor().problem


def test_a_missing_compiler_is_refused(tmp_path):
    assert "sudo apt install g++" in refusal(PATH=tmp_path)
    assert "cc_path=/no/such/g++" in refusal(cc_path="/no/such/g++")


def test_missing_headers_are_named_with_the_package_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "python_headers", lambda: str(tmp_path))
    assert f"apt install python3.{sys.version_info[1]}-dev" in facts.compiler().problem


def test_missing_openmp_and_venv_are_named(monkeypatch):
    monkeypatch.setattr(facts.ctypes.util, "find_library", lambda name: None)
    assert "apt install libgomp1" in facts.compiler().problem
    monkeypatch.setattr(facts.importlib.util, "find_spec", lambda name: None)
    assert f"apt install python3.{sys.version_info[1]}-venv" in facts.virtual_environments().problem


@pytest.mark.parametrize("version", [(3, 7, 9), (3, 13, 0)])
def test_unsupported_pythons_are_refused(monkeypatch, version):
    assert facts.python().problem == ""
    monkeypatch.setattr(
        facts, "sys", SimpleNamespace(version_info=version, platform="linux", executable="python")
    )
    assert "3.8 to 3.12" in facts.python().problem


def test_paths_that_jittor_cannot_name_to_the_shell_are_refused(tmp_path):
    home = tmp_path / "my home"
    home.mkdir()
    assert "path has a space" in refusal(HOME=home) and str(home) in refusal(HOME=home)
    assert facts.paths().problem == "" and facts.paths("/home/\u7528\u6237/jseg-1.0").problem == ""
    assert "'/a b'" in facts.paths("/a b").problem


def test_windows_and_pypy_are_refused(monkeypatch):
    monkeypatch.setattr(
        facts,
        "sys",
        SimpleNamespace(version_info=(3, 11, 0), platform="win32", executable="python"),
    )
    assert "WSL" in facts.python().problem
    monkeypatch.setattr(facts.sys, "platform", "linux")
    monkeypatch.setattr(facts.platform, "python_implementation", lambda: "PyPy")
    assert "64-bit CPython" in facts.python().problem


def test_a_home_that_cannot_be_written_is_refused(tmp_path):
    file = write(tmp_path / "file")
    assert "cannot be written" in refusal(HOME=file) and "set HOME" in refusal(HOME=file)


def test_mpirun_without_open_mpi_is_refused(tmp_path):
    mpich = program(tmp_path / "mpicc", "echo 'mpicc: unknown option' >&2; exit 1")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert "is not Open MPI's" in refusal(PATH=path, OMPI_COMM_WORLD_SIZE=2)
    assert str(mpich) in refusal(mpicc_path=mpich, OMPI_COMM_WORLD_SIZE=2)


def test_mpi_switched_off_inside_mpirun_is_refused_with_remedies_that_work(fake_jittor, tmp_path):
    """With use_mpi=0 Jittor counts several processes and cannot speak to them; both remedies get
    past the check.
    """
    mpicc = program(tmp_path / "bin/mpicc", "echo -I/mpi")
    line = refusal(mpicc_path=mpicc, OMPI_COMM_WORLD_SIZE=2, use_mpi=0)
    assert (
        line
        == "started by mpirun, but use_mpi=0 in the environment switches MPI off: unset use_mpi, "
        "or start without mpirun"
    )
    fake_jittor(mpicc_path=mpicc, OMPI_COMM_WORLD_SIZE=2)
    fake_jittor(mpicc_path=mpicc, use_mpi=0)
    none = program(tmp_path / "other/mpicc", "exit 1")
    line = refusal(mpicc_path=none, OMPI_COMM_WORLD_SIZE=2)
    assert line.endswith(
        ": sudo apt install libopenmpi-dev and name its mpicc in mpicc_path, or start without "
        "mpirun"
    )
    fake_jittor(mpicc_path=none)


# --- the environment Jittor sees ------------------------------------------------------------------


@pytest.fixture
def fake_jittor(tmp_path):
    """Packages that stand for Jittor, write down the environment they are imported in, and stop
    there.
    """
    cache = tmp_path / "cache"
    for part in ("", "_mpi"):
        write(cache / f"jseg_ready_1.3.11.0_cpu{part}")
    write(
        tmp_path / "jittor_utils/__init__.py",
        f"LOG, cache_path, home = type('L', (), {{}})(), {str(cache)!r}, lambda: {str(tmp_path)!r}",
    )
    write(
        tmp_path / "jittor/__init__.py",
        "__version__ = '1.3.11.0'\nimport json, os\njson.dump(dict(os.environ), "
        f"open({str(tmp_path / 'seen')!r}, 'w'))\nraise RuntimeError('stop here')",
    )

    def seen(**variables):
        done = child("import jseg.runtime", tmp_path, use_mkl=0, HOME=tmp_path, **variables)
        assert "Jittor cannot be imported (stop here)" in done.stderr.splitlines()[-1], done.stderr
        return json.loads((tmp_path / "seen").read_text())

    return seen


def test_the_environment_is_prepared(fake_jittor):
    seen = fake_jittor(CUDA_VISIBLE_DEVICES="")
    expected = dict(jittor_environment.SWITCHES, nvcc_path="", use_mpi="0", log_silent="1")
    assert {name: seen[name] for name in expected} == expected


def test_the_user_s_variables_win(fake_jittor, tmp_path):
    gdb, config = str(program(tmp_path / "gdb", "")), str(program(tmp_path / "config", ""))
    mine = dict(
        nvcc_path="",
        use_mpi="1",
        gdb_path=gdb,
        FIX_TORCH_ERROR="1",
        cache_name="mine",
        python_config_path=config,
        log_silent="0",
        use_cutt="1",
    )
    seen = fake_jittor(**mine)
    assert {name: seen[name] for name in mine} == mine


def test_empty_flags_and_those_never_meant_do_not_reach_jittor(fake_jittor):
    """An empty cc_path is run as a program, an empty log_v read as a number; use_cuda ends the
    process where there is no CUDA.
    """
    seen = fake_jittor(
        cc_path="",
        log_v="",
        cache_name="",
        use_cutt="",
        use_cuda="0",
        no_grad="1",
        SKEY="abc",
        nvcc_path="",
        gdb_path="",
    )
    assert not {"cc_path", "log_v", "use_cuda", "no_grad", "SKEY"} & set(seen)
    assert (seen["cache_name"], seen["use_cutt"], seen["nvcc_path"], seen["gdb_path"]) == (
        "default",
        "0",
        "",
        "",
    )


def test_a_library_that_cannot_be_loaded_is_not_taken_for_a_full_disk(fake_jittor, tmp_path):
    (tmp_path / "jittor/__init__.py").write_text(
        "__version__ = '1.3.11.0'\nraise OSError('libcudart.so: cannot open shared object file')"
    )
    done = child("import jseg.runtime", tmp_path, use_mkl=0, HOME=tmp_path)
    assert (
        "Jittor cannot be imported (libcudart.so: cannot open shared object file)"
        in done.stderr.splitlines()[-1]
    )


def test_mpi_is_left_on_inside_mpirun(fake_jittor, tmp_path):
    mpicc = program(tmp_path / "bin/mpicc", "echo -I/mpi")
    assert "use_mpi" not in fake_jittor(OMPI_COMM_WORLD_SIZE=2, mpicc_path=mpicc)


def test_remarks_are_printed_by_the_first_process_of_a_machine(monkeypatch, capfd):
    monkeypatch.setattr(jittor_environment, "variables", lambda: ({}, ["the CPU computes"]))
    for rank, printed in (("0", "jseg: the CPU computes\n"), ("1", "")):
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", rank)
        with runtime._environment():
            assert capfd.readouterr().err == printed


# --- a true import, on the warm cache -------------------------------------------------------------

IMPORT = """
import os, random, signal, ssl, subprocess, sys
import numpy as np
random.seed(5)
np.random.seed(5)

def state():
    generators = random.getstate(), np.random.get_state()[1].tolist()
    return generators, dict(os.environ), ssl._create_default_https_context
before = state()
from jseg.runtime import RuntimeProblem, device, jt
assert state() == before
assert "torch" not in sys.modules and jt.compile_extern.mkl_ops is not None
assert not jt.has_cuda and not jt.in_mpi
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
victim = subprocess.Popen(["sleep", "60"]); victim.kill(); victim.wait()
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    assert not file.read().split(), "the import left processes running"
jt.rand(8).exp().numpy()
assert np.finfo(np.float32).smallest_subnormal > 0 and np.finfo(np.float64).smallest_subnormal > 0
assert device() == device("auto") == device("cpu") == "cpu"
try:
    device("cuda")
except RuntimeProblem as problem:
    print(problem)
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.usefixtures("ctrl_c")
def test_the_import_leaves_the_process_as_it_was(tmp_path):
    """With nvcc but no driver, MPICH, and torch installed; then Ctrl-C is Python's again."""
    write(tmp_path / "torch/__init__.py", "raise SystemExit('torch was imported')")
    program(tmp_path / "bin/nvcc", "echo 'release 12.4, V12.4.99'")
    program(tmp_path / "bin/mpicc", "exit 1")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = child(IMPORT, tmp_path, PATH=path, LD_LIBRARY_PATH="", CUDA_VISIBLE_DEVICES="")
    assert done.stderr.strip().splitlines()[-1:] == ["KeyboardInterrupt"], done.stderr
    assert (
        done.stdout.startswith("device cuda: nvcc 12.4.99 at ")
        and len(done.stdout.splitlines()) == 1
    ), done.stdout


def test_a_parent_s_wish_that_ctrl_c_be_ignored_is_kept():
    """As a shell starts what it puts into the background, and what nohup and job systems start:
    Ctrl-C is meant for others.
    """
    code = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom jseg.runtime "
        "import jt\nos.kill(os.getpid(), signal.SIGINT)\nassert signal.getsignal(signal.SIGINT) "
        "is signal.SIG_IGN\nprint(jt.ones(2).sum().item())"
    )
    done = child(code, nvcc_path="")
    assert (done.returncode, done.stdout.strip()) == (0, "2.0"), done.stderr


def test_a_program_that_imported_jittor_first_is_checked_all_the_same():
    code = (
        "import jittor\nfrom jseg.runtime import jt\nimport jseg.runtime, importlib\nassert jt is "
        "jittor\nimportlib.reload(jseg.runtime)"
    )
    settings = dict(
        jittor_environment.SWITCHES,
        nvcc_path="",
        use_mpi="0",
        log_silent="1",
        python_config_path=jittor_environment.python_config(),
    )
    done = child(code, **settings)
    assert done.returncode == 0, done.stderr


FREED = """
import ctypes
import jseg.runtime
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

block = libc.malloc(100 << 20)
ctypes.memset(block, 1, 100 << 20)
full = resident()
libc.free(block)
print(int(full - resident() < 50 << 20))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35),
    reason="an older glibc, or none, takes no threshold as large",
)
@pytest.mark.parametrize(
    "variables, kept",
    [({}, "1"), ({"MALLOC_MMAP_THRESHOLD_": "65536"}, "0")],
    ids=["ours", "the user's"],
)
def test_freed_blocks_are_kept_for_the_next_convolution_unless_the_user_has_settings(
    variables, kept
):
    done = child(FREED, **variables)
    assert done.returncode == 0 and done.stdout.strip() == kept, done.stderr


def test_the_canary_names_the_cache_to_delete(monkeypatch):
    class Wrong:
        def __getattr__(self, name):
            return getattr(runtime.jt, name)

        def fetch_sync(self, values):  # what a cache broken by an interrupted compilation gives
            return [value + 1 for value in runtime.jt.fetch_sync(values)]

    runtime._canary(runtime.jt)
    said = "computes wrong numbers.*: delete " + re.escape(runtime.jt.flags.cache_path)
    with pytest.raises(RuntimeProblem, match=said):
        runtime._canary(Wrong())


def test_operators_that_do_not_compile_are_one_line(monkeypatch):
    def broken(jittor):
        raise RuntimeError(
            "Wrong inputs arguments\n\nFailed reason:\x1b[38m[f x.cc:1]\n x.cc:3: fatal error: no "
            "such header\n"
        )

    monkeypatch.setattr(runtime, "_canary", broken)
    said = r"^Jittor cannot compile its operators \(x.cc:3: fatal error: no such header\)$"
    with pytest.raises(RuntimeProblem, match=said):
        runtime._open()


def test_device_names_are_checked():
    with pytest.raises(ValueError, match="'gpu': expected auto, cpu or cuda"):
        runtime.device("gpu")
    assert runtime.device("cpu") == "cpu" and runtime.jt.flags.use_cuda == 0


def test_on_a_gpu_cudnn_works_in_little_memory_and_remembers_many_shapes(monkeypatch):
    calls = []

    class Cudnn:
        def __getattr__(self, name):
            return lambda value: calls.append((name, value))

    jt = SimpleNamespace(has_cuda=1, flags=SimpleNamespace(use_cuda=0), cudnn=Cudnn())
    monkeypatch.setattr(runtime, "jt", jt)
    assert runtime.device("cpu") == "cpu" and not calls
    assert runtime.device("cuda") == "cuda"
    assert calls == [("set_max_workspace_ratio", 0.05), ("set_algorithm_cache_size", 1000)]
    jt.cudnn = None  # use_cudnn=0
    assert runtime.device("cuda") == "cuda"


def test_seed_repeats_all_three_generators_even_for_draws_not_yet_made():
    runtime.seed(11)
    first = runtime.jt.rand(4), random.random(), np.random.rand()
    runtime.seed(11)
    second = runtime.jt.rand(4), random.random(), np.random.rand()
    assert first[1:] == second[1:]
    np.testing.assert_array_equal(first[0].numpy(), second[0].numpy())
