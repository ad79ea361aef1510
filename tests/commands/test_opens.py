"""A file that a command reads is opened at most twice: once to know it, once for what it holds."""

import dataclasses
import json

import pytest
from support.open_counter import opens
from support.small_flowseg import TINY, random_network, write_scenes
from support.tiny import STAGES, label_map, photograph, saved

from jseg.checkpoint import load, save
from jseg.data.classes import CLASS_SETS
from jseg.images import save_image
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.weights import SHIPPED_AUTOENCODER, encoder_digest

STEMS = ("a", "b", "c")
COLOURS = CLASS_SETS["landscape-29"].palette[::-1].copy()
TRAINING = "--preset tiny --steps 1 --batch_size 2 --preview_interval 0 --device cpu".split()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Inputs and weights of every command below."""
    root = tmp_path_factory.mktemp("opens")
    folders = ("test", "train/imgs", "train/labels", "coloured/imgs", "coloured/labels", "weights")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for number, stem in enumerate(STEMS):
        save_image(root / f"test/{stem}.png", label_map(number))
        save_image(root / f"train/labels/{stem}.png", label_map(number))
        save_image(root / f"train/imgs/{stem}.jpg", photograph(number))
        save_image(root / f"coloured/imgs/{stem}.jpg", photograph(number))
        save_image(root / f"coloured/labels/{stem}.png", COLOURS[label_map(number)])
    lines = [f"class{i} {r} {g} {b}" for i, (r, g, b) in enumerate(COLOURS.tolist())]
    (root / "classes.txt").write_text("\n".join(lines))
    pairs = {f"{stem}.png": f"{stem}.jpg" for stem in STEMS}
    (root / "test/label_to_img.json").write_text(json.dumps(pairs))
    (root / "stages.json").write_text(json.dumps(STAGES))
    write_scenes(root / "scenes/train", range(3))
    write_scenes(root / "scenes/val", (10,))

    # The UNet says which autoencoder it was trained with, as ours do.
    autoencoder = saved(root / "weights/autoencoder.npz", AUTOENCODERS["tiny"])
    unet = saved(root / "weights/plain.npz", UNETS["tiny"])
    settings = {"autoencoder": encoder_digest(autoencoder)}
    save(root / "weights/unet.safetensors", load(unet), UNETS["tiny"], settings=settings)
    state, landscape = random_network(TINY).state_dict(), dataclasses.replace(TINY, labels=29)
    save(root / "weights/flowseg.safetensors", state, TINY)
    save(root / "weights/landscape.safetensors", state, landscape)
    return root


@pytest.fixture(scope="module")
def counts(root):
    """{call: {path: opens}} of one call of every command."""
    weights = root / "weights"
    unet, autoencoder = weights / "unet.safetensors", weights / "autoencoder.npz"
    flowseg = weights / "flowseg.safetensors"
    inputs = ["--input_path", root / "test", "--img_path", root / "train", "--device", "cpu"]
    test = ["test", *inputs, "--stages", root / "stages.json", "--output_path", root / "results"]
    score = ["score", "--results", root / "results", "--labels", root / "test"]
    score += ["--references", root / "train", "--output", root / "scores", "--device", "cpu"]
    train = ["train", *TRAINING, "--ae_path", autoencoder, "--model_path", unet]
    plain = [*train, "--input_path", root / "train", "--cache", root / "cache"]
    coloured = [*train, "--input_path", root / "coloured", "--classes", root / "classes.txt"]
    return opens(
        {
            "test": [*test, "--model_path", unet, "--ae_path", autoencoder, "--grid"],
            "segment": ["segment", "--weights", flowseg, "--input", root / "scenes/val/images"]
            + ["--output", root / "labels", "--steps", 2, "--device", "cpu"],
            "score": [
                *score,
                "--flowseg",
                weights / "landscape.safetensors",
                "--cache",
                root / "features",
            ],
            "train": [*plain, "--output", root / "runs/unet"],
            "train again": [*plain, "--output", root / "runs/again"],
            "train coloured": [*coloured, "--fit", "crop", "--output", root / "runs/coloured"],
            "train_flowseg": ["train_flowseg", *TRAINING, "--data", root / "scenes"]
            + ["--layout", "folders", "--model_path", flowseg, "--output", root / "runs/flowseg"],
            "train_autoencoder": ["train_autoencoder", *TRAINING, "--input_path", root / "train"]
            + ["--model_path", autoencoder, "--output", root / "runs/autoencoder"],
        },
        root,
    )


@pytest.mark.parametrize(
    "call, names",
    (
        ("test", {"unet.safetensors", "autoencoder.npz"}),
        ("segment", {"flowseg.safetensors"}),
        ("score", {"landscape.safetensors"}),
        ("train", {"unet.safetensors", "autoencoder.npz"}),
        ("train_flowseg", {"flowseg.safetensors"}),
        ("train_autoencoder", {"autoencoder.npz"}),
    ),
)
def test_a_weight_file_is_opened_for_its_description_and_for_its_arrays(call, names, counts, root):
    files = {str(root / "weights" / name) for name in names}
    opened = {path: times for path, times in counts[call].items() if path in files}
    assert opened == dict.fromkeys(files, 2)
    assert counts[call].get(str(SHIPPED_AUTOENCODER), 0) == (2 if call == "score" else 0)


@pytest.mark.parametrize(
    "call, folder, times",
    (
        ("test", "test", {2}),  # checked, and made into an image; the grid reads none again
        ("test", "train/imgs", {2}),
        ("segment", "scenes/val/images", {2}),
        ("train", "train", {2}),  # checked and encoded
        ("train again", "train", {1}),  # checked: what it gives is in the cache
        ("train coloured", "coloured", {2}),
        ("train_flowseg", "scenes/train/images", {1, 2}),  # checked; in a step
        ("train_flowseg", "scenes/train/labels", {2, 3}),  # also to count the classes
        ("train_autoencoder", "train/imgs", {2, 3}),  # checked; in a step; for the latents
    ),
)
def test_an_image_or_label_map_is_opened_for_its_check_and_for_its_use(
    call, folder, times, counts, root
):
    """A batch of more than two is also tried for the memory that it takes, before the first
    step.
    """
    files = {str(path) for path in (root / folder).rglob("*") if path.suffix in (".jpg", ".png")}
    found = {path: counts[call].get(path, 0) for path in files}
    assert files and set(found.values()) <= times, found
