"""Bring weights of other programs into a file of ours, with the network's configuration in it.

IN may be a PyTorch SDM UNet, a VQ-GAN of taming-transformers, a VQ autoencoder of latent-diffusion
(alone or inside of a whole model), PixNerd (alone or as its trainer saves it), a file of the
release, or one of ours; as .pkl, .pth, .pt, .ckpt, .safetensors or .npz, or the index or folder of
a model in parts. What is not the network (discriminators, optimisers, other networks) is left out
and counted. OUT: .safetensors, .npz or .pkl, in float32; its folder is made if it is missing. A
file that is there is replaced only if it is an earlier result of the same input. A checkpoint of a
training run becomes a file of its moving average alone.

Examples:
  python scripts/convert_weights.py vq-f4/model.ckpt autoencoder.safetensors
  python scripts/convert_weights.py sdm/ema_0.9999_best.pt unet.safetensors --dry_run
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
from jseg.counting import agreeing, counted

# Fields of configurations that weights do not show; options have the same names.
UNREADABLE = ("head_channels", "width", "height", "groups")
UNSAID = "the weights do not tell"
EXPECTED = "expected the layout of SDM's UNet, of latent-diffusion's vq-f4 or of PixNerd"
# Recorded with PixNerd's own weights, which start a training and segment nothing.
PRETRAINED = "pixnerd"


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("convert_weights", __doc__)
    result.add_argument("input", metavar="IN", help="the file to convert")
    result.add_argument(
        "output", metavar="OUT", help="the file to write: .safetensors, .npz or .pkl"
    )

    # What is taken from the file.
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

    # What the weights do not tell.
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

    # What is written.
    result.add_argument(
        "--half", action="store_true", help="write float16: half the size, three digits"
    )
    result.add_argument(
        "--dry_run", action="store_true", help="print what would be written, and write nothing"
    )
    return result


def main(argv: Optional[List[str]] = None) -> int:
    """Check the network in the file, then write it; prints what was done."""
    args = parser().parse_args(argv)
    from jseg import checkpoint
    from jseg.formats import targets
    from jseg.formats.values import Converted

    targets.check_target(args.output, [args.input], create=True)
    given = {name: getattr(args, name) for name in UNREADABLE if getattr(args, name) is not None}
    source = checkpoint.describe(args.input, sha256=True)
    with checkpoint.open_state(source, args.weights) as selection:
        network = _network(selection, args.to, source.config, given)

        # What is there already may only be this command's result for the same file.
        origin = {
            "converted_from": os.path.basename(os.path.abspath(args.input)),
            "sources": [source.sha256],
        }
        targets.check_replaceable(args.output, origin, type(network.config).__name__)

        # Every value is looked at, also in a dry run.
        kind = "float16" if args.half else "float32"
        arrays = {
            name: Converted(name, selection.tensors[network.sources[name]], shape, kind)
            for name, shape in network.shapes.items()
        }
        if args.dry_run:
            for array in arrays.values():
                array.numpy()
            lines = ["dry run     nothing was written"]
        else:
            pretrained = source.config is None and _is_pixnerd(network.config)
            extra = {**origin, **_trained_by(source, pretrained)}
            lines = _written(args.output, arrays, network.config, origin, extra)
        vanished = sum(array.vanished for array in arrays.values())
    _report(selection, network, kind, vanished)
    if source.config is None:
        _report_assumed(network)
    _report_ignored(given, network.config)
    print("\n".join(lines))
    return 0


def _network(selection, kind: Optional[str], stored, given: dict):
    """The complete network in a file, with the options that its configuration takes."""
    from jseg.checkpoint import CheckpointError, mismatch
    from jseg.ldm.state_dict import Unreadable

    shapes = {name: tensor.shape for name, tensor in selection.tensors.items()}
    network = extract(shapes, kind, _with_options(stored, given), Unreadable(**given))
    own_shapes = {
        name: network.shapes[name] if name in network.reshaped else shape
        for name, shape in network.own_shapes(shapes).items()
    }
    problem = mismatch(network.shapes, own_shapes, EXPECTED)
    if problem:
        raise CheckpointError(problem)
    if _is_pixnerd(network.config):
        network.config = _with_options(network.config, given)
    return network


def _with_options(config, given: dict):
    """The configuration with the options that it has a field for; None stays None."""
    if config is None:
        return None
    fields = {name: value for name, value in given.items() if hasattr(config, name)}
    return dataclasses.replace(config, **fields)


def _written(output: str, arrays: dict, config, origin: dict, extra: dict) -> List[str]:
    """Write the file; the lines that say so."""
    from jseg import checkpoint
    from jseg.formats import targets
    from jseg.outputs.locks import held_files

    with targets.folder_of(output) as folders, held_files([output]):
        replaced = targets.check_replaceable(output, origin, type(config).__name__)
        checkpoint.save(output, arrays, config, **extra)
    verb = "replaced" if replaced else "wrote"
    return [f"made        the folder {folder}, which was missing" for folder in folders] + [
        f"{verb:<11} {output} ({os.path.getsize(output)} bytes)",
        f"sha256      {checkpoint.weights_sha256(output)}",
    ]


def extract(shapes, network: Optional[str], config, unreadable):
    """Find a "unet", "autoencoder" or "pixnerd" among the names and shapes of a file.

    config: of a file that has one, else None. The layout is that of the configuration; the caller
    compares it with the file's shapes. Raises CheckpointError.
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
        kind = _chosen([kind for kind in places if places[kind]], network, shapes)
        scope = places[kind][0]
        if kind == "pixnerd":
            return extract_pixnerd(shapes, scope)
        extracted = extract_unet if kind == "unet" else extract_autoencoder
        return extracted(shapes, scope, config, unreadable)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _chosen(there: List[str], network: Optional[str], shapes) -> str:
    """The kind of network to take, of those `there`; raises ValueError where that is not clear."""
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


def _trained_by(source, pretrained: bool) -> dict:
    """Steps and settings of the training run that wrote the file, if one did.

    PixNerd's own weights are marked as such.
    """
    names = ("step", "settings", "pretrained")
    trained = {name: source.extra[name] for name in names if name in source.extra}
    return {**trained, "pretrained": PRETRAINED} if pretrained else trained


def _report(selection, network, kind: str, vanished: int) -> None:
    values = sum(math.prod(shape) for shape in network.shapes.values())
    print(f"network     {network.config}")
    print(f"weights     {'moving average' if selection.averaged else 'those of the model'}")
    print(f"arrays      {len(network.shapes)}, {values:,} values, {kind}")
    for old, new in network.renamed:
        print(f"renamed     {old} -> {new}")
    if network.reshaped:
        print(
            f"reshaped    {counted(len(network.reshaped), 'array[s]')} by trailing dimensions of 1"
        )
    for group, count in sorted((network.dropped + selection.dropped).items()):
        print(f"left out    {count} of {group}")
    if vanished:
        words = agreeing(vanished, "value[s] to 0, [which is|which are] too small")
        print(f"rounded     {vanished:,} {words} for {kind}")


def _report_ignored(given: dict, config) -> None:
    ignored = [f"--{name}" for name in given if not hasattr(config, name)]
    if ignored:
        print(f"ignored     {', '.join(ignored)}: {type(config).__name__} has no such field")


def _report_assumed(network) -> None:
    """What the weights do not say, and what is assumed."""
    from jseg.flowseg.state_dict import preset_of
    from jseg.ldm.conversion import pixel_network

    config = network.config
    if _is_pixnerd(config):
        preset = preset_of(network.shapes)
        size = f"--preset {preset}" if preset else "(no preset has this size)"
        print(
            f"assumed     source {config.source}, {config.labels} classes, crops of "
            f"{config.width}x{config.height}: these are weights that start a training, which "
            "brings its own; they segment nothing yet"
        )
        print(f"for         train_flowseg --model_path OUT {size}")
        return
    if not hasattr(config, "head_channels"):
        print(f"assumed     {config.groups} groups of a norm: {UNSAID}; see --groups")
        return
    print(
        f"assumed     head_channels {config.head_channels}, latent {config.width}x{config.height}, "
        f"{config.groups} groups of a norm: {UNSAID}; see --head_channels, --width, --height, "
        "--groups"
    )

    # Latents of VQ-f4 and pixels both have 3 channels.
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
