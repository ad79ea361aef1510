"""The inference command on sound inputs: which images are made, in which order and batches, the
contact sheet, the same from Python.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from support.tiny import (
    FINE,
    HEIGHT,
    RELEASE,
    STAGES,
    WIDTH,
    challenge,
    label_map,
    photograph,
    stubbed,
    weights,
)

from jseg import contact_sheet, images, noise
from jseg.checkpoint import describe, save
from jseg.commands import test as command
from jseg.counting import counted
from jseg.data.classes import CLASS_SETS, ClassSet, spread_palette
from jseg.data.label_maps import read_label
from jseg.ldm import grid, refine
from jseg.ldm.refine import Synthesizer

STEMS = ["03", "1", "10", "2", "b.1", "b.2"]  # sorted as the command sorts: by name, digit by digit


@pytest.mark.parametrize("count, batches", [(1, [1]), (4, [4]), (5, [5]), (6, [5, 1])])
def test_every_label_gets_its_image_in_order_once(challenge, stubbed, count, batches):
    shutil.rmtree(str(challenge.labels))
    challenge.labels.mkdir()
    challenge.fill(*reversed(STEMS[:count]))
    code, lines = challenge.run(batch_size=5)
    assert code == 0
    assert list(challenge.results()) == sorted(f"{stem}.jpg" for stem in STEMS[:count])
    # release: drops the partial batch, sorts as os.listdir does and cuts names at the first dot;
    # here: none of these.
    assert [len(batch) for batch in stubbed] == batches and sum(stubbed, []) == STEMS[:count]
    assert f"{count} of {count} images" in lines[-2]
    said = counted(count, "image[s]")
    assert lines[-1].startswith(f"jseg test: {said} in {challenge.output}")


def test_1000_and_1001_inputs(challenge, stubbed, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda handle: None
    )  # a thousand of them would take long, and no power cut is expected
    stems = [f"{number:04d}" for number in range(998)]
    for stem in stems:
        shutil.copy(str(challenge.labels / "a.png"), str(challenge.labels / f"{stem}.png"))
    challenge.table.write_text(
        json.dumps({f"{stem}.png": "ref_a.jpg" for stem in stems + ["a", "b", "c"]})
    )
    assert challenge.run(batch_size=5, limit=1000)[0] == 0
    first = challenge.results()
    assert len(first) == 1000 and [len(batch) for batch in stubbed] == [5] * 200
    code, lines = challenge.run(batch_size=5)
    assert code == 0 and len(challenge.results()) == 1001 and stubbed[200:] == [["c"]]
    assert (
        lines[0] == f"jseg test: 1000 of 1001 images are in {challenge.output} already and are kept"
    )
    assert {name: data for name, data in challenge.results().items() if name != "c.jpg"} == first


def test_the_real_thing_makes_images_of_the_right_size_and_records_how(challenge):
    code, lines = challenge.run()
    assert code == 0 and [len(batch) for batch in (["a", "b"], ["c"])] == [2, 1]
    for data in challenge.results().values():
        image = Image.open(io.BytesIO(data))
        assert image.size == (WIDTH, HEIGHT) and image.mode == "RGB" and np.asarray(image).std() > 5
    run = json.loads((challenge.output / "run.json").read_text())
    assert run["pictures"] == {"total": 3, "finished": 3} and sorted(run["seconds"]) == [
        "stage 0",
        "stage 1",
        "total",
    ]
    assert run["seconds"]["total"] == pytest.approx(
        run["seconds"]["stage 0"] + run["seconds"]["stage 1"], abs=0.02
    )
    assert run["settings"]["pipeline"]["stages"][1]["color_transfer"] is True
    assert run["settings"]["seed"] == 0
    assert {path.name for path in challenge.output.iterdir()} == set(
        "a.jpg b.jpg c.jpg run.json".split()
    )
    assert challenge.everything().keys() >= {"results/run.json"}
    assert not list(challenge.root.rglob(".jseg-*"))


@pytest.mark.parametrize("pipeline", ["release", "fine"])
def test_the_same_from_python_is_the_same_image(challenge, pipeline):
    challenge.stages.write_text(json.dumps({**STAGES, "base": pipeline}))
    assert challenge.run(batch_size=1, seed=5, limit=2)[0] == 0
    expected = {"release": RELEASE, "fine": FINE}[pipeline]
    synthesizer = Synthesizer.from_files(challenge.model, challenge.autoencoder, preset=expected)
    label = np.array(Image.open(challenge.labels / "b.png"))
    reference = np.array(Image.open(challenge.references / "ref_b.jpg"))
    image = synthesizer.synthesize(label, reference, seed=5, stem="b")
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, format="JPEG", quality=expected.jpeg_quality, subsampling=expected.jpeg_subsampling
    )
    assert challenge.results()["b.jpg"] == buffer.getvalue()


def test_another_batch_size_gives_the_same_images(challenge, monkeypatch):
    drawn = {}

    def recorded(*key):
        values = noise.normal(*key)
        assert np.array_equal(drawn.setdefault(key[:3], values), values)
        return values

    monkeypatch.setattr(refine, "normal", recorded)
    images = []
    for batch_size in (1, 2):
        output = challenge.root / f"by{batch_size}"
        assert challenge.run(batch_size=batch_size, output_path=output)[0] == 0
        images.append(
            np.stack(
                [
                    np.array(Image.open(io.BytesIO(data))).astype(int)
                    for data in challenge.results(output).values()
                ]
            )
        )
    assert sorted(drawn) == [(0, stem, stage) for stem in "abc" for stage in (0, 1)]
    assert (np.abs(images[0] - images[1]) <= 1).mean() >= 0.999


def moved_to_a(c):
    c.labels.rename(c.root / "test" / "val_A_labels_resized")


def beside_and_below(c):
    c.labels.rename(c.root / "labels")
    c.table.rename(c.root / "labels" / "label_to_img.json")
    return {"input_path": c.root / "labels"}


@pytest.mark.parametrize(
    "arrange",
    [
        lambda c: None,
        moved_to_a,
        beside_and_below,
        lambda c: {"input_path": c.labels},
        lambda c: {"img_path": c.references},
        lambda c: c.table.rename(c.labels / "label_to_img.json") and None,
    ],
    ids=["B", "A", "itself", "labels", "imgs", "table_inside"],
)
def test_every_layout_gives_the_same_images(challenge, stubbed, arrange):
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    changed = arrange(challenge)
    assert challenge.run(**(changed or {}))[0] == 0
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert len(challenge.results()) == 3


def test_what_is_resized_converted_or_ignored_is_told_once(challenge, stubbed):
    for stem in "ab":
        images.save_image(challenge.labels / f"{stem}.png", label_map(1, 128, 96))
    label = label_map(2)
    label[:12] = 255
    images.save_image(challenge.labels / "c.png", label)
    Image.fromarray(photograph(3)).convert("L").save(challenge.references / "ref_c.jpg")
    code, lines = challenge.run(ignore=255)
    assert code == 0
    told = [line for line in lines if "(" in line]
    assert len(told) == 3
    assert any(
        "2 label maps of another size than 64x48 are resized with nearest (a.png, b.png)" in line
        for line in told
    )
    assert any("references are not plain RGB" in line for line in told)
    assert any("ignored ids" in line for line in told)
    assert json.loads((challenge.output / "run.json").read_text())["notes"] == [
        line[len("jseg test: ") :] for line in told
    ]


def test_labels_in_a_data_set_s_own_numbering_give_the_same_images(challenge, monkeypatch):
    """0 is "other" there and class i is stored as i + 1, as in ADE20K."""
    own = ClassSet(
        "own",
        tuple(f"thing {i}" for i in range(29)),
        spread_palette(29),
        file_ids=tuple(range(1, 30)),
        file_ignore=(0,),
    )
    monkeypatch.setitem(CLASS_SETS, "own", own)
    for path in challenge.labels.glob("*.png"):
        label = np.array(Image.open(path))
        label[:12] = 255
        images.save_image(path, label)
    assert challenge.run(ignore=255, output_path=challenge.root / "expected")[0] == 0
    for path in challenge.labels.glob("*.png"):
        label = np.array(Image.open(path))
        images.save_image(path, np.where(label == 255, 0, label + 1).astype(np.uint8))
    assert challenge.run(classes="own", grid=True)[0] == 0
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert len(challenge.results()) == 3
    code, lines = challenge.run()
    assert code == 2 and len(lines) == 1 and "29" in lines[0], (
        "with the numbering forgotten, id 29 is beyond the classes"
    )


@pytest.fixture
def sheets(monkeypatch):
    """The (rows, headings, row names) of every contact sheet that is made."""
    made = []

    def recorded(*given):
        made.append(given)
        return contact_sheet.contact_sheet(*given)

    monkeypatch.setattr(grid, "contact_sheet", recorded)
    return made


def test_the_contact_sheet_shows_label_reference_stages_and_result(challenge, sheets):
    assert challenge.run(grid=True, limit=2)[0] == 0
    image = Image.open(challenge.output / "grid.png")
    image.load()
    ((rows, headings, names),) = sheets
    assert headings == ["label", "reference", "stage 0", "result"] and names == ["a", "b"]
    width, margin, gutter = 256, 16, 6
    assert image.width > margin * 2 + 4 * width + 3 * gutter and image.height > 2 * width * 3 // 4
    for row, name in zip(rows, names):
        assert len(row) == 4 and all(cell.shape == (HEIGHT, WIDTH, 3) for cell in row)
        assert np.array_equal(
            row[1], np.array(Image.open(challenge.references / f"ref_{name}.jpg"))
        )
        assert np.array_equal(row[3], np.array(Image.open(challenge.output / f"{name}.jpg")))
        assert not np.array_equal(row[2], row[3])


def test_the_contact_sheet_of_a_resumed_run_lacks_only_the_stages_of_what_was_made_without_it(
    challenge, stubbed, sheets
):
    assert challenge.run(batch_size=1)[0] == 0
    (challenge.output / "b.jpg").unlink()
    for _ in range(2):
        (challenge.output / "grid.png").unlink() if (
            challenge.output / "grid.png"
        ).exists() else None
        code, lines = challenge.run(batch_size=1, grid=True)
        assert code == 0 and any("2 cells of the grid are blank" in line for line in lines)
        Image.open(challenge.output / "grid.png").load()
        rows, headings, names = sheets[-1]
        assert headings == ["label", "reference", "stage 0", "result"] and names == ["a", "b", "c"]
        assert [row[2] is None for row in rows] == [True, False, True]
        assert all(row[i] is not None for row in rows for i in (0, 1, 3))
    assert (
        sorted(path.name for path in challenge.output.iterdir())
        == "a.jpg b.jpg c.jpg grid.png run.json stages".split()
    )
    assert [
        str(path.relative_to(challenge.output)) for path in challenge.output.glob("stages/*/*")
    ] == ["stages/0/b.png"]


def test_a_finished_contact_sheet_never_gets_worse(challenge, stubbed):
    assert challenge.run(grid=True)[0] == 0
    grid, folder = (challenge.output / "grid.png").read_bytes(), challenge.everything()
    assert challenge.run(grid=True)[0] == 0 and (challenge.output / "grid.png").read_bytes() == grid
    assert {name for name, data in challenge.everything().items() if data != folder[name]} <= {
        "results/run.json"
    }
    code, lines = challenge.run(grid=True, limit=1)
    assert code == 0 and any("shows more and is kept" in line for line in lines)
    assert (challenge.output / "grid.png").read_bytes() == grid

    # A sheet of before the stages were kept: nobody knows what it shows, and the new one would have
    # blank cells.
    shutil.rmtree(str(challenge.output / "stages"))
    run = json.loads((challenge.output / "run.json").read_text())
    for name in ("files", "stages", "grid", "command"):
        del run[name]
    (challenge.output / "run.json").write_text(json.dumps(run))
    code, lines = challenge.run(grid=True)
    assert code == 0 and any("may show more and is kept" in line for line in lines)
    assert (challenge.output / "grid.png").read_bytes() == grid


def test_stages_of_other_settings_are_in_no_contact_sheet(challenge, stubbed, sheets):
    assert challenge.run(grid=True)[0] == 0
    for path in challenge.output.glob("*.jpg"):
        path.unlink()
    assert challenge.run(seed=1)[0] == 0, "nothing is finished, so the seed may change"
    (challenge.output / "grid.png").unlink()
    assert challenge.run(seed=1, grid=True)[0] == 0
    assert [row[2] for row in sheets[-1][0]] == [None] * 3


def test_the_contact_sheet_of_one_stage_and_of_many_images(challenge, stubbed, sheets):
    challenge.stages.write_text(json.dumps(STAGES["stages"][:1]))
    challenge.fill(*[f"p{number:02d}" for number in range(12)])
    assert challenge.run(grid=True)[0] == 0
    rows, headings, names = sheets[-1]
    assert headings == ["label", "reference", "result"] and len(rows) == 12 == len(names)
    assert {len(row) for row in rows} == {3}
    assert len(challenge.results()) == 15


def test_label_maps_in_another_numbering_than_the_training_s_are_told(tmp_path):
    """ADE20K stores 1 to 150: without --classes every map would be read one class off."""
    path, ade = tmp_path / "unet.safetensors", CLASS_SETS["ade20k-150"]
    save(
        path,
        {"w": np.zeros(2, np.float32)},
        None,
        step=1,
        settings={"class_set": ade.name, "classes": list(ade.file_ids)},
    )
    (line,) = command._otherwise(describe(path), 150)
    assert line.startswith(
        "warning: the network was trained on label maps of ade20k-150, which store its classes as "
        "1 to 150; these are read as 0 to 149"
    ) and line.endswith("give --classes ade20k-150")
    assert command._otherwise(describe(path), ade) == []
    save(path, {"w": np.zeros(2, np.float32)}, None, step=1, settings={"seed": 1})
    assert command._otherwise(describe(path), 150) == []


def test_maps_of_sixteen_bits_give_the_images_of_their_eight_bit_copies(challenge):
    """The challenge's own label maps have 16 bits."""
    c = challenge.fill("a", "b", "c")
    code, told = c.run()
    assert code == 0 and not any("16-bit" in line for line in told)
    eight = c.results()
    for path in c.labels.glob("*.png"):
        Image.fromarray(read_label(path).astype(np.uint16)).save(path)
    code, told = c.run(output_path=c.root / "sixteen")
    assert code == 0 and sum("3 label maps are 16-bit gray" in line for line in told) == 1
    assert c.results(c.root / "sixteen") == eight and len(eight) == 3


def test_the_precision_is_recorded_and_another_is_refused(challenge):
    assert challenge.run(limit=1, precision="bf16")[0] == 0
    images = challenge.results()
    record = json.loads((challenge.output / "run.json").read_text())
    assert record["settings"]["precision"] == "bf16"
    code, lines = challenge.run(limit=1)
    assert code == 2 and "precision was bf16, is float32" in lines[-1]
    assert challenge.results() == images

    # A folder of an earlier version, which did not record it, is float32's.
    del record["settings"]["precision"]
    (challenge.output / "run.json").write_text(json.dumps(record))
    assert challenge.run(limit=1)[0] == 0
