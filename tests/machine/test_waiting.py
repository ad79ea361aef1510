"""jseg/machine/waiting.py: how OpenMP's threads wait, who says so, and that libgomp hears of it."""

import re
import sys

import pytest
from support.child_python import child

from jseg.machine import environment, waiting

CHOICE = {"GOMP_SPINCOUNT": waiting.SPINS}
DESCRIBED = "from jseg.machine import waiting\nprint(waiting.description())\n"
IMPORT = DESCRIBED + "import os, jseg.runtime\nassert 'GOMP_SPINCOUNT' not in os.environ"


@pytest.fixture
def fresh(monkeypatch):
    """A process without libgomp, whose user has chosen nothing."""
    monkeypatch.setattr(waiting, "_is_loaded", lambda: False)
    for name in waiting.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_short_spin_is_chosen_where_nothing_else_is(fresh):
    assert waiting.variables() == CHOICE
    line = f"GOMP_SPINCOUNT={waiting.SPINS} (jseg's choice; your own OMP_WAIT_POLICY or "
    assert waiting.description() == line + "GOMP_SPINCOUNT wins)"
    assert environment.variables()[0].items() >= CHOICE.items()


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"OMP_WAIT_POLICY": "passive"}, "OMP_WAIT_POLICY=passive (your choice)"),
        ({"OMP_WAIT_POLICY": ""}, "OMP_WAIT_POLICY= (your choice)"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT=7 (your choice)"),
        (
            {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "7"},
            "OMP_WAIT_POLICY=active, GOMP_SPINCOUNT=7 (your choice)",
        ),
    ],
)
def test_the_user_s_own_choice_wins(fresh, settings, line):
    for name, value in settings.items():
        fresh.setenv(name, value)
    assert waiting.variables() == {} and waiting.description() == line


def test_what_comes_too_late_is_not_set_and_is_told(fresh):
    fresh.setattr(waiting, "_is_loaded", lambda: True)
    assert waiting.variables() == {}
    assert "libgomp.so.1 was loaded before Jittor, which is too late" in waiting.description()
    assert waiting.description().endswith("set GOMP_SPINCOUNT=5000 before Python starts")


def test_other_systems_have_other_openmps(fresh):
    fresh.setattr(sys, "platform", "darwin")
    assert (waiting.variables(), waiting.description()) == ({}, "OpenMP's default")


@pytest.mark.parametrize("settings, spins", [({}, waiting.SPINS), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_libgomp_hears_of_it_and_children_of_ours_choose_anew(monkeypatch, settings, spins):
    """Neither NumPy nor anything else that jseg imports loads libgomp before Jittor does."""
    for name in waiting.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    others = "import cv2, numpy, PIL.Image, scipy.linalg, scipy.ndimage, scipy.optimize\n"
    code = others + (IMPORT if not settings else "import jseg.runtime")
    done = child(code, OMP_DISPLAY_ENV="verbose", **settings)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) == [spins]
    assert settings or "(jseg's choice; " in done.stdout


def test_this_process_has_libgomp_and_threads():
    assert waiting._is_loaded() and waiting.threads() >= 1
