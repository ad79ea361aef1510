"""Runs commands of jseg in a process of its own and counts how often each opens each file.

An audit hook cannot be taken off again, hence the process: python open_counter.py CALLS RESULT.
"""

import collections
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent


def opens(calls: Mapping[str, Sequence[object]], folder: Path) -> Dict[str, Dict[str, int]]:
    """{name: {absolute path: times it was opened for reading}} of calls {name: command line}.

    All run in one child process, in this order. The test fails unless each succeeds.
    """
    lines = {name: [str(word) for word in call] for name, call in calls.items()}
    (folder / "calls.json").write_text(json.dumps(lines))
    words = [sys.executable, __file__, folder / "calls.json", folder / "opens.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads((folder / "opens.json").read_text())


def main(calls: str, result: str) -> int:
    """Run the calls of a JSON file and write the counts to another one."""
    counts: Dict[str, Dict[str, int]] = {}
    current: collections.Counter = collections.Counter()

    def count(event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[0], (str, bytes)):
            path, mode, flags = details
            writes = set(mode or "") & set("wxa") or flags & (os.O_WRONLY | os.O_DIRECTORY)
            if not writes:
                current[os.path.abspath(os.fsdecode(path))] += 1

    from jseg.commands import cli
    from jseg.training import curve

    curve.draw_curve = lambda *arguments: True  # it takes longer than the training
    sys.addaudithook(count)
    for name, (command, *arguments) in json.loads(Path(calls).read_text()).items():
        program = importlib.import_module(f"jseg.commands.{command}")
        current.clear()
        code = cli.run(program.main, arguments)
        if code:
            return code
        counts[name] = dict(current)
    Path(result).write_text(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
