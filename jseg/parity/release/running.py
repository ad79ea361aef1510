"""The parts of a comparison, each computed on each side by a process of its own, unless its result
is there.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping

import numpy as np

from jseg.outputs.record import read_record
from jseg.parity.release import differences
from jseg.parity.release.inputs import Setting, digest, result_paths
from jseg.parity.release.parts import EXACT, PARTS, SIDES

ROOT = Path(__file__).resolve().parents[3]
TITLES = {"ours": "ours", "release": "release", "exact": "release with float64 norms"}
Key = Callable[[str, str], str]


def result_keys(setting: Setting, arrays: Mapping[str, np.ndarray]) -> Key:
    """key(part, side), which is another for other inputs, weights or sources."""
    weights = Path(setting.unet_weights), Path(setting.autoencoder_weights)
    files = digest(arrays, *weights, ROOT / "jseg" / "parity" / "release")
    sources = {"ours": digest(ROOT / "jseg"), "release": digest(Path(setting.official))}
    sources[EXACT] = sources["release"]

    def key(part: str, side: str) -> str:
        content = dataclasses.replace(
            setting,
            official="",
            unet_weights="",
            autoencoder_weights="",
            stage=setting.stage if part in ("step", "stage") else 0,
        )
        return digest(files, content, sources[side])

    return key


def part_records(folder: Path, part: str, key: Key, again: bool) -> List[Dict]:
    """A part's records: both sides computed and compared, and the third one where that leaves a
    doubt.
    """
    failures = {}
    for side in SIDES:
        why = compute(folder, part, side, key(part, side), again)
        if why:
            failures[side] = why
    records = differences.records(folder, part, failures)
    if not (PARTS[part].exact and differences.doubtful(records)):
        return records

    say(f"{part}: above the bound; whose rounding is it?")
    why = compute(folder, part, EXACT, key(part, EXACT), again)
    if not why:
        return differences.records(folder, part, {}, exact=True)
    return [
        dict(record, note=f"{TITLES[EXACT]}: {why}") if record["verdict"] == "DIFFERS" else record
        for record in records
    ]


def compute(folder: Path, part: str, side: str, key: str, again: bool) -> str:
    """Compute a part on one side, unless its result is there; why it failed, or ""."""
    arrays, record = result_paths(folder, part, side)
    about = (read_record(record) or {}) if arrays.is_file() else {}
    if about.get("key") == key and not again:
        say(f"{part}, {TITLES[side]}: is there")
        return ""

    say(f"{part}, {TITLES[side]}: computing")
    before = time.monotonic()
    if record.is_file():
        record.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "jseg.parity.release.child", side, part, str(folder), key],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=_environment(),
    )
    if done.returncode or not record.is_file():
        return f"the process ended with {done.returncode}: {last_word(done.stderr)}"
    say(f"{part}, {TITLES[side]}: {time.monotonic() - before:.0f} s in all")
    return ""


def last_word(text: str) -> str:
    """Why a process failed, from what it printed: the reason that Jittor gives, else the last
    line.
    """
    reasons = re.findall(r"\[Reason\]: *(.+)", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", (reasons or lines or ["without a word"])[-1])[:200]


def say(message: str) -> None:
    """Print one line of progress on standard error."""
    print(f"jseg compare_official: {message}", file=sys.stderr, flush=True)


def _environment() -> Dict[str, str]:
    """No bytecode into the clone, and float32 without TF32, which cuDNN uses unless told not to."""
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(path).strip(os.pathsep),
        PYTHONDONTWRITEBYTECODE="1",
        NVIDIA_TF32_OVERRIDE="0",
    )
