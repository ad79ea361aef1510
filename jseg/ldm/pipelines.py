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
_CHOICES = {
    "rounding": ("round", "truncate"),
    "jpeg_subsampling": ("4:4:4", "4:2:2", "4:2:0"),
}
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
        schedule, start = Schedule(stage.respacing), first_index(pipeline, number)
        t = schedule.timesteps[schedule.visited(start, stage.steps or None, stage.spacing)]
        inside = (t >= stage.guidance_low) & (t <= stage.guidance_high)
        calls += len(t) + (int(np.sum(inside)) if stage.guidance > 1 else 0)
    return calls


def check_pipeline(pipeline: Pipeline) -> Pipeline:
    """The pipeline itself, if it can run.

    Raises ValueError, naming the stage, for a respacing, sampler or spacing that does not exist, a
    start index or a number of steps that the respacing does not have, and numbers out of range.
    """
    if not pipeline.stages:
        raise ValueError("the pipeline has no stages; expected one or more")
    for number, stage in enumerate(pipeline.stages):
        where = f"stage {number}"

        # release: a start index past the end reads uninitialised memory; here: an error.
        try:
            Schedule(stage.respacing).check_index(stage.start_index)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if first_index(pipeline, number) < 1:
            raise ValueError(
                f"{where}: start index 0 leaves nothing to denoise; expected 1 or more"
            )

        _check_sampler(stage, first_index(pipeline, number), where)
        _check_guidance(stage, where)
        check_eta(stage.eta, where)
    return pipeline


def _check_sampler(stage: Stage, available: int, where: str) -> None:
    _check_choice("sampler", stage.sampler, SAMPLER_ETA, where)
    _check_choice("spacing", stage.spacing, SPACINGS, where)
    if not 0 <= stage.steps <= available:
        raise ValueError(
            f"{where}: steps is {stage.steps}; expected 1 to {available}, the steps of "
            f"{stage.respacing or 'the full schedule'} from the start index down, or 0 for all of "
            "them"
        )

    # The name of some samplers says their eta.
    fixed = SAMPLER_ETA[stage.sampler]
    if fixed is not None and stage.eta not in (0, fixed):
        others = ", ".join(name for name, eta in SAMPLER_ETA.items() if eta is None)
        raise ValueError(
            f"{where}: eta is {stage.eta}, but sampler {stage.sampler} means eta {fixed:g}; leave "
            f"eta out, or take {others}"
        )


def _check_guidance(stage: Stage, where: str) -> None:
    if not 0 <= stage.guidance_low <= stage.guidance_high < TIMESTEPS:
        raise ValueError(
            f"{where}: guidance_low is {stage.guidance_low} and guidance_high is "
            f"{stage.guidance_high}; expected original timesteps, 0 <= low <= high <= "
            f"{TIMESTEPS - 1}"
        )
    if not abs(stage.guidance) <= MAX_GUIDANCE:
        raise ValueError(
            f"{where}: guidance is {stage.guidance}; expected a number such as 3.5, at most "
            f"{MAX_GUIDANCE}"
        )


def _check_choice(name: str, value, choices, where: str) -> None:
    if value not in choices:
        raise ValueError(f"{where}: {name} is {value!r}; expected one of {', '.join(choices)}")


def load_pipeline(path, base: str = "release") -> Pipeline:
    """The Pipeline that the JSON file describes; raises ValueError or FileNotFoundError in one line
    naming the file and the field.
    """
    path = Path(path)
    where = f"stages file {path}"
    table = _stages_table(path)
    base = table.pop("base", base)
    if not isinstance(base, str) or base not in PIPELINES:
        raise ValueError(
            f"{where}: base {base!r} is no preset; expected one of {', '.join(PIPELINES)}"
        )

    stages = tuple(
        _stage(entry, f"{where}, stage {number}")
        for number, entry in enumerate(table.pop("stages"))
    )
    pipeline = replace(PIPELINES[base], stages=stages, **_fields(Pipeline, table, where))
    try:
        return check_pipeline(pipeline)
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from None


def _stages_table(path: Path) -> dict:
    """The file's object, which has a list "stages"; a list alone is taken for that."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f'stages file {path} {problem}; expected a JSON file with a list "stages"'
        )
    text = read_text(path, "stages file")
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"stages file {path} is not JSON ({error}); see --help for an example"
        ) from None

    table = {"stages": content} if isinstance(content, list) else content
    stages = table.get("stages") if isinstance(table, dict) else None
    if not isinstance(stages, list) or not stages:
        raise ValueError(
            f'stages file {path}: expected an object with a list "stages" of at least one stage'
        )
    return dict(table)


def _stage(entry, where: str) -> Stage:
    if not isinstance(entry, dict):
        raise ValueError(
            f'{where}: expected an object such as {{"guidance": 3.5, "respacing": "ddim50", '
            '"start_index": 30}'
        )
    values = _fields(Stage, entry, where)
    missing = [name for name in ("guidance", "respacing", "start_index") if name not in values]
    if missing:
        raise ValueError(
            f"{where}: {', '.join(missing)} missing; expected guidance, respacing and start_index"
        )
    return Stage(**values)


def _fields(kind, entry: dict, where: str) -> dict:
    """The entry, its names and values checked as fields of `kind`."""
    types = {
        field.name: str(getattr(field.type, "__name__", field.type))
        for field in fields(kind)
        if field.name != "stages"
    }
    for name, value in entry.items():
        if name not in types:
            raise ValueError(f"{where}: unknown field {name!r}; expected {', '.join(types)}")
        accepted = _TYPES[types[name]]
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise ValueError(f"{where}: {name} is {value!r}; expected {types[name]}")
        if name in _CHOICES:
            _check_choice(name, value, _CHOICES[name], where)

    if not 1 <= entry.get("jpeg_quality", 95) <= 100:
        raise ValueError(f"{where}: jpeg_quality is {entry['jpeg_quality']}; expected 1 to 100")
    return entry
