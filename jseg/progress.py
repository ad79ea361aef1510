"""Progress bars with the time left: of a training, of images that are made one by one, and of a
synthesis, whose images pass through stages of steps.

Bars are drawn on a terminal. Elsewhere (a file, a job's log) a plain line is written a minute at
most, and one at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Deque, Dict, Optional, Sequence

from tqdm import tqdm

QUIET_SECONDS = 60  # between two lines where the output is no terminal
SPEED_STEPS = 1000  # the latest steps of a training whose mean is its speed
LOSS_STEPS = 50  # ... and whose mean is its loss
BAR = "{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt}"


def terminal() -> Dict[str, int]:
    """tqdm's ncols and nrows of the terminal that standard error is, 80 and 24 where it says 0, as
    under Docker and some editors.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # no terminal: tqdm's own choice
        return {}
    return {"ncols": size.columns or 80, "nrows": size.lines or 24}


def _duration(seconds: float) -> str:
    return tqdm.format_interval(seconds)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class TrainingBar:
    """`with TrainingBar(steps, first_step) as bar: bar.show(step, loss)` after every step; `step`
    counts finished steps.

    Loss and speed are means over this run's latest steps; the speed has saving and previews in it,
    but not the run's first step, which compiles. `quiet`, for the processes of a run that do not
    speak: nothing is written.
    """

    def __init__(self, total_steps: int, first_step: int = 0, quiet: bool = False):
        self.total, self.step, self.quiet = total_steps, first_step, quiet
        self.plain = not sys.stderr.isatty()
        self.started = self.last_line = time.monotonic()
        self.unsaid = False  # whether steps were done since the last line
        self.times: Deque[float] = deque(maxlen=SPEED_STEPS + 1)  # at which the steps were done
        self.losses: Deque[float] = deque(maxlen=LOSS_STEPS)
        self.bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=quiet or self.plain,
            miniters=1,
            bar_format=BAR + " steps [{elapsed}{postfix}]",
            **terminal(),
        )

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, kind, *exception) -> None:
        self.bar.close()
        if self.unsaid and kind is None:
            self._line(time.monotonic())

    def show(self, step: int, loss: Optional[float]) -> None:
        """Step number `step` (the first is 1) is done; its loss, None for a step that was
        skipped.
        """
        now = time.monotonic()
        self.step, self.unsaid = step, self.plain and not self.quiet
        self.times.append(now)
        if loss is not None:
            self.losses.append(loss)
        if self.unsaid and now - self.last_line >= QUIET_SECONDS:
            self._line(now)
        elif not self.plain:
            self.bar.set_postfix_str(self._state(), refresh=False)
            self.bar.update(step - self.bar.n)

    def left(self) -> Optional[float]:
        """Seconds left; None before there are two steps to judge by, 0 at the end."""
        if self.step >= self.total:
            return 0.0
        speed = self._speed()
        return None if speed is None else (self.total - self.step) / speed

    def _speed(self) -> Optional[float]:
        seconds = self.times[-1] - self.times[0] if self.times else 0.0
        return (len(self.times) - 1) / seconds if seconds > 0 else None

    def _state(self) -> str:
        loss = f"{sum(self.losses) / len(self.losses):.4g}" if self.losses else "no number"
        parts, speed, left = [f"loss {loss}"], self._speed(), self.left()
        if speed is not None:
            parts.append(f"{speed:.2f} steps/s" if speed >= 1 else f"{1 / speed:.2f} s/step")
        if left is not None:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def _line(self, now: float) -> None:
        self.last_line, self.unsaid = now, False
        elapsed = _duration(now - self.started)
        _say(f"step {self.step} of {self.total}, {self._state()}, {elapsed} so far")


class ImageBar:
    """`with ImageBar(images in all, those that are finished) as bar: bar.show()` after every
    further image. `quiet` as for `TrainingBar`.
    """

    def __init__(self, total: int, done: int = 0, quiet: bool = False):
        self.total, self.done, self.quiet = total, done, quiet
        self.plain = quiet or not sys.stderr.isatty()
        self.started = self.last_line = time.monotonic()
        self.bar = tqdm(total=total, initial=done, unit="image", disable=self.plain, **terminal())

    def __enter__(self) -> "ImageBar":
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def show(self, count: int = 1) -> None:
        """Further images are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.quiet:
            return
        if self.plain and (now - self.last_line >= QUIET_SECONDS or self.done == self.total):
            self.last_line = now
            _say(f"{self.done} of {self.total} images, {_duration(now - self.started)} so far")


class SynthesisBar:
    """`with SynthesisBar(steps of each stage, sizes of the batches to make, images in all) as bar:
    bar.show(...)` after every report; images on one bar, denoising steps on another.

    Of several processes that make a batch each at once, these are counted as one. `quiet` as for
    `TrainingBar`.
    """

    def __init__(
        self, steps: Sequence[int], batch_sizes: Sequence[int], total: int, quiet: bool = False
    ):
        self.steps, self.total, self.quiet = list(steps), total, quiet
        self.estimate = SynthesisTime(steps, batch_sizes)
        self.done = total - sum(batch_sizes)
        self.plain = quiet or not sys.stderr.isatty()
        self.started = self.last_line = time.monotonic()
        self.images = tqdm(
            total=total,
            initial=self.done,
            unit="image",
            disable=self.plain,
            bar_format=BAR + " images [{elapsed}{postfix}]",
            **terminal(),
        )
        self.inner = tqdm(
            total=sum(self.steps),
            unit="step",
            leave=False,
            disable=self.plain,
            position=1,
            bar_format="{desc} " + BAR + " steps",
            **terminal(),
        )

    def __enter__(self) -> "SynthesisBar":
        return self

    def __exit__(self, *exception) -> None:
        self.inner.close()
        self.images.close()

    def show(self, stage: int, step: int, decoded: bool, seconds: float) -> None:
        """One report: `step` steps of `stage` are done, or its images are `decoded`; `seconds`
        since the report before.
        """
        batches = list(self.estimate.batches)
        self.estimate.add(stage, step, decoded, seconds)
        finished = sum(batches) - sum(self.estimate.batches)
        self.done += finished
        left = self.estimate.left()
        text = "" if left is None else f"about {_duration(left)} left"
        if self.plain:
            self._line(stage, step, text)
            return

        decoding = ", decoding" if step == self.steps[stage] and not decoded else ""
        self.inner.set_description_str(f"  stage {stage}{decoding}", refresh=False)
        self.inner.n = 0 if finished else sum(self.steps[:stage]) + step
        self.inner.refresh()
        self.images.set_postfix_str(text, refresh=False)
        self.images.n = self.done
        self.images.refresh()

    def _line(self, stage: int, step: int, left: str) -> None:
        now, unfinished = time.monotonic(), bool(self.estimate.batches)
        if self.quiet or (now - self.last_line < QUIET_SECONDS and unfinished):
            return
        self.last_line = now
        parts = [f"{self.done} of {self.total} images"]
        if unfinished:
            parts.append(f"stage {stage} step {step} of {self.steps[stage]}")
        parts.append(f"{_duration(now - self.started)} so far")
        _say(", ".join(parts + [left] * bool(left)))


class SynthesisTime:
    """The time left of a synthesis whose batches pass through stages of `steps` steps each, from
    the reports that came so far.

    Each stage has a first step (which also encodes and computes the conditions), further steps and
    a decoding. Each of the three kinds is measured over this run, per image; a kind's very first
    report, which compiles, counts only while there is no other.
    """

    def __init__(self, steps: Sequence[int], batch_sizes: Sequence[int]):
        self.steps, self.batches = list(steps), list(batch_sizes)
        self.first, self.further, self.decoding = _Mean(), _Mean(), _Mean()
        self.stage, self.step, self.decoded = 0, 0, False  # where the batch in hand stands

    def add(self, stage: int, step: int, decoded: bool, seconds: float) -> None:
        """One report, as `SynthesisBar.show` takes it."""
        kind = self.decoding if decoded else self.first if step == 1 else self.further
        kind.add(seconds / (self.batches[0] if self.batches else 1))
        self.stage, self.step, self.decoded = stage, step, decoded
        if decoded and stage == len(self.steps) - 1:
            self.batches = self.batches[1:]
            self.stage, self.step, self.decoded = 0, 0, False

    def left(self) -> Optional[float]:
        """Seconds left; None as long as there is nothing to judge by, 0 at the end."""
        if not self.batches:
            return 0.0
        if self.first.count + self.further.count < 2:
            return None

        # What one image takes at each of the three kinds of work, and so at each stage.
        further = (self.further if self.further.count else self.first).value()
        first = self.first.value() if self.first.count > 1 else further
        decoding = self.decoding.value() if self.decoding.count else 0.0
        stages = [first + (steps - 1) * further + decoding for steps in self.steps]

        # The batch in hand, less what it has behind it in its stage, and the batches to come.
        in_hand = sum(stages[self.stage :])
        if self.step:
            in_hand -= first + (self.step - 1) * further + self.decoded * decoding
        return max(0.0, self.batches[0] * in_hand + sum(self.batches[1:]) * sum(stages))


class _Mean:
    """The mean of all values but the first, or the first while it is alone."""

    def __init__(self):
        self.count, self.first, self.sum = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        if self.count:
            self.sum += value
        else:
            self.first = value
        self.count += 1

    def value(self) -> float:
        return self.sum / (self.count - 1) if self.count > 1 else self.first
