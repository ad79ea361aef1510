"""Every CUDA source of ours, computed by the emulation, against float64 NumPy."""

import ast
import importlib
import re

import numpy as np
import pytest
from support.emulated.cases import errors, run
from support.emulated.operators import OPERATORS
from support.places import ROOT

from jseg.nn import rms_norm
from jseg.parity.cuda_emulation.programs import ORDERS, Call, Kernel, compile_kernels

RUNS = [(name, kind) for name, operator in OPERATORS.items() for kind in operator.kinds]
LARGEST = 26_000  # values of a case that the sanitizers get


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the programs are; each is compiled once."""
    return str(tmp_path_factory.mktemp("programs"))


def compute(name, cases, folder, mode="plain", order="forward"):
    """The outputs, after what no run may show: reports of the emulation or a sanitizer, wrong
    values.
    """
    outcome = run(OPERATORS[name], cases, folder, mode, order)
    assert outcome.messages == "" and outcome.exit_code == 0, outcome.messages[:3000]
    assert errors(cases, outcome.outputs) == []
    return outcome.outputs


@pytest.mark.parametrize("name", OPERATORS)
def test_results_are_the_formula_in_every_order_of_threads(name, folder):
    cases = [case for kind in OPERATORS[name].kinds for case in OPERATORS[name].cases(kind)]
    results = [compute(name, cases, folder, order=order) for order in ORDERS]
    for case, forward, reverse in zip(cases, *results):
        for a, b in zip(forward, reverse):
            assert a.tobytes() == b.tobytes(), f"{case.name}: the order of threads changes a bit"


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_results_keep_to_the_bounds_with_the_fast_functions_of_the_device(name, folder):
    cases = [case for kind in OPERATORS[name].kinds for case in OPERATORS[name].cases(kind)]
    compute(name, cases, folder, "fast")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["memory", "races"])
@pytest.mark.parametrize("name, kind", RUNS)
def test_the_sanitizers_find_nothing(name, kind, mode, folder):
    cases = [
        case
        for case in OPERATORS[name].cases(kind)
        if sum(values.size for values, _ in case.inputs) < LARGEST
    ]
    # The race detector is slow; forward and backward are neighbours, so every third has both.
    cases = cases[::3] if mode == "races" else cases
    compute(name, cases, folder, mode, "random:1")


# -- no source is forgotten ------------------------------------------------------------------------


def calls_with_cuda_source():
    """(module, the name of its header, that of its source) of every call in jseg that passes
    `cuda_src`.
    """
    calls = []
    for path in sorted((ROOT / "jseg").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)) if "cuda_src" in text else ():
            if isinstance(node, ast.Call):
                passed = {
                    keyword.arg: ast.get_source_segment(text, keyword.value)
                    for keyword in node.keywords
                }
                if "cuda_src" in passed:
                    calls.append((module, passed["cuda_header"], passed["cuda_src"]))
    return calls


def test_the_table_has_every_cuda_source_of_jseg():
    passed = {}
    for module_name, header, source in calls_with_cuda_source():
        module = importlib.import_module(module_name)
        values = (eval(expression, vars(module)) for expression in (header, source))
        passed.setdefault(module_name, set()).add(tuple(values))
    tested = {
        operator.module: {(operator.header, source) for source in operator.sources.values()}
        for operator in OPERATORS.values()
    }
    assert passed == tested, "tests/support/emulated/operators.py lacks a CUDA source, or has more"


@pytest.mark.parametrize("name", OPERATORS)
def test_the_cases_call_every_source_with_every_type(name):
    operator = OPERATORS[name]
    for kind in operator.kinds:
        assert {case.source for case in operator.cases(kind)} == set(operator.sources)


# -- refused launches ------------------------------------------------------------------------------


def test_every_launch_is_checked():
    """`launched` follows each of them, or the other branch of an `if` whose end it follows."""
    for operator in OPERATORS.values():
        for source in operator.sources.values():
            launches = re.findall(r"<<<.+?>>>\(.*?\);\s*(\w+)", source, re.S)
            assert len(launches) == source.count("<<<")
            assert set(launches) <= {"launched", "else"} and launches[-1] == "launched"


def launched(folder, source, tokens):
    """RMS norm's forward source with that many tokens an image."""
    kernel = Kernel(source, ("float32",) * 3, ("float32",) * 2)
    program = compile_kernels(folder, rms_norm.CUDA_HEADER, [kernel])
    inputs = [np.ones(shape, np.float32) for shape in ((2, tokens, 5), (2, 5), (1, 1))]
    return program.run([Call(0, inputs, [(2, tokens, 5), (2, tokens)], {"eps": 1e-6})])


def test_a_refused_launch_names_the_operator_and_the_shape(folder):
    too_many = rms_norm.CUDA_FORWARD.replace("THREADS>>>", "2048>>>")
    outcome = launched(folder, too_many, 3)
    assert outcome.exit_code == 3
    reported = re.sub(" +", " ", outcome.messages)
    assert "after the launch of rms_norm for an array of [2, 3, 5]" in reported
    assert "invalid configuration argument" in reported


def test_an_empty_array_is_no_error(folder):
    assert launched(folder, rms_norm.CUDA_FORWARD, 0).exit_code == 0
