"""Memory that runs out, by every name under which it comes: one line, exit code 2, the options that
help in the order they help.
"""

import argparse
import errno
import importlib
import os
import re
import subprocess
import sys

import pytest
from support.places import ROOT

from jseg.commands import cli
from jseg.machine import out_of_memory
from jseg.machine.facts import RuntimeProblem

JITTOR = (
    "Execute fused operator(6/11) failed.\n[JIT Source]: /cache/default/jit/op.cc\n[OP TYPE]: "
    "fused_op\n[Reason]: {}\n***\nAsync"
)
ALLOCATOR = "[f 1130 cuda_device_allocator.cc:31]"
REQUIRED = {
    "train": ["--input_path", "d"],
    "train_autoencoder": ["--input_path", "d"],
    "train_flowseg": ["--data", "d"],
    "test": ["--input_path", "d", "--img_path", "r", "--output_path", "o"],
    "segment": ["--weights", "w", "--input", "i", "--output", "o"],
    "score": ["--results", "s", "--labels", "l", "--references", "r"],
}


def command(name, error):
    def main(argv):
        raise error

    main.__module__ = f"jseg.commands.{name}"
    importlib.import_module(main.__module__)
    return main


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError(JITTOR.format("could not create a memory object")),
    ],
)
def test_memory_of_the_machine(error, capsys, monkeypatch):
    monkeypatch.delenv("JSEG_TRACEBACK", raising=False)
    assert cli.run(command("train", error), REQUIRED["train"] + ["--batch_size", "6"]) == 2
    assert re.fullmatch(
        r"jseg train: memory ran out: give --micro_batch 3 \(it is 6; .*; or give --recompute .*; "
        r"or close other programs, or use a machine with more memory\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(JITTOR.format(f"{ALLOCATOR} Unable to alloc cuda device memory for size 9")),
        RuntimeError("CUDA error at x.cc:3  code=2( cudaErrorMemoryAllocation ) cudaMalloc(&p, n)"),
        RuntimeError(JITTOR.format("cudnn error: CUDNN_STATUS_ALLOC_FAILED")),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_memory_of_the_gpu(error, capsys, monkeypatch):
    monkeypatch.delenv("JSEG_TRACEBACK", raising=False)
    assert cli.run(command("test", error), REQUIRED["test"]) == 2
    assert capsys.readouterr().err == (
        "jseg test: the memory of the GPU ran out: give --batch_size 1; or give "
        "--memory low (slower; the images stay the same); or give --device cpu; or close other "
        "programs that use the GPU\n"
    )


def test_other_errors_stay_what_they_are():
    for error in (
        RuntimeError(JITTOR.format("Check failed: shape mismatch")),
        RuntimeError("/usr/out_of_memory/op.cc\n[Reason]: no"),
        RuntimeProblem("Jittor cannot be compiled here (cc1plus: out of memory)"),
        ValueError("out of memory"),
        OSError(2, "x"),
    ):
        assert not out_of_memory.is_shortage(error), error


def remedies(name, *arguments, cuda=False):
    parser = importlib.import_module(f"jseg.commands.{name}").parser()
    options = parser.parse_args(REQUIRED[name] + list(arguments))
    return re.findall(r"--\w+", out_of_memory.line(options, cuda))


@pytest.mark.parametrize(
    "call, cuda, expected",
    [
        ("train --batch_size 4", False, "--micro_batch --recompute --width --height --preset"),
        ("train --batch_size 4 --micro_batch 1", False, "--recompute --width --height --preset"),
        ("train_flowseg --recompute --batch_size 1", True, "--width --height --preset --device"),
        # whose batch is the preset's
        ("train_flowseg", False, "--micro_batch --recompute --width --height --preset"),
        ("train_autoencoder --micro_batch 2", False, "--micro_batch --crop --preset"),
        ("test", False, "--memory"),
        ("test --batch_size 1", True, "--memory --device"),
        ("test --batch_size 8", False, "--batch_size --memory"),
        ("test --batch_size 1 --memory low", False, ""),
        ("segment --batch_size 4 --scale 2", True, "--batch_size --scale --device"),
        ("segment", False, ""),
        ("score", True, "--device"),
    ],
)
def test_only_what_can_still_help_is_named_the_best_first(call, cuda, expected):
    assert remedies(*call.split(), cuda=cuda) == expected.split()


def test_every_option_that_is_named_is_the_command_s_own():
    for name in REQUIRED:
        parser = importlib.import_module(f"jseg.commands.{name}").parser()
        known = {option for action in parser._actions for option in action.option_strings}
        more = [["--batch_size", "4"]] if "--batch_size" in known else []
        assert set(remedies(name, *sum(more, []), cuda=True)) <= known


def test_several_processes_compute_a_part_each(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    options = argparse.Namespace(micro_batch=None, batch_size=32, recompute=True)
    assert "--micro_batch 4 (it is 8;" in out_of_memory.line(options, False)
    assert "a small --micro_batch (the" in out_of_memory.line(options, True), "a GPU's is chosen"


SHORT = """
import os, signal, sys
import jseg.commands.train
from jseg.commands import cli
def main(argv):
    import resource
    from jseg.runtime import jt
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    {body}
main.__module__ = "jseg.commands.train"
sys.exit(cli.run(main, ["--input_path", "d", "--batch_size", "8"]))
"""


def started(body):
    return subprocess.run(
        [sys.executable, "-c", SHORT.format(body=body)],
        cwd=ROOT,
        env={**os.environ, "nvcc_path": ""},
        timeout=120,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit and the addresses are Linux's")
@pytest.mark.parametrize(
    "body",
    [
        "jt.ones((1000, 1000, 1000, 10)).sync()",
        "kept = [jt.ones((1000, 1000, 100)) for _ in range(20)]; jt.sync_all()",
    ],
    ids=["a block", "many blocks"],
)
def test_a_process_short_of_memory_ends_with_the_line_and_no_crash(body):
    done = started(body)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("jseg train: memory ran out: give --micro_batch 4 (it is 8;")
    )
    assert "Segfault" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the handler is there on Linux only")
def test_another_crash_is_not_called_a_shortage():
    done = started("os.kill(os.getpid(), signal.SIGSEGV)")
    assert done.returncode not in (0, 2) and "ran out" not in done.stderr
