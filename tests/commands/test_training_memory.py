"""What a training command does with a GPU's memory, on one made up for the test."""

import argparse
from types import SimpleNamespace

import pytest

from jseg.commands import training
from jseg.machine import free_memory
from jseg.machine.free_memory import GpuMemory
from jseg.training import memory
from jseg.training.memory_plan import Need
from jseg.training.sampling import BatchShards

GB = 10**9
NEEDS = Need(8 * GB, 2 * GB, 2 * GB, GB), Need(8 * GB, 2 * GB, GB, GB // 4)


def options(**values):
    asked = {"batch_size": 30, "micro_batch": None, "recompute": None}
    return argparse.Namespace(**{**asked, **values})


def test_a_gpu_s_memory_decides_what_is_not_given_and_one_line_says_so(monkeypatch):
    monkeypatch.setattr(free_memory, "gpu_memory", lambda: GpuMemory(24 * GB, 24 * GB))
    lines = []
    args = training.planned(options(), "cuda", NEEDS, lines.append)
    assert (args.micro_batch, args.recompute, args.planned) == (8, False, True)
    assert len(lines) == 1 and lines[0].startswith(
        "24.0 GB free on the GPU: 30 examples as 4 micro"
    )
    given = options(micro_batch=3, recompute=False)
    args = training.planned(given, "cuda", NEEDS, lines.append)
    assert (args.micro_batch, args.recompute, args.planned) == (3, False, False)
    assert len(lines) == 1
    monkeypatch.setattr(free_memory, "gpu_memory", lambda: GpuMemory(8 * GB, 8 * GB))
    with pytest.raises(ValueError, match="one example at a time with recompute needs about 13"):
        training.planned(options(), "cuda", NEEDS, lines.append)


def test_on_the_cpu_and_where_nothing_is_told_everything_is_as_given(monkeypatch):
    monkeypatch.setattr(free_memory, "gpu_memory", lambda: None)
    for device in ("cpu", "cuda"):
        args = training.planned(options(), device, NEEDS, None)
        assert (args.micro_batch, args.recompute) == (None, False)


@pytest.mark.parametrize(
    "name, size", [(None, 4), ("float32", 4), ("tf32", 4), ("bf16", 2), ("fp16", 2)]
)
def test_activations_are_counted_in_the_chosen_precision(name, size, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0" if name == "float32" else "1")
    assert training.activation_bytes(options(precision=name), "cuda") == size


@pytest.mark.parametrize("fits, lines", [(8, 0), (5, 1)])
def test_what_was_chosen_becomes_what_fits_by_measurement(monkeypatch, fits, lines):
    monkeypatch.setattr(memory, "fitting_batch", lambda network, examples, size: min(size, fits))
    args, said = options(micro_batch=8, planned=True), []
    batches = SimpleNamespace(division=BatchShards(30, 8))
    training._fit(args, said.append, "cuda", None, batches, None)
    assert batches.division == BatchShards(30, fits) and len(said) == lines
