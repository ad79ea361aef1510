"""The command without a GPU: a group against itself, files that are replaced and those that are
not, and nothing imported but Jittor and NumPy.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from support.gpu_groups import checked, fake, limited
from support.places import ROOT

from jseg import files
from jseg.commands import cli, gpu_check
from jseg.parity.cuda_emulation.device import toolkit
from jseg.parity.gpu import running


def test_a_group_against_itself(tmp_path, monkeypatch, capsys):
    limited(monkeypatch, "losses", 600)  # a cold cache on a busy machine takes more
    code, records, table = checked(tmp_path, "--only", "losses", "--size", "tiny")
    assert code == 0
    assert len(records) == 6
    assert all(record["ok"] and record.get("difference", 0) == 0 for record in records)
    assert table.count("| ok |") == 6
    output = capsys.readouterr().out
    assert "6 fine, 0 failed, 0 left out" in output
    assert output.splitlines()[-1].startswith("next: call it on a machine with a GPU")


@pytest.mark.parametrize("emulated", [False, True])
def test_an_emulated_device_s_times_choose_no_operators(emulated, tmp_path, monkeypatch, capsys):
    timed = {"operator": "rms_norm", "seconds": 1, "ratio": 2, "ratio with gradients": 2}
    say = f"say(group='kernel-times', case='x', ok=True, **{timed})"
    monkeypatch.setattr(running, "command", fake(say))
    monkeypatch.delenv(toolkit.DEVICE, raising=False)
    if emulated:
        monkeypatch.setenv(toolkit.DEVICE, "90")
    output = str(tmp_path / "found")
    assert cli.run(gpu_check.main, ["--output", output, "--only", "kernel-times"]) == 0
    step, page = capsys.readouterr().out.splitlines()[-1], (tmp_path / "found.md").read_text()
    faster = json.loads((tmp_path / "found.json").read_text())["faster"]
    assert ("FASTER" in step, "FASTER" in page, faster) == (
        (False, False, None) if emulated else (True, True, ["rms_norm"])
    )
    assert step.startswith("next: call it on a machine with a GPU") == emulated


def test_groups_and_tf32(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # the caller's
    args = gpu_check.parser().parse_args([])
    assert [name for name in running.GROUPS if name not in gpu_check.groups(args)] == ["sdm"]
    args = gpu_check.parser().parse_args(
        ["--device", "cpu", "--only", "speed", "bring-up", "--sdm", "x"]
    )
    assert gpu_check.groups(args) == ["bring-up", "speed float32"]
    exact = {
        name
        for name in running.GROUPS
        if running.environment(name).get("NVIDIA_TF32_OVERRIDE") == "0"
    }
    assert exact == set(running.GROUPS) - {"speed tf32", "speed bf16", "speed fp16"}


@pytest.mark.parametrize(
    "words, told",
    [
        (["--minutes", "0"], "--minutes 0"),
        (["--sdm", "nowhere"], "guided_diffusion"),
        (["--output", "nowhere/found"], "does not exist"),
        (["--output", "./"], "expected a name"),
        (["--output", ".."], "expected a name"),
    ],
)
def test_wrong_arguments_are_one_line(words, told, capsys):
    assert cli.run(gpu_check.main, words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


QUICK = """
    say(begins="good")
    say(group="layers", case="good", ok=True)
"""


def tree(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def refused(tmp_path, capsys, *words, said):
    """The call must be refused in one line before any group runs, and change nothing."""
    before = tree(tmp_path)
    assert (
        cli.run(
            gpu_check.main,
            ["--output", str(tmp_path / "found"), "--device", "cpu", "--only", "layers", *words],
        )
        == 2
    )
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and said in captured.err, (
        captured.err
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["found.md", "found.json"])
@pytest.mark.parametrize("content", ["mine", "{}", '{"command": "score"}', None])
def test_files_of_others_are_never_replaced(tmp_path, monkeypatch, capsys, name, content):
    monkeypatch.setattr(running, "command", fake(QUICK))
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(content)
    refused(
        tmp_path,
        capsys,
        said=f"{name} is a folder" if content is None else f"{name} is there already",
    )


def test_an_earlier_result_of_the_same_call_is_replaced_and_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "command", fake(QUICK))
    assert checked(tmp_path, "--only", "layers")[0] == 0
    first = tree(tmp_path)
    monkeypatch.setattr(running, "command", fake(QUICK.replace("good", "better")))
    code, records, table = checked(tmp_path, "--only", "layers", "--minutes", "5")
    assert code == 0
    assert records[0]["case"] == "better"
    assert "better" in table
    assert sorted(tree(tmp_path)) == sorted(first)
    capsys.readouterr()
    refused(tmp_path, capsys, "--size", "tiny", said="holds the results of other --device, --size")

    # A table that someone has added a word to is that person's.
    (tmp_path / "found.md").write_text(table + "seen by me\n")
    refused(tmp_path, capsys, said="found.md is there already")


def test_a_result_from_before_records_named_their_command_is_called_that(tmp_path, capsys):
    (tmp_path / "found.json").write_text('{"settings": {"device": "cpu"}, "records": []}')
    refused(
        tmp_path, capsys, said="found.json was written by an earlier version; give another --output"
    )


@pytest.mark.parametrize("lost", ["found.md", "found.json"])
def test_a_call_that_was_killed_between_its_two_files_knows_its_own(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(running, "command", fake(QUICK))
    assert checked(tmp_path, "--only", "layers")[0] == 0
    before = (tmp_path / "found.md").read_bytes()
    monkeypatch.setattr(running, "command", fake(QUICK.replace("good", "better")))
    write = files.write_atomic

    def killed(path, content):
        if str(path).endswith(lost):
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(files, "write_atomic", killed)
    assert (
        cli.run(
            gpu_check.main,
            ["--output", str(tmp_path / "found"), "--device", "cpu", "--only", "layers"],
        )
        == 130
    )
    assert (tmp_path / "found.md").read_bytes() == before
    monkeypatch.setattr(files, "write_atomic", write)
    assert checked(tmp_path, "--only", "layers")[0] == 0
    assert "better" in (tmp_path / "found.md").read_text()


def test_a_place_that_takes_no_file_is_told_before_the_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "command", lambda *_: pytest.fail("a group was run"))
    assert cli.run(gpu_check.main, ["--output", "/proc/found", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/proc/found" in error
    assert "cannot be written" in error
    assert ".part" not in error


def test_neither_the_checks_nor_what_they_check_import_more_than_jittor_and_numpy():
    """An isolated machine may have an OpenCV or a SciPy that was built for another NumPy."""
    code = """
    import sys
    BLOCKED = ("cv2", "scipy", "PIL", "tqdm", "matplotlib", "torch")
    for name in ("cv2", "scipy"):
        sys.modules[name] = None
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in BLOCKED:
                raise ImportError("blocked: " + name)
    import jseg.runtime                    # Jittor itself has use for some of them
    for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
        del sys.modules[name]
    sys.meta_path.insert(0, Blocked())
    import importlib
    for room, names in {
        "nn": "layers kernels recompute attention group_norm rms_norm",
        "training": "optimizer loop",
        "ldm": "unet autoencoder discriminator samplers loss vqgan_loss lpips",
        "flowseg": "pixnerd potential field ode dinov2",
        "parity.gpu": "child running table advice",
        "outputs": "locks",
    }.items():
        for name in names.split():
            importlib.import_module(f"jseg.{room}.{name}")
    import jseg.checkpoint, jseg.commands.gpu_check
    args = jseg.commands.gpu_check.parser().parse_args(["--output", "no_such_result"])
    jseg.commands.gpu_check.check_output(args)
    print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.stdout == "fine\n", done.stderr[-2000:]
