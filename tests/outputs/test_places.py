"""One rule for the outputs of all commands: a refusal is one line and exit code 2, and then not one
byte of the tree has changed.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.calls import answered, words
from support.places import ROOT
from support.small_flowseg import saved_network
from support.tiny import STAGES, stubbed, weights

from jseg.checkpoint import save
from jseg.commands import cli, compare_official, demo, landscapes, score, segment, train_flowseg
from jseg.commands import test as test_command
from jseg.data.classes import CLASS_SETS
from jseg.data.image_folder import find_images
from jseg.data.label_maps import read_label
from jseg.evaluation.inputs import find_real
from jseg.flowseg.predict import Segmenter, stored_classes
from jseg.images import read_image, save_image
from jseg.landscapes import challenge_folder
from jseg.landscapes.challenge_folder import write_challenge
from jseg.landscapes.draw import REFERENCE_SEEDS
from jseg.outputs import locks
from jseg.outputs.locks import LOCK, held
from jseg.outputs.origin import by_products, origin
from jseg.outputs.places import OutputError, check_file, check_inputs, check_origin
from jseg.parity.release.parts import FILES

WIDTH, HEIGHT = 64, 48
# A command's module, the option that gives its folder, and a name that it writes there.
COMMANDS = {
    "test": (test_command, "output_path", "scene_0001.jpg"),
    "segment": (segment, "output", "a.png"),
    "score": (score, "output", "images.csv"),
    "landscapes": (landscapes, "output", "test/label_to_img.json"),
    "demo": (demo, "output", "stages.json"),
    "compare_official": (compare_official, "output", "comparison.md"),
}
INPUTS = {
    "test": (
        "data/test data/train data/train/imgs data/test/val_B_labels_resized "
        "data/test/val_A_labels_resized"
    ).split(),
    "segment": ["photos", "photos/images", "photos/imgs"],
    "score": ["results", "data/test", "data/train", "data/train/imgs"],
    "compare_official": ["clone"],
}
RECORDS = {
    "test": ("run.json", {"format": 1, "settings": {"pipeline": {}}}),
    "segment": ("run.json", {"format": 1, "settings": {"weights": "0"}, "pictures": {}}),
    "score": ("summary.json", {"format": 1, "command": "score", "settings": {"results": "x"}}),
    "landscapes": ("landscapes.json", {"command": "landscapes", "settings": {}, "written": 0}),
    "demo": ("demo.json", {"format": 1, "command": "demo", "count": 1, "seed": 0}),
    "compare_official": ("setting.json", {"official": "x"}),
}


class Place:
    """A person's folder with inputs for every command, and calls of the commands on them."""

    def __init__(self, root, networks, capsys):
        self.root, self.networks, self.capsys, self.out = root, networks, capsys, root / "out"

    def options(self, command, **changed):
        root = self.root
        options = {
            "test": dict(
                input_path=root / "data/test",
                img_path=root / "data/train",
                model_path=self.networks["unet"],
                ae_path=self.networks["autoencoder"],
                stages=root / "stages.json",
                batch_size=1,
                device="cpu",
            ),
            "segment": dict(
                weights=self.networks["flowseg"], input=root / "photos", steps=1, device="cpu"
            ),
            "score": dict(
                results=root / "results",
                labels=root / "data/test",
                references=root / "data/train",
                cache=root / "cache",
                device="cpu",
            ),
            "landscapes": dict(count=2, width=WIDTH, height=HEIGHT),
            "demo": dict(count=1),
            "compare_official": dict(official=root / "clone", only="merge", device="cpu"),
        }[command]
        return {**options, COMMANDS[command][1]: self.out, **changed}

    def words(self, command, **changed):
        return words(**self.options(command, **changed))

    def run(self, command, **changed):
        """(exit code, lines on standard error)."""
        module = COMMANDS[command][0]
        code, _, lines = answered(module, self.capsys, **self.options(command, **changed))
        return code, lines

    def tree(self):
        """{path: its content's digest, a link's target, or nothing for a folder} of everything."""
        found = {}
        for parent, folders, files in os.walk(str(self.root)):
            for name in folders + files:
                path = os.path.join(parent, name)
                found[path] = (
                    os.readlink(path)
                    if os.path.islink(path)
                    else None
                    if os.path.isdir(path)
                    else hashlib.sha256(open(path, "rb").read()).hexdigest()
                )
        return found

    def refused(self, command, *words, **changed):
        """The command must say all of these words in one line, and change nothing."""
        before = self.tree()
        code, lines = self.run(command, **changed)
        assert code == 2 and len(lines) == 1, lines
        assert [word for word in words if word not in lines[0]] == [], lines[0]
        after = self.tree()
        assert after == before, {
            path for path in {*after, *before} if after.get(path) != before.get(path)
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The folder that every test gets a copy of."""
    root = tmp_path_factory.mktemp("template") / "root"
    write_challenge(root / "data", 3, 0, WIDTH, HEIGHT)
    for folder in ("photos", "results"):
        (root / folder).mkdir()
    for number, name in enumerate("ab"):
        shutil.copy(
            str(root / f"data/train/imgs/style_{number:04d}.jpg"), str(root / f"photos/{name}.jpg")
        )
    for number in range(3):
        shutil.copy(
            str(root / f"data/train/imgs/style_{2 - number:04d}.jpg"),
            str(root / f"results/scene_{number:04d}.jpg"),
        )
    for name in FILES:
        (root / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "clone" / name).write_text("")
    (root / "stages.json").write_text(json.dumps(STAGES))
    (root / "mine.txt").write_text("mine")
    saved_network(root.parent / "flowseg.safetensors", "landscape-29")
    return root


@pytest.fixture
def place(tmp_path, template, weights, capsys):
    shutil.copytree(str(template), str(tmp_path / "root"))
    return Place(
        tmp_path / "root",
        {
            "unet": weights[0],
            "autoencoder": weights[1],
            "flowseg": template.parent / "flowseg.safetensors",
        },
        capsys,
    )


# What a folder must not be
# ------------------------------------------------------------------------------------------


def a_file(place, name):
    place.out.write_text("mine")
    return ["out is a file", "expected a folder"]


def under_a_file(place, name):
    place.out = place.root / "mine.txt" / "deep" / "er"
    return ["mine.txt is a file"]


def a_link_to_nowhere(place, name):
    place.out.symlink_to("gone")
    return ["out is a link to gone, which does not exist"]


def under_a_link_to_nowhere(place, name):
    (place.root / "link").symlink_to(place.root / "gone")
    place.out = place.root / "link" / "out"
    return ["is a link to", "which does not exist"]


def taken(place, name):
    (place.out / name).parent.mkdir(parents=True)
    (place.out / name).write_text("mine")
    return ["holds", name.rpartition("/")[2], "1 "]


def taken_by_a_link_to_nowhere(place, name):
    (place.out / name).parent.mkdir(parents=True)
    (place.out / name).symlink_to("gone")
    return [name.rpartition("/")[2]]


def taken_by_a_folder(place, name):
    (place.out / name).mkdir(parents=True)
    (place.out / name / "mine.txt").write_text("mine")
    return [name.partition("/")[0]]


@pytest.mark.parametrize(
    "spoil",
    [
        a_file,
        under_a_file,
        a_link_to_nowhere,
        under_a_link_to_nowhere,
        taken,
        taken_by_a_link_to_nowhere,
        taken_by_a_folder,
    ],
    ids=lambda spoil: spoil.__name__,
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_in_the_way_is_told_and_stays(place, command, spoil):
    words = spoil(place, COMMANDS[command][2])
    place.refused(command, *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_written_is_told_before_the_work(place, command, monkeypatch):
    place.out.mkdir()
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode, **given: mode & os.W_OK == 0 and access(path, mode, **given),
    )
    place.refused(command, "out cannot be written", "give a folder that can")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told_before_the_work(place, command, monkeypatch):
    usage = shutil.disk_usage(str(place.root))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    place.refused(command, "0.0 MB free", "free some room")


@pytest.mark.parametrize("other", COMMANDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_results_of_another_command_are_told_by_its_name(place, command, other):
    if other == command:
        return
    name, record = RECORDS[other]
    place.out.mkdir()
    (place.out / name).write_text(json.dumps(record))
    place.refused(
        command,
        f"this folder holds results of the {other} command",
        "give another --" + COMMANDS[command][1],
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_run_of_a_training_is_no_place_for_results(place, command):
    place.out.mkdir()
    for name in ("log.csv", "checkpoint-00000010.safetensors"):
        (place.out / name).write_text("")
    place.refused(command, "this folder holds the run of a training")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_of_two_runs_names_the_first_one_s_process(place, command):
    place.out.mkdir()
    if command == "demo":
        (place.out / "demo.json").write_text(json.dumps(RECORDS["demo"][1]))
    root = ROOT
    code = (
        "import sys; from jseg.outputs.locks import locked\nwith locked(sys.argv[1]): "
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(place.out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=root),
    )
    try:
        assert other.stdout.readline() == b"held\n"
        place.refused(command, f"out is being written by another run of jseg (process {other.pid})")
    finally:
        other.communicate(b"")
    assert not (place.out / LOCK).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_another_run_has_taken_since_the_first_look_is_left_alone(
    place, command, stubbed, monkeypatch
):
    """Two calls of different commands start at once; the later one finds the results of the earlier
    one when it holds the folder.
    """
    other = "segment" if command == "test" else "test"
    name, content = RECORDS[other]
    first = locks.held

    def later(folder):
        place.out.mkdir(exist_ok=True)
        (place.out / name).write_text(json.dumps(content))
        return first(folder)

    for module in (locks, challenge_folder):
        monkeypatch.setattr(module, "held", later)
    code, lines = place.run(command)
    assert code == 2 and f"results of the {other} command" in lines[-1], lines
    assert os.listdir(place.out) == [name]


# Inputs
# --------------------------------------------------------------------------------------------------


def plain(place, folder):
    return place.root / folder


def roundabout(place, folder):
    return place.root / "photos" / ".." / folder


def linked(place, folder):
    (place.root / "link").symlink_to(folder)
    return place.root / "link"


@pytest.mark.parametrize(
    "spelled", [plain, roundabout, linked], ids=lambda spelled: spelled.__name__
)
@pytest.mark.parametrize(
    "command, folder",
    [(command, folder) for command, folders in INPUTS.items() for folder in folders],
)
def test_an_input_s_folder_is_no_output(place, command, folder, spelled):
    if spelled is linked and not (place.root / folder).exists():
        return
    place.out = spelled(place, folder)
    place.refused(command, "--" + COMMANDS[command][1])


def test_an_input_is_never_replaced_by_its_result(place):
    save_image(place.root / "photos" / "c.png", read_image(place.root / "photos" / "a.jpg"))
    place.refused(
        "segment",
        "would take the place of the input",
        "c.png",
        input=place.root / "photos" / "c.png",
        output=place.root / "photos",
    )
    os.mkdir(str(place.out))
    os.symlink(str(place.root / "photos"), str(place.out / "overlays"))
    place.refused("segment", "where inputs are read from")
    place.refused(
        "segment",
        "would take the place of the input",
        "a.jpg",
        input=place.root / "photos" / "a.jpg",
    )
    os.unlink(str(place.out / "overlays"))
    os.link(str(place.root / "photos" / "c.png"), str(place.out / "c.png"))
    place.refused(
        "segment",
        "would take the place of the input",
        "c.png",
        input=place.root / "photos" / "c.png",
    )


@pytest.mark.parametrize(
    "command, option, name",
    [
        ("test", "stages", "run.json"),
        ("test", "classes", "run.json"),
        ("score", "aesthetic", "images.csv"),
        ("score", "aesthetic", "summary.json"),
        ("compare_official", "ae_path", "second.pkl"),
    ],
)
def test_any_file_that_is_read_is_an_input(place, command, option, name):
    place.out.mkdir()
    changed = {option: place.out / name}
    if option == "stages":
        shutil.copy(str(place.root / "stages.json"), str(place.out / name))
    elif option == "classes":
        text = {"classes": [[f"class {i}", [i, i, 200]] for i in range(29)]}
        (place.out / name).write_text(json.dumps(text))
    elif option == "ae_path":
        shutil.copy(str(place.networks["autoencoder"]), str(place.out / name))
        changed["model_path"] = place.networks["unet"]
    else:
        (place.out / name).write_text("name,value\n")
    place.refused(command, name, **changed)


# Own files and others'
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["landscapes", "demo"])
@pytest.mark.parametrize(
    "name",
    (
        "notes.txt data/train/imgs/P1.jpg train/labels/P1.png test/val_A_labels_resized/L1.png"
    ).split(),
)
def test_data_of_another_origin_are_never_mixed_with_drawings(place, command, name):
    (place.out / name).parent.mkdir(parents=True)
    (place.out / name).write_text("mine")
    place.refused(
        command, "holds 1 file of another origin, such as " + name, "give a new or an empty folder"
    )


def test_landscapes_go_on_by_the_same_call_alone(place, monkeypatch):
    sheet = place.out / "sheet.png"
    assert place.run("landscapes", sheet=sheet)[0] == 0
    before = place.tree()
    code, lines = place.run("landscapes", sheet=sheet)
    assert code == 0 and "2 of 2 pairs were there already and are kept" in lines[0]
    assert place.tree() == before
    drawn = {"count": 2, "seed": 0, "width": 64, "height": 48}
    for changed in ({"count": 3}, {"seed": 1}, {"width": 128, "height": 96}):
        place.refused(
            "landscapes",
            "holds results of other settings",
            "; ".join(f"{name} was {drawn[name]}, is {changed[name]}" for name in sorted(changed)),
            "give another --output",
            **changed,
        )

    # What was drawn is drawn again where it is lost; what someone has changed is kept.
    (place.out / "train/imgs/style_0001.jpg").unlink()
    label = read_label(place.out / "test/val_B_labels_resized/scene_0000.png")
    save_image(place.out / "test/val_B_labels_resized/scene_0000.png", 28 - label)
    assert place.run("landscapes")[0] == 0
    changed = {path for path, digest in place.tree().items() if before[path] != digest}
    assert {os.path.basename(path) for path in changed} == {"scene_0000.png"}
    (place.out / "train/imgs/P1.jpg").write_text("mine")
    place.refused("landscapes", "holds 1 file of another origin, such as P1.jpg")


def test_a_sheet_replaces_no_file_but_its_own(place):
    sheet = place.root / "mine.png"
    sheet.write_text("mine")
    place.refused("landscapes", "--sheet", "mine.png is there already", sheet=sheet)
    place.refused(
        "landscapes",
        "--sheet",
        "lies among the landscapes",
        sheet=place.out / "train/imgs/style_0000.jpg",
    )
    (place.root / "link").symlink_to("gone")
    place.refused(
        "landscapes", "--sheet", "is a link to gone", sheet=place.root / "link" / "sheet.png"
    )
    assert place.run("landscapes", sheet=place.root / "new.png")[0] == 0
    assert place.run("landscapes", sheet=place.root / "new.png")[0] == 0, (
        "its own sheet is written again"
    )
    (place.root / "new.png").write_text("mine")
    place.refused("landscapes", "new.png is there already", sheet=place.root / "new.png")


@pytest.mark.parametrize("command", ["landscapes", "demo"])
@pytest.mark.parametrize("count, seed", [(2, 1100000000), (3, REFERENCE_SEEDS - 2), (1, 1 << 40)])
def test_seeds_beyond_the_scenes_are_told_as_given(place, command, count, seed):
    place.refused(
        command, str(seed), "expected", str(REFERENCE_SEEDS - count), count=count, seed=seed
    )


def test_the_demo_tells_that_its_numbers_are_others(place):
    place.out.mkdir()
    (place.out / "demo.json").write_text(
        json.dumps({"format": 1, "command": "demo", "count": 2, "seed": 0})
    )
    for changed, said in (
        ({"count": 2, "seed": 5}, "(seed was 0, is 5)"),
        ({"count": 3}, "(count was 2, is 3)"),
    ):
        words = ["holds results of other settings " + said, "give another --output"]
        place.refused("demo", *words, **changed)
    (place.out / "stages.json").write_text("{}")
    place.refused("demo", "stages.json was changed since the demo wrote it", count=2)


def test_a_second_call_changes_nothing_that_is_finished(place, stubbed):
    for command in ("test", "segment", "score"):
        place.out = place.root / ("out-" + command)
        assert place.run(command, **({"grid": True} if command == "test" else {}))[0] == 0
        before = place.tree()
        assert place.run(command, **({"grid": True} if command == "test" else {}))[0] == 0
        assert {
            path for path, digest in place.tree().items() if before.get(path) != digest
        } == set()


def test_tables_that_someone_has_changed_are_not_written_again(place):
    assert place.run("score")[0] == 0
    with open(str(place.out / "images.csv"), "a") as file:
        file.write("mine")
    place.refused("score", "images.csv was changed by others")


def test_segment_keeps_the_label_map_of_another_image_of_the_same_name(place):
    assert place.run("segment")[0] == 0
    other = place.root / "others" / "a.jpg"
    other.parent.mkdir()
    shutil.copy(str(place.root / "photos" / "b.jpg"), str(other))
    place.refused(
        "segment", "a.png of another image of this name", "give another --output", input=other
    )


def test_segment_keeps_a_label_map_that_someone_has_corrected(place):
    assert place.run("segment")[0] == 0
    save_image(place.out / "a.png", np.full((HEIGHT, WIDTH), 3, np.uint8))
    corrected = (place.out / "a.png").read_bytes()
    (place.out / "overlays" / "a.jpg").unlink()
    code, lines = place.run("segment")
    assert code == 0 and any(
        "1 result was changed by others since it was made (a.png)" in line for line in lines
    )
    assert (place.out / "a.png").read_bytes() == corrected


@pytest.mark.parametrize("older", [False, True])
def test_segment_goes_on_with_another_batch_size_and_says_so(place, older):
    assert place.run("segment", input=place.root / "photos" / "a.jpg")[0] == 0
    made = (place.out / "a.png").read_bytes()
    if older:
        run = json.loads((place.out / "run.json").read_text())
        for name in ("command", "files", "sources"):
            del run[name]
        (place.out / "run.json").write_text(json.dumps(run))
    code, lines = place.run("segment", batch_size=2)
    assert code == 0, lines
    assert any("batch_size was 1, is 2" in line and "last bits" in line for line in lines), lines
    assert (place.out / "a.png").read_bytes() == made and (place.out / "b.png").exists()
    place.refused("segment", "steps was 1, is 2", steps=2)


def test_segment_begins_again_with_other_settings_while_nothing_is_finished(place, monkeypatch):
    def stopped(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "segment", stopped)
        assert place.run("segment")[0] == 130
    code, lines = place.run("segment", steps=2)
    assert code == 0
    assert any("nothing was finished" in line and "steps was 1, is 2" in line for line in lines)


def test_images_given_twice_are_taken_once(place):
    photos = place.root / "photos"
    (place.root / "link.jpg").symlink_to(photos / "a.jpg")
    code, lines = place.run(
        "segment", input=[photos / "a.jpg", photos, photos / ".." / "photos" / "b.jpg"]
    )
    assert code == 0
    assert any("2 images are given twice and taken once" in line for line in lines)
    assert len(list(place.out.glob("*.png"))) == 2


def test_sheets_are_no_images_to_be_segmented(place, stubbed):
    assert place.run("test", grid=True)[0] == 0
    results = place.out
    place.out = place.root / "labels"
    code, lines = place.run("segment", input=results)
    assert code == 0, lines
    assert any(
        "1 file that is no result" in line and "grid.png: sheet of test" in line for line in lines
    ), lines
    assert sorted(path.name for path in place.out.glob("*.png")) == [
        f"scene_{number:04d}.png" for number in range(3)
    ]
    labels, place.out = place.out, place.root / "again"
    place.refused("segment", "holds no images but 3 files", "label map of segment", input=labels)
    assert [path.name for path in find_real(results)[0]] == [
        f"scene_{number:04d}.jpg" for number in range(3)
    ]
    assert [example.stem for example in find_images(results)[0]] == [
        f"scene_{number:04d}" for number in range(3)
    ]


def test_an_option_that_is_given_twice_is_told(place):
    words = place.words("test") + ["--output_path", "another"]
    with pytest.raises(SystemExit) as stopped:
        cli.run(test_command.main, words)
    assert stopped.value.code == 2
    (line,) = place.capsys.readouterr().err.splitlines()
    assert "--output_path is given twice" in line and "give one" in line


@pytest.mark.parametrize(
    "command, option",
    [
        (test_command, "--output_path"),
        (segment, "--output"),
        (score, "--results"),
        (train_flowseg, "--model_path"),
        (landscapes, "--output"),
    ],
)
def test_an_empty_value_is_no_value(command, option, capsys):
    """A shell makes one of a variable that is not set: results would go into the folder that the
    command runs in.
    """
    with pytest.raises(SystemExit) as stopped:
        cli.run(command.main, [option, ""])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option} is given an empty value; give one, or leave the option out" in line


# The rule by itself
# -------------------------------------------------------------------------------------------------


def test_what_is_made_for_a_run_that_writes_nothing_goes_again(tmp_path):
    with pytest.raises(KeyError):
        with held(tmp_path / "new" / "deeper"):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "new"):
        (tmp_path / "new" / "x").write_text("x")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x"]


def test_inputs_elsewhere_do_no_harm(tmp_path):
    (tmp_path / "a.png").write_text("")
    check_inputs(tmp_path / "out", "--output", ["a.png"], [tmp_path / "a.png"], [tmp_path])
    said = "would take the place of the input .*a.png and 1 more input;"
    with pytest.raises(OutputError, match=said):
        (tmp_path / "b.png").write_text("")
        check_inputs(
            tmp_path, "--output", ["a.png", "b.png"], [tmp_path / "b.png", tmp_path / "a.png"]
        )
    with pytest.raises(OutputError, match="is a folder"):
        check_file(tmp_path, "--sheet")


def test_a_folder_that_another_command_keeps_results_in_is_its_own(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"command": "test", "files": {"a.jpg": "", "stages/0/a.png": ""}})
    )
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "landscapes.json").write_text(json.dumps({"command": "landscapes"}))
    for folder, owner in (
        ("stages", "test"),
        ("stages/0", "test"),
        ("drawn/train", "landscapes"),
        ("drawn/train/imgs", "landscapes"),
    ):
        said = f"the {owner} command keeps results in this folder; give another --output"
        with pytest.raises(OutputError, match=said):
            check_origin(tmp_path / folder, "--output", "score")
    for folder in ("scores", "stages2", "drawn/labels", "drawn/test/results"):
        check_origin(tmp_path / folder, "--output", "score")


def test_the_origin_of_a_folder_is_read_from_its_record(tmp_path):
    assert origin(tmp_path) is None and by_products(tmp_path, ["grid.png"]) == {}
    for command, (name, record) in RECORDS.items():
        (tmp_path / name).write_text(json.dumps(record))
        assert origin(tmp_path) == command
        (tmp_path / name).write_text("{}")
        assert origin(tmp_path) is None, "a file of this name that is of someone else"
