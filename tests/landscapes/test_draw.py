"""Procedural landscapes: seeds, sizes, labels, styles, the challenge's layout, and the renderer's
parts against slow oracles.
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.places import ROOT
from support.refusals import refusal

from jseg.commands import landscapes
from jseg.data.classes import CLASS_SETS
from jseg.landscapes import draw, ids
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.challenge_folder import write_challenge
from jseg.landscapes.draw import landscape
from jseg.landscapes.fractal import Grid, generator, perlin
from jseg.landscapes.scenes import KINDS, make_plan
from jseg.landscapes.style import make_style
from jseg.landscapes.terrain import View, first_reaching, look, normals
from jseg.landscapes.water import _mirrored

SIZE = dict(width=96, height=72)


@pytest.fixture(scope="module")
def gallery():
    """One image and label map of every kind of scene."""
    return {kind: landscape(seed, kind=kind, **SIZE) for seed, kind in enumerate(KINDS)}


def test_the_same_seed_gives_the_same_bytes_in_another_process_too(gallery):
    state = np.random.get_state()[1].tobytes()
    for seed, kind in ((0, "lake"), (10, "forest")):
        again = landscape(seed, kind=kind, **SIZE)
        assert list(KINDS)[seed] == kind
        assert all(np.array_equal(one, other) for one, other in zip(gallery[kind], again))
    code = (
        "import hashlib; import numpy as np; np.random.seed(9); from jseg.landscapes.draw import "
        "landscape; print([hashlib.sha256(part.tobytes()).hexdigest() for part in landscape(0, "
        "96, 72, kind='lake')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, PYTHONHASHSEED="7"),
        check=True,
    )
    assert done.stdout.strip() == str(
        [hashlib.sha256(part.tobytes()).hexdigest() for part in gallery["lake"]]
    )
    assert np.random.get_state()[1].tobytes() == state


def test_another_seed_is_another_scene(gallery):
    other = landscape(100, kind="lake", **SIZE)
    assert (other[1] != gallery["lake"][1]).mean() > 0.02
    assert np.abs(other[0].astype(int) - gallery["lake"][0]).mean() > 5


@pytest.mark.parametrize("kind", ["lake", "desert", "farm", "snow", "headland"])
def test_another_size_shows_the_same_scene(gallery, kind):
    image, label = landscape(list(KINDS).index(kind), 288, 216, kind=kind)
    small = np.array(Image.fromarray(label).resize((96, 72), Image.NEAREST))
    agreement = small == gallery[kind][1]
    assert agreement.mean() > 0.88
    for class_id in np.flatnonzero(np.bincount(small.ravel(), minlength=29) > 0.15 * small.size):
        union = (small == class_id) | (gallery[kind][1] == class_id)
        assert (agreement & (small == class_id)).sum() / union.sum() > 0.7, class_id
    shrunk = np.array(Image.fromarray(image).resize((96, 72), Image.BOX)).astype(int)
    assert np.abs(shrunk - gallery[kind][0]).mean() < 14


def test_images_and_labels_have_the_promised_form(gallery):
    for image, label in gallery.values():
        assert image.shape == (72, 96, 3)
        assert label.shape == (72, 96)
        assert image.dtype == label.dtype == np.uint8
        assert label.max() <= 28 and image.std() > 8
    for width, height in ((33, 20), (40, 90), (200, 50)):
        image, label = landscape(3, width, height)
        assert image.shape == (height, width, 3) and label.shape == (height, width)


def test_the_ids_are_the_challenge_s_and_every_class_occurs(gallery):
    assert [getattr(ids, name.upper()) for name in CLASS_SETS["landscape-29"].names] == list(
        range(29)
    )
    found = set(np.unique(np.concatenate([label.ravel() for _, label in gallery.values()])))
    homes = (
        "WATER waterfall, PERSON meadow, BOAT lake, WALL farm, PIER lake, BRIDGE river, "
        "RAILING sea, FENCE meadow, SHIP sea, HOUSE snow, OTHER farm, ROAD pass, RIVER river, "
        "EARTH forest, FIELD farm, PATH forest"
    )
    for name, kind in (home.split() for home in homes.split(", ")):
        for seed in range(200, 230):
            if getattr(ids, name) not in found:
                found |= set(np.unique(landscape(seed, kind=kind, **SIZE)[1]))
    assert sorted(found) == list(range(29))


def test_sky_is_above_ground(gallery):
    for kind, (_, label) in gallery.items():
        sky = label == ids.SKY
        assert sky.any(), kind
        rows = np.arange(72)[:, None] * np.ones(96)
        assert rows[sky].mean() < rows[~sky].mean() - 15, kind
        assert not sky[-3:].any(), kind
        gaps = (np.diff(sky.astype(int), axis=0) == 1).sum(
            axis=0
        )  # sky again below something: between leaves and arches only
        assert np.median(gaps) == 0, kind


def test_the_style_changes_the_image_and_never_the_label(gallery):
    for kind in ("lake", "snow", "forest", "waterfall"):
        seed = list(KINDS).index(kind)
        images = [landscape(seed, kind=kind, style_seed=style, **SIZE) for style in (1, 2, 3)]
        for image, label in images:
            assert np.array_equal(label, gallery[kind][1])
        assert not np.array_equal(images[0][0], images[1][0])


def test_styles_differ_in_their_colours(gallery):
    means = np.array(
        [
            landscape(1, 64, 48, kind="lake", style_seed=style)[0].reshape(-1, 3).mean(axis=0)
            for style in range(16)
        ]
    )
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)[np.triu_indices(16, 1)]
    assert np.median(distances) > 25 and distances.min() > 0.5 and np.ptp(means.mean(axis=1)) > 60
    assert len({make_style(seed).hour for seed in range(60)}) == 8
    assert len({make_style(seed).season for seed in range(60)}) == 4
    assert all(make_style(seed, wintry=True).season == "winter" for seed in range(20))


def test_water_is_the_colour_of_what_it_mirrors():
    """Lakes at another style take the sky's new colour with them."""
    ratios = []
    for style in range(8):
        image, label = landscape(2, kind="lake", style_seed=style, **SIZE)
        ratios.append((image[label == ids.SKY].mean(), image[label == ids.LAKE].mean()))
    sky, lake = np.array(ratios).T
    assert np.corrcoef(sky, lake)[0, 1] > 0.6


def test_impossible_arguments_get_one_line(tmp_path):
    for arguments, words in (
        (dict(seed=-1), "seed"),
        (dict(seed=0, width=8), "size"),
        (dict(seed=0, height=9000), "size"),
        (dict(seed=0, kind="moon"), "moon"),
    ):
        refusal(lambda: landscape(**arguments), match=words)
    with pytest.raises(ValueError, match="count"):
        write_challenge(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def read_challenge(folder):
    """A reader of the challenge's layout that shares no code with the package: [(label, reference,
    reference's label)].
    """
    with open(os.path.join(folder, "test", "label_to_img.json"), encoding="utf-8") as file:
        table = json.load(file)
    labels = os.path.join(folder, "test", "val_B_labels_resized")
    assert sorted(os.listdir(labels)) == sorted(table)
    triples = []
    for name in sorted(table):
        with Image.open(os.path.join(labels, name)) as label, Image.open(
            os.path.join(folder, "train", "imgs", table[name])
        ) as reference, Image.open(
            os.path.join(folder, "train", "labels", os.path.splitext(table[name])[0] + ".png")
        ) as other:
            assert label.mode == other.mode == "L"
            assert reference.mode == "RGB"
            assert label.format == "PNG"
            assert reference.format == "JPEG"
            triples.append((np.array(label), np.array(reference), np.array(other)))
    return triples


def test_the_challenge_s_layout(tmp_path):
    write_challenge(tmp_path, 3, seed=5, width=64, height=48)
    triples = read_challenge(tmp_path)
    assert len(triples) == 3
    for number, (label, reference, other) in enumerate(triples):
        assert np.array_equal(label, landscape(5 + number, 64, 48)[1])
        assert label.shape == other.shape == reference.shape[:2] == (48, 64) and label.max() <= 28
        assert not np.array_equal(label, other)  # the reference shows another scene
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_challenge(tmp_path, 3, seed=5, width=64, height=48)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = r"holds results of other settings \(count was 3, is 2\); give another --output"
    with pytest.raises(ValueError, match=said):
        write_challenge(tmp_path, 2, seed=5, width=64, height=48)


def test_an_interrupted_write_leaves_no_partial_file(tmp_path, monkeypatch):
    saved, plain = [], Image.Image.save

    def save(self, file, *arguments, **options):
        saved.append(file)
        if len(saved) == 5:  # in the middle of the second pair
            file.write(b"half an image")
            raise KeyboardInterrupt
        return plain(self, file, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        write_challenge(tmp_path, 3, width=64, height=48)
    monkeypatch.undo()
    files = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.name != "landscapes.json"
    ]
    assert len(files) == 4 and not (tmp_path / "test" / "label_to_img.json").exists()
    for path in files:
        with Image.open(path) as image:
            image.load()
    write_challenge(tmp_path, 3, width=64, height=48)
    assert len(read_challenge(tmp_path)) == 3


def test_the_command_writes_the_layout_and_a_sheet(tmp_path, capsys):
    folder, sheet = tmp_path / "out", tmp_path / "out" / "sheet.png"
    call = ["--output", str(folder), *"--count 4 --seed 2 --width 64 --height 48".split()]
    assert landscapes.main(call + ["--sheet", str(sheet)]) == 0
    assert len(read_challenge(folder)) == 4 and "wrote 4 pairs of 64x48" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.width > 500
    with pytest.raises(ValueError, match="--sheet"):
        landscapes.main(call + ["--sheet", "sheet.txt"])
    with pytest.raises(ValueError, match="--output"):
        landscapes.main(["--output", str(sheet)])


def test_visibility_against_a_loop():
    levels = generator(1, 2).uniform(-4, 24, (30, 7)).astype(np.float32)
    expected = [
        [next((i for i in range(30) if levels[i, column] <= row + 0.5), 30) for column in range(7)]
        for row in range(20)
    ]
    assert np.array_equal(first_reaching(levels, 20), expected)


def test_a_slope_is_seen_at_its_distance():
    view = View(40, 60, tan_half=0.5, horizon=0.4, eye=10.0)
    grid = Grid(np.linspace(np.log(8), np.log(3000), 900).astype(np.float32), view.columns())
    z = np.exp(grid.v)[:, None]
    height = np.broadcast_to(0.05 * z, (900, 40)).astype(
        np.float32
    )  # a plane that rises 5 % away from the camera
    sight = look(view, grid, height)
    up = view.tangents()
    assert np.array_equal(sight.sky[:, 0], up > (0.05 * 3000 - 10) / 3000)
    seen = np.exp(np.interp(sight.place[:, 5], np.arange(900), grid.v))
    visible = up < 0.03
    assert np.allclose(seen[visible], 10.0 / (0.05 - up[visible]), rtol=0.02)
    across = normals(np.broadcast_to(0.3 * z * grid.x, (900, 40)).astype(np.float32), grid)
    assert np.allclose(across, np.array([-0.3, 1, 0]) / np.hypot(0.3, 1), atol=0.01)


def test_noise_belongs_to_the_place_not_to_the_grid():
    def grid(steps):
        return Grid(
            np.linspace(1, 3, 2 * steps + 1).astype(np.float32),
            np.linspace(-2, 2, 4 * steps + 1).astype(np.float32),
        )

    coarse, fine = grid(10), grid(40)
    assert np.allclose(perlin(5, coarse, 3.3), perlin(5, fine, 3.3)[::4, ::4], atol=1e-5)
    wide = perlin(
        5,
        Grid(
            np.linspace(0, 60, 400).astype(np.float32), np.linspace(0, 60, 400).astype(np.float32)
        ),
        1.0,
    )
    assert abs(wide.mean()) < 0.02 and 0.3 < wide.std() < 0.6
    assert not np.allclose(perlin(6, coarse, 3.3), perlin(5, coarse, 3.3))


def a_calm_lake():
    """A canvas over level water from 10 m to the horizon, with an even sky, and the view onto
    it.
    """
    view = View(60, 80, tan_half=0.5, horizon=0.5, eye=2.0)
    grid = Grid(np.linspace(np.log(2), np.log(30000), 1500).astype(np.float32), view.columns())
    flat = np.zeros(grid.shape, np.float32)
    sky = np.full((80, 60, 3), 0.5, np.float32)
    return view, Canvas(
        view,
        make_style(0),
        look(view, grid, flat),
        grid,
        np.full(grid.shape, ids.LAKE, np.uint8),
        sky,
        sky,
        sky[..., 0],
    )


def test_a_post_in_calm_water_is_mirrored_about_its_foot():
    view, canvas = a_calm_lake()
    canvas.image[canvas.label == ids.LAKE] = 0
    (left, foot), (right, top) = canvas.place(-1.5, 20.0, 0.0), canvas.place(1.5, 20.0, 3.0)
    canvas.polygon(
        [(left, foot), (right, foot), (right, top), (left, top)],
        np.float32([40, 0, 0]),
        20.0,
        ids.BOAT,
    )
    mirrored = _mirrored(canvas, canvas.label_ground == ids.LAKE, 0.0)
    column = mirrored[:, 30, 0] - mirrored[:, 30, 1]
    rows = np.flatnonzero(column > 1)
    rows = rows[rows >= int(foot)]  # above its foot the post itself hides the water
    assert abs(rows.min() - foot) <= 1.5
    assert abs(rows.max() + 1 - view.row_of(np.float64(-(3.0 + 2.0) / 20))) <= 1.5
    assert np.allclose(mirrored[-1, 2], 0.5, atol=1e-3)  # elsewhere the sky


def test_a_label_is_the_surface_that_covers_most_of_the_pixel():
    _, canvas = a_calm_lake()
    box = [(10.3, 5.65), (20.75, 5.65), (20.75, 15.35), (10.3, 15.35)]
    canvas.polygon(box, np.float32([9, 0, 0]), 50.0, ids.HOUSE)
    house = canvas.label == ids.HOUSE
    assert (
        house[6:15, 10:21].all() and house.sum() == 9 * 11
    )  # 5.65..15.35 -> rows 6..14, 10.3..20.75 -> columns 10..20
    touched = np.abs(canvas.image - 0.5).max(axis=2) > 1e-3
    assert not touched[:, :10].any() and not touched[:5].any() and not touched[:, 21:].any()
    canvas.polygon(box, np.float32([0, 9, 0]), 60.0, ids.BUILDING)  # farther away: hidden
    assert not (canvas.label == ids.BUILDING).any()


def test_plans_are_plain_numbers_and_every_kind_is_drawn_by_chance():
    assert {make_plan(seed).kind for seed in range(150)} >= set(
        "lake shore sea river meadow farm desert forest snow".split()
    )
    assert make_plan(4) == make_plan(4) != make_plan(5)
    assert 0 < draw.REFERENCE_SEEDS < 1 << 31
