"""A training in its folder: resume, progress bar, log, curve, checkpoints, previews, validations.

FOLDER/checkpoint-00010000.safetensors   parameters, moving average, optimiser and settings after
                                         that step; the newest `keep` stay
FOLDER/log.csv, curve.png                losses, means over `log_interval` steps
FOLDER/preview-00010000.png              what the network makes at that step
FOLDER/best.safetensors                  the moving average of the best validation, if there is one
FOLDER/NAME.safetensors                  the result, when all steps are done: the moving average
                                         alone

`records` and `run_folder` have the rest of the folder, `resume` how a run goes on. Mirrors the
saving, logging and resuming of the release's train_util.py.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Collection, Mapping, NoReturn, Optional, Sequence

from jseg.checkpoint import save
from jseg.counting import counted
from jseg.machine import jittor_flags
from jseg.outputs.record import writing
from jseg.progress import TrainingBar
from jseg.training import distributed
from jseg.training.best import VALIDATION, Best, Validate, is_better, is_validated, measured_by
from jseg.training.changes import differences, same_but_changeable
from jseg.training.curve import CurveFile
from jseg.training.loader import Loader, LoadingError
from jseg.training.log import Log, Means
from jseg.training.loop import Batches, TrainedNetwork, TrainingProblem, Update, train
from jseg.training.loss_scale import left_out, overflow_line
from jseg.training.optimizer import trainable, unchanged
from jseg.training.plan import Plan, Signals
from jseg.training.records import CURVE, LOG, checkpoint_path, is_trained, prune, record, set_aside
from jseg.training.resume import Past, Resumption
from jseg.training.state import broadcast_state, state_sets

DONE = "step[s] [is|are] done"


class TrainingRun:
    """A run of `networks` in `folder`; `resume` gives the step to go on from, `follow` trains.

    The first network is the result. settings: everything that the run's numbers depend on; given:
    the options on the command line. Both methods are called by every process; process 0 alone
    reads, writes and speaks.
    """

    def __init__(
        self,
        folder,
        networks: Sequence[TrainedNetwork],
        config,
        settings: Mapping[str, object],
        plan: Plan,
        name: str = "model",
        say: Callable[[str], None] = print,
        given: Collection[str] = (),
    ):
        self.folder, self.networks, self.config = Path(folder), networks, config
        self.settings = {**settings, **jittor_flags.record()}
        self.plan, self.name, self.given = plan, name, frozenset(given)
        self.say = say if distributed.rank() == 0 else lambda line: None
        self.log = Log(self.folder / LOG)
        self.best = Best(self.folder, self.settings, self.say)
        self.past, self.skipped, self.overflows = Past(), 0, 0
        self.curve = CurveFile(self.log, self.folder / CURVE, name, self.say)
        self.again = "the same command"  # that goes on from what is saved

    def resume(self, mode: str = "auto") -> int:
        """Finished steps: those of the newest checkpoint ("auto"; 0 if there is none), of the
        checkpoint file `mode`, or 0 ("never").

        A file begins a branch, unless the newest checkpoint is of the branch that the same file and
        settings began. What is later than the step is set aside, with the log. Settings in
        CHANGEABLE may differ where `given` names them. Raises CheckpointError in one line for a
        checkpoint of another network or other settings, and for "never" in a folder with
        checkpoints, OutputError for a folder with files of others; nothing has then been changed.
        """
        if mode == "never":
            self.again = "the same command with --resume auto"
        if distributed.rank() == 0:
            resumption = Resumption(
                self.folder, self.name, self.config, self.settings, self.given, self.say
            )
            self.past = resumption.begin(mode, self.networks, self.log)
        counts = {"step": float(self.past.step), "skipped": float(self.past.skipped)}
        total = distributed.all_reduce_numbers(counts)
        self.skipped = int(total["skipped"])
        broadcast_state(self.networks)
        self.overflows = left_out(self.networks)
        return int(total["step"])

    def follow(
        self,
        batches: Batches,
        start_step: int,
        preview: Optional[Callable[[Path], None]] = None,
        finish: Optional[Callable[[], str]] = None,
        validate: Optional[Validate] = None,
        learning_rate: Optional[Callable[[int], float]] = None,
    ) -> bool:
        """Train up to `plan.steps`; True if all steps are done, False if a signal asked for an
        early end (all is saved then).

        preview(path) writes an image, finish() has the last word on the result and returns a line
        about it, validate(stop) scores the network (`best.Validate`); all three see the moving
        average in the network's place, and process 0 alone calls them. learning_rate: of `train`.
        Raises TrainingProblem, OSError, what `batches` raises; checkpoints stay.
        """
        plan, means, step = self.plan, Means(), start_step
        loader = Loader(batches, range(start_step, plan.steps), plan.num_workers, self.say)
        with Signals(distributed.rank() == 0) as signals, loader, TrainingBar(
            plan.steps, start_step, quiet=distributed.rank() > 0
        ) as bar:
            if start_step:
                # A run that was killed after it saved the step has not validated it.
                self._validate(start_step, validate, signals, finish)
            if start_step >= plan.steps:
                return self._already_done(start_step, finish)

            skip = plan.skip_bad_steps - self.skipped
            try:
                for update in train(
                    self.networks, loader, plan.steps, start_step, learning_rate, skip
                ):
                    step = update.step
                    self._count(update, means, bar)
                    stopping = self._stopping(signals)
                    self._write_what_is_due(step, means, stopping, preview)
                    if stopping and step < plan.steps:
                        break
                    if not stopping:
                        self._validate(step, validate, signals, finish)
                        loader.check(step)  # where one process cannot go on, all save this step
            except TrainingProblem as problem:
                self._save_before(problem, means)
            except LoadingError as failed:
                self.say(f"{self._save_last(failed.step, means)}; {self.again} goes on from there")
                raise failed.error from failed.error.__cause__

        if distributed.rank() == 0:
            self.curve.draw()
        if step < plan.steps:
            self.say(f"stopped after step {step}, which is saved; {self.again} goes on from there")
            return False
        self._save_result(plan.steps, finish)
        return True

    def _already_done(self, step: int, finish: Optional[Callable[[], str]]) -> bool:
        self.say(
            f"{counted(step, DONE)}, {self.plan.steps} asked for: nothing to train; give --steps "
            f"above {step} to go on"
        )
        self._save_result(step, finish)
        return True

    def _stopping(self, signals: Signals) -> bool:
        """Whether a signal came to any process."""
        return distributed.all_reduce_numbers({"stop": float(signals.caught)})["stop"] > 0

    def _count(self, update: Update, means: Means, bar: TrainingBar) -> None:
        self.skipped += update.skipped
        means.add(update.losses)
        bar.show(update.step, update.losses.get("loss"))
        if update.skipped:
            count = f"skipped ({self.skipped} of {self.plan.skip_bad_steps})"
            self.say(f"step {update.step}: its loss or gradients are not finite; {count}")

        # The first is told, the log and the last line count the others.
        before, self.overflows = self.overflows, left_out(self.networks)
        if self.overflows > before == 0:
            self.say(overflow_line(update.step, self.networks[0].loss_scale))

    def _write_what_is_due(
        self,
        step: int,
        means: Means,
        stopping: bool,
        preview: Optional[Callable[[Path], None]],
    ) -> None:
        last = step == self.plan.steps
        if step % self.plan.log_interval == 0 or last or stopping:
            self._log(step, means)
        if step % self.plan.save_interval == 0 or last or stopping:
            self._save(step)
        interval = self.plan.preview_interval
        if preview is not None and interval and (step % interval == 0 or last):
            self._preview(step, preview)

    def _save_before(self, problem: TrainingProblem, means: Means) -> NoReturn:
        """End a training whose loss is no number: the step before is saved, where it is whole and
        is not yet.
        """
        step = problem.step
        if not problem.whole:
            raise TrainingProblem(
                f"{problem}; a part of that step was taken, so it is not saved: the same command "
                "goes on from the newest checkpoint, with a lower --learning_rate or "
                "--skip_bad_steps"
            ) from problem
        saved = self._save_last(step, means)
        again = "the same command with --resume auto" if self.past.branch else self.again
        raise TrainingProblem(
            f"{problem}; {saved}: give {again} and a lower --learning_rate, or --skip_bad_steps 1"
        ) from problem

    def _save_last(self, step: int, means: Means) -> str:
        """Save the last finished step of a training that ends early, unless it is; in words."""
        if not step:
            return "no step is done"
        if not checkpoint_path(self.folder, step).exists():
            if means:
                self._log(step, means)
            self._save(step)
            if distributed.rank() == 0:
                self.curve.draw()
        return f"step {step} is saved"

    def _log(self, step: int, means: Means) -> None:
        values = means.take()
        if self.skipped:
            values["skipped"] = float(self.skipped)
        if self.overflows:
            values["left_out"] = float(self.overflows)
        if distributed.rank() == 0:
            self.log.append(step, values)

    def _save(self, step: int) -> None:
        if distributed.rank():
            return
        with writing(path := checkpoint_path(self.folder, step)):
            save(
                path,
                self.networks[0].module.state_dict(),
                self.config,
                step=step,
                settings=self.settings,
                branch=self.past.branch,
                changes=list(self.past.changes),
                skipped=self.skipped,
                optimizer_steps=[network.optimizer.steps for network in self.networks],
                **state_sets(self.networks),
            )
        self.curve.draw_unless_new()
        prune(self.folder, self.plan.keep, self.past.branch, self.settings)

    def _save_result(self, step: int, finish: Optional[Callable[[], str]]) -> None:
        if distributed.rank():
            return
        path = self.folder / f"{self.name}.safetensors"
        about = record(path)
        settings, trained = about.get("settings", {}), is_trained(path)
        done = counted(step, DONE)
        if self.overflows:
            done += f", {self.overflows} of them left out because gradients overflowed"
        if trained and about["step"] == step and not differences(settings, self.settings):
            self.say(f"{done}: {path}")
            return
        if path.exists() and not (trained and same_but_changeable(settings, self.settings)):
            target = set_aside(self.folder, int(about.get("step", 0)), [path])
            self.say(f"{path.name} is no result of this training: it is set aside in {target}")

        line = self._save_network(path, step, finish)
        if line:
            self.say(line)
        self.say(f"{done}: {path}")

    def _save_network(
        self, path: Path, step: int, finish: Optional[Callable[[], str]], **extra
    ) -> str:
        """Write the network as it would be if it were the result, and leave it as it is.

        Returns what `finish` says about it, "" without one.
        """
        line = ""
        module = self.networks[0].module
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._ema_in_place())
            if finish is not None:
                stack.enter_context(unchanged(trainable(module)))
                line = finish()
            stack.enter_context(writing(path))
            about = {"step": step, "settings": self.settings, **extra}
            save(path, module.state_dict(), self.config, **about)
        return line

    def _preview(self, step: int, preview: Callable[[Path], None]) -> None:
        if distributed.rank() == 0:
            path = self.folder / f"preview-{step:08d}.png"
            with self._ema_in_place(), writing(path):
                preview(path)

    def _validate(
        self,
        step: int,
        validate: Optional[Validate],
        signals: Signals,
        finish: Optional[Callable[[], str]],
    ) -> None:
        """Validate a step that is due and has not been, after it was saved: a validation may take
        long, and mpirun's Ctrl-C is quick.
        """
        due = validate is not None and self.plan.validates(step)
        if not due or distributed.rank() or is_validated(self.log, step):
            return
        with self._ema_in_place():
            scores = validate(lambda: signals.caught)
        if scores is None:
            return
        score, measured = float(next(iter(scores.values()))), measured_by(validate)
        best = self.best.so_far(measured, self.past.step)
        better = is_better(validate, score, best)
        if better:
            self._save_network(self.best.path, step, finish, score=score, measured=measured)

        self.log.append(step, {VALIDATION + name: value for name, value in scores.items()})
        self.curve.draw_unless_new()
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        verdict = "the best so far" if better else "not a best"
        if not better and best is not None:
            verdict = f"best {best[0]:.4f} at step {best[1]}"
        self.say(f"step {step}: {numbers}; {verdict}")

    def _ema_in_place(self):
        """A context in which the network has its moving average's values, if it has one."""
        ema = self.networks[0].ema
        return contextlib.nullcontext() if ema is None else ema.in_place()
