"""Bring weights of other programs into a file of ours, with the network's configuration in it.

IN may be a PyTorch SDM UNet, a VQ-GAN of taming-transformers, a VQ autoencoder of latent-diffusion
(alone or inside of a whole model), PixNerd (alone or as its trainer saves it), a file of the
release, or one of ours; as .pkl, .pth, .pt, .ckpt, .safetensors or .npz, or the index or folder of
a model in parts. What is not the network (discriminators, optimisers, other networks) is left out
and counted. OUT: .safetensors, .npz or .pkl, in float32; its folder is made if it is missing. A
file that is there is replaced only if it is an earlier result of the same input. A checkpoint of a
training run becomes a file of its moving average alone.

examples:
  python scripts/convert_weights.py vq-f4/model.ckpt autoencoder.safetensors
  python scripts/convert_weights.py sdm/ema_0.9999_best.pt unet.safetensors --head_channels 64 --dry_run
  python scripts/convert_weights.py PixNerd-XL-16.ckpt pixnerd-xl.safetensors
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
EXPECTED = "expected the layout of SDM's UNet, of latent-diffusion's vq-f4 or of PixNerd"
PRETRAINED = (
    "pixnerd"  # recorded with PixNerd's own weights, which start a training and segment nothing
)


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("convert_weights", __doc__)
    result.add_argument("input", metavar="IN", help="the file to convert")
    result.add_argument(
        "output", metavar="OUT", help="the file to write: .safetensors, .npz or .pkl"
    )
    result.add_argument(
        "--to",
        choices=("unet", "autoencoder", "pixnerd"),
        help="the network to take, where the file holds several",
    )
    result.add_argument(
        "--weights",
        choices=("ema", "model"),
        default="ema",
        help="which weights of a file that has both: the moving average (default) or the model",
    )
    result.add_argument(
        "--head_channels",
        type=int,
        help="UNet: channels per attention head, which the weights do not tell (default 64)",
    )
    result.add_argument(
        "--width",
        type=int,
        help="UNet: the latent's width that it was trained at (default 128); PixNerd: the crops' "
        "(512)",
    )
    result.add_argument(
        "--height",
        type=int,
        help="UNet: the latent's height that it was trained at (default 96); PixNerd: the crops' "
        "(512)",
    )
    result.add_argument(
        "--groups",
        type=int,
        help="of every group norm, which the weights do not tell either (default 32)",
    )
    result.add_argument(
        "--half", action="store_true", help="write float16: half the size, three digits"
    )
    result.add_argument(
        "--dry_run", action="store_true", help="print what would be written, and write nothing"
    )
    return result


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    from jseg import checkpoint
    from jseg.formats import targets
    from jseg.formats.values import Converted
    from jseg.ldm.state_dict import Unreadable
    from jseg.outputs.locks import held_files

    targets.check_target(args.output, [args.input], create=True)
    given = {name: getattr(args, name) for name in UNREADABLE if getattr(args, name) is not None}
    source = checkpoint.describe(args.input, sha256=True)
    stored = source.config
    if stored is not None:
        stored = dataclasses.replace(
            stored, **{name: value for name, value in given.items() if hasattr(stored, name)}
        )
    with checkpoint.opened_state(source, args.weights) as selection:
        # The network in the file, and whether it is complete.
        shapes = {name: tensor.shape for name, tensor in selection.tensors.items()}
        found = extract(shapes, args.to, stored, Unreadable(**given))
        given_shapes = {
            name: found.shapes[name] if name in found.reshaped else shapes[source]
            for name, source in found.sources.items()
        }
        problem = checkpoint.mismatch(found.shapes, given_shapes, EXPECTED)
        if problem:
            raise checkpoint.CheckpointError(problem)
        unused = _unused(given, found)

        # What is there already may only be this command's result for the same file.
        kind = "float16" if args.half else "float32"
        state = {
            name: Converted(name, selection.tensors[found.sources[name]], shape, kind)
            for name, shape in found.shapes.items()
        }
        origin = {
            "converted_from": os.path.basename(os.path.abspath(args.input)),
            "sources": [source.sha256],
        }
        network = type(found.config).__name__
        targets.check_replaceable(args.output, origin, network)

        # Every value is looked at, also in a dry run.
        made: list = []
        replaced = False
        if args.dry_run:
            for array in state.values():
                array.numpy()
        else:
            extra = {
                **origin,
                **_trained_by(source, stored is None and _is_pixnerd(found.config)),
            }
            with targets.folder_of(args.output) as made, held_files([args.output]):
                replaced = targets.check_replaceable(args.output, origin, network)
                checkpoint.save(args.output, state, found.config, **extra)
        _report(
            selection, found, stored is None, kind, sum(array.vanished for array in state.values())
        )
    if unused:
        print(
            f"ignored     {', '.join(unused)}: {type(found.config).__name__} has nothing of the "
            "kind"
        )
    for folder in made:
        print(f"made        the folder {folder}, which was missing")
    if args.dry_run:
        print("dry run     nothing was written")
    else:
        print(
            f"{'replaced' if replaced else 'wrote':<11} {args.output} "
            f"({os.path.getsize(args.output)} bytes)"
        )
        print(f"sha256      {checkpoint.weights_sha256(args.output)}")
    return 0


def extract(shapes, network: Optional[str], config, unreadable):
    """Find a "unet", "autoencoder" or "pixnerd" among the names and shapes of a file; `config` if
    the file tells it.

    The layout is that of the configuration; the caller compares it with what was found. Raises
    CheckpointError.
    """
    from jseg.configs import AUTOENCODER_MARK, PIXNERD_MARK, SPADE_MARK
    from jseg.flowseg.conversion import extract_pixnerd
    from jseg.formats.extraction import scopes
    from jseg.formats.tensor import CheckpointError
    from jseg.ldm.conversion import extract_autoencoder, extract_unet

    try:
        if _is_pixnerd(config):
            if network not in (None, "pixnerd"):
                raise CheckpointError(
                    f"the file holds a network of FlowSeg ({type(config).__name__}), not {network}"
                )
            return extract_pixnerd(shapes, config=config)
        marks = {"unet": SPADE_MARK, "autoencoder": AUTOENCODER_MARK, "pixnerd": PIXNERD_MARK}
        places = {kind: scopes(shapes, mark) for kind, mark in marks.items()}
        network = _chosen([kind for kind in places if places[kind]], network, shapes)
        scope = places[network][0]
        if network == "pixnerd":
            return extract_pixnerd(shapes, scope)
        return (extract_unet if network == "unet" else extract_autoencoder)(
            shapes, scope, config, unreadable
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _chosen(there: List[str], network: Optional[str], shapes) -> str:
    """The kind of network to take out of a file that holds those `there`; raises ValueError where
    that is not clear.
    """
    from jseg.configs import UNET_MARK, looks_like

    if network is None and len(there) == 1:
        return there[0]
    if network is None and there:
        named = {"unet": "a UNet", "autoencoder": "an autoencoder", "pixnerd": "a PixNerd"}
        raise ValueError(
            f"the file holds {' and '.join(named[kind] for kind in there)}; choose with "
            f"{' or '.join(f'--to {kind}' for kind in there)}"
        )
    if network not in there:
        without_spade = any(name.endswith(UNET_MARK) for name in shapes)
        looks = looks_like(shapes) or (
            "a UNet without SPADE norms" if without_spade else "nothing that is known here"
        )
        raise ValueError(
            f"the file holds no {network or 'network to convert'}; it looks like {looks}; "
            "expected SDM's UNet, a VQ autoencoder of taming-transformers or latent-diffusion, "
            "PixNerd, or the release's files"
        )
    return network


def _is_pixnerd(config) -> bool:
    return type(config).__name__ == "PixNerdConfig"


def _unused(given: dict, found) -> List[str]:
    """The options that say nothing of this network; width and height of PixNerd's crops are taken
    over.
    """
    fields = {field.name for field in dataclasses.fields(found.config)}
    if _is_pixnerd(found.config):
        found.config = dataclasses.replace(
            found.config, **{name: value for name, value in given.items() if name in fields}
        )
    return [f"--{name}" for name in given if name not in fields]


def _trained_by(source, pretrained: bool) -> dict:
    """Steps and settings of the training run that wrote the file, if one did; PixNerd's own weights
    are marked as such.
    """
    extra = source.extra
    kept = {name: extra[name] for name in ("step", "settings", "pretrained") if name in extra}
    return {**kept, "pretrained": PRETRAINED} if pretrained else kept


def _report(selection, found, inferred: bool, kind: str, vanished: int) -> None:
    values = sum(math.prod(shape) for shape in found.shapes.values())
    print(f"network     {found.config}")
    print("weights     %s" % ("moving average" if selection.averaged else "the model's own"))
    print(f"arrays      {len(found.shapes)}, {format(values, ',')} values, {kind}")
    for old, new in found.renamed:
        print(f"renamed     {old} -> {new}")
    if found.reshaped:
        print(f"reshaped    {len(found.reshaped)} arrays by trailing dimensions of 1")
    for group, count in sorted((found.dropped + selection.dropped).items()):
        print(f"left out    {count} of {group}")
    if vanished:
        print(f"rounded     {vanished:,} values to 0, which are too small for {kind}")
    if inferred:
        _report_assumed(found)


def _report_assumed(found) -> None:
    """What the weights do not tell, and what was taken in its place."""
    from jseg.flowseg.state_dict import preset_of
    from jseg.ldm.conversion import pixel_network

    config = found.config
    if _is_pixnerd(config):
        preset = preset_of(found.shapes)
        print(
            f"assumed     source {config.source}, {config.labels} classes, crops of "
            f"{config.width}x{config.height}: these are weights that start a training, which "
            "brings its own; they segment nothing yet"
        )
        print(
            "for         train_flowseg --model_path OUT "
            f"{f'--preset {preset}' if preset else '(no preset has this size)'}"
        )
        return
    if not hasattr(config, "head_channels"):
        print(
            f"assumed     {config.groups} groups of a norm: the weights do not tell; see --groups"
        )
        return
    print(
        f"assumed     head_channels {config.head_channels}, latent "
        f"{config.width}x{config.height}, {config.groups} groups of a norm: the weights do not "
        "tell; see --head_channels, --width, --height, --groups"
    )
    pixels = pixel_network(config)
    if pixels:
        print(
            f"assumed     a latent network, though {pixels} are those of SDM's own networks, "
            "which work on pixels: such a network makes no images with an autoencoder; this is "
            "of use only if it was trained on latents"
        )
    elif config.latent_channels == 3:
        print(
            "assumed     a network of VQ-f4's latents, which have 3 channels as pixels have: the "
            "weights do not tell these apart; SDM's own networks work on pixels and make no "
            "images with an autoencoder"
        )


if __name__ == "__main__":
    sys.exit(cli.run(main))
