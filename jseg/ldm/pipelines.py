"""Inference pipelines by name or from a small JSON file (`--stages`), checked against their
schedules before any work.

    {"base": "fine",
     "stages": [
       {"guidance": 3.5, "respacing": "ddim50", "start_index": 30},
       {"guidance": 3.7, "respacing": "ddim50", "start_index": 20, "color_transfer": true}]}

Any field of `presets.Stage` may stand in a stage, and of `presets.Pipeline` beside "stages"; what
is left out is the base preset's.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from jseg.ldm.presets import PIPELINES, SAMPLER_ETA, Pipeline, Stage
from jseg.ldm.schedule import SPACINGS, TIMESTEPS, Schedule, check_eta
from jseg.text_file import parse_json, read_text

MAX_GUIDANCE = 1000  # far beyond any use; NaN, Infinity and typing errors are beyond it, too
_TYPES = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}


def pipeline_named(preset) -> Pipeline:
    """The Pipeline of that name in PIPELINES, or `preset` itself if it is one; raises ValueError
    naming those that exist.
    """
    if isinstance(preset, Pipeline):
        return preset
    if preset not in PIPELINES:
        raise ValueError(f"preset {preset!r}: expected one of {', '.join(PIPELINES)}")
    return PIPELINES[preset]


def first_index(pipeline: Pipeline, number: int) -> int:
    """What a stage's sampler takes as its start_index: the stage's own, or one more where denoising
    is aligned with the noise.
    """
    return pipeline.stages[number].start_index + int(pipeline.aligned)


def stage_steps(pipeline: Pipeline, number: int) -> int:
    """Denoising steps of a stage: its `steps`, or every respaced step from the start index down."""
    return pipeline.stages[number].steps or first_index(pipeline, number)


def stage_eta(stage: Stage) -> float:
    """The eta that a stage's sampler is called with: its name's, or the stage's own."""
    fixed = SAMPLER_ETA[stage.sampler]
    return stage.eta if fixed is None else fixed


def unet_calls(pipeline: Pipeline) -> int:
    """UNet forwards that the release would run for one image: 2 for a guided step, 1 for another;
    1,280 for its own stages.
    """
    calls = 0
    for number, stage in enumerate(pipeline.stages):
        schedule = Schedule(stage.respacing)
        timesteps = schedule.timesteps[
            schedule.visited(first_index(pipeline, number), stage.steps or None, stage.spacing)
        ]
        inside = (timesteps >= stage.guidance_low) & (timesteps <= stage.guidance_high)
        calls += len(timesteps) + (int(np.sum(inside)) if stage.guidance > 1 else 0)
    return calls


def check_pipeline(pipeline: Pipeline) -> Pipeline:
    """The pipeline itself; raises ValueError, naming the stage, for what cannot run: a respacing,
    sampler or spacing that does not exist, a start index or a number of steps that is not in it,
    numbers out of range."""
    if not pipeline.stages:
        raise ValueError("the pipeline has no stages; expected one or more")
    for number, stage in enumerate(pipeline.stages):
        try:
            # release: a start index past the end reads uninitialised memory; here: an error before
            # any work.
            Schedule(stage.respacing).check_index(stage.start_index)
        except ValueError as error:
            raise ValueError(f"stage {number}: {error}") from None
        if first_index(pipeline, number) < 1:
            raise ValueError(
                f"stage {number}: start index 0 leaves nothing to denoise; expected 1 or more"
            )
        _check_sampler(stage, first_index(pipeline, number), f"stage {number}")
        if not abs(stage.guidance) <= MAX_GUIDANCE:
            raise ValueError(
                f"stage {number}: guidance is {stage.guidance}; expected a number such as 3.5, at "
                f"most {MAX_GUIDANCE}"
            )
        check_eta(stage.eta, f"stage {number}")
    return pipeline


def _check_sampler(stage: Stage, available: int, where: str) -> None:
    for name, value, choices in (
        ("sampler", stage.sampler, SAMPLER_ETA),
        ("spacing", stage.spacing, SPACINGS),
    ):
        if value not in choices:
            raise ValueError(f"{where}: {name} is {value!r}; expected one of {', '.join(choices)}")
    if not 0 <= stage.steps <= available:
        raise ValueError(
            f"{where}: steps is {stage.steps}; expected 1 to {available}, the steps of "
            f"{stage.respacing or 'the full schedule'} from the start index down, or 0 for all of "
            "them"
        )
    fixed = SAMPLER_ETA[stage.sampler]
    if fixed is not None and stage.eta not in (0, fixed):
        others = ", ".join(name for name, eta in SAMPLER_ETA.items() if eta is None)
        raise ValueError(
            f"{where}: eta is {stage.eta}, but sampler {stage.sampler} means eta {fixed:g}; leave "
            f"eta out, or take {others}"
        )
    if not 0 <= stage.guidance_low <= stage.guidance_high < TIMESTEPS:
        raise ValueError(
            f"{where}: guidance_low is {stage.guidance_low} and guidance_high is "
            f"{stage.guidance_high}; expected original timesteps, 0 <= low <= high <= "
            f"{TIMESTEPS - 1}"
        )


def load_pipeline(path, base: str = "release") -> Pipeline:
    """The Pipeline that the JSON file describes; raises ValueError or FileNotFoundError in one line
    naming the file and the field.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f'stages file {path} {problem}; expected a JSON file with a list "stages"'
        )
    text = read_text(path, "stages file")
    try:
        table = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"stages file {path} is not JSON ({error}); see --help for an example"
        ) from None
    if isinstance(table, list):
        table = {"stages": table}
    if (
        not isinstance(table, dict)
        or not isinstance(table.get("stages"), list)
        or not table["stages"]
    ):
        raise ValueError(
            f'stages file {path}: expected an object with a list "stages" of at least one stage'
        )
    table = dict(table)
    name = table.pop("base", base)
    if not isinstance(name, str) or name not in PIPELINES:
        raise ValueError(
            f"stages file {path}: base {name!r} is no preset; expected one of "
            f"{', '.join(PIPELINES)}"
        )
    stages = tuple(
        _record(Stage, entry, f"stages file {path}, stage {i}")
        for i, entry in enumerate(table.pop("stages"))
    )
    pipeline = replace(
        PIPELINES[name], stages=stages, **_checked(Pipeline, table, f"stages file {path}")
    )
    try:
        return check_pipeline(pipeline)
    except ValueError as error:
        raise ValueError(f"stages file {path}, {error}") from None


def _record(kind, entry, where: str):
    if not isinstance(entry, dict):
        raise ValueError(
            f'{where}: expected an object such as {{"guidance": 3.5, "respacing": "ddim50", '
            '"start_index": 30}'
        )
    values = _checked(kind, entry, where)
    missing = [name for name in ("guidance", "respacing", "start_index") if name not in values]
    if missing:
        raise ValueError(
            f"{where}: {', '.join(missing)} missing; expected guidance, respacing and start_index"
        )
    return kind(**values)


def _checked(kind, entry: dict, where: str) -> dict:
    known = {
        field.name: str(getattr(field.type, "__name__", field.type))
        for field in fields(kind)
        if field.name != "stages"
    }
    for name, value in entry.items():
        if name not in known:
            raise ValueError(f"{where}: unknown field {name!r}; expected {', '.join(known)}")
        accepted = _TYPES[known[name]]
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise ValueError(f"{where}: {name} is {value!r}; expected {known[name]}")
    allowed = {"rounding": ("round", "truncate"), "jpeg_subsampling": ("4:4:4", "4:2:2", "4:2:0")}
    for name, choices in allowed.items():
        if name in entry and entry[name] not in choices:
            raise ValueError(
                f"{where}: {name} is {entry[name]!r}; expected one of {', '.join(choices)}"
            )
    if not 1 <= entry.get("jpeg_quality", 95) <= 100:
        raise ValueError(f"{where}: jpeg_quality is {entry['jpeg_quality']}; expected 1 to 100")
    return entry
