"""The command without a GPU: every group against itself, failures, crashes and hangs told, and
nothing imported but Jittor and NumPy.
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from support.places import ROOT

from jseg import files
from jseg.commands import cli, gpu_check
from jseg.parity.gpu import running
from jseg.runtime import jt


def fake(body):
    """Words of a child process that runs this Python text; its last argument is the number of cases
    to skip.
    """
    return lambda group, args, folder, skip: [
        sys.executable,
        "-c",
        f"import json, os, sys, time\nskip = {skip}\ndef say(**record):\n    "
        f"print(json.dumps(record), flush=True)\n{textwrap.dedent(body)}",
    ]


def limited(monkeypatch, group, seconds):
    monkeypatch.setitem(running.GROUPS, group, running.Group(seconds, "what it means"))


def checked(tmp_path, *words):
    output = tmp_path / "found"
    code = cli.run(gpu_check.main, ["--output", str(output), "--device", "cpu", *words])
    return (
        code,
        json.loads((tmp_path / "found.json").read_text())["records"],
        (tmp_path / "found.md").read_text(),
    )


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


def test_what_fails_and_what_crashes_is_told_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        running,
        "command",
        fake("""
        cases = [("good", True), ("wrong", False), ("crash", None), ("after", True)]
        for name, ok in cases[skip:]:
            say(begins=name, about={"operator": "rms_norm"})
            if ok is None:
                print("terminate called", file=sys.stderr)
                os.abort()
            why = {} if ok else {"why": "differs"}
            say(group="layers", case=name, ok=ok, difference=0.5, **why)
    """),
    )
    code, records, table = checked(tmp_path, "--only", "layers")
    assert code == 1
    assert [(record["case"], record["ok"]) for record in records] == [
        ("good", True),
        ("wrong", False),
        ("crash", False),
        ("after", True),
    ]
    assert "terminate called" in records[2]["why"] and "-6" in records[2]["why"]
    assert records[2]["operator"] == "rms_norm", "a crash is told of the operator, too"
    assert "2 fine, 2 failed" in capsys.readouterr().out and table.count("FAILED") == 2


def test_a_case_that_hangs_is_stopped_and_the_next_ones_run(tmp_path, monkeypatch):
    """With the processes that it started. What the group's limit stops may have compiled: it is left
    out.
    """
    limited(monkeypatch, "layers", 3)
    monkeypatch.setattr(
        running,
        "command",
        fake(f"""
        import subprocess
        cases = ["good", "hangs", "after", "hangs too", "never"]
        for name in cases[skip:]:
            say(begins=name)
            if "hangs" in name:
                sleeper = subprocess.Popen(["sleep", "61.25"])
                open({str(tmp_path / "sleepers")!r}, "a").write(str(sleeper.pid) + " ")
                time.sleep(60)
            say(group="layers", case=name, ok=True)
    """),
    )
    before = time.monotonic()
    code, records, _ = checked(tmp_path, "--only", "layers")
    assert code == 1 and time.monotonic() - before < 20
    assert [(record["case"], record["ok"]) for record in records] == [
        ("good", True),
        ("hangs", False),
        ("after", True),
        ("hangs too", None),
        ("the rest", None),
    ]
    assert [record.get("why") for record in records[1::2]] == ["no end after 2 s", "out of time"]
    sleepers = (tmp_path / "sleepers").read_text().split()
    assert len(sleepers) == 2
    assert not [pid for pid in sleepers if "sleep" in command_line(pid)]


def test_more_minutes_give_each_group_more(monkeypatch):
    limits = []
    monkeypatch.setattr(
        running,
        "run_child",
        lambda words, variables, until, case_seconds: (
            limits.append(case_seconds) or [running.End(0, "")]
        ),
    )
    limited(monkeypatch, "layers", 60)
    for minutes in ("3", "9", "18"):
        args = gpu_check.parser().parse_args(["--minutes", minutes])
        list(running.run_group("layers", args, "", time.monotonic() + 1000))
    assert limits == [30, 30, 60]


def test_a_trial_that_crashes_is_left_out_and_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        running,
        "command",
        fake("""
        if not skip:
            say(begins="kernels compiled together", about={"trial": "x"})
            os.abort()
        say(begins="good")
        say(group="layers", case="good", ok=True)
    """),
    )
    code, records, _ = checked(tmp_path, "--only", "layers")
    assert code == 0 and [record["ok"] for record in records] == [None, True]
    assert "-6" in records[0]["why"]


def command_line(pid):
    """Of a process; "" once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_each_result_is_written_as_it_comes(tmp_path, monkeypatch):
    """A call that is killed in its second case has left the first, readable."""
    waiting = fake("""
        say(begins="good")
        say(group="layers", case="good", ok=True)
        say(begins="long")
        time.sleep(60)
    """)
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from jseg.commands import gpu_check
from jseg.parity.gpu import running
running.command = lambda *arguments: {waiting("layers", None, "", 0)!r}
gpu_check.main(["--output", "found", "--device", "cpu", "--only", "layers"])
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    until = time.monotonic() + 30
    while not (tmp_path / "found.md").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    (record,) = json.loads((tmp_path / "found.json").read_text())["records"]
    assert record["case"] == "good"
    assert "| layers | good | ok |" in (tmp_path / "found.md").read_text()


def test_what_has_not_begun_in_time_is_left_out(tmp_path):
    code, records, table = checked(tmp_path, "--only", "layers", "losses", "--minutes", "1e-6")
    assert code == 0
    assert [record["ok"] for record in records] == [None, None]
    assert "left out" in table


def test_a_group_that_is_out_of_time_before_its_first_case_is_left_out(
    tmp_path, monkeypatch, capsys
):
    """Jittor's core takes minutes to compile on few cores."""
    limited(monkeypatch, "bring-up", 0.5)
    monkeypatch.setattr(running, "command", fake("time.sleep(60)"))
    code, records, _ = checked(tmp_path)
    assert code == 0
    assert [(record["case"], record["ok"]) for record in records] == [("start", None)]
    assert "next: call it again" in capsys.readouterr().out


def test_without_bring_up_nothing_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "command", fake("sys.exit('no driver')"))
    code, records, _ = checked(tmp_path)
    assert code == 1
    assert [record["case"] for record in records] == ["start"]
    assert "no driver" in records[0]["why"]


def test_groups_and_tf32():
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
    assert exact == set(running.GROUPS) - {"speed tf32", "speed float16", "speed bfloat16"}


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


def test_differences_are_relative_and_never_pass_what_is_not_finite():
    from jseg.parity.gpu.comparing import FLOOR, difference

    a = np.array([1.0, -4.0], np.float32)
    assert difference([a], [a]) == 0
    assert difference([a + 0.04], [a]) == pytest.approx(0.01, rel=1e-3)
    assert difference([np.array([np.nan, 1], np.float32)], [a]) == float("inf")
    rounding = np.array([1e-7], np.float32)
    assert difference([a, 0 * rounding], [a, rounding]) == pytest.approx(1)
    assert difference([a, 0 * rounding], [a, rounding], FLOOR) < 1e-5


def test_a_case_that_raises_is_a_failure_and_the_next_one_runs(capsys):
    from jseg.parity.gpu.records import Case, LeftOut, run

    def nowhere():
        raise LeftOut("one GPU")

    def broken():
        raise RuntimeError(
            "Execute failed\n[Input]: float32\n[Reason]: no kernel image\x1b[m\n>>> export "
            "trace_py_var=3"
        )

    run(
        "x",
        [
            Case("skipped", broken),
            Case("broken", broken),
            Case("far", lambda: {"difference": 0.2}, 0.1),
            Case("fine", dict),
            Case("elsewhere", nowhere, 0.1, {"operator": "rms_norm"}),
        ],
        skip=1,
    )
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["begins"] for record in told[::2]] == ["broken", "far", "fine", "elsewhere"]
    assert [record["ok"] for record in told[1::2]] == [False, False, True, None]
    assert told[7]["why"] == "one GPU" and told[7]["operator"] == "rms_norm"
    assert told[1]["why"] == "RuntimeError: no kernel image"
    assert told[3]["why"] == "differs by 2.0e-01, expected at most 1e-01"


def test_a_network_in_half_precision_keeps_its_norms_in_float32(kind="float16", bound=5e-3):
    """Not bfloat16: on the CPU Jittor adds its products up in bfloat16, and 48 of them lose a
    tenth.
    """
    from jseg.flowseg.blocks import TransformerBlock, turn_tables
    from jseg.parity.gpu.comparing import filled, random
    from jseg.parity.gpu.cost import cast

    block = filled(TransformerBlock(48, 3))
    inputs = [jt.array(random(1, 12, 48) * 4), jt.array(random(1, 48, seed=1))] + [
        jt.array(table) for table in turn_tables(3, 4, 16)
    ]
    with jt.no_grad():
        exact = block(*inputs).numpy()
        found = cast(block, kind)(*(v.cast(kind) for v in inputs))
    assert str(found.dtype) == kind
    error = np.abs(found.float32().numpy() - exact).max() / np.abs(exact).max()
    assert error < bound


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
