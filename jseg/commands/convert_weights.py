"""Bring weights of other programs into a file of ours, with the network's configuration in it.

IN may be a PyTorch SDM UNet, a VQ-GAN of taming-transformers, a VQ autoencoder of latent-diffusion (alone or inside of a
whole model), a file of the release, or one of ours; as .pkl, .pth, .pt, .ckpt, .safetensors or .npz. What is not the
network (discriminators, optimisers, other networks) is left out and counted. OUT: .safetensors, .npz or .pkl, in float32.
A checkpoint of a training run becomes a file of its moving average alone.

examples:
  python scripts/convert_weights.py vq-f4/model.ckpt autoencoder.safetensors
  python scripts/convert_weights.py sdm/ema_0.9999_best.pt unet.safetensors --head_channels 64 --dry_run
"""
from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from typing import List, Optional

from jseg.commands import cli

# What weights do not tell; options of the same names.
UNREADABLE = ("head_channels", "width", "height", "groups")


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("convert_weights", __doc__)
    result.add_argument("input", metavar="IN", help="the file to convert")
    result.add_argument("output", metavar="OUT", help="the file to write: .safetensors, .npz or .pkl")
    result.add_argument("--to", choices=("unet", "autoencoder"), help="the network to take, where the file holds both")
    result.add_argument("--weights", choices=("ema", "model"), default="ema",
                        help="which weights of a file that has both: the moving average (default) or the model")
    result.add_argument("--head_channels", type=int, help="UNet: channels per attention head, which the weights do not tell (default 64)")
    result.add_argument("--width", type=int, help="UNet: the latent's width that it was trained at (default 128)")
    result.add_argument("--height", type=int, help="UNet: the latent's height that it was trained at (default 96)")
    result.add_argument("--groups", type=int, help="of every group norm, which the weights do not tell either (default 32)")
    result.add_argument("--half", action="store_true", help="write float16: half the size, three digits")
    result.add_argument("--dry_run", action="store_true", help="print what would be written, and write nothing")
    return result


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    from jseg import checkpoint
    from jseg.formats import conversion
    from jseg.ldm.layout import Unreadable

    checkpoint.check_target(args.output, [args.input])
    given = {name: getattr(args, name) for name in UNREADABLE if getattr(args, name) is not None}
    stored = checkpoint.load_config(args.input)
    if stored is not None:
        stored = dataclasses.replace(stored, **{name: value for name, value in given.items() if hasattr(stored, name)})
    with checkpoint.opened_state(args.input, args.weights) as selection:
        shapes = {name: tensor.shape for name, tensor in selection.tensors.items()}
        found = conversion.extract(shapes, args.to, stored, Unreadable(**given))
        given_shapes = {name: found.shapes[name] if name in found.reshaped else shapes[source] for name, source in found.sources.items()}
        problem = checkpoint.mismatch(found.shapes, given_shapes, "expected the layout of SDM's UNet or of latent-diffusion's vq-f4")
        if problem:
            raise checkpoint.CheckpointError(problem)
        kind = "float16" if args.half else "float32"
        state = {name: checkpoint.Streamed(name, selection.tensors[found.sources[name]], shape, kind)
                 for name, shape in found.shapes.items()}
        if args.dry_run:
            for array in state.values():
                array.numpy()
        else:
            checkpoint.save(args.output, state, found.config, converted_from=os.path.basename(args.input), **_trained_by(args.input))
        _report(selection, found, stored is None, kind)
    if args.dry_run:
        print("dry run     nothing was written")
    else:
        print("wrote       %s (%d bytes)" % (args.output, os.path.getsize(args.output)))
        print("sha256      %s" % checkpoint.sha256(args.output))
    return 0


def _trained_by(path: str) -> dict:
    """Steps and settings of the training run that wrote the file, if one did."""
    from jseg.formats.reader import read_record
    extra = (read_record(path) or {}).get("extra", {})
    return {name: extra[name] for name in ("step", "settings") if name in extra}


def _report(selection, found, inferred: bool, kind: str) -> None:
    values = sum(math.prod(shape) for shape in found.shapes.values())
    print("network     %s" % found.config)
    print("weights     %s" % ("moving average" if selection.averaged else "the model's own"))
    print("arrays      %d, %s values, %s" % (len(found.shapes), format(values, ","), kind))
    for old, new in found.renamed:
        print("renamed     %s -> %s" % (old, new))
    if found.reshaped:
        print("reshaped    %d arrays by trailing dimensions of 1" % len(found.reshaped))
    for group, count in sorted((found.dropped + selection.dropped).items()):
        print("left out    %d of %s" % (count, group))
    if inferred and hasattr(found.config, "head_channels"):
        print("assumed     head_channels %d, latent %dx%d, %d groups of a norm: the weights do not tell; see --head_channels, --width, "
              "--height, --groups" % (found.config.head_channels, found.config.width, found.config.height, found.config.groups))
    elif inferred:
        print("assumed     %d groups of a norm: the weights do not tell; see --groups" % found.config.groups)


if __name__ == "__main__":
    sys.exit(cli.run(main))
