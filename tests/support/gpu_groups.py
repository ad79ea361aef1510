"""gpu_check called on the CPU, with groups whose processes are made up."""

import json
import sys
import textwrap

from jseg.commands import cli, gpu_check
from jseg.parity.gpu import running


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
