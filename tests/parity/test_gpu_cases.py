"""What gpu_check computes: every case of every group runs here on the CPU, in the tiny size."""

import ast
import functools
import importlib
import json
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.places import ROOT

from jseg.flowseg.blocks import EPS
from jseg.nn import kernels, layers
from jseg.parity.gpu import child, comparing, cost, operators, processes, records, running
from jseg.parity.gpu.comparing import (
    BOUND,
    FLOOR,
    compared,
    compiled_together,
    difference,
    filled,
    random,
)
from jseg.runtime import device, jt

HALF = ("speed bf16", "speed fp16")
GROUPS = [name for name in running.GROUPS if name != "sdm"]  # which is PyTorch's


@pytest.fixture(autouse=True)
def on_the_cpu():
    yield
    device("cpu")
    jt.flags.use_tensorcore = 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(group) -> (its records, the (file, function) of every jt.code it called); once each."""
    folder, code = str(tmp_path_factory.mktemp("gpu_check")), jt.code

    @functools.lru_cache(maxsize=None)
    def results(group):
        places = set()

        def watched(*arguments, **words):
            caller = sys._getframe(1).f_code
            places.add((caller.co_filename, caller.co_name))
            return code(*arguments, **words)

        with mock.patch.object(jt, "code", watched), redirect_stdout(StringIO()) as output:
            records.run(group, child.cases(group, "cpu", "tiny", folder))
        lines = [json.loads(line) for line in output.getvalue().splitlines() if line[:1] == "{"]
        return [line for line in lines if "begins" not in line], places

    return results


@pytest.mark.parametrize(
    "group",
    [pytest.param(name, marks=pytest.mark.slow if name == "speed fp16" else ()) for name in GROUPS],
)
def test_every_case_of_every_group_runs(group, run):
    if group in HALF:
        run("speed float32")  # whose results they are held against
    result, _ = run(group)
    assert result
    for record in result:
        if record["ok"] is None:
            why = record["why"]
            assert "the CPU has no operator" in why or (group == "processes" and "no Open" in why)
        assert record["ok"] is not False, record
        if group in HALF and "entries" not in record["case"]:
            assert 0 < record["difference"] < record["bound"], record


def test_no_group_is_left_out_of_the_table(tmp_path):
    """Each group has cases, each case has a name of its own, and an unknown group is refused."""
    for group in GROUPS:
        names = [case.name for case in child.cases(group, "cpu", "tiny", str(tmp_path))]
        assert names and len(names) == len(set(names))
    with pytest.raises(KeyError):
        child.cases("unheard of", "cpu", "tiny", str(tmp_path))
    in_tests = Path(__file__).read_text(encoding="utf-8")
    assert "running.GROUPS if name != " in in_tests, "the test above takes them from the table"


def sites(keyword):
    """{(file, function)} of the calls in jseg's networks and layers that have that keyword."""
    places = set()
    for path in sorted((ROOT / "jseg").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if keyword not in text or {"parity", "machine"} & set(path.parts):
            continue
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef):
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(word.arg == keyword for call in calls for word in call.keywords):
                    places.add((str(path), function.name))
    return places


def test_every_operator_with_cuda_source_has_a_case(run):
    """By its name in the table, and, where there is a CPU source beside it, by being run."""
    result, called = run("kernels")
    covered, with_cuda = {record.get("operator") for record in result}, sites("cuda_src")
    assert len(with_cuda) >= 7
    for path, _ in with_cuda:
        parts = Path(path).relative_to(ROOT).with_suffix("").parts
        name = getattr(importlib.import_module(".".join(parts)), "NAME", operators.CORRECTION)
        assert name in covered, f"{name} of {path} has no case in parity/gpu/operators.py"
    both = with_cuda & sites("cpu_src")
    assert sorted(both - called) == [], "asked for by no case of the group kernels"


def test_every_operator_of_the_cpu_has_a_case(run):
    called = set().union(*(run(group)[1] for group in ("kernels", "fallbacks", "networks")))
    assert sorted(sites("cpu_src") - called) == []


def test_times_without_float32_s_result_are_not_said_to_agree(tmp_path):
    speed = cost._Speed("tiny", "tf32", str(tmp_path))
    assert "difference" not in speed._record("step", 0.1, random(3))
    assert "not compared" in speed._record("step", 0.1, random(3))["note"]


def test_a_precision_that_the_gpu_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(cost, "chosen", mock.Mock(side_effect=ValueError("precision bf16: ...")))
    with pytest.raises(records.LeftOut, match="precision bf16"):
        cost._computed_in("bf16", "cuda", None)()


def test_kernels_compiled_together_leave_problems_to_their_cases():
    """And one that Jittor refuses does not keep the others from being compiled."""

    def works():
        return [jt.array(random(3)) + 1], []

    def refused():
        return [jt.code([3], "float32", [jt.array(random(3))], cpu_src="no C++;")], []

    def wrong():
        raise ValueError("no such layer")

    cases = [compared(name.__name__, "cpu", name) for name in (works, wrong)]
    first, *others = compiled_together(cases, "cpu")
    assert others == cases and running.TRIAL in first.about
    with pytest.raises(records.LeftOut, match="failed together: wrong, wrong; each case is tried"):
        first.compute()
    (first, _) = compiled_together([compared("refused", "cpu", refused)], "cpu")
    with pytest.raises(records.LeftOut, match="the kernels for the cpu"):
        first.compute()
    (first, _) = compiled_together(cases[:1], "cpu")
    assert first.compute() == {"note": "0 kernels"}


def biased_norm(x, weight, bias):
    """A product with a bias, whose gradient is zero because a norm follows."""
    y = x @ weight + bias
    return layers.standardize(y.transpose(), 1e-5) * jt.array(random(64, 48, seed=3)).transpose()


def gradients(wrong=0.0):
    """Results and gradients of `biased_norm`; that of the bias plus `wrong` of the largest."""
    variables = [jt.array(random(*shape, seed=i)) for i, shape in enumerate([(64, 32), (32, 48)])]
    variables.append(jt.array(random(48, seed=2)))
    y = biased_norm(*variables)
    factor = jt.array(random(*y.shape, seed=9)).stop_grad()
    of_x, of_weight, of_bias = jt.grad(y * factor, variables)
    largest = max(of_x.abs().max().item(), of_weight.abs().max().item())
    return [y], [of_x, of_weight, of_bias + wrong * largest]


def gradients_differ(compute):
    """By how much those of compute() differ from those of `gradients`."""
    return compared("x", "cpu", compute, BOUND, gradients).compute()["gradients"]


def test_rounding_in_a_gradient_that_is_zero_passes_and_a_wrong_one_fails():
    """Of a bias before a norm: what is left is noise, other noise in another order of additions."""

    def in_another_order():
        with operators.compiled(on=False):
            y, (of_x, of_weight, of_bias) = gradients()
            jt.sync([*y, of_x, of_weight, of_bias])
        return y, [of_x, of_weight, of_bias]

    device("cpu")
    noise = np.abs(gradients()[1][2].numpy()).max()
    largest = np.abs(gradients()[1][1].numpy()).max()
    assert 0 < noise < 1e-6 * largest, "the gradient of such a bias is rounding alone"
    assert gradients_differ(in_another_order) < BOUND
    assert difference([np.zeros(48)], [np.full(48, noise)], 0.0) == 1, "without a floor it fails"

    assert gradients_differ(lambda: gradients(wrong=1e-5)) > BOUND
    assert gradients_differ(lambda: gradients(wrong=1e-2)) > 0.5


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-3])
def test_a_wrong_gradient_fails_also_where_another_is_larger(size):
    """Twice an array's gradient, the array being of that size beside the largest gradient."""
    large, small = random(40), random(40, seed=1) * np.float32(size)
    assert difference([large, small], [large, small], FLOOR) == 0
    assert difference([large, 2 * small], [large, small], FLOOR) > 2e-2
    assert difference([large, -small], [large, small], FLOOR) > 2e-2


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["group norm, FiLM, SiLU", "RMS norm, adaLN"])
def test_half_precision_is_held_against_float32_on_the_rounded_inputs(name, kind):
    """The reference has no error of its own: float64 NumPy on those inputs is 1e-6 away."""
    (case,) = [case for case in operators.operator_cases() if case.title == name]
    device("cpu")
    (y,), _ = operators._computation(case, kind, operator=False)()
    assert y.dtype == "float32"
    arrays = [comparing.rounded(array, kind).astype(np.float64) for array in case.arrays]
    x, scale, shift = arrays[:3]
    if name.startswith("RMS"):
        exact = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
        exact = exact * scale[:, None] + shift[:, None]
    else:
        grouped = x.reshape(x.shape[0], 32, -1)
        spread = np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
        normal = ((grouped - grouped.mean(-1, keepdims=True)) / spread).reshape(x.shape)
        rows = [np.asarray(array, np.float64).reshape(1, -1, 1, 1) for array in case.arrays[1:3]]
        z = (normal * rows[0] + rows[1]) * arrays[3] + arrays[4]
        exact = z / (1 + np.exp(-z))
    assert difference([y.numpy()], [exact]) < 3e-6


@pytest.mark.parametrize("kind", operators.UNITS)
def test_both_sides_have_the_same_gradient_of_the_result(kind):
    """One that the type can hold, so that neither side rounds it."""
    device("cpu")
    x = jt.array(random(50))
    (gradient,) = comparing.gradients_of(x, [x], kind)
    np.testing.assert_array_equal(gradient.numpy(), gradient.cast(kind).float32().numpy())


@pytest.mark.parametrize("kind", operators.UNITS)
def test_an_operator_that_errs_by_more_than_its_type_s_rounding_fails(kind):
    """The bound of a type is a few of its units."""
    assert 2 * operators.UNITS[kind] < operators.bound_of(kind) < 200 * operators.UNITS[kind]
    exact = random(1000)
    rounded = jt.array(exact).cast(kind).float32().numpy()
    assert difference([rounded], [exact]) <= operators.bound_of(kind)
    assert difference([rounded * np.float32(1 + 5e-2)], [exact]) > operators.bound_of(kind)


def test_compiled_chooses_and_restores():
    before = kernels.FASTER
    with operators.compiled("rms_norm"):
        assert kernels.FASTER["cuda"] == kernels.FASTER["cpu"] == ("rms_norm",)
        with operators.compiled(on=False):
            assert kernels.FASTER["cuda"] == ()
    assert kernels.FASTER is before


def test_a_network_is_filled_with_the_same_weights_each_time():
    a, b = (filled(layers.nn.Linear(3, 2)).weight.numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_large_weights_come_from_a_table_and_have_no_equal_rows():
    a, b = (comparing._weight(name, (1200, 1000)) for name in ("a.weight", "b.weight"))
    assert a.dtype == "float32" and a.shape == (1200, 1000)
    assert abs(a.std() * 1000**0.5 - 1) < 0.01 and np.abs(a - b).max() > 0.01
    assert len(np.unique(a[:, :4], axis=0)) == 1200
    np.testing.assert_array_equal(a, comparing._weight("a.weight", (1200, 1000)))


@pytest.mark.parametrize(
    "programs, devices, target, lacking",
    [
        ((), [90, 90], "cuda", "no Open MPI"),
        (("mpirun", "mpicc"), [90], "cuda", "one GPU"),
        (("mpirun", "mpicc"), [90, 90], "cuda", ""),
        (("mpirun", "mpicc"), [], "cpu", ""),
    ],
)
def test_two_processes_need_open_mpi_and_two_gpus(
    programs, devices, target, lacking, monkeypatch, tmp_path
):
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(processes, "program_output", lambda *command: "-I/include")
    monkeypatch.setattr(processes.cuda, "driver", lambda: (13, devices) if devices else None)
    said = processes._lacking(target)
    assert lacking in said and bool(said) == bool(lacking)
    if lacking:
        (case,) = processes.process_cases(target, str(tmp_path))
        with pytest.raises(records.LeftOut, match=lacking):
            case.compute()


@pytest.mark.parametrize("factor, fails", [(1.0, False), (0.5, True)])
def test_gradients_that_were_not_summed_fail(factor, fails, monkeypatch, tmp_path):
    """Each process has half of them."""

    def pretended(target, path):
        gradients = [gradient * np.float32(factor) for gradient in processes._gradients()]
        np.savez(path, *gradients, transport=np.array("a wire"))

    monkeypatch.setattr(processes, "_run_processes", pretended)
    monkeypatch.setattr(processes, "_lacking", lambda target: "")
    (case,) = processes.process_cases("cpu", str(tmp_path))
    columns = case.compute()
    assert columns["note"] == "a wire" and (columns["difference"] > case.bound) == fails


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_a_process_that_fails_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROCESSES", 1)
    with pytest.raises(RuntimeError, match="ValueError: device 'no such device'"):
        processes._run_processes("no such device", str(tmp_path / "x.npz"))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_inputs_in_half_precision_are_the_same_numbers_on_every_device(kind):
    """Jittor's cast of other numbers to bfloat16 cuts digits off on the CPU and rounds on CUDA."""
    array = comparing.random(1000)
    held = comparing.rounded(array, kind)
    np.testing.assert_array_equal(jt.array(held).cast(kind).float32().numpy(), held)
    distances = np.abs(held - array) / np.abs(array)
    assert distances.max() <= operators.UNITS[kind]
