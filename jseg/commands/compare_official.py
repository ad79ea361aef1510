"""Compare with the official release: the same weights, label maps, references and noise through its
code and through ours.

Every part is computed by a process of its own on either side, so that a crash or a peak of memory
is one part's. Without weights, both sides get stand-ins that are a function of names and shapes.
OUTPUT/comparison.md, .json and .png are written; a second call computes what is missing or has
changed. Exit code 0 if all rows are within bounds, 1 if one is not.

Examples:
  python scripts/compare_official.py --official CLONE
  python scripts/compare_official.py --official CLONE --size release --output comparison-release
  python scripts/compare_official.py --official CLONE --only decode \\
      --model_path average-176k-266k.pkl --ae_path autoencoder.pkl
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

ROOM = 1 << 20  # bytes without which not even the smallest comparison fits
WRITTEN = ("inputs.npz", "comparison.md", "comparison.json", "comparison.png")


def parser():
    from jseg.parity.release.parts import PARTS, REPOSITORY

    p = cli.make_parser("compare_official", __doc__)
    p.add_argument("--official", required=True, metavar="DIR", help=f"a clone of {REPOSITORY}")
    p.add_argument(
        "--model_path", metavar="FILE", help="weights of the UNet, for both sides; with --ae_path"
    )
    p.add_argument(
        "--ae_path",
        metavar="FILE",
        help="weights of the autoencoder, for both sides; with --model_path",
    )
    p.add_argument(
        "--size",
        choices=("small", "release"),
        help="networks where no files are given: small (default; minutes on a CPU) or release, "
        "with the full widths",
    )
    p.add_argument(
        "--output",
        default="comparison",
        metavar="DIR",
        help="folder for table, image and results (default comparison)",
    )
    p.add_argument(
        "--only", nargs="+", metavar="PART", choices=sorted(PARTS), help="of: " + ", ".join(PARTS)
    )
    p.add_argument(
        "--stage",
        type=int,
        default=2,
        choices=(0, 1, 2),
        help="which stage is run whole: 2 has 20 guided steps (default), 0 has 300, 1 has 320",
    )
    p.add_argument("--again", action="store_true", help="compute everything, also what is there")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Compute what is missing, compare, write and print; 0 if every row is within bounds, 1 if one
    is not.
    """
    args = parser().parse_args(argv)
    check(args)
    from jseg.outputs.locks import held

    size, unet, autoencoder = networks(args)
    folder = Path(args.output)
    with held(folder):
        claim_output(args)  # once more: another run may have written there since
        return _compare(args, folder, size, unet, autoencoder)


def _compare(args, folder: Path, size: str, unet, autoencoder) -> int:
    from jseg.parity.release import differences, inputs, report, running, table
    from jseg.parity.release.parts import PARTS

    # The inputs of both sides.
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    if args.model_path:
        files = Path(args.model_path), Path(args.ae_path)
        title = ", ".join(path.name for path in files)
    else:
        files, title = inputs.stand_in_weights(folder, size), ""
    examples, repetitions = inputs.SIZES[size]
    setting = inputs.Setting(
        official=str(Path(args.official).resolve()),
        unet=unet,
        autoencoder=autoencoder,
        unet_weights=str(files[0].resolve()),
        autoencoder_weights=str(files[1].resolve()),
        stage=args.stage,
        examples=examples,
        repetitions=repetitions,
        device=args.device,
    )
    arrays = inputs.write(folder, setting)
    names = [name for name in PARTS if not args.only or name in args.only]
    if "merge" in names:
        inputs.write_merge(folder, setting)

    # The files have the rows so far after each part.
    key, records = running.result_keys(setting, arrays), []
    for name in names:
        records += running.part_records(folder, name, key, args.again)
        report.write(folder, setting, title, arrays, records)
    print(table.table(records))
    bad = [row["title"] for row in records if row["verdict"] not in differences.FINE]
    rest = f", not: {'; '.join(bad)}" if bad else ""
    running.say(
        f"{len(records) - len(bad)} of {len(records)} rows within bounds{rest}; "
        f"{folder / 'comparison.md'}, .json"
    )
    return 1 if bad else 0


def check(args) -> None:
    """Raise FileNotFoundError or ValueError for wrong arguments, before anything is computed."""
    from jseg.parity.release.parts import FILES, REPOSITORY

    if not Path(args.official).is_dir():
        raise FileNotFoundError(
            f"--official {args.official} is no folder; expected a clone of {REPOSITORY}"
        )
    missing = [name for name in FILES if not (Path(args.official) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"--official {args.official}: no {missing[0]} in it; expected a clone of {REPOSITORY}"
        )
    if bool(args.model_path) != bool(args.ae_path):
        raise ValueError(
            "--model_path and --ae_path: one is given; give both, or none for stand-in weights"
        )
    for option, path in (("--model_path", args.model_path), ("--ae_path", args.ae_path)):
        if path and not Path(path).is_file():
            raise FileNotFoundError(
                f"{option} {path} {cli.no_file(path)}; expected a file of weights"
            )
    claim_output(args)


def claim_output(args) -> None:
    """Refuse an output folder with files of another origin under names of ours, or one that holds
    the inputs.
    """
    from jseg.outputs.origin import origin
    from jseg.outputs.places import claim
    from jseg.parity.release.inputs import MERGED

    # setting.json is written first of all, so a folder that has it is of an earlier call.
    names = [*WRITTEN, "parts/x", "weights/x", *MERGED, "setting.json"]
    goes_on = origin(args.output) == "compare_official"
    files = [Path(path) for path in (args.model_path, args.ae_path) if path]
    files += sorted(Path(args.official).rglob("*.py"))
    claim(
        args.output,
        "--output",
        "compare_official",
        names,
        files,
        [args.official],
        names if goes_on else (),
        "setting.json",
        ROOM,
    )
    if not goes_on:
        taken = [name for name in ("parts", "weights") if (Path(args.output) / name).exists()]
        if taken:
            raise ValueError(
                f"--output {args.output} holds {taken[0]}, and no setting.json that says whose it "
                "is; give another --output"
            )


def networks(args):
    """(key of SIZES, UNetConfig, AutoencoderConfig) of the weight files, else of --size.

    Raises ValueError for files that are damaged or of networks that the release's code cannot
    build.
    """
    from jseg.ldm.presets import AUTOENCODERS, UNETS
    from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes
    from jseg.ldm.weights import network_config
    from jseg.parity.release import inputs

    size = args.size or "small"
    if not args.model_path:
        return size, UNETS[size], AUTOENCODERS[size]
    unet = network_config(args.model_path, "UNetConfig")
    autoencoder = network_config(args.ae_path, "AutoencoderConfig")
    if args.size and (unet, autoencoder) != (UNETS[size], AUTOENCODERS[size]):
        raise ValueError(
            f"--size {size}: the files hold networks of other sizes; leave --size out, or "
            "--model_path and --ae_path"
        )
    inputs.check_buildable(unet, autoencoder)
    inputs.check_weights(args.model_path, unet_shapes(unet))
    inputs.check_weights(args.ae_path, autoencoder_shapes(autoencoder))
    return "release" if unet.channels >= UNETS["release"].channels else "small", unet, autoencoder


if __name__ == "__main__":
    sys.exit(cli.run(main))
