"""The stages: what is noised, denoised and handed over, against stubs with closed forms; and the
Synthesizer on tiny networks.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from support.refusals import refusal
from support.tiny import FINE, HEIGHT, RELEASE, WIDTH, label_map, photograph, saved, weights

from jseg import checkpoint
from jseg.ldm import low_memory, modulations, refine
from jseg.ldm.color import transfer, transfer_signed
from jseg.ldm.pipelines import unet_calls
from jseg.ldm.presets import AUTOENCODERS, PIPELINES, UNETS, Pipeline, Stage
from jseg.ldm.refine import Synthesizer
from jseg.ldm.samplers import guided
from jseg.ldm.schedule import Schedule
from jseg.noise import normal
from jseg.runtime import jt


class StubAutoencoder:
    """Latent = means of 4x4 pixels, image = latent enlarged; what it was given is kept."""

    def __init__(self):
        self.config, self.encoded, self.decoded = AUTOENCODERS["tiny"], [], []

    def eval(self):
        pass

    def encode(self, image):
        self.encoded.append(image.numpy()[0])
        return image.reshape(1, 3, HEIGHT // 4, 4, WIDTH // 4, 4).mean((3, 5))

    def decode(self, z):
        image = np.repeat(np.repeat(z.numpy(), 4, 2), 4, 3)
        self.decoded.append(image[0])
        return jt.array(image)


class StubUNet:
    """Predicts no noise at all; every call's (first latent value, t, maps in the decoder's batch)
    is kept.
    """

    def __init__(self):
        self.config, self.calls = UNETS["tiny"], []

    def eval(self):
        pass

    def condition(self, y, low):
        return [((y, y), (y, y))]

    def with_null(self, y, conditions):
        return self.condition(jt.concat([y, jt.zeros(y.shape)], dim=0), False)

    def encode(self, x, t):
        self.calls.append([x.numpy(), int(t.numpy()[0])])
        return x

    def decode(self, x, modulations, variance):
        assert variance is False
        self.calls[-1].append(modulations[0][0][0].shape[0] // x.shape[0])
        return jt.zeros((modulations[0][0][0].shape[0],) + tuple(x.shape[1:]))


def stubbed(pipeline):
    return Synthesizer(StubUNet(), StubAutoencoder(), pipeline)


def latent_label(seed=0):
    return label_map(seed)[::4, ::4]


def run(synthesizer, labels, references, seed=0, stems=None):
    return list(
        synthesizer.run(labels, references, seed, stems or [str(i) for i in range(len(labels))])
    )


# -- what is noised and denoised -------------------------------------------------------------------

# t noised at, t first and last denoised at, steps
ORIGINAL_T = {
    "release": [(600, 598, 0, 300), (640, 638, 0, 320), (400, 380, 0, 20)],
    "fine": [(600, 600, 8, 8), (640, 640, 3, 12), (400, 400, 2, 12)],
}


@pytest.mark.parametrize("name", ["release", "fine"])
def test_every_stage_is_run_as_its_row_says(name):
    synthesizer = stubbed(PIPELINES[name])
    reports = run(synthesizer, [latent_label()], [photograph(0)], seed=7, stems=["x"])
    calls, alpha_bar = synthesizer.unet.calls, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert len(calls) == sum(steps for *_, steps in ORIGINAL_T[name])
    # Two plain forwards per guided step: 600 + 640 + 40 for the release. Here one encoder pass and
    # a doubled decoder batch.
    assert sum(passes for _, _, passes in calls) == 2 * len(calls)
    position = 0
    for number, (noised, first, last, steps) in enumerate(ORIGINAL_T[name]):
        x, t, _ = calls[position]
        assert t == first and calls[position + steps - 1][1] == last
        image = synthesizer.autoencoder.encoded[number].astype(np.float64)
        z = image.reshape(3, HEIGHT // 4, 4, WIDTH // 4, 4).mean((2, 4))
        expected = np.sqrt(alpha_bar[noised]) * z + np.sqrt(1 - alpha_bar[noised]) * normal(
            7, "x", number, z.shape
        )
        assert np.abs(x[0] - expected).max() < 1e-5
        position += steps
    told = [
        (report.stage, report.step, report.steps, report.images is not None) for report in reports
    ]
    assert told == [
        entry
        for number, (*_, steps) in enumerate(ORIGINAL_T[name])
        for entry in [(number, step, steps, False) for step in range(1, steps + 1)]
        + [(number, steps, steps, True)]
    ]


def test_an_unguided_stage_is_one_pass_and_eta_draws_its_own_noise(monkeypatch):
    drawn = []
    monkeypatch.setattr(refine, "normal", lambda *key: drawn.append(key) or normal(*key))
    pipeline = dataclasses.replace(
        RELEASE, stages=(Stage(1.0, "ddim10", 3, eta=1.0), Stage(3.7, "ddim10", 2))
    )
    synthesizer = stubbed(pipeline)
    run(synthesizer, [latent_label()] * 2, [photograph(0)] * 2, 3, ["x", "y"])
    assert [passes for _, _, passes in synthesizer.unet.calls] == [1, 1, 1, 2, 2]
    shape = (3, HEIGHT // 4, WIDTH // 4)
    assert [key[:3] for key in drawn] == [
        (3, stem, stage) for stage in (0, "0.2", "0.1", 1) for stem in "xy"
    ]
    assert {tuple(key[3]) for key in drawn} == {shape}


def test_a_stage_takes_its_sampler_steps_spacing_and_interval(monkeypatch):
    drawn = []
    monkeypatch.setattr(refine, "normal", lambda *key: drawn.append(key[:3]) or normal(*key))
    stages = (
        Stage(
            3.7, "ddim500", 300, sampler="dpmpp_2m", steps=4, guidance_low=200, guidance_high=460
        ),
        Stage(3.7, "", 400, sampler="dpmpp_2m_sde", steps=3, spacing="lambda"),
        Stage(3.7, "ddim50", 20, sampler="ancestral", steps=2),
    )
    synthesizer = stubbed(dataclasses.replace(FINE, stages=stages))
    reports = run(synthesizer, [latent_label()], [photograph(0)], 3, ["x"])
    calls = [(t, passes) for _, t, passes in synthesizer.unet.calls]
    assert [t for t, _ in calls] == [
        600,
        450,
        300,
        148,
        400,
        int(Schedule().visited(401, 3, "lambda")[1]),
        0,
        400,
        200,
    ]
    assert [passes for _, passes in calls] == [1, 2, 2, 1, 2, 2, 2, 2, 2]  # 9 steps, 16 passes
    assert sum(passes for _, passes in calls) == unet_calls(synthesizer.pipeline) == 16
    middle = Schedule().visited(401, 3, "lambda")[1]
    assert drawn == [(3, "x", stage) for stage in (0, 1, "1.400", f"1.{middle}", 2, "2.20")]
    assert [report.steps for report in reports if report.images] == [4, 3, 2]


# -- the hand-over ---------------------------------------------------------------------------------


def jpeg(image):
    """Pillow's own defaults, as the release saves: quality 75, chroma halved."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG")
    return np.array(Image.open(buffer))


def signed(image):
    return (image.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)


def test_the_release_loses_four_times(monkeypatch):
    trips = []
    real = refine.jpeg_round_trip
    monkeypatch.setattr(
        refine, "jpeg_round_trip", lambda *given: trips.append(given) or real(*given)
    )
    pipeline = dataclasses.replace(
        PIPELINES["release"],
        stages=tuple(
            dataclasses.replace(stage, respacing="ddim10", start_index=2)
            for stage in PIPELINES["release"].stages
        ),
    )
    reference, synthesizer = photograph(3), stubbed(pipeline)
    finished = [
        report.images[0]
        for report in run(synthesizer, [latent_label()], [reference])
        if report.images
    ]
    assert len(trips) == 4 and {len(given) for given in trips} == {1}
    autoencoder = synthesizer.autoencoder
    assert np.array_equal(autoencoder.encoded[0], signed(reference))
    for number in range(3):
        # release: `(255 * ((x + 1) / 2)).clamp(0, 255)` and a cast, which truncates.
        truncated = (
            (255 * ((autoencoder.decoded[number] + np.float32(1)) / np.float32(2)))
            .clip(0, 255)
            .transpose(1, 2, 0)
            .astype(np.uint8)
        )
        assert np.array_equal(finished[number], truncated)
        if number < 2:
            assert (
                np.abs(
                    autoencoder.encoded[number + 1]
                    - signed(jpeg(transfer(jpeg(truncated), reference)))
                ).max()
                < 1e-6
            )


def test_fine_loses_nothing_between_the_stages(monkeypatch):
    monkeypatch.setattr(
        refine, "jpeg_round_trip", lambda *given: pytest.fail("a JPEG between the stages")
    )
    reference, synthesizer = photograph(3), stubbed(FINE)
    finished = [
        report.images[0]
        for report in run(synthesizer, [latent_label()], [reference])
        if report.images
    ]
    autoencoder = synthesizer.autoencoder
    expected = transfer_signed(autoencoder.decoded[0].clip(-1, 1), reference).clip(-1, 1)
    assert np.abs(autoencoder.encoded[1] - expected).max() < 1e-6
    levels = np.rint((autoencoder.decoded[1].clip(-1, 1) + 1) * 127.5).transpose(1, 2, 0)
    assert np.abs(finished[1] - levels).max() <= 1 and (finished[1] == levels).mean() > 0.999


@pytest.mark.parametrize("pipeline, trips", [(RELEASE, 1), (FINE, 0)])
def test_without_colour_transfer_the_image_is_handed_over_as_it_is(monkeypatch, pipeline, trips):
    count = []
    real = refine.jpeg_round_trip
    monkeypatch.setattr(refine, "jpeg_round_trip", lambda *given: count.append(1) or real(*given))
    synthesizer = stubbed(dataclasses.replace(pipeline, stages=(pipeline.stages[0],) * 2))
    finished = run(synthesizer, [latent_label()], [photograph(3)])[
        2 + int(pipeline.aligned)
    ].images[0]
    expected = signed(jpeg(finished)) if trips else synthesizer.autoencoder.decoded[0].clip(-1, 1)
    assert len(count) == trips
    assert np.abs(synthesizer.autoencoder.encoded[1] - expected).max() < 1e-6


# -- the Synthesizer -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthesizer(weights):
    return Synthesizer.from_files(*weights, RELEASE, device="cpu")


def test_from_files_rebuilds_the_networks_and_the_sizes(synthesizer):
    assert (synthesizer.unet.config, synthesizer.autoencoder.config) == (
        UNETS["tiny"],
        AUTOENCODERS["tiny"],
    )
    assert synthesizer.latent_size == (16, 12)
    assert synthesizer.size == (WIDTH, HEIGHT)
    assert synthesizer.pipeline == RELEASE


def test_from_files_takes_a_preset_by_name(weights):
    assert Synthesizer.from_files(*weights).pipeline == PIPELINES["release"]
    assert Synthesizer.from_files(*weights, preset="fine").pipeline == PIPELINES["fine"]
    with pytest.raises(ValueError, match="expected one of release, fine"):
        Synthesizer.from_files(*weights, preset="best")
    said = "none.pkl does not exist; put the official weights"
    with pytest.raises(FileNotFoundError, match=said):
        Synthesizer.from_files("none.pkl", weights[1])
    with pytest.raises(checkpoint.CheckpointError, match="swapped"):
        Synthesizer.from_files(*weights[::-1])


def test_networks_that_do_not_go_together_are_refused(weights, tmp_path):
    four = saved(
        tmp_path / "four.npz", dataclasses.replace(AUTOENCODERS["tiny"], latent_channels=4)
    )
    gray = saved(
        tmp_path / "gray.npz", dataclasses.replace(AUTOENCODERS["tiny"], picture_channels=1)
    )
    odd = saved(tmp_path / "odd.npz", dataclasses.replace(UNETS["tiny"], height=13))
    for model, autoencoder, message in (
        (weights[0], four, "makes 4 of"),
        (weights[0], gray, "images with 1;"),
        (odd, weights[1], "latent size is 16x13; expected multiples of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            Synthesizer.from_files(model, autoencoder, RELEASE, "cpu")


def test_the_same_arguments_give_the_same_image_and_others_another(synthesizer):
    label, reference = label_map(0), photograph(0)
    image = synthesizer.synthesize(label, reference)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and image.std() > 5
    assert np.array_equal(
        image, synthesizer.synthesize(label.copy(), reference.copy(), seed=0, stem="x")
    )
    for other in (
        dict(seed=1),
        dict(stem="y"),
        dict(label=label_map(1)),
        dict(reference=photograph(1)),
    ):
        assert not np.array_equal(
            image, synthesizer.synthesize(**{"label": label, "reference": reference, **other})
        )


def test_sizes_of_the_same_aspect_are_resized(synthesizer):
    label, reference = label_map(0), photograph(0)
    large = np.asarray(Image.fromarray(reference).resize((128, 96), Image.LANCZOS))
    expected = synthesizer.synthesize(
        label, np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.LANCZOS))
    )
    wide = np.asarray(Image.fromarray(latent_label()).resize((160, 120), Image.NEAREST))
    small = np.asarray(Image.fromarray(label).resize((16, 12), Image.NEAREST))
    assert np.array_equal(expected, synthesizer.synthesize(small.astype(np.int64), large))
    assert np.array_equal(
        np.asarray(Image.fromarray(wide).resize((16, 12), Image.NEAREST)), latent_label()
    )
    assert np.array_equal(
        synthesizer.synthesize(wide, reference), synthesizer.synthesize(latent_label(), reference)
    )


def test_255_means_that_nothing_is_known(synthesizer):
    label = latent_label().copy()
    label[:6] = 255
    assert not np.array_equal(
        synthesizer.synthesize(label, photograph(0)),
        synthesizer.synthesize(latent_label(), photograph(0)),
    )


def zeros(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


ASPECT = "expected the aspect ratio of 64x48"


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("label", zeros(48, 64, 1), "label of shape (48, 64, 1)"),
        ("label", zeros(0, 0), "shape (0, 0)"),
        ("reference", zeros(48, 64), "reference of shape (48, 64)"),
        ("reference", zeros(48, 64, 4), "expected [h, w] class ids and [h, w, 3] RGB"),
        ("label", None, "label of shape ()"),
        ("label", zeros(48, 64, dtype=float), "label of type float64"),
        (
            "reference",
            zeros(48, 64, 3, dtype="f4"),
            "of type float32; expected integers, and uint8",
        ),
        ("label", zeros(64, 64), f"the label is 64x64; {ASPECT}"),
        ("reference", zeros(64, 48, 3), f"the reference is 48x64; {ASPECT}; crop it"),
        ("label", zeros(48, 64) + 29, "holds ids [29]; expected 0 to 28, or 255"),
        ("label", np.full((48, 64), -1, np.int64), "holds ids [-1]"),
        ("label", np.full((48, 64), 256 + 3), "holds ids [259]"),
        ("seed", -1, "seed is -1"),
        ("seed", 0.5, "seed is 0.5"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(synthesizer, name, value, message):
    arguments = {"label": label_map(0), "reference": photograph(0), name: value}
    assert message in refusal(synthesizer.synthesize, **arguments)


@pytest.mark.parametrize("pipeline", [RELEASE, FINE])
def test_the_batch_size_does_not_matter(weights, pipeline, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        refine, "normal", lambda *key: drawn.append((key[:3], normal(*key))) or drawn[-1][1]
    )
    synthesizer = Synthesizer.from_files(*weights, pipeline, "cpu")
    labels = [latent_label(i) for i in range(3)]
    references = [photograph(i) for i in range(3)]
    stems = ["a", "b", "c"]
    together = [
        report.images for report in run(synthesizer, labels, references, 5, stems) if report.images
    ][-1]
    noise, drawn[:] = dict(drawn), []
    alone = [
        run(synthesizer, labels[i : i + 1], references[i : i + 1], 5, stems[i : i + 1])[-1].images[
            0
        ]
        for i in range(3)
    ]
    assert len(noise) == 6 and sorted(map(str, noise)) == sorted(str(key) for key, _ in drawn)
    assert all(np.array_equal(values, noise[key]) for key, values in drawn)
    difference = np.abs(np.stack(together).astype(int) - np.stack(alone))
    assert (difference <= 1).mean() >= 0.999, (
        f"{(difference > 1).sum()} of {difference.size} values differ by more than a level"
    )


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "ancestral"])
def test_the_noise_of_a_stochastic_sampler_is_an_image_s_own(weights, sampler):
    pipeline = dataclasses.replace(
        FINE, stages=(Stage(3.5, "ddim50", 30, sampler=sampler, steps=3),)
    )
    synthesizer = Synthesizer.from_files(*weights, pipeline, "cpu")
    labels = [latent_label(i) for i in range(3)]
    references = [photograph(i) for i in range(3)]
    stems = ["a", "b", "c"]
    together = run(synthesizer, labels, references, 5, stems)[-1].images
    alone = [
        run(synthesizer, labels[i : i + 1], references[i : i + 1], 5, stems[i : i + 1])[-1].images[
            0
        ]
        for i in range(3)
    ]
    assert (np.abs(np.stack(together).astype(int) - np.stack(alone)) <= 1).mean() >= 0.999
    other = run(synthesizer, labels[:1], references[:1], 6, stems[:1])[-1].images[0]
    assert (np.abs(other.astype(int) - alone[0]) > 1).mean() > 0.1


def test_a_pipeline_without_stages_is_refused(weights):
    with pytest.raises(ValueError, match="no stages"):
        Synthesizer.from_files(*weights, Pipeline((), False, False, "truncate"))


# -- memory ----------------------------------------------------------------------------------------


def test_little_memory_makes_the_same_images(weights, monkeypatch):
    """Two label maps at a time, in every stage."""
    monkeypatch.setattr(modulations, "KEPT_POSITIONS", 50)
    again, images = [], {}
    condition = modulations.OnDemand.modulations
    monkeypatch.setattr(
        modulations.OnDemand, "modulations", lambda self: (again.append(1), condition(self))[1]
    )
    labels, references = [latent_label(0), latent_label(1)], [photograph(3), photograph(4)]
    for memory in ("full", "low"):
        synthesizer = Synthesizer.from_files(*weights, RELEASE, "cpu", memory)
        images[memory] = run(synthesizer, labels, references)[-1].images
        assert bool(again) == (memory == "low")
    assert np.array_equal(images["low"], images["full"])


def test_auto_asks_for_every_batch(monkeypatch):
    free, taken = [], []
    monkeypatch.setattr(low_memory, "free_bytes", lambda: free[0])

    def recorded(*arguments):
        taken.append(arguments[-1])
        return guided(*arguments)

    monkeypatch.setattr(refine, "guided", recorded)
    synthesizer = stubbed(RELEASE)
    for free[:], low in (([0], True), ([1 << 40], False)):
        run(synthesizer, [latent_label()], [photograph(3)])
        assert set(taken) == {low}
        taken.clear()


def test_another_word_for_memory_is_refused_before_any_weights():
    with pytest.raises(ValueError, match="memory 'some': expected auto, full or low"):
        Synthesizer.from_files("none.pkl", "none.pkl", memory="some")
