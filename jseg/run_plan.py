"""How long a training goes and how often it writes what; the signals that end it."""
from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Plan:
    """How long, and how often what is written; none of it changes the numbers of a step."""
    steps: int
    save_interval: int = 10_000
    keep: int = 3                      # checkpoints that stay; 0 keeps all
    preview_interval: int = 0          # 0: no previews
    log_interval: int = 10
    validate_interval: int = 0         # 0: at the end alone, where there is something to validate with
    skip_bad_steps: int = 0            # steps in all whose loss may be no number; they change nothing and are counted

    @classmethod
    def of(cls, options, steps: int) -> "Plan":
        """From the options of a training command (`cli.add_training_options`)."""
        previews = options.save_interval if options.preview_interval is None else options.preview_interval
        validations = getattr(options, "validate_interval", None)
        return cls(steps, options.save_interval, options.keep, previews, options.log_interval,
                   options.save_interval if validations is None else validations, getattr(options, "skip_bad_steps", 0))

    def validates(self, step: int) -> bool:
        """Whether a validation belongs to that step."""
        return step == self.steps or self.validate_interval > 0 and step % self.validate_interval == 0


class Signals:
    """Inside of the `with`, the first Ctrl-C or SIGTERM only sets `caught`, so that a step is finished and saved; the second ends it."""

    def __init__(self, tell: Callable[[str], None]):
        self.caught, self.before, self.tell = False, {}, tell

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _catch(self, number, frame) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = True
        with contextlib.suppress(RuntimeError):        # the signal came while a line was being printed
            self.tell("stopping after this step; Ctrl-C again ends without saving")
