"""The folder of a training run, and the run itself: resume, progress bar, log, curve, checkpoints, previews.

FOLDER/checkpoint-00010000.safetensors   parameters, moving average, optimiser and settings after that step; the newest `keep` stay
FOLDER/log.csv, curve.png                losses, means over `log_interval` steps
FOLDER/preview-00010000.png              what the network makes at that step
FOLDER/best.safetensors                  the moving average of the validation that scored highest, where there are validations
FOLDER/NAME.safetensors                  the result, when all steps are done: the moving average alone

The same for every network of jseg. Mirrors the saving, logging and resuming of the release's train_util.py.
"""
from __future__ import annotations

import contextlib
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import numpy as np

from jseg import jittor_flags, processes
from jseg.atomic import remove_stale_temporaries
from jseg.checkpoint import CheckpointError, load_config, load_extra, load_into, save
from jseg.journal import Journal, Means, draw_curve
from jseg.optimizer import fill
from jseg.progress import TrainingBar
from jseg.training import Batches, Part, TrainingProblem, train

CHECKPOINT = re.compile(r"^checkpoint-(\d{8,})\.safetensors$")
JOURNAL, CURVE, BEST = "log.csv", "curve.png", "best.safetensors"
VALIDATION = "validation/"                 # before the names of a validation's numbers in the log
Validate = Callable[[Callable[[], bool]], Optional[Dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """How long, and how often what is written; none of it changes the numbers of a step."""
    steps: int
    save_interval: int = 10_000
    keep: int = 3                      # checkpoints that stay; 0 keeps all
    preview_interval: int = 0          # 0: no previews
    log_interval: int = 10
    validate_interval: int = 0         # 0: at the end alone, where there is something to validate with

    @classmethod
    def of(cls, options, steps: int) -> "Plan":
        """From the options of a training command (`cli.add_training_options`)."""
        previews = options.save_interval if options.preview_interval is None else options.preview_interval
        validations = getattr(options, "validate_interval", None)
        return cls(steps, options.save_interval, options.keep, previews, options.log_interval,
                   options.save_interval if validations is None else validations)

    def validates(self, step: int) -> bool:
        """Whether a validation belongs to that step."""
        return step == self.steps or self.validate_interval > 0 and step % self.validate_interval == 0


class TrainingRun:
    """A run of `parts` (the first is the network itself) in `folder`; `settings`: everything that its numbers depend on.

    `resume` gives the step to go on from, `follow` trains and yields nothing; both are called by every process, and
    process 0 alone reads, writes and speaks.
    """

    def __init__(self, folder, parts: Sequence[Part], config, settings: Mapping[str, object], plan: Plan, name: str = "model",
                 tell: Callable[[str], None] = print):
        self.folder, self.parts, self.config, self.settings, self.plan, self.name = Path(folder), parts, config, dict(settings), plan, name
        self.settings.update(jittor_flags.record())
        self.tell = tell if processes.rank() == 0 else lambda message: None
        self.journal = Journal(self.folder / JOURNAL)
        self.told = False                      # that there are no curves

    def resume(self, mode: str = "auto") -> int:
        """Finished steps: those of the newest checkpoint ("auto"; 0 if there is none), of the checkpoint file `mode`, or 0 ("never").

        Raises CheckpointError in one line for a checkpoint of another network or other settings, and for "never" in a folder with
        checkpoints; nothing has then been changed.
        """
        step = 0
        if processes.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(self.folder)
            found = checkpoints(self.folder)
            if mode == "never" and found:
                raise CheckpointError("%s holds checkpoints already (%s) and --resume is never; give another --output, or --resume auto"
                                      % (self.folder, found[-1].name))
            path = found[-1] if mode == "auto" and found else None if mode in ("auto", "never") else Path(mode)
            if path is not None:
                step = self._restore(path)
                self.tell("going on from %s" % path)
            self.journal.rewind(step)
            self._check_space()
        step = int(processes.agreed({"step": float(step)})["step"])
        self._share_out(step)
        return step

    def follow(self, batches: Batches, start_step: int, preview: Optional[Callable[[Path], None]] = None,
               finish: Optional[Callable[[], None]] = None, validate: Optional[Validate] = None,
               learning_rate: Optional[Callable[[int], float]] = None) -> bool:
        """Train up to `plan.steps`; True if all steps are done, False if a signal asked for an early end (all is saved then).

        preview(path) writes a picture, finish() has the last word on the result; both see the moving average in the network's place,
        and so does validate(stop), called by process 0: it gives numbers for the log, of which the first is the score that decides
        what is best, or None if stop() became true, for a signal came. learning_rate: of `train`. Raises TrainingProblem, OSError;
        checkpoints stay.
        """
        plan, sums = self.plan, Means()
        with _Signals() as signals, TrainingBar(plan.steps, start_step, quiet=processes.rank() > 0) as bar:
            if start_step:
                self._validate(start_step, validate, signals)       # a run killed after saving the step has not
            if start_step >= plan.steps:
                self.tell("%d steps are done, %d were asked for: nothing to train" % (start_step, plan.steps))
                self._save_result(start_step, finish)
                return True
            for update in train(self.parts, batches, plan.steps, start_step, learning_rate):
                sums.add(update.losses)
                bar.show(update.step, update.losses["loss"])
                stopping = processes.agreed({"stop": float(signals.caught)})["stop"] > 0
                last = update.step == plan.steps
                if update.step % plan.log_interval == 0 or last or stopping:
                    self._log(update.step, sums.taken())
                if update.step % plan.save_interval == 0 or last or stopping:
                    self._save(update.step)
                if preview is not None and plan.preview_interval and (update.step % plan.preview_interval == 0 or last):
                    self._preview(update.step, preview)
                if not stopping:
                    self._validate(update.step, validate, signals)
                if stopping and not last:
                    break
        if update.step < plan.steps:
            self.tell("stopped after step %d, which is saved; the same command goes on from there" % update.step)
            return False
        self._save_result(plan.steps, finish)
        return True

    def _log(self, step: int, values: Dict[str, float]) -> None:
        if processes.rank() == 0:
            self.journal.append(step, values)

    def _save(self, step: int) -> None:
        if processes.rank():
            return
        first = self.parts[0]
        groups: Dict[str, object] = {"optimizer": first.optimizer.state()}
        if first.average is not None:
            groups["ema"] = first.average.values
        if first.companion is not None:
            groups["companion"] = first.companion.state_dict()
        for part in self.parts[1:]:
            groups.update({part.name: part.module.state_dict(), f"{part.name}_optimizer": part.optimizer.state()})
        path = self.folder / f"checkpoint-{step:08d}.safetensors"
        with self._written(path):
            save(path, first.module.state_dict(), self.config, step=step, settings=self.settings,
                 optimizer_steps=[part.optimizer.steps for part in self.parts], **groups)
            if not draw_curve(self.folder / JOURNAL, self.folder / CURVE, self.name) and not self.told:
                self.told = True
                self.tell("no %s: matplotlib cannot be imported; pip install matplotlib" % CURVE)
        kept = checkpoints(self.folder)
        for old in kept[:-self.plan.keep] if self.plan.keep else []:
            old.unlink()

    def _save_result(self, step: int, finish: Optional[Callable[[], None]]) -> None:
        if processes.rank():
            return
        path = self.folder / f"{self.name}.safetensors"
        with self._averaged():
            if finish is not None:
                finish()
            with self._written(path):
                save(path, self.parts[0].module.state_dict(), self.config, step=step, settings=self.settings)
        self.tell("%d steps are done: %s" % (step, path))

    def _preview(self, step: int, preview: Callable[[Path], None]) -> None:
        if processes.rank() == 0:
            path = self.folder / f"preview-{step:08d}.png"
            with self._averaged(), self._written(path):
                preview(path)

    def _validate(self, step: int, validate: Optional[Validate], signals: "_Signals") -> None:
        """Validate a step that is due and has not been, after it was saved: a validation may take long, and mpirun's Ctrl-C is quick."""
        if validate is None or processes.rank() or not self.plan.validates(step) or self._validated(step):
            return
        with self._averaged():
            found = validate(lambda: signals.caught)
            if found is None:
                return
            score, told = next(iter(found.values())), ", ".join("%s %.4f" % item for item in found.items())
            best, best_step = self._best()
            if score > best:
                path = self.folder / BEST
                with self._written(path):
                    save(path, self.parts[0].module.state_dict(), self.config, step=step, settings=self.settings, score=float(score))
            self.journal.append(step, {VALIDATION + name: value for name, value in found.items()})
        self.tell("step %d: %s; %s" % (step, told, "the best so far" if score > best else "best %.4f at step %d" % (best, best_step)))

    def _validated(self, step: int) -> bool:
        log = self.journal.read()
        columns = [values for name, values in log.items() if name.startswith(VALIDATION)]
        return any(np.isfinite(values[log["step"] == step]).any() for values in columns)

    def _best(self):
        """(score, step) of the best file of this run; (-inf, 0) if there is none."""
        path = self.folder / BEST
        extra = load_extra(path) if path.is_file() else {}
        mine = extra.get("settings") == self.settings and "score" in extra
        return (float(extra["score"]), int(extra["step"])) if mine else (float("-inf"), 0)

    def _averaged(self):
        average = self.parts[0].average
        return contextlib.nullcontext() if average is None else average.in_place()

    @contextlib.contextmanager
    def _written(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError("cannot write %s (%s); earlier checkpoints stay: make room and give the same command again"
                          % (path, error.strerror or error)) from error

    def _restore(self, path: Path) -> int:
        extra, config = load_extra(path), load_config(path)
        if "optimizer" not in extra or "step" not in extra:
            raise CheckpointError("%s is not a checkpoint of a training run; to start from its weights, give it as --model_path"
                                  % path)
        if config != self.config:
            raise CheckpointError("%s holds another network (%s) than the one to be trained (%s); give another --output, or its --preset"
                                  % (path, config, self.config))
        stored = extra.get("settings", {})
        differ = sorted(name for name in set(stored) | set(self.settings) if stored.get(name) != self.settings.get(name))
        if differ:
            told = ", ".join("%s was %.80s, is %.80s" % (name, stored.get(name), self.settings.get(name)) for name in differ[:4])
            raise CheckpointError("%s was trained with other settings: %s; give the old ones to go on, or another --output and this file "
                                  "as --model_path to start anew from its weights" % (path, told))
        load_into(self.parts[0].module, path, weights="model")
        for part, steps in zip(self.parts, extra["optimizer_steps"]):
            prefix = f"{part.name}_" if part.name else ""
            if part.name:
                load_into(part.module, extra[part.name])
            if part.companion is not None:
                load_into(part.companion, extra["companion"])
            part.optimizer.restore(extra[prefix + "optimizer"], steps)
            if part.average is not None:
                part.average.restore(extra[prefix + "ema"])
        return int(extra["step"])

    def _share_out(self, step: int) -> None:
        for part in self.parts:
            steps = processes.agreed({"steps": float(part.optimizer.steps if processes.rank() == 0 else 0)})["steps"]
            part.optimizer.steps = int(steps)
            processes.share_out(part.optimizer.state().values())
            if part.average is not None:
                processes.share_out(part.average.values.values())
        for module in self._modules():
            processes.share_out(module.state_dict().values())

    def _modules(self) -> List:
        return [module for part in self.parts for module in (part.module, part.companion) if module is not None]

    def _check_space(self) -> None:
        sizes = [sum(4 * v.numel() for v in module.state_dict().values()) for module in self._modules()]
        needed = sum(3 * size for size in sizes) + (sizes[0] if self.parts[0].average is not None else 0)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError("%s has %.1f GB free, one checkpoint takes %.1f GB; make room or give another --output"
                          % (self.folder, free / 1e9, needed / 1e9))


def checkpoints(folder: Path) -> List[Path]:
    """The checkpoint files of a run's folder, by step."""
    found = {int(match.group(1)): entry for entry in folder.iterdir() for match in [CHECKPOINT.match(entry.name)] if match}
    return [found[step] for step in sorted(found)]


class _Signals:
    """Inside of the `with`, the first Ctrl-C or SIGTERM only sets `caught`, so that a step is finished and saved; the second ends it."""

    def __init__(self):
        self.caught, self.before = False, {}

    def __enter__(self) -> "_Signals":
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
