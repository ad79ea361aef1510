"""Average the weights of several files of one network into one file.

Each part is FILE or FILE:WEIGHT (1 without a weight); weights are divided by their sum. The sum is taken in float64, the
file is float32. Reads .pkl, .pth, .pt, .ckpt, .safetensors and .npz; writes .safetensors, .npz or .pkl, by the name.

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


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("merge_weights", __doc__)
    result.add_argument("--ckpts", nargs="+", required=True, metavar="FILE[:WEIGHT]", help="the files to average")
    result.add_argument("--save_path", required=True, metavar="OUT", help="the file to write: .safetensors, .npz or .pkl")
    result.add_argument("--weights", choices=("ema", "model"), default="ema",
                        help="which weights of a file that has both: the moving average (default) or the model")
    return result


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    from jseg import checkpoint

    parts = [split_part(part) for part in args.ckpts]
    checkpoint.check_target(args.save_path, [path for path, _ in parts])
    config = _common_config(checkpoint, [path for path, _ in parts])
    mean = checkpoint.average(parts, args.weights)
    total = math.fsum(weight for _, weight in parts)
    origin = [{"file": os.path.basename(path), "share": weight / total} for path, weight in parts]
    checkpoint.save(args.save_path, mean, config, merged_from=origin)
    for path, weight in parts:
        print("%8.4f  %s" % (weight / total, path))
    print("wrote %s: %d arrays, configuration %s" % (args.save_path, len(mean), config or "not stored (not in every input)"))
    print("sha256 %s" % checkpoint.sha256(args.save_path))
    return 0


def split_part(part: str) -> Tuple[str, float]:
    """FILE or FILE:WEIGHT -> (file, weight); a colon inside of a file's name is no weight. Raises ValueError."""
    path, colon, weight = part.rpartition(":")
    if not colon or os.path.exists(part):
        return part, 1.0
    try:
        value = float(weight)
    except ValueError:
        return part, 1.0
    if not path or not math.isfinite(value):
        raise ValueError("--ckpts %s: expected FILE or FILE:WEIGHT with a finite number" % part)
    return path, value


def _common_config(checkpoint, paths: List[str]):
    """The configuration that all files carry, None if one carries none; raises ValueError if two differ."""
    configs = [checkpoint.load_config(path) for path in paths]
    stored = [(path, config) for path, config in zip(paths, configs) if config is not None]
    for path, config in stored:
        if config != stored[0][1]:
            raise ValueError("--ckpts: %s and %s are of different networks (%s); expected files of one network"
                             % (stored[0][0], path, _difference(stored[0][1], config)))
    return configs[0] if len(stored) == len(configs) else None


def _difference(one, other) -> str:
    if type(one) is not type(other):
        return "%s, %s" % (type(one).__name__, type(other).__name__)
    ours, theirs = vars(one), vars(other)
    return ", ".join("%s %s and %s" % (name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name])


if __name__ == "__main__":
    sys.exit(cli.run(main))
