"""The three files of a comparison, and the facts that its numbers depend on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Mapping

import numpy as np

from jseg import __version__
from jseg.counting import counted
from jseg.files import write_atomic
from jseg.images import save_image
from jseg.parity.release import table
from jseg.parity.release.inputs import Setting, result_paths
from jseg.parity.release.parts import REPOSITORY


def write(
    folder: Path,
    setting: Setting,
    weights: str,
    arrays: Mapping[str, np.ndarray],
    records: List[Dict],
) -> None:
    """Write comparison.png, .md and .json, each whole or not at all, with the records so far.

    `weights`: the files as the page names them, "" for stand-ins.
    """
    parts = list(dict.fromkeys(record["part"] for record in records))
    nudges = table.nudges_of(folder, records)
    facts = _facts(folder, setting, weights, parts)
    sheet = table.sheet(folder, arrays, records)
    if sheet is not None:
        save_image(folder / "comparison.png", sheet)
    text = table.page(records, facts, nudges, sheet is not None)
    write_atomic(folder / "comparison.md", lambda file: file.write(text.encode()))
    content = {"facts": facts, "nudges": nudges, "rows": table.plain(records)}
    data = json.dumps(content, indent=1, allow_nan=False).encode()
    write_atomic(folder / "comparison.json", lambda file: file.write(data))


def _facts(folder: Path, setting: Setting, weights: str, parts: List[str]) -> Dict[str, str]:
    """What the numbers depend on, as lines of the page."""
    unet, autoencoder, (width, height) = setting.unet, setting.autoencoder, setting.image_size
    examples = counted(setting.examples, "example[s]")
    facts = {
        "networks": f"UNet of {unet.channels} channels, {unet.width}x{unet.height} latents; "
        f"autoencoder of {autoencoder.channels} channels, images of {width}x{height}",
        "weights": weights or "stand-ins (jseg/parity/stand_in.py)",
        "stage that is run whole": str(setting.stage),
        "training": f"{examples}, both sides with gradient checkpoints, as the release always "
        "trains, and without an optimiser",
        "release": f"{REPOSITORY}, commit {_commit(setting.official)}",
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }

    # The versions are those of the process that computed.
    paths = [result_paths(folder, part, "ours")[1] for part in parts]
    path = next(filter(Path.is_file, paths), None)
    if path is not None:
        about = json.loads(path.read_text(encoding="utf-8"))
        facts["software"] = (
            f"jseg {__version__}, Jittor {about['jittor']}, NumPy {about['numpy']}, Python "
            f"{platform.python_version()}"
        )
        facts["device"] = about["device"]
    return facts


def _commit(folder: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, "rev-parse", "--short", "HEAD"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.machine()
