"""Average the weights of several files of one network into one file.

Each part is FILE or FILE:WEIGHT (1 without a weight); weights are divided by their sum. The sum is
taken in float64, the file is float32. Reads .pkl, .pth, .pt, .ckpt, .safetensors and .npz, and the
index or folder of a model in parts; writes .safetensors, .npz or .pkl, by the name, into a folder
that is made if it is missing. Settings of the trainings are kept where all parts agree; parts of
different autoencoders or class sets are refused. A file that is there is replaced only if it is an
earlier result of the same parts.

Examples:
  python scripts/merge_weights.py --ckpts 176000.pkl 266000.pkl --save_path average-176k-266k.pkl
  python -m jseg merge_weights --ckpts a.npz b.npz c.pth:2 --weights model --save_path mean.npz
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import List, Mapping, Optional, Sequence, Tuple

from jseg.commands import cli
from jseg.counting import counted

# Settings that decide what the weights of a training mean, and what to do where two parts differ.
DECISIVE = {
    "autoencoder": ("on latents of different autoencoders", "expected parts of one autoencoder"),
    "classes": ("on different classes", "expected parts of one class set"),
    "numbering": ("on different numberings of the classes", "expected parts of one class set"),
    "shift": (
        "at times t of different --shift",
        "their mean knows neither's times; expected parts of one shift",
    ),
}


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("merge_weights", __doc__)
    result.add_argument(
        "--ckpts", nargs="+", required=True, metavar="FILE[:WEIGHT]", help="the files to average"
    )
    result.add_argument(
        "--save_path",
        required=True,
        metavar="OUT",
        help="the file to write: .safetensors, .npz or .pkl",
    )
    result.add_argument(
        "--weights",
        choices=("ema", "model"),
        default="ema",
        help="which weights of a file that has both: the moving average (default) or the model",
    )
    return result


def main(argv: Optional[List[str]] = None) -> int:
    """Check that the parts belong together, then write their mean; prints what was done."""
    args = parser().parse_args(argv)
    from jseg import checkpoint
    from jseg.formats import targets
    from jseg.outputs.locks import held_files

    weighted = [split_part(part) for part in args.ckpts]
    targets.check_target(args.save_path, [path for path, _ in weighted], create=True)
    parts = [(checkpoint.describe(path, sha256=True), weight) for path, weight in weighted]
    config = _common_config([part for part, _ in parts])
    extra, left_out = _common_extra([part for part, _ in parts])

    # What is there already may only be this command's result for the same parts.
    origin = _origin(parts)
    targets.check_replaceable(args.save_path, origin)
    with targets.folder_of(args.save_path) as folders, held_files([args.save_path]):
        replaced = targets.check_replaceable(args.save_path, origin)
        mean = checkpoint.average(parts, args.weights)
        checkpoint.save(args.save_path, mean, config, **origin, **extra)

    # What was done.
    for (part, _), member in zip(parts, origin["merged_from"]):
        print(f"{member['weight']:8.4f}  {part}")
    settings = sorted(extra.get("settings", {}))
    if settings:
        print(
            f"kept {counted(len(settings), 'setting[s]')} on which all parts agree: "
            f"{', '.join(settings)}"
        )
    if left_out:
        print(
            f"left out {counted(len(left_out), 'setting[s] that [differs|differ]')} or that not "
            f"all parts have: {', '.join(left_out)}"
        )
    for folder in folders:
        print(f"made the folder {folder}, which was missing")
    print(
        f"{'replaced' if replaced else 'wrote'} {args.save_path}: "
        f"{counted(len(mean), 'array[s]')}, configuration "
        f"{config or 'not stored (not in every input)'}"
    )
    print(f"sha256 {checkpoint.weights_sha256(args.save_path)}")
    return 0


def _origin(parts: Sequence[tuple]) -> dict:
    """What the file's record says of the parts; "weight" is a part's in the mean."""
    total = math.fsum(weight for _, weight in parts)
    names = [os.path.basename(os.path.abspath(part)) for part, _ in parts]
    weights = [weight / total if total else 0.0 for _, weight in parts]
    return {
        "merged_from": [{"file": name, "weight": weight} for name, weight in zip(names, weights)],
        "sources": [part.sha256 for part, _ in parts],
    }


def split_part(part: str) -> Tuple[str, float]:
    """FILE or FILE:WEIGHT -> (file, weight); a colon inside of a file's name is no weight.

    Raises ValueError.
    """
    path, colon, weight = part.rpartition(":")
    if not colon or os.path.exists(part):
        return part, 1.0
    try:
        value = float(weight)
    except ValueError:
        return part, 1.0
    if not path or not math.isfinite(value):
        raise ValueError(f"--ckpts {part}: expected FILE or FILE:WEIGHT with a finite number")
    return path, value


def _common_extra(parts: Sequence) -> Tuple[dict, List[str]]:
    """(`settings`, `step` and `pretrained` on which all records agree, settings left out).

    Raises ValueError where two trainings' settings make the mean useless: other latents, other
    classes.
    """
    _check_decisive(parts)
    settings = [part.settings for part in parts]
    names = sorted(set().union(*settings))
    common = {name: settings[0][name] for name in names if _agree(settings, name)}
    extras = [part.extra for part in parts]
    extra = {name: extras[0][name] for name in ("step", "pretrained") if _agree(extras, name)}
    if common:
        extra["settings"] = common
    return extra, [name for name in names if name not in common]


def _agree(records: Sequence[Mapping], name: str) -> bool:
    first = records[0]
    return all(name in record and record[name] == first.get(name) for record in records)


def _check_decisive(parts: Sequence) -> None:
    """Raise ValueError where two parts answer differently; a file of another program does not."""
    for name, (what, remedy) in DECISIVE.items():
        stored = [
            (part, _identity(name, part.settings[name]))
            for part in parts
            if part.settings.get(name)
        ]
        for part, value in stored:
            first, wanted = stored[0]
            if value != wanted:
                raise ValueError(
                    f"--ckpts: {first} and {part} were trained {what} ({_short(wanted)}, "
                    f"{_short(value)}); {remedy}"
                )


def _identity(name: str, value):
    """What must be equal of a setting: the names of classes, but not their colours."""
    return value.get("names") if name == "classes" and isinstance(value, dict) else value


def _short(value) -> str:
    if isinstance(value, list):
        value = f"{len(value)} classes: {', '.join(map(str, value[:3]))}..."
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _common_config(parts: Sequence):
    """The configuration that all files have, None if one has none; ValueError if two differ."""
    described = [part for part in parts if part.config is not None]
    for part in described:
        first = described[0]
        if part.config != first.config:
            raise ValueError(
                f"--ckpts: {first} and {part} are of different networks "
                f"({_difference(first.config, part.config)}); expected files of one network"
            )
    return parts[0].config if len(described) == len(parts) else None


def _difference(one, other) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__}, {type(other).__name__}"
    ours, theirs = vars(one), vars(other)
    return ", ".join(
        f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
