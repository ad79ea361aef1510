import numpy as np
import pytest

from jseg.images import save_image
from jseg.ldm.dataset import BatchShards, ImageBatches, LatentBatches

LATENTS = np.arange(6 * 3 * 2 * 2, dtype=np.float32).reshape(6, 3, 2, 2)
LABELS = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)


def joined(batches, step):
    """All micro-batches of a step as one dict, and the sum of their fractions."""
    parts = list(batches(step))
    keys = [key for key in parts[0][0] if isinstance(parts[0][0][key], np.ndarray)]
    return {key: np.concatenate([part[key] for part, _ in parts]) for key in keys}, sum(
        share for _, share in parts
    )


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_are_the_batch_cut(micro_batch):
    whole, share = joined(LatentBatches(LATENTS, LABELS, BatchShards(8, 8), seed=3), 5)
    cut, fractions = joined(LatentBatches(LATENTS, LABELS, BatchShards(8, micro_batch), seed=3), 5)
    assert share == fractions == pytest.approx(1)
    for key, value in whole.items():
        assert np.array_equal(cut[key], value)


def test_processes_together_see_the_batch():
    whole, _ = joined(LatentBatches(LATENTS, LABELS, BatchShards(8, 2), seed=3), 5)
    parts = [
        joined(LatentBatches(LATENTS, LABELS, BatchShards(8, 2, rank, 2), seed=3), 5)
        for rank in range(2)
    ]
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert sorted(np.concatenate([part["t"] for part, _ in parts])) == sorted(whole["t"])


def test_latents_go_with_their_labels():
    batch, _ = joined(LatentBatches(LATENTS, LABELS, BatchShards(40, 40), seed=0, drop=0.0), 0)
    number = batch["z"][:, 0, 0, 0] / 12
    assert np.array_equal(batch["labels"][:, 0, 0], 4 * number)
    assert sorted(set(number)) == list(range(6))


def test_timesteps_noise_and_drops_have_their_distributions():
    batches = LatentBatches(LATENTS, LABELS, BatchShards(64, 64), seed=1, drop=0.25)
    found = [joined(batches, step)[0] for step in range(40)]
    t, noise = np.concatenate([f["t"] for f in found]), np.concatenate([f["noise"] for f in found])
    dropped = np.concatenate([(f["labels"] == 255).all((1, 2)) for f in found])
    assert t.min() < 10 and t.max() > 989 and abs(t.mean() - 499.5) < 20
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert abs(dropped.mean() - 0.25) < 0.04
    assert abs(np.corrcoef(t, dropped)[0, 1]) < 0.06


def test_a_step_repeats_itself_and_no_other():
    first, again = (
        joined(LatentBatches(LATENTS, LABELS, BatchShards(4, 2), seed=1), 7)[0] for _ in range(2)
    )
    assert all(np.array_equal(first[key], again[key]) for key in first)
    for seed, step in ((1, 8), (2, 7)):
        other, _ = joined(LatentBatches(LATENTS, LABELS, BatchShards(4, 2), seed=seed), step)
        assert not np.array_equal(other["noise"], first["noise"])


@pytest.fixture
def images(tmp_path):
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([rows * 4, columns * 3, 0 * rows], -1).astype(np.uint8)
    save_image(tmp_path / "a.png", image)
    return [tmp_path / "a.png"]


def test_crops_lie_within_the_scaled_image_and_half_are_mirrored(images):
    batches = ImageBatches(images, (80, 60), (20, 16), BatchShards(64, 16), seed=0)
    crops, _ = joined(batches, 0)
    crops = crops["images"]
    assert crops.shape == (64, 3, 16, 20) and crops.min() >= -1 and crops.max() <= 1
    slope = crops[:, 1, 0, -1] - crops[:, 1, 0, 0]  # green grows to the right unless mirrored
    assert 16 < (slope < 0).sum() < 48 and np.allclose(np.abs(slope), 19 * 3 / 127.5, atol=1e-5)
    assert np.all(crops[:, 0, -1] > crops[:, 0, 0])  # never upside down
    assert len(set(crops[:, 0, 0, 0])) > 10
    assert len(set(np.minimum(crops[:, 1, 0, 0], crops[:, 1, 0, -1]))) > 10


def test_an_image_of_another_size_is_scaled_to_cover(images):
    crops, _ = joined(ImageBatches(images, (40, 40), (40, 40), BatchShards(2, 2), seed=0), 0)
    red = (crops["images"][0, 0] + 1) * 127.5 / 4  # the row of the image, at 2/3 of the size
    assert red[0, 0] < 2 and red[-1, 0] > 57
