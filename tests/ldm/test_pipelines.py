"""The presets as rows of one table, number by number, and the --stages file."""

import dataclasses
import json

import numpy as np
import pytest
from support.refusals import refusal

from jseg.ldm.pipelines import (
    check_pipeline,
    first_index,
    load_pipeline,
    pipeline_named,
    stage_eta,
    stage_steps,
    unet_calls,
)
from jseg.ldm.presets import PIPELINES, SAMPLER_ETA, Pipeline, Stage
from jseg.ldm.schedule import Schedule

# The stages of the official test.py: guidance, respacing, start index, original t noised at, t
# first denoised at, square roots of alpha_bar there, denoising steps; and the same noise levels,
# denoising aligned with them, in the few steps of `fine`.
TABLE = {
    "release": [
        (3.5, "ddim500", 300, 600, 598, 0.159898, 0.161847, 300),
        (3.7, "ddim500", 320, 640, 638, 0.124433, 0.126051, 320),
        (3.7, "ddim50", 20, 400, 380, 0.439968, 0.476183, 20),
    ],
    "fine": [
        (3.5, "", 600, 600, 600, 0.159898, 0.159898, 8),
        (3.7, "", 640, 640, 640, 0.124433, 0.124433, 12),
        (3.7, "", 400, 400, 400, 0.439968, 0.439968, 12),
    ],
}
FAST = {"release": {}, "fine": {"sampler": "dpmpp_2m", "spacing": "quadratic"}}


def roots_of_alpha_bar():
    """sqrt(alpha_bar) of all 1000 steps, once more from the definition."""
    product, roots = 1.0, []
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        roots.append(product**0.5)
    return roots


@pytest.mark.parametrize("name, number", [(name, number) for name in TABLE for number in range(3)])
def test_stage_table(name, number):
    row = TABLE[name][number]
    guidance, respacing, start, noised, denoised, root_noised, root_denoised, steps = row
    stage, schedule = PIPELINES[name].stages[number], Schedule(respacing)
    fast = FAST[name] and {**FAST[name], "steps": steps}
    assert stage == Stage(guidance, respacing, start, color_transfer=number > 0, eta=0.0, **fast)
    assert stage_steps(PIPELINES[name], number) == steps
    first = first_index(PIPELINES[name], number) - 1  # the samplers visit it first
    assert (schedule.timesteps[stage.start_index], schedule.timesteps[first]) == (noised, denoised)
    roots = np.sqrt(schedule.alpha_bar[[stage.start_index, first]])
    assert np.abs(roots - [root_noised, root_denoised]).max() < 5e-7
    exact = np.array(roots_of_alpha_bar())[[noised, denoised]]
    assert np.abs(roots - exact).max() < 1e-12


def test_the_two_presets_differ_in_what_the_release_loses_and_in_how_many_steps_they_take():
    assert list(PIPELINES) == ["release", "fine"]
    release, fine = PIPELINES["release"], PIPELINES["fine"]
    for ours, theirs in zip(fine.stages, release.stages):
        assert (ours.guidance, ours.color_transfer) == (theirs.guidance, theirs.color_transfer)
        one, other = (Schedule(s.respacing).timesteps[s.start_index] for s in (ours, theirs))
        assert one == other
    # release: noises one index above the first that it denoises, JPEG between the stages,
    # truncation; here (fine): none of these.
    assert (release.aligned, release.float_handoff, release.rounding) == (False, False, "truncate")
    assert (fine.aligned, fine.float_handoff, fine.rounding) == (True, True, "round")
    assert (release.jpeg_quality, release.jpeg_subsampling) == (75, "4:2:0")
    assert sum(2 * stage_steps(release, number) for number in range(3)) == 600 + 640 + 40
    assert (unet_calls(release), unet_calls(fine)) == (1280, 64)


def test_a_preset_by_name_or_itself():
    for preset in ("fine", PIPELINES["fine"]):
        assert pipeline_named(preset) is PIPELINES["fine"]
    with pytest.raises(ValueError, match="preset 'best': expected one of release, fine"):
        pipeline_named("best")


def one(**fields):
    stage = Stage(**{"guidance": 3.5, "respacing": "ddim10", "start_index": 2, **fields})
    return Pipeline((stage,), False, False, "truncate")


# What the one line holds, and what is wrong with the stage.
REFUSED = {
    "stage 0: start index 10: expected an integer from 0 to 9, an index into the 10 steps "
    "of ddim10": dict(start_index=10),
    "stage 0: start index -1": dict(start_index=-1),
    "stage 0: start index 0 leaves nothing to denoise; expected 1 or more": dict(start_index=0),
    "stage 0: respacing 'ddim60': no integer stride": dict(respacing="ddim60"),
    "stage 0: respacing 'fast': expected": dict(respacing="fast"),
    "eta is -0.1; expected 0": dict(eta=-0.1),
    "eta is 1.5; expected 0": dict(eta=1.5),
    "eta is nan": dict(eta=float("nan")),
    "guidance is nan; expected a number": dict(guidance=float("nan")),
    "guidance is inf": dict(guidance=float("inf")),
    "guidance is 1000": dict(guidance=10**400),
    "stage 0: sampler is 'euler'; expected one of ddim, ancestral, dpmpp_2m, dpmpp_2m_sde": dict(
        sampler="euler"
    ),
    "stage 0: spacing is 'karras'; expected one of uniform, quadratic, lambda, rho": dict(
        spacing="karras"
    ),
    "stage 0: steps is 3; expected 1 to 2, the steps of ddim10 from the start index down, "
    "or 0 for all of them": dict(steps=3),
    "steps is -1; expected 1 to 2": dict(steps=-1),
    "eta is 0.5, but sampler ancestral means eta 1; leave eta out, or take ddim, dpmpp_2m": dict(
        sampler="ancestral", eta=0.5
    ),
    "guidance_low is 500 and guidance_high is 400; expected original timesteps, 0 <= low": dict(
        guidance_low=500, guidance_high=400
    ),
    "guidance_low is -1": dict(guidance_low=-1),
    "<= high <= 999": dict(guidance_high=1000),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_run_is_refused_before_any_work(message):
    assert message in refusal(check_pipeline, one(**REFUSED[message]), most=2000)


def test_a_pipeline_without_stages_is_refused():
    with pytest.raises(ValueError, match="no stages"):
        check_pipeline(dataclasses.replace(one(), stages=()))


def test_every_sampler_a_stage_may_name_is_there():
    from jseg.ldm.samplers import SAMPLERS

    assert list(SAMPLERS) == list(SAMPLER_ETA)
    assert [stage_eta(one(sampler=name, eta=0.0).stages[0]) for name in SAMPLERS] == [0, 1, 0, 1]
    assert stage_eta(one(sampler="ddim", eta=0.3).stages[0]) == 0.3


def test_calls_are_counted_as_the_release_runs_them():
    for pipeline, calls in (
        (PIPELINES["release"], 1280),
        (one(guidance=1.0), 2),
        (one(), 4),
        (one(guidance_low=50), 3),  # of t = 100 and 0
    ):
        assert unet_calls(pipeline) == calls


def test_the_last_index_and_index_0_where_aligned_are_allowed():
    assert check_pipeline(one(start_index=9)).stages[0].start_index == 9
    assert len(Schedule("ddim10")) == 10
    for start_index, steps in ((0, 1), (9, 10)):
        aligned = dataclasses.replace(one(start_index=start_index), aligned=True)
        assert stage_steps(check_pipeline(aligned), 0) == steps


def stages_file(folder, content):
    path = folder / "stages.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


STAGE = {"guidance": 3.5, "respacing": "ddim50", "start_index": 30}


def test_a_stages_file_takes_what_it_leaves_out_from_its_base(tmp_path):
    content = {
        "base": "fine",
        "jpeg_quality": 90,
        "stages": [STAGE, {**STAGE, "guidance": 4, "color_transfer": True, "eta": 0.5}],
    }
    expected = dataclasses.replace(
        PIPELINES["fine"],
        jpeg_quality=90,
        stages=(Stage(3.5, "ddim50", 30), Stage(4, "ddim50", 30, True, 0.5)),
    )
    assert load_pipeline(stages_file(tmp_path, content)) == expected
    assert load_pipeline(stages_file(tmp_path, "\ufeff" + json.dumps(content))) == expected
    release = dataclasses.replace(PIPELINES["release"], stages=(Stage(3.5, "ddim50", 30),))
    assert load_pipeline(stages_file(tmp_path, [STAGE])) == release
    assert load_pipeline(stages_file(tmp_path, [STAGE]), "fine").float_handoff


def test_a_stages_file_names_sampler_steps_spacing_and_interval(tmp_path):
    fields = {
        "sampler": "dpmpp_2m_sde",
        "steps": 12,
        "spacing": "rho",
        "guidance_low": 100,
        "guidance_high": 500,
    }
    stage = load_pipeline(stages_file(tmp_path, [{**STAGE, **fields}])).stages[0]
    assert stage == Stage(3.5, "ddim50", 30, **fields)


def test_the_presets_can_be_written_as_stages_files(tmp_path):
    for preset in PIPELINES.values():
        assert load_pipeline(stages_file(tmp_path, dataclasses.asdict(preset))) == preset


FIELDS = "expected guidance, respacing, start_index, color_transfer, eta"
# What the one line holds, and the fields of the file beside its stages.
PIPELINE_FIELDS = {
    "base 'best' is no preset; expected one of release, fine": {"base": "best"},
    "base ['fine'] is no preset": {"base": ["fine"]},
    "unknown field 'steps'; expected aligned, float_handoff": {"steps": 3},
    "rounding is 'floor'; expected one of round, truncate": {"rounding": "floor"},
    "jpeg_subsampling is '4:1:1'; expected one of 4:4:4": {"jpeg_subsampling": "4:1:1"},
    "jpeg_quality is 0; expected 1 to 100": {"jpeg_quality": 0},
}
# The same for the fields of a stage.
STAGE_FIELDS = {
    f"stage 0: unknown field 'start_t'; {FIELDS}": {"start_t": 5},
    "start_index is '30'; expected int": {"start_index": "30"},
    "start_index is True; expected int": {"start_index": True},
    "start_index is 30.0; expected int": {"start_index": 30.0},
    "guidance is None; expected float": {"guidance": None},
    "color_transfer is 1; expected bool": {"color_transfer": 1},
    "respacing is 50; expected str": {"respacing": 50},
    "steps is 'ten'; expected int": {"steps": "ten"},
    "sampler is 3; expected str": {"sampler": 3},
    "stage 0: steps is 31; expected 1 to 30": {"steps": 31},
    "spacing is 'x'; expected one of": {"spacing": "x"},
    "stage 0: start index 50: expected an integer from 0 to 49": {"start_index": 50},
    "stage 0: guidance is nan": {"guidance": float("nan")},
}
MISSING = "stage 1: respacing, start_index missing; expected guidance, respacing and start_index"
PLMS = "stage 1: sampler is 'plms'; expected one of ddim, ancestral"


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"stages": [], "stages": [1]}', "'stages' stands twice in one object"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("\0", "save it as UTF-8"),
        ("3", "expected an object with a list"),
        ({}, "expected an object with a list"),
        ([], "of at least one stage"),
        ({"stages": STAGE}, "expected an object with a list"),
        ([3], "stage 0: expected an object such as"),
        ([STAGE, {"guidance": 3.5}], MISSING),
        ([STAGE, {**STAGE, "sampler": "plms"}], PLMS),
        *(({**PIPELINE_FIELDS[text], "stages": [STAGE]}, text) for text in PIPELINE_FIELDS),
        *(([{**STAGE, **STAGE_FIELDS[text]}], text) for text in STAGE_FIELDS),
    ],
)
def test_a_wrong_stages_file_is_refused_in_one_line_with_its_name(tmp_path, content, message):
    path = stages_file(tmp_path, content)
    text = refusal(load_pipeline, path)
    assert text.startswith(f"stages file {path}") and message in text


def test_a_missing_stages_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json does not exist; expected a JSON file"):
        load_pipeline(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="is a folder; expected a JSON file"):
        load_pipeline(tmp_path)
