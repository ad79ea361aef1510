"""The output folder and its run.json: what made the images in it, so that a second run goes on
with it or refuses to mix.

One JSON object: "settings" (everything that the pixels depend on), "versions", "pictures" (total
and finished), "seconds" (summed over interruptions: total and per stage), "notes" (what the inputs
check told), "files" (names that the run has written, with their SHA-256, or is about to write, with
""), "stages" (stems whose stages are kept for the grid). Written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Set

from jseg import __version__
from jseg.data.challenge import Pair
from jseg.data.validation import some
from jseg.files import DataError, sha256, write_atomic
from jseg.outputs.rules import (
    OutputError,
    check_folder,
    check_names,
    check_origin,
    claim,
    free_bytes,
)

NAME, GRID, STAGES = "run.json", "grid.png", "stages"
FORMAT = 1
FREE = ("batch_size", "device")  # settings that change the last bits at most


def inputs_digest(pairs: Sequence[Pair]) -> str:
    """SHA-256, in hex, of all stems, label files and reference files, in order: the same inputs
    give the same value.
    """
    sha = hashlib.sha256()
    known: Dict[Path, str] = {}
    for pair in pairs:
        for path in (pair.label, pair.reference):
            if path not in known:
                known[path] = sha256(path)
        sha.update(
            f"{pair.stem}/{known[pair.label]}/{known[pair.reference]}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return sha.hexdigest()


def versions() -> Dict[str, str]:
    """Versions of everything that the pixels may depend on."""
    found = {"jseg": __version__, "python": platform.python_version()}
    for names in (
        ("jittor",),
        ("numpy",),
        ("opencv-python-headless", "opencv-python"),
        ("pillow",),
        ("scipy",),
    ):
        for name in names:
            try:
                found[name] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
        else:
            found[names[0]] = "not installed under this name"
    return found


def names_of(stems: Sequence[str], stages: int = 0, shown: Sequence[str] = ()) -> List[str]:
    """The files of a run, relative to its folder: the results, and for the `shown` stems what a
    grid needs of `stages` stages.
    """
    found = [f"{stem}.jpg" for stem in stems]
    if shown:
        found += [GRID] + [stage_name(stem, stage) for stage in range(stages - 1) for stem in shown]
    return found


def stage_name(stem: str, stage: int) -> str:
    """The image of a stage before the last, kept for the grid, relative to the folder."""
    return f"{STAGES}/{stage}/{stem}.png"


def check_output(
    output: Path,
    stems: Sequence[str],
    width: int,
    height: int,
    names: Optional[Sequence[str]] = None,
    inputs: Iterable[Path] = (),
    places: Iterable[Path] = (),
) -> None:
    """Raise OutputError, as `outputs.claim` does, unless images of these `stems` can be written
    into `output`; writes nothing.

    names: all files of the run, the results of the stems if None. Room is taken as 2.5 bytes per
    pixel: pure noise as JPEG at quality 95, 4:4:4, takes 2.4; stages, as PNG, take 3.
    """
    names = names_of(stems) if names is None else names
    check_folder(output, "--output_path")
    check_origin(output, "--output_path", "test")
    count = sum(not (output / f"{stem}.jpg").exists() for stem in stems)
    stages = sum(name.startswith(STAGES + "/") and not (output / name).exists() for name in names)
    needed, free = int((count * 2.5 + stages * 3) * width * height), free_bytes(output)
    if needed > free:
        raise OutputError(
            f"--output_path {output} has {free / 1e6:.1f} MB free; {count} images of "
            f"{width}x{height} may need {needed / 1e6:.1f} MB; free some room or give another "
            "folder"
        )
    claim(output, "--output_path", "test", names, inputs, places, written_names(output), NAME)


def written_names(output: Path) -> Optional[Set[str]]:
    """The names in `output` that its run has written or was about to; None: all, by a record that
    does not list them.
    """
    if not os.path.lexists(str(output / NAME)):
        return set()
    files = read(output / NAME).get("files")
    return None if files is None else set(files)


def opened(
    output: Path, settings: dict, stems: Sequence[str], notes: Optional[List[str]] = None
) -> dict:
    """The manifest to go on with: the one in `output` if its settings are these, else a new one
    (not written yet).

    FREE settings may always change, the others while nothing is finished; what a person should be
    told of it is appended to `notes`. Raises DataError, in one line, if `output` holds the results
    of other settings or images of unknown origin.
    """
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in a file that was read
    check_origin(output, "--output_path", "test")
    check_names(output, "--output_path", names_of(stems), written_names(output), NAME)
    new = {
        "format": FORMAT,
        "command": "test",
        "settings": settings,
        "versions": versions(),
        "pictures": {"total": len(stems), "finished": 0},
        "seconds": {"total": 0.0},
        "notes": [],
        "files": {},
        "stages": [],
    }
    if not (output / NAME).exists():
        return new
    manifest = read(output / NAME)

    # Without a list of files, in records of before there was one, every image is taken for a
    # result.
    listed = manifest.get("files")
    results = (
        sorted(path.name for path in output.glob("*.jpg"))
        if listed is None
        else [
            name
            for name in listed
            if "/" not in name and name.endswith(".jpg") and (output / name).exists()
        ]
    )
    manifest.setdefault(
        "files", {name: "" for name in results + [GRID] if (output / name).exists()}
    )
    changed = [
        name for name in results if manifest["files"][name] not in ("", sha256(output / name))
    ]
    if changed and notes is not None:
        notes.append(
            f"{len(changed)} images were changed by others since they were made "
            f"({some(changed, False)}); those that can be opened are kept as they are"
        )
    manifest.setdefault("stages", [])
    manifest["command"] = "test"

    # What is finished must not be mixed with anything else; what is not can be begun again.
    differences = list(_differences(manifest["settings"], settings))
    fixed = [found for found in differences if found[0] not in FREE]
    shown = "; ".join(
        f"{name} was {_short(old)}, now {_short(new)}"
        for name, old, new in (fixed or differences)[:4]
    )
    if fixed and results:
        raise DataError(
            f"{output} holds the results of another run ({shown}); give another --output_path, "
            f"or the same settings to go on with that run"
        )
    if differences and notes is not None and results:
        notes.append(
            f"{shown}: {len(results)} images are there already and are kept; those that are "
            "made now may differ from what the old setting would give in the last bits"
        )
    if fixed:
        if notes is not None:
            notes.append(
                f"nothing was finished in {output}, so the run begins again with other settings "
                f"({shown})"
            )
        return {**new, "files": manifest["files"]}
    return {**manifest, "settings": settings, "versions": versions()}


def read(path: Path) -> dict:
    """A manifest from its file; raises DataError if the file is not one."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["settings"], dict):
            raise ValueError("another format")
        counts = [
            manifest["pictures"]["total"],
            manifest["seconds"]["total"],
            *manifest["seconds"].values(),
        ]
        if not all(type(count) in (int, float) for count in counts):
            raise ValueError("counts that are no numbers")
        files, stages = manifest.get("files", {}), manifest.get("stages", [])
        if not all(isinstance(text, str) for text in [*files, *files.values(), *stages]):
            raise ValueError("files that are no names")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a jseg run file, or is damaged ({type(error).__name__}: {error}); "
            f"move it away or give another --output_path"
        ) from None
    return manifest


def write(output: Path, manifest: dict) -> None:
    """Write `manifest` as output/run.json, whole or not at all."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    # A file name that is no text becomes the escape that JSON has for it.
    write_atomic(output / NAME, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def _differences(old, new, name: str = ""):
    """(dotted name, old value, new value) wherever two settings differ, as deep as they have the
    same form.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            # A setting that the record does not have yet was off, as it is without its option.
            if key not in old and not new[key]:
                continue
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new)):
            yield from _differences(one, other, f"{name}[{number}]")
    elif old != new:
        yield name, old, new


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
