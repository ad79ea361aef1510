"""Compare with the official release: the same weights, label maps, references and noise through its
code and through ours.

Every part is computed by a process of its own on either side, so that a crash or a peak of memory
is one part's. Without weights, both sides get stand-ins that are a function of names and shapes.
Written are OUTPUT/comparison.md, .json and .png; a second call computes what is missing or has
changed. Exit code 0 if all rows are within bounds, 1 if one is not.

Examples:
  python scripts/compare_official.py --official PATH_TO_CLONE
  python scripts/compare_official.py --official PATH_TO_CLONE --size release --output comparison-release
  python scripts/compare_official.py --official PATH_TO_CLONE --model_path average-176k-266k.pkl --ae_path autoencoder.pkl --only decode
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

from jseg.commands import cli

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "ader47/jittor-jieke-semantic_images_synthesis"
ROOM = 1 << 20  # bytes without which not even the smallest comparison fits
TITLES = {"ours": "ours", "release": "release", "exact": "release with float64 norms"}


def parser():
    from jseg.parity.release.parts import PARTS

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
        return _compared(args, folder, size, unet, autoencoder)


def _compared(args, folder: Path, size: str, unet, autoencoder) -> int:
    from jseg.parity.release import inputs, table
    from jseg.parity.release.parts import PARTS

    (folder / "parts").mkdir(parents=True, exist_ok=True)
    files = (
        (Path(args.model_path), Path(args.ae_path))
        if args.model_path
        else inputs.stand_in_weights(folder, size)
    )
    examples, repetitions = inputs.SIZES[size]
    setting = inputs.Setting(
        str(Path(args.official).resolve()),
        unet,
        autoencoder,
        *(str(path.resolve()) for path in files),
        args.stage,
        examples,
        repetitions,
        args.device,
    )
    arrays = inputs.write(folder, setting)
    names = [name for name in PARTS if not args.only or name in args.only]
    if "merge" in names:
        inputs.write_merge(folder, setting)
    key = keys(setting, arrays)
    found: List[Dict] = []
    for name in names:
        found += rows_of(folder, name, key, args.again)
        write(folder, args, setting, arrays, found)
    print(table.table(found))
    bad = [row["title"] for row in found if row["verdict"] not in table.FINE]
    _tell(
        f"{len(found) - len(bad)} of {len(found)} rows within bounds"
        + (f", not: {'; '.join(bad)}" if bad else "")
        + f"; {folder / 'comparison.md'}, .json"
    )
    return 1 if bad else 0


def check(args) -> None:
    """Raise FileNotFoundError or ValueError for what cannot be meant, before anything is
    computed.
    """
    from jseg.parity.release.parts import FILES

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
    """Refuse a folder that holds files of others under names that are written, or whose files are
    the inputs.
    """
    from jseg.outputs.origin import origin
    from jseg.outputs.places import claim
    from jseg.parity.release.inputs import MERGED

    # setting.json is written first of all, so a folder that has it is of an earlier call.
    names = [
        "inputs.npz",
        "comparison.md",
        "comparison.json",
        "comparison.png",
        "parts/x",
        "weights/x",
        *MERGED,
    ]
    known = None if origin(args.output) == "compare_official" else ()
    files = [Path(path) for path in (args.model_path, args.ae_path) if path]
    files += sorted(Path(args.official).rglob("*.py"))
    claim(
        args.output,
        "--output",
        "compare_official",
        names + ["setting.json"],
        files,
        [args.official],
        known,
        "setting.json",
        ROOM,
    )
    if known is not None:
        taken = [name for name in ("parts", "weights") if (Path(args.output) / name).exists()]
        if taken:
            raise ValueError(
                f"--output {args.output} holds {taken[0]}, and no setting.json that says whose it "
                "is; give another --output"
            )


def networks(args):
    """(key of SIZES, UNetConfig, AutoencoderConfig): of the files given, else of the size asked
    for.

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
    unet, autoencoder = (
        network_config(args.model_path, "UNetConfig"),
        network_config(args.ae_path, "AutoencoderConfig"),
    )
    if args.size and (unet, autoencoder) != (UNETS[size], AUTOENCODERS[size]):
        raise ValueError(
            f"--size {size}: the files hold networks of other sizes; leave --size out, or "
            "--model_path and --ae_path"
        )
    inputs.check_buildable(unet, autoencoder)
    inputs.check_weights(args.model_path, unet_shapes(unet))
    inputs.check_weights(args.ae_path, autoencoder_shapes(autoencoder))
    return "release" if unet.channels >= UNETS["release"].channels else "small", unet, autoencoder


def keys(setting, arrays) -> Callable[[str, str], str]:
    """key(part, side), which tells whether a result that is there is of these inputs, weights and
    sources.
    """
    import dataclasses

    from jseg.parity.release.inputs import digest

    files = digest(
        arrays,
        Path(setting.unet_weights),
        Path(setting.autoencoder_weights),
        ROOT / "jseg" / "parity" / "release",
    )
    sources = {True: digest(ROOT / "jseg"), False: digest(Path(setting.official))}

    def key(part: str, side: str) -> str:
        same = dataclasses.replace(
            setting,
            official="",
            unet_weights="",
            autoencoder_weights="",
            stage=setting.stage if part in ("step", "stage") else 0,
        )
        return digest(files, same, sources[side == "ours"])

    return key


def rows_of(folder: Path, part: str, key: Callable[[str, str], str], again: bool) -> List[Dict]:
    """A part's rows: both sides computed and compared, and the third one where that leaves a
    doubt.
    """
    from jseg.parity.release import table
    from jseg.parity.release.parts import EXACT, PARTS, SIDES

    failures = {
        side: why
        for side in SIDES
        for why in [computed(folder, part, side, key(part, side), again)]
        if why
    }
    rows = table.records(folder, part, failures)
    if not (PARTS[part].exact and table.doubtful(rows)):
        return rows
    _tell(f"{part}: above the bound; whose rounding is it?")
    why = computed(folder, part, EXACT, key(part, EXACT), again)
    if not why:
        return table.records(folder, part, {}, exact=True)
    return [
        dict(row, note=f"{TITLES[EXACT]}: {why}") if row["verdict"] == "DIFFERS" else row
        for row in rows
    ]


def computed(folder: Path, part: str, side: str, key: str, again: bool) -> str:
    """Compute a part on one side, unless its result is there; why it failed, or ""."""
    from jseg.parity.release.inputs import result_paths

    arrays, record = result_paths(folder, part, side)
    about = (
        json.loads(record.read_text(encoding="utf-8"))
        if record.is_file() and arrays.is_file()
        else {}
    )
    if about.get("key") == key and not again:
        _tell(f"{part}, {TITLES[side]}: is there")
        return ""
    _tell(f"{part}, {TITLES[side]}: computing")
    before = time.monotonic()
    if record.is_file():
        record.unlink()
    path = os.pathsep.join([str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)).strip(
        os.pathsep
    )
    # No bytecode into the clone, and float32 without TF32, which cuDNN uses unless told not to.
    environment = dict(
        os.environ, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1", NVIDIA_TF32_OVERRIDE="0"
    )
    done = subprocess.run(
        [sys.executable, "-m", "jseg.parity.release.child", side, part, str(folder), key],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=environment,
    )
    if done.returncode or not record.is_file():
        return f"the process ended with {done.returncode}: {last_word(done.stderr)}"
    _tell(f"{part}, {TITLES[side]}: {time.monotonic() - before:.0f} s in all")
    return ""


def last_word(text: str) -> str:
    """Why a process failed, from what it wrote: the reason that Jittor gives, else the last
    line.
    """
    reasons = re.findall(r"\[Reason\]: *(.+)", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", (reasons or lines or ["without a word"])[-1])[:200]


def write(folder: Path, args, setting, arrays, found: List[Dict]) -> None:
    """The three files, each whole or not at all, with the rows so far."""
    from jseg.files import write_atomic
    from jseg.images import save_image
    from jseg.parity.release import table

    parts = list(dict.fromkeys(row["part"] for row in found))
    nudges, about = table.nudges_of(folder, found), facts(args, setting, folder, parts)
    sheet = table.sheet(folder, arrays, found)
    if sheet is not None:
        save_image(folder / "comparison.png", sheet)
    text = table.page(found, about, nudges, sheet is not None)
    write_atomic(folder / "comparison.md", lambda file: file.write(text.encode()))
    everything = json.dumps(
        {"facts": about, "nudges": nudges, "rows": table.plain(found)}, indent=1, allow_nan=False
    )
    write_atomic(folder / "comparison.json", lambda file: file.write(everything.encode()))


def facts(args, setting, folder: Path, parts: List[str]) -> Dict[str, str]:
    """What the numbers depend on, as lines of the page."""
    from jseg import __version__
    from jseg.parity.release.inputs import result_paths

    ran = [
        json.loads(path.read_text(encoding="utf-8"))
        for part in parts
        for path in [result_paths(folder, part, "ours")[1]]
        if path.is_file()
    ]
    weights = (
        "stand-ins (jseg/parity/stand_in.py)"
        if not args.model_path
        else f"{Path(args.model_path).name}, {Path(args.ae_path).name}"
    )
    found = {
        "networks": f"UNet of {setting.unet.channels} channels, "
        f"{setting.unet.width}x{setting.unet.height} latents; autoencoder of "
        f"{setting.autoencoder.channels} channels, images of "
        f"{setting.image_size[0]}x{setting.image_size[1]}",
        "weights": weights,
        "stage that is run whole": str(setting.stage),
        "training": f"{setting.examples} example{'s' if setting.examples > 1 else ''}, both sides "
        "with gradient checkpoints, as the release always trains, and without an "
        "optimiser",
        "release": f"{REPOSITORY}, commit {commit(setting.official)}",
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
    if ran:
        found["software"] = (
            f"jseg {__version__}, Jittor {ran[0]['jittor']}, NumPy {ran[0]['numpy']}, Python "
            f"{platform.python_version()}"
        )
        found["device"] = ran[0]["device"]
    return found


def commit(folder: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, "rev-parse", "--short", "HEAD"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    )
    return done.stdout.strip() or "unknown"


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.machine()


def _tell(message: str) -> None:
    print(f"jseg compare_official: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
