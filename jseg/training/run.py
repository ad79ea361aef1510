"""The folder of a training run, and the run itself: resume, progress bar, log, curve, checkpoints,
previews.

FOLDER/checkpoint-00010000.safetensors   parameters, moving average, optimiser and settings after that step; the newest `keep` stay
FOLDER/log.csv, curve.png                losses, means over `log_interval` steps
FOLDER/preview-00010000.png              what the network makes at that step
FOLDER/best.safetensors                  the moving average of the validation that scored highest, where there are validations
FOLDER/NAME.safetensors                  the result, when all steps are done: the moving average alone

`jseg.training.records` has the rest of the folder: whose it is, branches, what is set aside. The
same for every network of jseg. Mirrors the saving, logging and resuming of the release's
train_util.py.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Collection, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence

import numpy as np

from jseg.checkpoint import CheckpointError, describe, load_sets, save, weights_sha256
from jseg.files import remove_stale_temporaries
from jseg.machine import jittor_flags
from jseg.progress import TrainingBar
from jseg.training import distributed
from jseg.training.log import Journal, Means, NoMatplotlib, draw_curve
from jseg.training.loop import Batches, TrainedNetwork, TrainingProblem, train
from jseg.training.plan import Plan, Signals
from jseg.training.records import (
    BEST,
    CHANGEABLE,
    CHECKPOINT,
    CURVE,
    JOURNAL,
    changed,
    check_origin,
    checkpoints,
    compared,
    copied_log,
    is_trained,
    later,
    mark,
    plain,
    prune,
    record,
    set_aside,
)
from jseg.training.state import check_space, restore, share_out, stored

__all__ = ["BEST", "CHECKPOINT", "CURVE", "JOURNAL", "Plan", "TrainingRun", "checkpoints"]
VALIDATION = "validation/"  # before the names of a validation's numbers in the log
Validate = Callable[[Callable[[], bool]], Optional[Dict[str, float]]]


class TrainingRun:
    """A run of `parts` (the first is the network itself) in `folder`; `settings`: everything that
    its numbers depend on.

    `resume` gives the step to go on from, `follow` trains and yields nothing; both are called by
    every process, and process 0 alone reads, writes and speaks.
    """

    def __init__(
        self,
        folder,
        parts: Sequence[TrainedNetwork],
        config,
        settings: Mapping[str, object],
        plan: Plan,
        name: str = "model",
        tell: Callable[[str], None] = print,
        given: Collection[str] = (),
    ):
        self.folder, self.parts, self.config, self.plan, self.name = (
            Path(folder),
            parts,
            config,
            plan,
            name,
        )
        self.settings = {**settings, **jittor_flags.record()}
        self.tell = tell if distributed.rank() == 0 else lambda message: None
        self.given = frozenset(given)
        self.journal = Journal(self.folder / JOURNAL)
        self.branch: Optional[dict] = None
        self.changes: List[dict] = []
        self.skipped = self.start = 0
        self.told = False  # that there are no curves
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
        step = 0
        if distributed.rank() == 0:
            check_origin(self.folder, self.name)
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(self.folder)
            found = checkpoints(self.folder)
            if mode == "never" and found:
                raise CheckpointError(
                    f"{self.folder} holds checkpoints already ({found[-1].name}) and --resume is "
                    "never; give another --output, or --resume auto"
                )

            # Which file, and whether it begins a branch.
            self.again = "the same command with --resume auto" if mode == "never" else self.again
            path, begun = found[-1] if mode == "auto" and found else None, None
            if mode not in ("auto", "never"):
                path = Path(mode)
                begun = {"file": path.name, "sha256": weights_sha256(path)}
                if (
                    found
                    and record(found[-1]).get("branch") == begun
                    and not compared(record(found[-1])["settings"], self.settings)
                ):
                    self.tell(
                        f"{found[-1]} began from {path} with these settings: the branch goes on"
                    )
                    path, begun = found[-1], None
            if path is not None:
                step = self._restored(path, found if mode == "auto" else [])
                self.branch = begun or self.branch
                self.tell(f"going on from {path}")
            mark(self.folder, self.name)
            self._make_way(step, path if begun else None)
            self.journal.rewind(step)
            check_space(self.folder, self.parts)
        step = int(distributed.all_reduce_numbers({"step": float(step)})["step"])
        self.skipped = int(
            distributed.all_reduce_numbers({"skipped": float(self.skipped)})["skipped"]
        )
        share_out(self.parts)
        self.start = step
        return step

    def _make_way(self, step: int, begun: Optional[Path]) -> None:
        """Set aside what the steps from `step` on would overwrite or count against; begun: the file
        that begins a branch.
        """
        mine = self.folder / f"checkpoint-{step:08d}.safetensors"
        elsewhere = begun is not None and not (
            mine.exists() and weights_sha256(mine) == weights_sha256(begun)
        )
        files = later(self.folder, -1 if elsewhere else step, self.name)
        if begun is None:
            # After a kill previews and the best may be of steps that come again, and come out the
            # same.
            files = [
                path
                for path in files
                if record(path)
                and (path.name != BEST or compared(record(path).get("settings", {}), self.settings))
            ]
        if files:
            target = set_aside(self.folder, step, files)
            self.tell(
                f"{len(files)} files of later steps are set aside in {target}, with the log: "
                f"{', '.join(path.name for path in files[:4]) + (', ...' if len(files) > 4 else '')}"
            )
        if elsewhere:
            copied_log(begun, self.folder)

    def follow(
        self,
        batches: Batches,
        start_step: int,
        preview: Optional[Callable[[Path], None]] = None,
        finish: Optional[Callable[[], None]] = None,
        validate: Optional[Validate] = None,
        learning_rate: Optional[Callable[[int], float]] = None,
    ) -> bool:
        """Train up to `plan.steps`; True if all steps are done, False if a signal asked for an
        early end (all is saved then).

        preview(path) writes an image, finish() has the last word on the result; both see the
        moving average in the network's place, and so does validate(stop), called by process 0: it
        gives numbers for the log, of which the first is the score that decides what is best, or
        None if stop() became true, for a signal came. learning_rate: of `train`. Raises
        TrainingProblem, OSError; checkpoints stay.
        """
        plan, sums, update = self.plan, Means(), None
        with Signals(distributed.rank() == 0) as signals, TrainingBar(
            plan.steps, start_step, quiet=distributed.rank() > 0
        ) as bar:
            if start_step:
                self._validate(
                    start_step, validate, signals
                )  # a run killed after saving the step has not
            if start_step >= plan.steps:
                self.tell(
                    f"{start_step} steps are done, {plan.steps} were asked for: nothing to train; "
                    f"give --steps above {start_step} to go on"
                )
                self._save_result(start_step, finish)
                return True
            try:
                for update in train(
                    self.parts,
                    batches,
                    plan.steps,
                    start_step,
                    learning_rate,
                    plan.skip_bad_steps - self.skipped,
                ):
                    self.skipped += update.skipped
                    sums.add(update.losses)
                    bar.show(update.step, update.losses.get("loss"))
                    stopping = (
                        distributed.all_reduce_numbers({"stop": float(signals.caught)})["stop"] > 0
                    )
                    last = update.step == plan.steps
                    if update.skipped:
                        self.tell(
                            f"step {update.step}: its loss is no number; skipped ({self.skipped} "
                            f"of {plan.skip_bad_steps})"
                        )
                    if update.step % plan.log_interval == 0 or last or stopping:
                        self._log(update.step, sums)
                    if update.step % plan.save_interval == 0 or last or stopping:
                        self._save(update.step)
                    if (
                        preview is not None
                        and plan.preview_interval
                        and (update.step % plan.preview_interval == 0 or last)
                    ):
                        self._preview(update.step, preview)
                    if not stopping:
                        self._validate(update.step, validate, signals)
                    if stopping and not last:
                        break
            except TrainingProblem as problem:
                self._save_before(problem, sums)
        if update.step < plan.steps:
            self.tell(
                f"stopped after step {update.step}, which is saved; {self.again} goes on from there"
            )
            return False
        self._save_result(plan.steps, finish)
        return True

    def _save_before(self, problem: TrainingProblem, sums: Means) -> NoReturn:
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
        if step and not (self.folder / f"checkpoint-{step:08d}.safetensors").exists():
            if sums:
                self._log(step, sums)
            self._save(step)
        again = self.again if self.branch is None else "the same command with --resume auto"
        raise TrainingProblem(
            f"{problem}; {f'step {step} is saved: ' if step else ''}give {again} and a lower "
            "--learning_rate, or --skip_bad_steps 1"
        ) from problem

    def _log(self, step: int, sums: Means) -> None:
        values = sums.taken()
        if distributed.rank() == 0:
            self.journal.append(
                step, {**values, **({"skipped": float(self.skipped)} if self.skipped else {})}
            )

    def _save(self, step: int) -> None:
        if distributed.rank():
            return
        path = self.folder / f"checkpoint-{step:08d}.safetensors"
        with self._written(path):
            save(
                path,
                self.parts[0].module.state_dict(),
                self.config,
                step=step,
                settings=self.settings,
                branch=self.branch,
                changes=self.changes,
                skipped=self.skipped,
                optimizer_steps=[part.optimizer.steps for part in self.parts],
                **stored(self.parts),
            )
        self._draw()
        prune(self.folder, self.plan.keep, self.branch, self.settings)

    def _draw(self) -> None:
        """The curve of the log so far; said once where it cannot be drawn, silent while there is
        nothing to draw.
        """
        with self._written(self.folder / CURVE):
            try:
                draw_curve(self.folder / JOURNAL, self.folder / CURVE, self.name)
            except NoMatplotlib as problem:
                if not self.told:
                    self.tell(f"no {CURVE}: {problem}")
                self.told = True

    def _save_result(self, step: int, finish: Optional[Callable[[], None]]) -> None:
        if distributed.rank():
            return
        path = self.folder / f"{self.name}.safetensors"
        there, differ = record(path), set(compared(record(path).get("settings", {}), self.settings))
        if is_trained(path) and there["step"] == step and not differ:
            self.tell(f"{step} steps are done: {path}")
            return
        if path.exists() and not (is_trained(path) and differ <= CHANGEABLE):
            target = set_aside(self.folder, int(there.get("step", 0)), [path])
            self.tell(f"{path.name} is no result of this training: it is set aside in {target}")
        with self._averaged():
            if finish is not None:
                finish()
            with self._written(path):
                save(
                    path,
                    self.parts[0].module.state_dict(),
                    self.config,
                    step=step,
                    settings=self.settings,
                )
        self.tell(f"{step} steps are done: {path}")

    def _preview(self, step: int, preview: Callable[[Path], None]) -> None:
        if distributed.rank() == 0:
            path = self.folder / f"preview-{step:08d}.png"
            with self._averaged(), self._written(path):
                preview(path)

    def _validate(self, step: int, validate: Optional[Validate], signals: "Signals") -> None:
        """Validate a step that is due and has not been, after it was saved: a validation may take
        long, and mpirun's Ctrl-C is quick.
        """
        if (
            validate is None
            or distributed.rank()
            or not self.plan.validates(step)
            or self._validated(step)
        ):
            return
        with self._averaged():
            found = validate(lambda: signals.caught)
            if found is None:
                return
            score, told = (
                next(iter(found.values())),
                ", ".join("%s %.4f" % item for item in found.items()),
            )
            measured = plain(getattr(validate, "measured", {}))
            best, best_step = self._best(measured)
            if score > best:
                path = self.folder / BEST
                with self._written(path):
                    save(
                        path,
                        self.parts[0].module.state_dict(),
                        self.config,
                        step=step,
                        settings=self.settings,
                        score=float(score),
                        measured=measured,
                    )
            self.journal.append(step, {VALIDATION + name: value for name, value in found.items()})
        self._draw()
        self.tell(
            f"step {step}: {told}; "
            f"{'the best so far' if score > best else 'best %.4f at step %d' % (best, best_step)}"
        )

    def _validated(self, step: int) -> bool:
        log = self.journal.read()
        columns = [values for name, values in log.items() if name.startswith(VALIDATION)]
        return any(np.isfinite(values[log["step"] == step]).any() for values in columns)

    def _best(self, measured: Mapping[str, object]):
        """(score, step) of the best file of this run; (-inf, 0) if there is none. One that was
        measured in another way is set aside.
        """
        path = self.folder / BEST
        if not path.is_file():
            return float("-inf"), 0
        extra = record(path)
        differ = set(compared(extra.get("settings", {}), self.settings))
        earlier = (
            int(extra.get("step", 0)) <= self.start
        )  # of this run before one of its settings was changed on purpose
        mine = "score" in extra and (not differ or earlier and differ <= CHANGEABLE)
        if mine and extra.get("measured", measured) == measured:
            return float(extra["score"]), int(extra["step"])
        target = set_aside(self.folder, int(extra.get("step", 0)), [path])
        self.tell(
            f"{path.name} was scored in another way or is of other settings: it is set aside in "
            f"{target} and not compared"
        )
        return float("-inf"), 0

    def _averaged(self):
        average = self.parts[0].average
        return contextlib.nullcontext() if average is None else average.in_place()

    @contextlib.contextmanager
    def _written(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"cannot write {path} ({error.strerror or error}); earlier checkpoints stay: make "
                "room and give the same command again"
            ) from error

    def _restored(self, path: Path, found: Sequence[Path]) -> int:
        """`_restore`; of a damaged newest one of `found`, the error names the one before."""
        try:
            return self._restore(path)
        except CheckpointError as error:
            if len(found) < 2 or record(path):
                raise
            raise CheckpointError(
                f"{error}; or give --resume {found[-2]} to go on from the one before it"
            ) from error

    def _restore(self, path: Path) -> int:
        weights = describe(path)
        extra, config = weights.extra, weights.config
        if "optimizer" not in weights.record.get("groups", {}) or "step" not in extra:
            raise CheckpointError(
                f"{path} is not a checkpoint of a training run; to start from its weights, give "
                "it as --model_path"
            )
        if config != self.config:
            raise CheckpointError(
                f"{path} holds another network ({config}) than the one to be trained "
                f"({self.config}); give another --output, or its --preset"
            )
        differ = changed(path, extra.get("settings", {}), self.settings, self.given)
        step = int(extra["step"])
        self.branch, self.skipped = extra.get("branch"), int(extra.get("skipped", 0))
        self.changes = list(extra.get("changes", ())) + [
            {"step": step, "name": name, "was": was, "is": now}
            for name, (was, now) in differ.items()
        ]
        if differ:
            self.tell(
                f"changed from step {step} on: "
                f"{', '.join('%s %s -> %s' % (name, *pair) for name, pair in differ.items())}"
            )
        restore(self.parts, load_sets(path), extra["optimizer_steps"])
        return step
