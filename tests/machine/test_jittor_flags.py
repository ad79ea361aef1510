"""jseg/machine/jittor_flags.py: what Jittor's flags in the environment may be, and which of them
change numbers.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.places import ROOT

from jseg import runtime
from jseg.machine import cuda, facts, jittor_flags
from jseg.machine.facts import RuntimeProblem


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    for name in (
        *jittor_flags.INTEGERS,
        *jittor_flags.SWITCHES,
        *jittor_flags.PROGRAMS,
        *jittor_flags.OTHERS,
        *jittor_flags.NUMERIC,
        *jittor_flags.NEVER,
    ):
        monkeypatch.delenv(name, raising=False)


def started(*command, **variables):
    """A command of ours in a process of its own: exit code and the lines that it says."""
    environment = {**os.environ, "nvcc_path": "", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        timeout=120,
    )
    return done.returncode, done.stdout.strip().splitlines()


# Importing jseg.runtime with a Jittor whose first operator fails.
FAILING = """import jseg.machine.import_guard as guard
    def fail(lock, tell):
        import jittor
        def broken(*given):
            raise RuntimeError('broken')
        jittor.ones = broken
    guard.wait_for_compilers = fail
    import jseg.runtime"""


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("log_v", "loud", "is not a whole number"),
        ("log_silent", "yes", "is not a whole number"),
        ("use_cuda", "true", "whole number"),
        ("lazy_execution", "1.0", "whole number"),
        ("use_mkl", "off", "is neither 0 nor 1"),
        ("use_mpi", "2", "is neither 0 nor 1"),
        (
            "nvcc_path",
            "/nowhere/nvcc",
            "is not a program: unset nvcc_path, or set it to nothing to use the CPU",
        ),
        ("cc_path", "/nowhere/g++", "is not a program: unset cc_path"),
        ("gdb_path", "/nowhere/gdb", "is not a program"),
        ("python_config_path", "/nowhere/config", "is not a program"),
        ("log_vprefix", "op.cc", "is not of the form"),
        ("log_vprefix", "op.cc=high", "is not of the form"),
    ],
)
def test_a_value_that_jittor_would_crash_over_or_ignore_is_named_with_the_remedy(
    monkeypatch, name, value, words
):
    monkeypatch.setenv(name, value)
    problem = jittor_flags.check().problem
    assert problem.startswith(f"{name}={value} in the environment ")
    assert words in problem
    assert f"unset {name}" in problem


def test_values_that_jittor_takes_pass(monkeypatch):
    assert jittor_flags.check() == facts.Fact("none is set")
    for name, value in dict(
        log_v="-1",
        log_silent="1",
        use_cuda="0",
        use_mkl="0",
        nvcc_path="",
        gdb_path="",
        cc_path=sys.executable,
        log_vprefix="op.cc=100,conv_tuner=1000",
        device_id="",
        auto_mixed_precision_level="5",
    ).items():
        monkeypatch.setenv(name, value)
    fact = jittor_flags.check()
    assert fact.problem == ""
    assert "auto_mixed_precision_level=5" in fact.text
    assert "device_id" not in fact.text


@pytest.mark.parametrize(
    "version, refused", [((3, 10, 14), False), ((3, 11, 7), True), ((3, 12, 0), True)]
)
def test_tracing_is_refused_by_its_name_where_jittor_cannot_trace(monkeypatch, version, refused):
    """Jittor's own messages advise it, and on Python 3.11 it makes every operator fail over "Wrong
    inputs arguments".
    """
    monkeypatch.setattr(sys, "version_info", version)
    for value in ("1", "3"):
        monkeypatch.setenv("trace_py_var", value)
        problem = jittor_flags.check().problem
        assert problem.startswith(f"trace_py_var={value} in the environment makes") == refused
        assert bool(problem) == refused
        assert not refused or "unset trace_py_var, or use Python 3.8 to 3.10" in problem
    monkeypatch.setenv("trace_py_var", "0")
    assert jittor_flags.check().problem == ""


def test_a_jittor_that_fails_names_the_flags_that_are_set():
    code = (
        "from jseg.commands import cli\ndef main(argv):\n    import jseg.runtime\n"
        "main.__module__ = 'jseg.commands.doctor'\nimport sys\nsys.exit(cli.run(main))"
    )
    for more, said in (
        ({}, "sync_run=1 in the environment may be why: unset it and start again"),
        (
            {"check_graph": "1"},
            "sync_run=1, check_graph=1 in the environment may be why: unset them and start again",
        ),
    ):
        status, lines = started(
            "-c", code.replace("import jseg.runtime", FAILING), sync_run="1", log_v="0", **more
        )
        assert status == 2 and len(lines) == 1, lines
        assert lines[0].startswith("jseg doctor: Jittor cannot compile its operators (broken)"), (
            lines
        )
        assert lines[0].endswith(said)
    status, lines = started("-c", code.replace("import jseg.runtime", FAILING))
    assert status == 2 and lines[0].endswith("(broken)")


def test_mpicc_matters_only_to_who_asks_for_mpi(monkeypatch):
    monkeypatch.setenv("mpicc_path", "/nowhere/mpicc")
    assert jittor_flags.check().problem == ""
    monkeypatch.setenv("use_mpi", "1")
    assert (
        "mpicc_path=/nowhere/mpicc in the environment is not a program"
        in jittor_flags.check().problem
    )


@pytest.mark.parametrize("value", ["1", "2", "-1"])
def test_use_cuda_without_a_gpu_is_refused_as_device_cuda_is(monkeypatch, value):
    monkeypatch.setenv("use_cuda", value)
    monkeypatch.setattr(cuda, "driver", lambda: None)
    reason = cuda.choose().reason
    assert jittor_flags.check().problem == (
        f"use_cuda={value} in the environment asks for CUDA: {reason}; "
        "or unset use_cuda to use the CPU"
    )


def test_use_cuda_with_the_user_s_nvcc_asks_the_driver(monkeypatch):
    monkeypatch.setenv("use_cuda", "1")
    monkeypatch.setenv("nvcc_path", sys.executable)
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert "is set, but no NVIDIA driver answers; or unset use_cuda" in jittor_flags.check().problem
    monkeypatch.setattr(cuda, "driver", lambda: (13, [90]))
    assert jittor_flags.check().problem == ""


def test_use_cuda_is_kept_from_the_import_and_given_afterwards(monkeypatch):
    monkeypatch.setenv("use_cuda", "2")
    with jittor_flags.hide():
        assert "use_cuda" not in os.environ
    assert os.environ["use_cuda"] == "2"
    jittor = SimpleNamespace(has_cuda=1, flags=SimpleNamespace(use_cuda=0))
    jittor_flags.switch_on(jittor)
    assert jittor.flags.use_cuda == 2
    monkeypatch.setattr(cuda, "driver", lambda: None)
    with pytest.raises(RuntimeProblem, match="use_cuda=2 in the environment asks for CUDA"):
        jittor_flags.switch_on(SimpleNamespace(has_cuda=0, flags=jittor.flags))


def test_use_cuda_0_makes_auto_the_cpu(monkeypatch):
    monkeypatch.setattr(
        runtime, "jt", SimpleNamespace(has_cuda=1, flags=SimpleNamespace(use_cuda=0))
    )
    assert runtime.device() == "cuda"
    monkeypatch.setenv("use_cuda", "0")
    assert runtime.device() == "cpu" and runtime.device("cuda") == "cuda"


@pytest.mark.parametrize(
    "variables", [{"use_cuda": "1"}, {"log_v": "loud"}, {"nvcc_path": "/nowhere/nvcc"}]
)
def test_a_command_says_it_in_one_line_and_exits_2(variables, tmp_path):
    code, lines = started("scripts/train.py", "--help", **variables)
    assert code == 0, "help needs no Jittor"
    ((name, value),) = variables.items()
    code, lines = started(
        "-c",
        "import sys\nfrom jseg.commands import cli\ndef main(argv):\n    import jseg.runtime\n"
        "main.__module__ = 'jseg.commands.train'\nsys.exit(cli.run(main))",
        **variables,
    )
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"jseg train: {name}={value} in the environment "), lines


# --- flags that change numbers --------------------------------------------------------------------


def test_flags_that_change_numbers_are_those_that_differ_from_jittor_s_own(monkeypatch):
    assert jittor_flags.numeric() == {}
    for name, value in dict(
        auto_mixed_precision_level="5",
        amp_reg="0",
        use_tensorcore="",
        cc_flags=" -O2  -g ",
        use_mkl="1",
        log_v="1",
    ).items():
        monkeypatch.setenv(name, value)
    assert (
        jittor_flags.numeric()
        == runtime.numeric_flags()
        == {"auto_mixed_precision_level": "5", "cc_flags": "-O2 -g"}
    )


def test_jittor_s_own_values_are_those_in_the_table():
    ours = {
        name: int(value)
        for name, value in jittor_flags.NUMERIC.items()
        if value is not None and name not in ("use_mkl", "debug", "NVIDIA_TF32_OVERRIDE")
    }
    del ours["conv_opt"]  # read by Jittor's Python side alone, which takes a missing one as 0
    code = (
        "from jseg.runtime import jt\nprint({name: int(getattr(jt.flags, name)) for name in "
        f"{sorted(ours)!r}}})"
    )
    status, lines = started("-c", code)
    assert status == 0 and eval(lines[-1]) == ours, lines


def test_a_flag_that_changes_numbers_is_said_once():
    code = (
        "import os\nos.environ.update(auto_mixed_precision_level='5', "
        "OMPI_COMM_WORLD_LOCAL_RANK='%d')\nimport jseg.runtime"
    )
    status, lines = started("-c", code % 0)
    lines = [
        line for line in lines if line.startswith("jseg")
    ]  # a cold cache compiles here, and says so
    assert status == 0
    assert lines == [
        "jseg: auto_mixed_precision_level=5 in the environment may change the numbers that Jittor "
        "computes; it is recorded with the results"
    ]
    assert started("-c", code % 1) == (0, []), "the first process of a machine has said it"


def test_gradients_are_computed_whatever_no_grad_says():
    code = "from jseg.runtime import jt\nx = jt.array([3.0])\nprint(jt.grad(x * x, x).item())"
    status, lines = started("-c", code, no_grad="1")
    assert status == 0 and np.isclose(float(lines[-1]), 6.0), lines


def test_results_and_trainings_record_the_flags_and_refuse_others(monkeypatch, tmp_path):
    from jseg.ldm import results
    from jseg.ldm.presets import PIPELINES
    from jseg.outputs.settings import compared

    pipeline = PIPELINES["release"]
    plain = results.settings_of(pipeline, 0, 1, "cpu", [])
    assert "jittor_flags" not in plain, "what was begun before there was a record goes on"
    monkeypatch.setenv("auto_mixed_precision_level", "5")
    changed = results.settings_of(pipeline, 0, 1, "cpu", [])
    assert changed == {**plain, "jittor_flags": {"auto_mixed_precision_level": "5"}}
    assert compared(plain, changed) == {"jittor_flags": (None, {"auto_mixed_precision_level": "5"})}
