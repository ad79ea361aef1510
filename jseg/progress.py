"""Progress bars of a training and of images that are made one by one, with the time left;
`jseg.ldm.progress` has the synthesis's.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Deque, Dict, Optional

from tqdm import tqdm

QUIET_SECONDS = 60  # between two lines where the output is no terminal
SPEED_STEPS, LOSS_STEPS = (
    1000,
    50,
)  # the latest steps of a training that its speed and its loss are means over


def terminal() -> Dict[str, int]:
    """tqdm's ncols and nrows of the terminal that standard error is, 80 and 24 where it says 0, as
    under Docker and some editors.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # no terminal: tqdm's own choice
        return {}
    return {"ncols": size.columns or 80, "nrows": size.lines or 24}


class TrainingBar:
    """`with TrainingBar(steps, first_step) as bar: bar.show(step, loss)` after every step; `step`
    counts finished steps.

    One bar with loss, speed and the time left on a terminal; elsewhere a plain line a minute at
    most, and one at the end; nothing where `quiet` (the processes of a run that do not speak). Loss
    and speed are means over this run's latest steps; the speed has saving and previews in it, but
    not the run's first step, which compiles.
    """

    def __init__(self, total_steps: int, first_step: int = 0, quiet: bool = False):
        self.total, self.step, self.quiet = total_steps, first_step, quiet
        self.plain = not sys.stderr.isatty()
        self.started = self.told = time.monotonic()
        self.untold = False
        self.times: Deque[float] = deque(
            maxlen=SPEED_STEPS + 1
        )  # when each of the latest steps was done
        self.losses: Deque[float] = deque(maxlen=LOSS_STEPS)
        self.bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=quiet or self.plain,
            miniters=1,
            **terminal(),
            bar_format="{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]",
        )

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, kind, *exception) -> None:
        self.bar.close()
        if self.untold and kind is None:
            self._tell(time.monotonic())

    def show(self, step: int, loss: Optional[float]) -> None:
        """Step number `step` (the first is 1) is done; its loss, None for a step that was
        skipped.
        """
        now = time.monotonic()
        self.step, self.untold = step, self.plain and not self.quiet
        self.times.append(now)
        if loss is not None:
            self.losses.append(loss)
        if self.untold and now - self.told >= QUIET_SECONDS:
            self._tell(now)
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
        taken = self.times[-1] - self.times[0] if self.times else 0.0
        return (len(self.times) - 1) / taken if taken > 0 else None

    def _state(self) -> str:
        loss = f"{sum(self.losses) / len(self.losses):.4g}" if self.losses else "no number"
        parts, speed, left = [f"loss {loss}"], self._speed(), self.left()
        if speed is not None:
            parts.append(f"{speed:.2f} steps/s" if speed >= 1 else f"{1 / speed:.2f} s/step")
        if left is not None:
            parts.append(f"about {tqdm.format_interval(left)} left")
        return ", ".join(parts)

    def _tell(self, now: float) -> None:
        self.told, self.untold = now, False
        elapsed = tqdm.format_interval(now - self.started)
        print(
            f"step {self.step} of {self.total}, {self._state()}, {elapsed} so far",
            file=sys.stderr,
            flush=True,
        )


class ImageBar:
    """`with ImageBar(images in all, those that are finished) as bar: bar.show()` after every
    further image.

    A bar with the time left on a terminal; elsewhere a plain line a minute at most, and one at the
    end.
    """

    def __init__(self, total: int, done: int = 0):
        self.total, self.done, self.plain = total, done, not sys.stderr.isatty()
        self.started = self.told = time.monotonic()
        self.bar = tqdm(total=total, initial=done, unit="image", disable=self.plain, **terminal())

    def __enter__(self) -> "ImageBar":
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def show(self) -> None:
        """One more image is done."""
        self.done += 1
        self.bar.update()
        now = time.monotonic()
        if self.plain and (now - self.told >= QUIET_SECONDS or self.done == self.total):
            self.told = now
            print(
                f"{self.done} of {self.total} images, "
                f"{tqdm.format_interval(now - self.started)} so far",
                file=sys.stderr,
                flush=True,
            )
