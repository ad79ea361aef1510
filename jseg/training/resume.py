"""Where a run goes on from: the newest checkpoint, one that a person names, or the beginning; and
its folder made ready for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Collection, List, Mapping, Optional, Sequence, Tuple

from jseg.checkpoint import CheckpointError, describe, weights_sha256
from jseg.counting import counted
from jseg.files import remove_stale_temporaries
from jseg.training.changes import check_changes, differences
from jseg.training.log import Log
from jseg.training.loop import TrainedNetwork
from jseg.training.records import (
    BEST,
    checkpoint_path,
    checkpoints,
    copy_log,
    later,
    mark,
    record,
    set_aside,
)
from jseg.training.run_folder import check_origin
from jseg.training.state import check_space, restore

SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Past:
    """What a run goes on from; the defaults are those of a beginning."""

    step: int = 0
    branch: Optional[dict] = None  # the file that a person began it from, if one did
    changes: Tuple[dict, ...] = ()  # of settings on the way, with their steps
    skipped: int = 0  # steps whose loss was no number


@dataclass(frozen=True)
class Resumption:
    """Finds the past of a run of `name` in `folder`; for process 0.

    settings: all that the run's numbers depend on; given: the options on the command line.
    """

    folder: Path
    name: str
    config: object
    settings: Mapping[str, object]
    given: Collection[str]
    say: Callable[[str], None]

    def begin(self, mode: str, networks: Sequence[TrainedNetwork], log: Log) -> Past:
        """Fill the networks from the checkpoint that `mode` means, and make the folder ready.

        See `jseg.training.run.TrainingRun.resume`.
        """
        check_origin(self.folder, self.name)
        log.read()  # a file that is no log is refused before anything is moved
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(self.folder)
        path, branch = self._starting_point(mode)
        past = Past()
        if path is not None:
            past = self._restored(path, branch, networks, mode)
            self.say(f"going on from {path}")

        mark(self.folder, self.name)
        self._make_way(past.step, path if branch else None)
        log.rewind(past.step)
        check_space(self.folder, networks)
        return past

    def _starting_point(self, mode: str) -> Tuple[Optional[Path], Optional[dict]]:
        """(the checkpoint to go on from, what the branch is called that it begins)."""
        saved = checkpoints(self.folder)
        newest = saved[-1] if saved else None
        if mode == "never" and newest:
            raise CheckpointError(
                f"{self.folder} holds checkpoints already ({newest.name}) and --resume is "
                "never; give another --output, or --resume auto"
            )
        if mode in ("auto", "never"):
            return newest, None

        # The same command again goes on with the branch that it has begun.
        path = Path(mode)
        branch = {"file": path.name, "sha256": weights_sha256(path)}
        about = record(newest) if newest else {}
        if about.get("branch") == branch and not differences(about["settings"], self.settings):
            self.say(f"{newest} began from {path} with these settings: the branch goes on")
            return newest, None
        return path, branch

    def _restored(
        self, path: Path, branch: Optional[dict], networks: Sequence[TrainedNetwork], mode: str
    ) -> Past:
        """`_restore`; of a damaged newest checkpoint, the error names the one before."""
        try:
            return self._restore(path, branch, networks)
        except CheckpointError as error:
            before = checkpoints(self.folder)[-2:-1] if mode == "auto" else []
            if not before or record(path):
                raise
            raise CheckpointError(
                f"{error}; or give --resume {before[0]} to go on from the one before it"
            ) from error

    def _restore(
        self, path: Path, branch: Optional[dict], networks: Sequence[TrainedNetwork]
    ) -> Past:
        # Its record decides whether its arrays are read.
        weights = describe(path)
        config, about = weights.config, weights.extra
        if "optimizer_steps" not in about or "step" not in about:
            raise CheckpointError(
                f"{path} is not a checkpoint of a training run; to start from its weights, give "
                "it as --model_path"
            )
        if config != self.config:
            raise CheckpointError(
                f"{path} holds another network ({config}) than the one to be trained "
                f"({self.config}); give another --output, or its --preset"
            )
        pairs = check_changes(path, about.get("settings", {}), self.settings, self.given)
        restore(networks, path, about["optimizer_steps"])

        step = int(about["step"])
        if pairs:
            words = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in pairs.items())
            self.say(f"changed from step {step} on: {words}")
        changes: List[dict] = list(about.get("changes", ()))
        changes += [
            {"step": step, "name": name, "was": was, "is": now}
            for name, (was, now) in pairs.items()
        ]
        return Past(
            step, branch or about.get("branch"), tuple(changes), int(about.get("skipped", 0))
        )

    def _make_way(self, step: int, begun: Optional[Path]) -> None:
        """Set aside what the steps from `step` on would overwrite or count against; begun: the file
        that begins a branch.
        """
        own = checkpoint_path(self.folder, step)
        elsewhere = begun is not None and not _same_file(own, begun)
        files = later(self.folder, -1 if elsewhere else step, self.name)
        if begun is None:
            # After a kill previews and the best may be of steps that come again, and come out the
            # same.
            files = [path for path in files if self._is_other(path)]
        if files:
            target = set_aside(self.folder, step, files)
            names = ", ".join(path.name for path in files[:SHOWN])
            more = ", ..." if len(files) > SHOWN else ""
            self.say(
                f"{counted(len(files), 'file[s] of later steps [is|are]')} set aside in {target}, "
                f"with the log: {names}{more}"
            )
        if elsewhere:
            copy_log(begun, self.folder)

    def _is_other(self, path: Path) -> bool:
        """Whether a later file will not come out as it is: a checkpoint or a result, or a best of
        other settings.
        """
        about = record(path)
        settings = about.get("settings", {})
        return bool(about) and (path.name != BEST or bool(differences(settings, self.settings)))


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and weights_sha256(one) == weights_sha256(other)
