"""The emulation is tested by faults: each, put into a CUDA source of ours, must be seen."""

from dataclasses import replace

import pytest
from support.emulated.faults import FAULTS, faulty, signs
from support.emulated.operators import OPERATORS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("programs"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_fault_is_shown_by_its_mode(fault, folder):
    assert signs(faulty(fault), fault.operator, fault.mode, folder), f"{fault} goes unseen"


@pytest.mark.slow
@pytest.mark.parametrize("name, mode", sorted({(fault.operator, fault.mode) for fault in FAULTS}))
def test_no_mode_shows_a_fault_that_is_not_there(name, mode, folder):
    assert signs(OPERATORS[name], name, mode, folder) == []


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_fault_has_its_place_in_the_source(fault):
    assert faulty(fault) != OPERATORS[fault.operator]


def test_a_fault_without_its_place_says_so():
    fault = replace(FAULTS[0], text="no_such_text", number=2)
    with pytest.raises(ValueError, match="'no_such_text' occurs 0 times in the header"):
        faulty(fault)
