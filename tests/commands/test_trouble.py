"""Every command against every kind of trouble: one line, exit 2 and an untouched tree, or the right
result.

A row of COMMANDS says how a command is called in a small world of files and which of its options
take what; a function of TROUBLES spoils that world and the call. A trouble that a command cannot
meet (no text file among its inputs, say) is named in NONE, so that no cell is missing by accident.
"""

import errno
import json
import os
import shutil
import struct
import zlib

import pytest
from support.small_flowseg import saved_network
from support.tiny import STAGES, label_map, photograph, saved

from jseg import files as atomic
from jseg.commands import (
    cli,
    convert_weights,
    demo,
    landscapes,
    merge_weights,
    score,
    segment,
    train,
    train_autoencoder,
    train_flowseg,
)
from jseg.commands import test as test_command
from jseg.images import save_image
from jseg.ldm.presets import AUTOENCODERS, UNETS

NAMES = "abcdefghijklmnopqrstuvwxyzABC"
CLASSES_TEXT = "".join(f"thing{NAMES[i]} {i * 8} {255 - i * 8} {i}\n" for i in range(29))


class Command:
    """A command in the world: its module, its words, and which of its options take what.

    line: options with their values, "=1" before a value without a name; folder: an option that
    takes a folder of images; image: one of the image files that are read; weights: (option, file);
    text: (option or None, file) of a text file; output: an option, and whether it takes a file.
    """

    def __init__(
        self,
        module,
        line,
        folder="",
        image="",
        weights=None,
        text=None,
        output="output",
        file_output=False,
    ):
        self.module, self.options, self.folder, self.image = module, {}, folder, image
        self.weights, self.text, self.output, self.file_output = weights, text, output, file_output
        for word in line.split():
            if word.startswith(("--", "=")):
                values = self.options.setdefault(word.lstrip("-"), [])
            else:
                values.append(word)

    @property
    def name(self):
        return self.module.__name__.rpartition(".")[2]

    def words(self, world, **changed):
        found = []
        for name, value in {**self.options, **changed}.items():
            values = value if isinstance(value, list) else [str(value)]
            found += [] if name.startswith("=") else [f"--{name}"]
            found += [str(world / v[2:]) if v.startswith("./") else v for v in values]
        return found


TRAINING = "--output ./out --preset tiny --steps 1 --batch_size 2 --preview_interval 0 --device cpu"
CLASSES = ("classes", "classes.txt")
COMMANDS = {
    command.name: command
    for command in [
        Command(
            test_command,
            "--input_path ./data/test --img_path ./data/train --output_path ./out --device cpu "
            "--model_path ./unet.safetensors --ae_path ./autoencoder.safetensors "
            "--stages ./stages.json",
            "input_path",
            "data/test/val_B_labels_resized/a.png",
            ("model_path", "unet.safetensors"),
            (None, "data/test/label_to_img.json"),
            "output_path",
        ),
        Command(
            train,
            f"{TRAINING} --input_path ./data/train --ae_path ./autoencoder.safetensors "
            "--classes ./classes.txt",
            "input_path",
            "data/train/imgs/a.jpg",
            ("ae_path", "autoencoder.safetensors"),
            CLASSES,
        ),
        Command(
            train_autoencoder,
            f"{TRAINING} --input_path ./data/train --width 64 --height 48",
            "input_path",
            "data/train/imgs/a.jpg",
        ),
        Command(
            train_flowseg,
            f"{TRAINING} --data ./data/train --validate_steps 1 --classes ./classes.txt",
            "data",
            "data/train/labels/a.png",
            text=CLASSES,
        ),
        Command(
            segment,
            "--weights ./flowseg.safetensors --input ./photos --output ./out --steps 1 "
            "--device cpu --classes ./classes.txt",
            "input",
            "photos/a.png",
            ("weights", "flowseg.safetensors"),
            CLASSES,
        ),
        Command(
            score,
            "--results ./results --labels ./data/test --references ./data/train --output ./out "
            "--cache ./cache --device cpu --aesthetic ./values.csv",
            "results",
            "results/a.jpg",
            text=("aesthetic", "values.csv"),
        ),
        Command(
            convert_weights,
            "=1 ./unet.safetensors =2 ./converted.safetensors",
            weights=("=1", "unet.safetensors"),
            output="=2",
            file_output=True,
        ),
        Command(
            merge_weights,
            "--ckpts ./unet.safetensors ./second.safetensors --save_path ./merged.safetensors",
            weights=("ckpts", "unet.safetensors"),
            output="save_path",
            file_output=True,
        ),
        Command(landscapes, "--output ./out --count 1 --width 32 --height 24"),
        Command(demo, "--output ./out --count 1"),
    ]
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    saved(folder / "unet.safetensors", UNETS["tiny"])
    saved(folder / "autoencoder.safetensors", AUTOENCODERS["tiny"])
    shutil.copy(folder / "unet.safetensors", folder / "second.safetensors")
    saved_network(folder / "flowseg.safetensors", "landscape-29")
    return folder


@pytest.fixture
def world(tmp_path, weights, monkeypatch):
    """A folder with inputs of every command, which is also the working directory."""
    root = tmp_path / "world"
    shutil.copytree(weights, root)
    folders = "data/test/val_B_labels_resized data/train/imgs data/train/labels photos results"
    for place in folders.split():
        (root / place).mkdir(parents=True)
    for seed, stem in enumerate("abc"):
        save_image(root / f"data/test/val_B_labels_resized/{stem}.png", label_map(seed))
        save_image(root / f"data/train/labels/{stem}.png", label_map(seed))
        save_image(root / f"data/train/imgs/{stem}.jpg", photograph(seed))
        save_image(root / f"photos/{stem}.png", photograph(seed))
        save_image(root / f"results/{stem}.jpg", photograph(seed + 3))
    (root / "data/test/label_to_img.json").write_text(
        json.dumps({f"{stem}.png": f"{stem}.jpg" for stem in "abc"})
    )
    (root / "stages.json").write_text(json.dumps(STAGES))
    (root / "classes.txt").write_text(CLASSES_TEXT)
    (root / "values.csv").write_text("a,4\nb,5\nc,6\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JSEG_TRACEBACK", raising=False)
    return root


def tree(root):
    """{path: bytes, or what a link names, or None of a folder} of all that is below a folder."""
    found = {}
    for folder, folders, files in os.walk(str(root)):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[os.path.relpath(path, str(root))] = "-> " + os.readlink(path)
            elif os.path.isdir(path):
                found[os.path.relpath(path, str(root))] = None
            else:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, str(root))] = file.read()
    return found


def call(command, world, capsys, **changed):
    """(exit code, lines on standard error)."""
    capsys.readouterr()
    try:
        code = cli.run(command.module.main, command.words(world, **changed))
    except SystemExit as stopped:  # argparse
        code = stopped.code
    return code, [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def refused(command, world, capsys, *words, unchanged=True, **changed):
    """A call that must fail in one line that holds `words`, without a trace in the tree."""
    before = tree(world)
    code, lines = call(command, world, capsys, **changed)
    assert code == 2, (code, lines)
    problems = [
        line
        for line in lines
        if line.startswith(f"jseg {command.name}: ") and ": no weights" not in line
    ]
    assert "Traceback" not in "".join(lines) and problems, lines
    if unchanged:
        assert len(lines) == 1, lines
    assert [word for word in words if word not in problems[-1]] == [], problems[-1]
    after = tree(world)
    changed_files = {name for name in before if after.get(name, "gone") != before[name]}
    assert changed_files == set(), "inputs were changed"
    assert not [name for name in after if name.endswith(".part")], "half a file is left"
    if unchanged:
        assert set(after) == set(before), sorted(set(after) - set(before))


def missing(command, world, capsys, monkeypatch):
    option = command.folder or command.weights[0]
    refused(command, world, capsys, "nowhere", "does not exist", **{option: world / "nowhere"})


def empty(command, world, capsys, monkeypatch):
    (world / "empty").mkdir()
    (world / "empty.safetensors").touch()
    changed = (
        {command.folder: world / "empty"}
        if command.folder
        else {command.weights[0]: world / "empty.safetensors"}
    )
    refused(command, world, capsys, "empty", **changed)


def wrong_type(command, world, capsys, monkeypatch):
    """A folder where a file is expected, or the other way round."""
    option, name = (
        (command.weights[0], "photos") if command.weights else (command.folder, "values.csv")
    )
    refused(command, world, capsys, name, **{option: world / name})


def damaged(command, world, capsys, monkeypatch):
    """The first half of an image, and the first half of a weights file."""
    for name in (command.image, command.weights and command.weights[1]):
        if name:
            whole = (world / name).read_bytes()
            (world / name).write_bytes(whole[: len(whole) // 2])
            refused(command, world, capsys, os.path.basename(name))
            (world / name).write_bytes(whole)


def png_chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def too_large(command, world, capsys, monkeypatch):
    """An image that claims 60000 x 60000 pixels, weights that claim more than the file holds, a
    drawing too large to make.
    """
    if command.image:
        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
        (world / command.image).write_bytes(
            b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND")
        )
        refused(command, world, capsys, os.path.basename(command.image), "pixels")
    elif command.weights:
        entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
        header = json.dumps({"x": entry}).encode()
        data = struct.pack("<Q", len(header)) + header + b"\0" * 64
        (world / command.weights[1]).write_bytes(data)
        refused(command, world, capsys, command.weights[1])
    else:
        changed = {"width": 100000} if command.name == "landscapes" else {"seed": 1 << 40}
        refused(command, world, capsys, "expected", **changed)


def no_room(command, world, capsys, monkeypatch):
    """The disk is full when the first file is finished."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    refused(command, world, capsys, "No space left on device", unchanged=False)


def read_only(command, world, capsys, monkeypatch):
    """A place where nobody may make a folder or file, not even root."""
    target = "/proc/jseg-output" + ".safetensors" * command.file_output
    refused(command, world, capsys, "/proc", **{command.output: target})


def link_to_nowhere(command, world, capsys, monkeypatch):
    name = "dangling" + ".safetensors" * command.file_output
    os.symlink(str(world / "gone" / "away"), str(world / name))
    refused(command, world, capsys, "dangling", **{command.output: str(world / name)})
    if command.image:
        (world / command.image).unlink()
        os.symlink(str(world / "gone.png"), str(world / command.image))
        refused(command, world, capsys, os.path.basename(command.image), "does not exist")


def given_twice(command, world, capsys, monkeypatch):
    """The same command again: it ends well, says so, and what it made and was made from is as it
    was.
    """
    code, lines = call(command, world, capsys)
    assert code == 0, lines
    before = tree(world)
    code, lines = call(command, world, capsys)
    assert code == 0 and lines is not None, lines
    after = tree(world)
    volatile = ("run.json", "log.csv", "summary.json")
    assert [
        name for name in before if before[name] != after.get(name) and not name.endswith(volatile)
    ] == []


def input_is_output(command, world, capsys, monkeypatch):
    """The output where an input is, by its own name and through a link."""
    if command.file_output:
        places = [command.weights[1]]
    elif command.folder:
        places = [os.path.dirname(command.image), command.options[command.folder][0][2:]]
    else:
        places = ["data"]
    for place in dict.fromkeys(places):
        refused(
            command, world, capsys, place.rpartition("/")[2], **{command.output: str(world / place)}
        )
        link = "link" + ".safetensors" * command.file_output
        os.symlink(str(world / place), str(world / link))
        refused(command, world, capsys, **{command.output: str(world / link)})
        (world / link).unlink()


def another_encoding(command, world, capsys, monkeypatch):
    option, name = command.text
    text = (world / name).read_text()
    for encoding in ("utf-16", "utf-16-le", "gbk"):
        (world / name).write_bytes(("天空" + text if encoding == "gbk" else text).encode(encoding))
        refused(command, world, capsys, name.rpartition("/")[2], "UTF-8")
    (world / name).write_bytes(text.encode("utf-8-sig"))
    if command.name in ("score", "segment"):
        assert call(command, world, capsys)[0] == 0, "a byte order mark is no fault"


def interrupted(command, world, capsys, monkeypatch):
    """Ctrl-C while the first file is written: 130, no half file, inputs untouched, and the same
    command goes on.
    """
    replace, interrupts = os.replace, [True]

    def pressed(*arguments):
        if interrupts and interrupts.pop():
            raise KeyboardInterrupt
        return replace(*arguments)

    before = tree(world)
    monkeypatch.setattr(atomic.os, "replace", pressed)
    code, lines = call(command, world, capsys)
    assert code == 130 and lines[-1] == f"jseg {command.name}: interrupted", (code, lines)
    after = tree(world)
    assert [name for name in before if after.get(name) != before[name]] == []
    assert not [name for name in after if name.endswith(".part")]
    code, lines = call(command, world, capsys)
    assert code == 0, lines


TROUBLES = {
    trouble.__name__: trouble
    for trouble in (
        *(missing, empty, wrong_type, damaged, too_large, no_room, read_only, link_to_nowhere),
        *(given_twice, input_is_output, another_encoding, interrupted),
    )
}
MAKERS = {"landscapes", "demo"}  # they read nothing
SLOW = {"demo"}  # it computes for a minute
NONE = {
    **{
        (maker, name): "reads no file"
        for maker in MAKERS
        for name in "missing empty wrong_type damaged".split()
    },
    **{
        (name, "another_encoding"): "reads no text"
        for name in "train_autoencoder convert_weights merge_weights landscapes demo".split()
    },
}


@pytest.mark.parametrize("trouble", list(TROUBLES))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_answers_every_trouble(command, trouble, world, capsys, monkeypatch, request):
    if (command, trouble) in NONE:
        assert (
            not COMMANDS[command].text
            if trouble == "another_encoding"
            else not COMMANDS[command].folder
        )
        return
    if (
        command in SLOW
        and trouble in ("given_twice", "interrupted")
        and not request.config.getoption("--run-slow")
    ):
        pytest.skip("computes for a minute; needs --run-slow")
    TROUBLES[trouble](COMMANDS[command], world, capsys, monkeypatch)
