"""The output folder and its run.json: what made the pictures in it, so that a second run goes on with it or refuses to mix.

One JSON object: "settings" (everything that the pixels depend on), "versions", "pictures" (total and finished), "seconds" (summed
over interruptions: total and per stage), "notes" (what the inputs check told). Written whole or not at all.
"""
from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Dict, Sequence

from jseg import __version__
from jseg.checkpoint import sha256
from jseg.data import DataError, Pair
from jseg.images import write_atomic

NAME = "run.json"
FORMAT = 1


def inputs_digest(pairs: Sequence[Pair]) -> str:
    """SHA-256, in hex, of all stems, label files and reference files, in order: the same inputs give the same value."""
    sha = hashlib.sha256()
    known: Dict[Path, str] = {}
    for pair in pairs:
        for path in (pair.label, pair.reference):
            if path not in known:
                known[path] = sha256(path)
        sha.update(f"{pair.stem}/{known[pair.label]}/{known[pair.reference]}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


def versions() -> Dict[str, str]:
    """Versions of everything that the pixels may depend on."""
    found = {"jseg": __version__, "python": platform.python_version()}
    for names in (("jittor",), ("numpy",), ("opencv-python-headless", "opencv-python"), ("pillow",), ("scipy",)):
        for name in names:
            try:
                found[name] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
        else:
            found[names[0]] = "not installed under this name"
    return found


def check_output(output: Path, stems: Sequence[str], width: int, height: int) -> None:
    """Raise DataError unless `output` is, or can become, a folder with room for the pictures it lacks; writes nothing.

    Room is taken as 2.5 bytes per pixel: pure noise as JPEG at quality 95, 4:4:4, takes 2.4.
    """
    existing = output
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise DataError(f"output path {output}: {existing} is a file; expected a folder, which is created if missing")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(f"output path {output}: {existing} cannot be written; give a folder that can")
    count = sum(not (output / f"{stem}.jpg").exists() for stem in stems)
    needed, free = int(count * width * height * 2.5), shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(f"output path {output} has {free / 1e6:.1f} MB free; {count} pictures of {width}x{height} may need "
                        f"{needed / 1e6:.1f} MB; free some room or give another folder")


def opened(output: Path, settings: dict, stems: Sequence[str]) -> dict:
    """The manifest to go on with: the one in `output` if its settings are these, else a new one (not written yet).

    Raises DataError, in one line, if `output` holds the results of other settings or pictures of unknown origin.
    """
    path = output / NAME
    settings = json.loads(json.dumps(settings))             # tuples become lists, as in a file that was read
    if not path.exists():
        strangers = [stem for stem in stems if (output / f"{stem}.jpg").exists()]
        if strangers:
            raise DataError(f"{output} holds {strangers[0]}.jpg ({len(strangers)} of the results' names are taken) but no {NAME} that says "
                            f"how it was made; give another --output_path, or move those files away")
        return {"format": FORMAT, "settings": settings, "versions": versions(), "pictures": {"total": len(stems), "finished": 0},
                "seconds": {"total": 0.0}, "notes": []}
    manifest = read(path)
    differences = list(_differences(manifest["settings"], settings))
    if differences:
        shown = "; ".join(f"{name} was {_short(old)}, now {_short(new)}" for name, old, new in differences[:4])
        raise DataError(f"{output} holds the results of another run ({shown}); give another --output_path, "
                        f"or the same settings to go on with that run")
    manifest["versions"] = versions()
    return manifest


def read(path: Path) -> dict:
    """A manifest from its file; raises DataError if the file is not one."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["settings"], dict):
            raise ValueError("another format")
        counts = [manifest["pictures"]["total"], manifest["seconds"]["total"], *manifest["seconds"].values()]
        if not all(type(count) in (int, float) for count in counts):
            raise ValueError("counts that are no numbers")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a jseg run file, or is damaged ({type(error).__name__}: {error}); "
                        f"move it away or give another --output_path") from None
    return manifest


def write(output: Path, manifest: dict) -> None:
    """Write `manifest` as output/run.json, whole or not at all."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    # A file name that is no text becomes the escape that JSON has for it.
    write_atomic(output / NAME, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def _differences(old, new, name: str = ""):
    """(dotted name, old value, new value) wherever two settings differ, as deep as they have the same form."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new)):
            yield from _differences(one, other, f"{name}[{number}]")
    elif old != new:
        yield name, old, new


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
