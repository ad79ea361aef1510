"""Check a GPU machine in nine minutes: whether Jittor comes up, whether CUDA computes what the CPU
does, how fast it is in which precision, and which of our operators are worth switching on.

The checks come in groups, the most valuable first. Every group is a process of its own with a time
limit; a failure, a crash or a hang is reported, and the rest goes on. Needs Jittor and NumPy only.
NAME.json, with everything, and NAME.md, the tables, are written after every result, so a call that
is killed leaves what it has; exit code 0 if nothing failed. Files that are there are replaced only
if they are the results of an earlier call for the same device, size and groups.

Examples:
  python scripts/gpu_check.py
  python scripts/gpu_check.py --device cpu --size tiny --only layers kernels  # without a GPU
  python scripts/gpu_check.py --output h200 --sdm semantic-diffusion-model
      # also PyTorch's SDM, if this Python has torch
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional

from jseg.commands import cli

RECORD, TABLE = SUFFIXES = ".json", ".md"


def parser():
    from jseg.parity.gpu.running import GROUPS, MINUTES

    names = sorted({name.split()[0] for name in GROUPS})
    p = cli.make_parser("gpu_check", __doc__)
    p.add_argument(
        "--output",
        default="gpu_check",
        metavar="NAME",
        help="write NAME.json and NAME.md (default gpu_check)",
    )
    p.add_argument(
        "--device",
        default="cuda",
        choices=("cuda", "cpu"),
        help="cpu: everything against itself, to try the command",
    )
    p.add_argument(
        "--size",
        default="release",
        choices=("release", "small", "tiny"),
        help="networks that are timed (default release)",
    )
    p.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="for all groups together; what has not ended by then is left out (default "
        f"{MINUTES:g}); with more, each group may take more, as machines with few cores need",
    )
    p.add_argument(
        "--only", nargs="+", metavar="GROUP", choices=names, help="of: " + ", ".join(names)
    )
    p.add_argument(
        "--sdm",
        metavar="DIR",
        help="a clone of WeilunWang/semantic-diffusion-model, timed beside ours with PyTorch",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Run the groups one after another; 0 if nothing failed, 1 if something did."""
    args = parser().parse_args(argv)
    if not args.minutes > 0:
        raise ValueError(f"--minutes {args.minutes:g}; expected more than 0")
    if args.sdm and not (Path(args.sdm) / "guided_diffusion" / "unet.py").is_file():
        raise FileNotFoundError(
            f"--sdm {args.sdm}: no guided_diffusion/unet.py in it; expected a clone of "
            "semantic-diffusion-model"
        )
    check_output(args)
    from jseg.outputs.locks import held_files

    with held_files([args.output + suffix for suffix in SUFFIXES]):
        check_output(args)
        records = run_checks(args)
    from jseg.parity.gpu.advice import next_step

    failed = sum(record["ok"] is False for record in records)
    left_out = sum(record["ok"] is None for record in records)
    print(
        f"jseg gpu_check: {len(records) - failed - left_out} fine, {failed} failed, {left_out} "
        f"left out; {args.output}.md, {args.output}.json\n"
        f"next: {next_step(records, _kind(args), args.output)}"
    )
    return 1 if failed else 0


def run_checks(args) -> List[Dict]:
    """The records of all groups, written after each."""
    from jseg.parity.gpu.running import GROUPS, run_group
    from jseg.parity.gpu.table import line

    deadline, records = time.monotonic() + 60 * args.minutes, []
    with tempfile.TemporaryDirectory() as folder:
        for group in groups(args):
            print(f"-- {group}: {GROUPS[group].meaning}", flush=True)
            for record in run_group(group, args, folder, deadline):
                records.append(record)
                write(args, records)
                print(line(record), flush=True)
            if group == "bring-up" and not all(record["ok"] for record in records):
                break
    return records


def _kind(args) -> str:
    """The device, "emulated" for the one that the CPU emulates."""
    from jseg.parity.cuda_emulation.device import toolkit

    return "emulated" if args.device == "cuda" and toolkit.is_emulated() else args.device


def check_output(args) -> None:
    """Raise FileNotFoundError or ValueError unless both files can be written and take the place of
    none but an earlier result.
    """
    from jseg.outputs.places import OutputError, check_file

    if os.path.basename(args.output) in ("", ".", ".."):
        raise ValueError(
            f"--output {args.output}: expected a name to which .json and .md are added, such as "
            "gpu_check"
        )
    if not Path(args.output).resolve().parent.is_dir():
        raise FileNotFoundError(f"--output {args.output}: its folder does not exist; create it")

    if "records" in _stored(args) and not earlier(args):
        raise OutputError(
            f"--output {args.output}{RECORD} was written by an earlier version; give another "
            "--output, or move it and its table away"
        )

    # The record says whose it is, and which table belongs to it.
    about, tables = earlier(args), earlier(args).get("tables")
    known = {
        TABLE: isinstance(tables, list) and digest(args.output + TABLE) in tables,
        RECORD: bool(about),
    }
    for suffix in SUFFIXES:
        check_file(args.output + suffix, "--output", known=known[suffix])
    settings = about.get("settings")
    if about and not (isinstance(settings, dict) and asked(args).items() <= settings.items()):
        raise OutputError(
            f"--output {args.output}{RECORD} holds the results of other --device, --size, --only "
            "or --sdm; give another --output, or move both files away"
        )


def earlier(args) -> Dict:
    """What an earlier call of this command wrote under the same name, {} if none did."""
    about = _stored(args)
    return about if about.get("command") == "gpu_check" else {}


def _stored(args) -> Dict:
    """The JSON object in the record's place, {} if there is none."""
    from jseg.outputs.record import read_record

    return read_record(args.output + RECORD) or {}


def asked(args) -> Dict:
    """The settings that two calls have in common if they do the same work."""
    return {"device": args.device, "size": args.size, "groups": groups(args)}


def digest(path: str) -> str:
    """The SHA-256 of a file, "" where none can be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def groups(args) -> List[str]:
    """The groups that were asked for and make sense on the device."""
    from jseg.parity.gpu.running import GPU_ONLY, GROUPS

    return [
        name
        for name in GROUPS
        if (not args.only or name.split()[0] in args.only)
        and not (args.device == "cpu" and name in GPU_ONLY)
        and (name != "sdm" or args.sdm)
    ]


def write(args, records: List[Dict]) -> None:
    """Write both files with the records so far, each whole or not at all."""
    from jseg.files import write_atomic
    from jseg.parity.gpu.advice import next_step, recommended
    from jseg.parity.gpu.running import GROUPS
    from jseg.parity.gpu.table import page

    meanings = {name: group.meaning for name, group in GROUPS.items()}
    text = page(records, meanings, next_step(records, _kind(args), args.output)).encode()
    settings = {
        **asked(args),
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }

    # The record goes first and names the table before it and the one after it, so that a call after
    # a killed one recognises both files.
    tables = [digest(args.output + TABLE), hashlib.sha256(text).hexdigest()]
    content = {
        "command": "gpu_check",
        "settings": settings,
        "tables": list(filter(None, tables)),
        "faster": recommended(records) if _kind(args) == "cuda" else None,
        "records": records,
    }
    about = json.dumps(content, indent=1).encode()
    write_atomic(args.output + RECORD, lambda file: file.write(about))
    write_atomic(args.output + TABLE, lambda file: file.write(text))


if __name__ == "__main__":
    sys.exit(cli.run(main))
