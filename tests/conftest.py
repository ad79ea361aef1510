"""Settings of the suite: Jittor is imported and checked once, seeds are fixed, warnings of jseg are
errors, and the tests marked slow or cuda are off.
"""

import os
import random
import signal

import numpy as np
import pytest

# Files whose tests take longest, for several processes: they begin first, so that all end together.
LONGEST = (
    "tests/commands/test_compare_official.py",
    "tests/training/test_run.py",
    "tests/commands/test_train.py",
    "tests/nn/test_group_norm.py",
    "tests/parity/test_cuda_sources.py",
    "tests/commands/test_train_flowseg.py",
    "tests/training/test_distributed.py",
    "tests/commands/test_trouble.py",
)


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--run-cuda",
        action="store_true",
        help="also run the tests marked cuda, on a machine with a GPU",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "slow: takes more than a few seconds; off without --run-slow"
    )
    config.addinivalue_line("markers", "cuda: needs a CUDA device; off without --run-cuda")
    config.addinivalue_line("markers", "curve: trainings draw their curve, which others do not")
    config.addinivalue_line("filterwarnings", r"error:::jseg(\.|$)")
    config.option.loadscopereorder = False  # xdist would begin with the files of most tests
    if hasattr(config, "workerinput"):  # several processes: waiting threads must not spin
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not config.getoption("--run-cuda"):
        os.environ.setdefault("nvcc_path", "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """The processes of `make test`: one for each core, at most four; they would share a GPU."""
    return 1 if config.getoption("--run-cuda") else min(4, os.cpu_count() or 1)


def pytest_sessionstart(session):
    """Import Jittor before any test, or end the session: no number means anything without it.

    The first import compiles Jittor, which takes minutes, so its output is shown live.
    """
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        from jseg.machine.facts import RuntimeProblem

        try:
            import jseg.runtime  # noqa: F401
        except RuntimeProblem as problem:
            pytest.exit(f"jseg: {problem}", returncode=2)


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONGEST)
    for mark in ("slow", "cuda"):
        if not config.getoption(f"--run-{mark}"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"needs --run-{mark}"))


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test starts from the same state of Python's and NumPy's generators."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _no_curve(request, monkeypatch):
    """A training of two steps takes half of its time for the drawing of its curve."""
    if not request.node.get_closest_marker("curve"):
        from jseg.training import curve

        monkeypatch.setattr(curve, "draw_curve", lambda *arguments: True)


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt here and in child processes.

    A shell that starts the tests in the background (`make test &`, nohup) has SIGINT ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _cpu():
    """Every test starts on the CPU; a CUDA test asks for `device("cuda")` itself."""
    from jseg.runtime import jt

    jt.flags.use_cuda = 0
    yield
    jt.flags.use_cuda = 0
