"""The estimate against closed forms, and what the bars print on a terminal and elsewhere."""

import contextlib
import fcntl
import io
import os
import re
import struct
import sys
import termios

import pytest

from jseg import progress
from jseg.progress import (
    LOSS_STEPS,
    SPEED_STEPS,
    ImageBar,
    SynthesisBar,
    SynthesisTime,
    TrainingBar,
)

STEPS = [7, 5]  # of each stage
FIRST, STEP, DECODE = 3.0, 0.5, 2.0  # seconds per image


def reports(steps, batch_sizes, compiling=100.0):
    """(stage, step, decoded, seconds) of a whole run with constant times; the very first step and
    decoding also compile.
    """
    for number, batch in enumerate(batch_sizes):
        for stage, count in enumerate(steps):
            once = compiling if number == stage == 0 else 0.0
            for step in range(1, count + 1):
                yield (
                    stage,
                    step,
                    False,
                    (FIRST if step == 1 else STEP) * batch + (once if step == 1 else 0.0),
                )
            yield stage, count, True, DECODE * batch + once


@pytest.mark.parametrize(
    "steps, batch_sizes",
    [(STEPS, [2, 2, 1]), (STEPS, [1]), ([1, 1, 1], [3, 3]), ([640], [5, 5, 5, 4])],
)
def test_the_estimate_is_the_time_that_is_left(steps, batch_sizes):
    everything = list(reports(steps, batch_sizes))
    estimate, exact = SynthesisTime(steps, batch_sizes), 0
    for done, report in enumerate(everything, start=1):
        estimate.add(*report)
        left = estimate.left()
        truth = sum(seconds for _, _, _, seconds in everything[done:])
        assert left is None or left >= 0
        seen = everything[:done]
        kinds = (
            [r for r in seen if r[1] == 1 and not r[2]],
            [r for r in seen if r[1] > 1 and not r[2]],
            [r for r in seen if r[2]],
        )
        if len(kinds[0]) > 1 and len(kinds[2]) > 1 and (kinds[1] or max(steps) == 1):
            exact += 1
            assert left == pytest.approx(truth, abs=1e-6), report
    assert left == 0 and (exact > 0) == (len(steps) * len(batch_sizes) > 1)


def test_before_anything_is_known_there_is_no_estimate():
    estimate = SynthesisTime(STEPS, [2, 2])
    assert estimate.left() is None
    estimate.add(0, 1, False, 100.0)
    assert estimate.left() is None, "the first step compiles and says nothing"
    estimate.add(0, 2, False, 1.0)
    assert estimate.left() == pytest.approx(2 * 5 * 0.5 + 2 * 5 * 0.5 + 2 * 12 * 0.5)
    assert SynthesisTime(STEPS, []).left() == 0


def test_a_slower_machine_is_noticed_at_once():
    estimate, twice = SynthesisTime(STEPS, [1] * 10), SynthesisTime(STEPS, [1] * 10)
    for stage, step, decoded, seconds in list(reports(STEPS, [1] * 10))[:40]:
        estimate.add(stage, step, decoded, seconds)
        twice.add(stage, step, decoded, 2 * seconds)
    assert twice.left() == pytest.approx(2 * estimate.left())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, batch_sizes, total, clock=0.0):
    """What a run writes to `stream` as standard error, every report taking `clock` seconds."""
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with SynthesisBar(STEPS, batch_sizes, total) as bar:
        for report in reports(STEPS, batch_sizes):
            now[0] += clock
            bar.show(*report)
    return stream.getvalue()


def test_a_log_gets_one_line_where_all_is_quick(monkeypatch):
    assert (
        shown(monkeypatch, io.StringIO(), [2, 2, 1], 6)
        == "6 of 6 images, 00:00 so far, about 00:00 left\n"
    )


def test_a_log_gets_a_line_a_minute_and_one_at_the_end(monkeypatch):
    text = shown(monkeypatch, io.StringIO(), [2, 2], 6, clock=10.0)  # 28 reports, 280 seconds
    lines = text.splitlines()
    assert len(lines) == 5 and text.count("\r") == 0
    assert lines[0].startswith("2 of 6 images, stage 0 step 6 of 7, 01:00 so far, about ")
    assert lines[-1] == "6 of 6 images, 04:40 so far, about 00:00 left"


def test_a_log_gets_nothing_where_nothing_is_to_be_made(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), [], 6) == ""


def test_a_terminal_gets_two_bars_that_end_full(monkeypatch):
    text = shown(monkeypatch, Terminal(), [2, 2, 1], 6)
    assert re.search(r"17% \|.*1/6 images", text) and re.search(
        r"100% \|.*6/6 images \[\d\d:\d\d, about 00:00 left\]", text
    )
    assert "stage 0  " in text and "stage 1, decoding" in text and "12/12 steps" in text


def trained(monkeypatch, stream, total, first=0, seconds=2.0, compiling=30.0, stop=None, **options):
    """What a training writes to `stream` as standard error, and the time left after each of its
    steps; losses are 1, 2, 3, ...
    """
    now, left = [0.0], {}
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with TrainingBar(total, first, **options) as bar:
        for step in range(first + 1, (stop or total) + 1):
            now[0] += (
                compiling if step == first + 1 else seconds(step) if callable(seconds) else seconds
            )
            bar.show(step, float(step - first))
            left[step] = bar.left()
    return stream.getvalue(), left


@pytest.mark.parametrize("first", [0, 500])
def test_a_training_s_time_left_is_measured_over_this_run_without_its_first_step(
    monkeypatch, first
):
    _, left = trained(monkeypatch, io.StringIO(), first + 40, first)
    assert left.pop(first + 1) is None, "the first step compiles and says nothing"
    assert (
        left == pytest.approx({step: 2.0 * (first + 40 - step) for step in left})
        and len(left) == 39
    )


def test_a_training_s_time_left_follows_a_machine_that_becomes_slower(monkeypatch):
    change = 100
    _, left = trained(
        monkeypatch,
        io.StringIO(),
        3000,
        seconds=lambda step: 1.0 if step <= change else 3.0,
        stop=change + SPEED_STEPS,
    )
    assert left[change] == pytest.approx(2900) and left[change + SPEED_STEPS] == pytest.approx(
        3 * (2900 - SPEED_STEPS)
    )
    assert 2800 < left[change + 100] < 3 * 2800


def test_a_training_s_log_gets_a_line_a_minute_and_one_at_the_end(monkeypatch):
    text, _ = trained(monkeypatch, io.StringIO(), 61)  # 30 + 60 * 2 seconds
    assert text.splitlines() == [
        "step 16 of 61, loss 8.5, 2.00 s/step, about 01:30 left, 01:00 so far",
        "step 46 of 61, loss 23.5, 2.00 s/step, about 00:30 left, 02:00 so far",
        f"step 61 of 61, loss {61 - (LOSS_STEPS - 1) / 2:.4g}, 2.00 s/step, about 00:00 left, "
        "02:30 so far",
    ]


def test_a_training_that_is_stopped_says_where_and_a_failing_one_leaves_the_word_to_the_error(
    monkeypatch,
):
    text, _ = trained(monkeypatch, io.StringIO(), 1000, seconds=0.25, compiling=1.0, stop=9)
    assert text == "step 9 of 1000, loss 5, 4.00 steps/s, about 04:07 left, 00:03 so far\n"
    assert (
        trained(monkeypatch, io.StringIO(), 10, stop=1)[0] == "step 1 of 10, loss 1, 00:30 so far\n"
    )
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ValueError), TrainingBar(10) as bar:
        bar.show(1, 1.0)
        raise ValueError
    assert stream.getvalue() == ""


def test_a_training_s_bar_on_a_terminal_ends_full(monkeypatch):
    text, _ = trained(monkeypatch, Terminal(), 140, 100)
    assert re.search(r"71% \|.*100/140 steps \[", text), "a resumed run begins where it is"
    assert re.search(
        r"100% \|[#█]+\| 140/140 steps \[[\d:]+, loss 20\.5, 2\.00 s/step, about 00:00 left\]\s*$",
        text,
    )
    assert "step 140" not in text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_processes_that_do_not_speak_write_nothing(monkeypatch, stream):
    text, left = trained(monkeypatch, stream(), 100, quiet=True)
    assert text == "" and left[100] == 0


def test_a_bar_without_a_step_writes_no_line(monkeypatch):
    assert trained(monkeypatch, io.StringIO(), 10, stop=-1)[0] == ""


def segmented(monkeypatch, stream, total, done=0, seconds=25.0):
    """What a bar over images writes to `stream` as standard error, each image taking that
    long.
    """
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ImageBar(total, done) as bar:
        for _ in range(total - done):
            now[0] += seconds
            bar.show()
    return stream.getvalue()


def test_images_get_a_line_a_minute_and_one_at_the_end(monkeypatch):
    assert segmented(monkeypatch, io.StringIO(), 6, 1).splitlines() == [
        "4 of 6 images, 01:15 so far",
        "6 of 6 images, 02:05 so far",
    ]
    assert segmented(monkeypatch, io.StringIO(), 2, 2) == ""


def test_images_get_a_bar_on_a_terminal(monkeypatch):
    text = segmented(monkeypatch, Terminal(), 4, 1)
    assert "25%|" in text and re.search(r"100%\|[#█]+\| 4/4", text) and " of 4 images" not in text


@pytest.mark.parametrize("width, expected", [(0, 80), (57, 57)])
def test_a_terminal_that_tells_no_size_has_80_columns_and_24_rows(monkeypatch, width, expected):
    """As `script`, containers and some editors open one: rows and columns are 0."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 0, width, 0, 0))
    with open(follower, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert progress.terminal() == {"ncols": expected, "nrows": 24}
        for make in (
            lambda: TrainingBar(140),
            lambda: progress.ImageBar(4),
            lambda: SynthesisBar(STEPS, [2], 2),
        ):
            with make():
                pass
    text = b""
    with contextlib.suppress(OSError):  # how a terminal that nobody writes to any more ends
        while True:
            text += os.read(leader, 4096)
    os.close(leader)
    for words in (b"0/140 steps", b"0/4", b"0/2 images"):
        assert words in text, "an empty bar"
