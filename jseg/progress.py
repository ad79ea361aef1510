"""The progress bars of an inference run: pictures outside, denoising steps inside, and an estimate that counts what is left to do."""
from __future__ import annotations

import sys
from typing import Sequence

from tqdm import tqdm

from jseg.ldm.pipelines import stage_steps
from jseg.ldm.presets import Pipeline


class Bars:
    """`with Bars(pipeline, sizes of the batches to make, pictures in all) as bars: bars.show(...)` after every report.

    The time left is (steps left) x (time of a step) + (stages left) x (time around a stage: encoding, conditions, decoding), each
    measured over this run per picture; the very first step, which compiles, is not counted.
    """

    def __init__(self, pipeline: Pipeline, batch_sizes: Sequence[int], total: int):
        self.steps = [stage_steps(pipeline, number) for number in range(len(pipeline.stages))]
        self.remaining = list(batch_sizes)
        made = total - sum(batch_sizes)
        quiet = not sys.stderr.isatty()
        self.pictures = tqdm(total=total, initial=made, unit="picture", mininterval=30 if quiet else 0.1,
                             bar_format="{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} pictures [{elapsed}{postfix}]")
        self.inner = tqdm(total=sum(self.steps), unit="step", leave=False, disable=quiet, position=1,
                          bar_format="{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} steps")
        self.reports = 0
        self.step_time, self.step_count = 0.0, 0       # per picture
        self.stage_time, self.stage_count = 0.0, 0

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *exception) -> None:
        self.inner.close()
        self.pictures.close()

    def show(self, stage: int, step: int, decoded: bool, seconds: float) -> None:
        """One report: `step` steps of `stage` are done, or its pictures are `decoded`; `seconds` since the report before."""
        batch = self.remaining[0] if self.remaining else 1
        self.reports += 1
        if decoded or step == 1:
            if self.reports > 1:
                self.stage_time += seconds / batch
                self.stage_count += decoded
        else:
            self.step_time += seconds / batch
            self.step_count += 1
        self.inner.set_description_str(f"  stage {stage}" + (", decoding" if step == self.steps[stage] and not decoded else ""))
        self.inner.n = sum(self.steps[:stage]) + step
        self.inner.refresh()
        if decoded and stage == len(self.steps) - 1:
            self.remaining = self.remaining[1:]
            self.pictures.update(batch)
            self.inner.n = 0
        self._estimate(stage, step)

    def _estimate(self, stage: int, step: int) -> None:
        if self.step_count < 2:
            return
        whole_batches = sum(self.remaining[1:]) if self.inner.n else sum(self.remaining)
        steps = whole_batches * sum(self.steps)
        stages = whole_batches * len(self.steps)
        if self.inner.n and self.remaining:
            steps += self.remaining[0] * (sum(self.steps) - self.inner.n)
            stages += self.remaining[0] * (len(self.steps) - stage)
        around = self.stage_time / self.stage_count if self.stage_count else 0.0
        left = steps * self.step_time / self.step_count + stages * around
        self.pictures.set_postfix_str(f"about {tqdm.format_interval(left)} left", refresh=not self.inner.disable)
