"""What gpu_check recommends, from records alone, and what its page says."""

import pytest

from jseg.parity.gpu import advice, running, table


def timed(operator, forward, backward, case="x"):
    record = {"group": "kernel-times", "case": case, "ok": True, "operator": operator}
    return {**record, "seconds": 1e-4, "ratio": forward, "ratio with gradients": backward}


def failure(group, **more):
    return {"group": group, "case": "x", "ok": False, "why": "differs", **more}


@pytest.mark.parametrize(
    "records, expected",
    [
        ([timed("group_norm", 3.0, 2.0), timed("attention", 0.8, 0.9)], ("group_norm",)),
        # both passes have to gain
        ([timed("attention", 2.0, 0.9)], ()),
        # a gain within the noise of timing is none
        ([timed("attention", 1.04, 1.5)], ()),
        # the geometric mean of the cases decides: 4 * 0.5 gains, 1.5 * 0.5 does not
        ([timed("rms_norm", 4.0, 4.0, "a"), timed("rms_norm", 0.5, 0.5, "b")], ("rms_norm",)),
        ([timed("rms_norm", 1.5, 1.5, "a"), timed("rms_norm", 0.5, 0.5, "b")], ()),
        # in the order of the table, each once
        (
            [timed("rms_norm", 2, 2), timed("attention", 2, 2), timed("rms_norm", 2, 2)],
            ("rms_norm", "attention"),
        ),
        # what computes wrong numbers is not recommended, nor what failed while it was timed
        ([failure("kernels", operator="rms_norm"), timed("rms_norm", 9, 9)], ()),
        ([timed("rms_norm", 9, 9), failure("kernel-times", operator="rms_norm")], ()),
        # nothing was timed
        ([{"group": "kernels", "case": "x", "ok": True, "operator": "rms_norm"}], None),
        ([failure("kernel-times", operator="rms_norm")], None),
        ([], None),
    ],
)
def test_the_recommended_operators(records, expected):
    assert advice.recommended(records) == expected


FINE = {"group": "layers", "case": "x", "ok": True}


@pytest.mark.parametrize(
    "records, device, words",
    [
        ([FINE, failure("losses")], "cuda", "mend what failed, at first losses: x (differs)"),
        ([FINE, {**FINE, "ok": None, "why": "out of time"}], "cuda", "call it again"),
        ([FINE], "cpu", "call it on a machine with a GPU"),
        ([FINE], "cuda", "write the table of h200.md into docs/benchmarks.md"),
        (
            [FINE, timed("rms_norm", 2, 2), {**FINE, "ok": None, "why": "one GPU"}],
            "cuda",
            "docs/benchmarks.md; set FASTER[\"cuda\"] of jseg/nn/kernels.py to ('rms_norm',)",
        ),
        (
            [failure("losses"), timed("rms_norm", 2, 2)],
            "cuda",
            "losses: x (differs); set FASTER[\"cuda\"] of jseg/nn/kernels.py to ('rms_norm',)",
        ),
        ([timed("rms_norm", 2, 2)], "cpu", "here the CPU was held against itself"),
        ([timed("rms_norm", 2, 2)], "emulated", "call it on a machine with a GPU; the device here"),
        ([failure("losses"), timed("rms_norm", 2, 2)], "emulated", "mend what failed, at first"),
    ],
)
def test_the_next_step(records, device, words):
    step = advice.next_step(records, device, "h200")
    assert words in step and "\n" not in step
    assert "FASTER" not in step or device == "cuda"


def test_the_page_says_what_its_columns_and_groups_mean():
    meanings = {name: group.meaning for name, group in running.GROUPS.items()}
    text = table.page([FINE, timed("rms_norm", 2.5, 1.5)], meanings, "nothing")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    assert "2.50 | 1.50" in rows[3]
    for words in ("- layers: layers with", "- kernel-times: ", "twin / ours: the twin's time"):
        assert words in text
    assert "- losses" not in text and text.endswith("Next: nothing\n")


def test_a_record_on_the_screen():
    record = {"group": "processes", "case": "x", "ok": True, "note": "NCCL", "difference": 1e-7}
    assert table.line(record) == "ok       processes: x  difference 1.0e-07, NCCL"
    left_out = {"group": "processes", "case": "x", "ok": None, "why": "one GPU"}
    assert table.line(left_out) == "left out processes: x  one GPU"


def test_the_groups_come_by_value_and_one_hang_cannot_take_all():
    names = list(running.GROUPS)
    assert names[:5] == ["bring-up", "kernels", "layers", "networks", "losses"]
    assert names.index("kernel-times") < names.index("speed float32") < names.index("release")
    nine_minutes = 9 * 60
    others = [group.seconds for name, group in running.GROUPS.items() if name != "bring-up"]
    assert running.GROUPS["bring-up"].seconds <= nine_minutes - 120
    assert max(others) <= nine_minutes / 2
    assert running.CASE_FRACTION < 1
