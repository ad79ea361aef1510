"""How long a training goes and how often it writes what; the signals that end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

STOPPING = "stopping after this step; Ctrl-C again ends without saving"
# A byte in standard input: say it, on a line of its own after a progress bar. Its end without one:
# be quiet. The pipe is read to its end, for further signals write into it too.
LISTENER = (
    '[ "$(head -c 1 | wc -c)" -eq 1 ] || exit 0; if [ -t 2 ]; then echo >&2; fi; printf "%s\\n" '
    '"$1" >&2; cat >/dev/null'
)


@dataclass(frozen=True)
class Plan:
    """How long, and how often what is written; none of it changes the numbers of a step."""

    steps: int
    save_interval: int = 10_000
    keep: int = 3  # checkpoints that stay; 0 keeps all
    preview_interval: int = 0  # 0: no previews
    log_interval: int = 10
    validate_interval: int = 0  # 0: at the end alone, where there is something to validate with
    skip_bad_steps: int = (
        0  # steps in all whose loss may be no number; they change nothing and are counted
    )
    num_workers: int = 0  # processes that make batches ahead

    @classmethod
    def of(cls, options, steps: int, num_workers: int = 0) -> "Plan":
        """From the options of a training command (`cli.add_training_options`); num_workers: where
        they name none.
        """
        previews = (
            options.save_interval if options.preview_interval is None else options.preview_interval
        )
        validations = getattr(options, "validate_interval", None)
        workers = getattr(options, "num_workers", None)
        return cls(
            steps,
            options.save_interval,
            options.keep,
            previews,
            options.log_interval,
            options.save_interval if validations is None else validations,
            getattr(options, "skip_bad_steps", 0),
            num_workers if workers is None else workers,
        )

    def validates(self, step: int) -> bool:
        """Whether a validation belongs to that step."""
        return (
            step == self.steps or self.validate_interval > 0 and step % self.validate_interval == 0
        )


class Signals:
    """Inside of the `with`, the first Ctrl-C or SIGTERM only sets `caught`, so that a step is
    finished and saved; the second ends it.

    SIGHUP, of a terminal that is closed, only ever does the former: shells send it twice.

    What will happen is said on standard error at once where `speaks`, also while a step computes:
    Python's own handler runs only when the step is done, so a shell of its own waits for the
    signal's byte (`signal.set_wakeup_fd`). A signal that the parent had ignored (nohup, `&` in a
    script) stays ignored.
    """

    def __init__(self, speaks: bool = True):
        self.caught, self.before, self.speaks = False, {}, speaks
        self.wakeup = self.shell = None

    def __enter__(self) -> "Signals":
        if self.speaks:
            self._listen()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self._catch)
                # Jittor takes a wait for its lock that a signal cut short for a failure.
                signal.siginterrupt(number, False)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.shell is not None:
            signal.set_wakeup_fd(self.wakeup)
            self.shell.stdin.close()
            self.shell.wait()

    def _listen(self) -> None:
        """Start the shell that waits for a byte and says STOPPING; without one, the handler says
        it.
        """
        try:
            self.shell = subprocess.Popen(
                ["sh", "-c", LISTENER, "jseg", STOPPING],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return
        os.set_blocking(self.shell.stdin.fileno(), False)
        self.wakeup = signal.set_wakeup_fd(self.shell.stdin.fileno(), warn_on_full_buffer=False)

    def _catch(self, number, frame) -> None:
        if self.caught and number != signal.SIGHUP:
            raise KeyboardInterrupt
        said, self.caught = self.caught or not self.speaks or self.shell is not None, True
        if not said:
            # The signal came while a line was being printed, or the terminal is gone.
            with contextlib.suppress(RuntimeError, OSError, ValueError):
                print(STOPPING, file=sys.stderr, flush=True)
