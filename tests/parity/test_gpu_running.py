"""Groups of checks as processes: failures, crashes, hangs and time limits become records."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.gpu_groups import checked, fake, limited
from support.places import ROOT

from jseg.commands import gpu_check
from jseg.parity.gpu import running


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
    """With the processes that it started; what the group's limit stops may have been compiling."""
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
    """A call that is killed in its second case has left the first, readable, and no process."""
    waiting = fake("""
        say(begins="good")
        open("child", "w").write(str(os.getpid()))
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
    child = int((tmp_path / "child").read_text())
    while command_line(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert command_line(child) == ""


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
