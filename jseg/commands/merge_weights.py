"""Average the weights of several files of one network into one file.

Each part is FILE or FILE:WEIGHT (1 without a weight); weights are divided by their sum. The sum is
taken in float64, the file is float32. Reads .pkl, .pth, .pt, .ckpt, .safetensors and .npz, and the
index or folder of a model in parts; writes .safetensors, .npz or .pkl, by the name, into a folder
that is made if it is missing. Settings of the trainings are kept where all parts agree; parts of
different autoencoders or class sets are refused. A file that is there is replaced only if it is an
earlier result of the same parts.

examples:
  python scripts/merge_weights.py --ckpts 176000.pkl:0.5 266000.pkl:0.5 --save_path average-176k-266k.pkl
  python -m jseg merge_weights --ckpts a.safetensors b.safetensors c.pth:2 --weights model --save_path mean.safetensors
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import List, Optional, Tuple

from jseg.commands import cli

# Settings of a training without which its weights mean something else, and what to do where two
# parts differ in them.
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
    args = parser().parse_args(argv)
    from jseg import checkpoint
    from jseg.formats import targets
    from jseg.outputs.locks import held_files

    parts = [split_part(part) for part in args.ckpts]
    paths = [path for path, _ in parts]
    targets.check_target(args.save_path, paths, create=True)
    config = _common_config(checkpoint, paths)
    kept, left_out = _common_extra(paths)

    # What is there already may only be this command's result for the same parts.
    total = math.fsum(weight for _, weight in parts)
    origin = {
        "merged_from": [
            {
                "file": os.path.basename(os.path.abspath(path)),
                "share": weight / total if total else 0.0,
            }
            for path, weight in parts
        ],
        "sources": [checkpoint.weights_sha256(path) for path in paths],
    }
    targets.check_replaceable(args.save_path, origin)
    with targets.folder_of(args.save_path) as made, held_files([args.save_path]):
        replaced = targets.check_replaceable(args.save_path, origin)
        mean = checkpoint.average(parts, args.weights)
        checkpoint.save(args.save_path, mean, config, **origin, **kept)

    for path, weight in parts:
        print(f"{weight / total:8.4f}  {path}")
    if kept.get("settings"):
        print(
            f"kept {len(kept['settings'])} settings on which all parts agree: "
            f"{', '.join(sorted(kept['settings']))}"
        )
    if left_out:
        print(
            f"left out {len(left_out)} settings that differ or that not all parts have: "
            f"{', '.join(left_out)}"
        )
    for folder in made:
        print(f"made the folder {folder}, which was missing")
    print(
        f"{'replaced' if replaced else 'wrote'} {args.save_path}: {len(mean)} arrays, "
        f"configuration {config or 'not stored (not in every input)'}"
    )
    print(f"sha256 {checkpoint.weights_sha256(args.save_path)}")
    return 0


def split_part(part: str) -> Tuple[str, float]:
    """FILE or FILE:WEIGHT -> (file, weight); a colon inside of a file's name is no weight. Raises
    ValueError.
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


def _common_extra(paths: List[str]) -> Tuple[dict, List[str]]:
    """What the records of all files agree on: (`settings`, `step` and `pretrained`, the names of
    settings that were left out).

    Raises ValueError where two trainings' settings make the mean of no use: other latents, other
    classes.
    """
    from jseg.formats.reader import read_record

    extras = [(read_record(path) or {}).get("extra") or {} for path in paths]
    settings = [
        extra.get("settings") if isinstance(extra.get("settings"), dict) else {} for extra in extras
    ]

    # Two different answers are an error; a file of another program gives none.
    for name, (what, remedy) in DECISIVE.items():
        stored = [
            (path, _identity(name, each[name]))
            for path, each in zip(paths, settings)
            if each.get(name)
        ]
        for path, value in stored:
            if value != stored[0][1]:
                raise ValueError(
                    f"--ckpts: {stored[0][0]} and {path} were trained {what} "
                    f"({_short(stored[0][1])}, {_short(value)}); {remedy}"
                )
    names = sorted(set().union(*settings))
    common = {
        name: settings[0][name]
        for name in names
        if all(name in each and each[name] == settings[0].get(name) for each in settings)
    }
    kept = {
        name: extras[0][name]
        for name in ("step", "pretrained")
        if all(name in extra and extra[name] == extras[0].get(name) for extra in extras)
    }
    return {**kept, **({"settings": common} if common else {})}, [
        name for name in names if name not in common
    ]


def _identity(name: str, value):
    """What must be equal of a decisive setting: of classes their names, since colours are for
    people.
    """
    return value.get("names") if name == "classes" and isinstance(value, dict) else value


def _short(value) -> str:
    text = (
        f"{len(value)} classes: {', '.join(map(str, value[:3]))}..."
        if isinstance(value, list)
        else str(value)
    )
    return text if len(text) <= 60 else f"{text[:12]}..."


def _common_config(checkpoint, paths: List[str]):
    """The configuration that all files carry, None if one carries none; raises ValueError if two
    differ.
    """
    configs = [checkpoint.load_config(path) for path in paths]
    stored = [(path, config) for path, config in zip(paths, configs) if config is not None]
    for path, config in stored:
        if config != stored[0][1]:
            raise ValueError(
                f"--ckpts: {stored[0][0]} and {path} are of different networks "
                f"({_difference(stored[0][1], config)}); expected files of one network"
            )
    return configs[0] if len(stored) == len(configs) else None


def _difference(one, other) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__}, {type(other).__name__}"
    ours, theirs = vars(one), vars(other)
    return ", ".join(
        f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
