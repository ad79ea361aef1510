"""Progress bars of a synthesis, images outside and denoising steps inside, with the time left."""

from __future__ import annotations

import sys
import time
from typing import Optional, Sequence

from tqdm import tqdm

from jseg.ldm.pipelines import stage_steps
from jseg.ldm.presets import Pipeline
from jseg.progress import QUIET_SECONDS, terminal


class Estimate:
    """The time left of a run whose batches pass through stages of `steps` steps each, from the
    reports that came so far.

    Each stage has a first step (which also encodes and computes the conditions), further steps and
    a decoding. Each of the three kinds is measured over this run, per image; a kind's very first
    report, which compiles, counts only while there is no other.
    """

    def __init__(self, steps: Sequence[int], batch_sizes: Sequence[int]):
        self.steps, self.batches = list(steps), list(batch_sizes)
        self.measured = {"first": _Mean(), "step": _Mean(), "decode": _Mean()}
        self.stage, self.step, self.decoded = 0, 0, False  # where the batch in hand stands

    def add(self, stage: int, step: int, decoded: bool, seconds: float) -> None:
        """One report: `step` steps of `stage` are done, or its images are `decoded`; `seconds`
        since the report before.
        """
        kind = "decode" if decoded else "first" if step == 1 else "step"
        self.measured[kind].add(seconds / (self.batches[0] if self.batches else 1))
        self.stage, self.step, self.decoded = stage, step, decoded
        if decoded and stage == len(self.steps) - 1:
            self.batches = self.batches[1:]
            self.stage, self.step, self.decoded = 0, 0, False

    def left(self) -> Optional[float]:
        """Seconds left; None as long as there is nothing to judge by, 0 at the end."""
        if not self.batches:
            return 0.0
        first, step, decode = (self.measured[kind] for kind in ("first", "step", "decode"))
        if first.count + step.count < 2:
            return None
        step_time = (step if step.count else first).value()
        first_time = first.value() if first.count > 1 else step_time
        decode_time = decode.value() if decode.count else 0.0
        stage_times = [first_time + (steps - 1) * step_time + decode_time for steps in self.steps]
        in_hand = sum(stage_times[self.stage :])
        if self.step:
            in_hand -= (
                first_time + (self.step - 1) * step_time + (decode_time if self.decoded else 0.0)
            )
        return max(0.0, self.batches[0] * in_hand + sum(self.batches[1:]) * sum(stage_times))


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


class Bars:
    """`with Bars(pipeline, sizes of the batches to make, images in all) as bars: bars.show(...)`
    after every report.

    Two bars on a terminal; elsewhere (a file, a job's log) a plain line a minute at most, and one
    at the end.
    """

    def __init__(self, pipeline: Pipeline, batch_sizes: Sequence[int], total: int):
        self.steps = [stage_steps(pipeline, number) for number in range(len(pipeline.stages))]
        self.estimate = Estimate(self.steps, batch_sizes)
        self.made, self.total = total - sum(batch_sizes), total
        self.quiet = not sys.stderr.isatty()
        self.started = self.told = time.monotonic()
        self.images = tqdm(
            total=total,
            initial=self.made,
            unit="image",
            disable=self.quiet,
            **terminal(),
            bar_format="{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} images [{elapsed}{postfix}]",
        )
        self.inner = tqdm(
            total=sum(self.steps),
            unit="step",
            leave=False,
            disable=self.quiet,
            position=1,
            **terminal(),
            bar_format="{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} steps",
        )

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *exception) -> None:
        self.inner.close()
        self.images.close()

    def show(self, stage: int, step: int, decoded: bool, seconds: float) -> None:
        """One report: `step` steps of `stage` are done, or its images are `decoded`; `seconds`
        since the report before.
        """
        before = len(self.estimate.batches)
        batch = self.estimate.batches[0] if before else 0
        self.estimate.add(stage, step, decoded, seconds)
        finished = batch if len(self.estimate.batches) < before else 0
        self.made += finished
        left = self.estimate.left()
        text = "" if left is None else f"about {tqdm.format_interval(left)} left"
        if self.quiet:
            self._tell(stage, step, text)
            return
        decoding = ", decoding" if step == self.steps[stage] and not decoded else ""
        self.inner.set_description_str(f"  stage {stage}{decoding}", refresh=False)
        self.inner.n = 0 if finished else sum(self.steps[:stage]) + step
        self.inner.refresh()
        self.images.set_postfix_str(text, refresh=False)
        self.images.n = self.made
        self.images.refresh()

    def _tell(self, stage: int, step: int, text: str) -> None:
        now = time.monotonic()
        if now - self.told < QUIET_SECONDS and self.estimate.batches:
            return
        self.told = now
        where = (
            f", stage {stage} step {step} of {self.steps[stage]}" if self.estimate.batches else ""
        )
        elapsed = tqdm.format_interval(now - self.started)
        print(
            f"{self.made} of {self.total} images{where}, {elapsed} so "
            f"far{', ' + text if text else ''}",
            file=sys.stderr,
            flush=True,
        )
