"""Check a GPU machine in ten minutes: does Jittor come up, does CUDA compute what the CPU does, how
fast is it, in which precision.

Every group of checks is a process of its own with a time limit; what fails, crashes or hangs is
told, and the rest goes on. Needs Jittor and NumPy only. Written are NAME.json, with everything, and
NAME.md, the tables; exit code 0 if nothing failed. Files that are there are replaced only if they
are the results of an earlier call for the same device, size and groups.

Examples:
  python scripts/gpu_check.py
  python scripts/gpu_check.py --output h200 --sdm semantic-diffusion-model      # also PyTorch's SDM, if this Python has torch
  python scripts/gpu_check.py --device cpu --size tiny --only layers kernels     # tries the command itself, without a GPU
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from jseg.commands import cli

# Groups with the most seconds each may take; the first compiles Jittor where that has not been
# done.
GROUPS = {
    "bring-up": 300,
    "layers": 180,
    "networks": 120,
    "losses": 90,
    "release": 150,
    "speed float32": 150,
    "speed tf32": 90,
    "speed float16": 60,
    "speed bfloat16": 60,
    "kernels": 240,
    "kernel-times": 60,
    "sdm": 60,
}
EXACT = "NVIDIA_TF32_OVERRIDE"  # 0: float32 without TF32, which cuDNN uses unless told not to
RECORD, TABLES = SUFFIXES = ".json", ".md"
ROOT = Path(__file__).resolve().parents[2]


def parser():
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
        default=10.0,
        help="for all of it; what has not begun by then is left out (default 10)",
    )
    p.add_argument(
        "--only",
        nargs="+",
        metavar="GROUP",
        choices=sorted({name.split()[0] for name in GROUPS}),
        help="of: " + ", ".join(sorted({name.split()[0] for name in GROUPS})),
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
        records = checked(args)
    failed = [record for record in records if record["ok"] is False]
    left_out = [record for record in records if record["ok"] is None]
    print(
        f"jseg gpu_check: {len(records) - len(failed) - len(left_out)} fine, {len(failed)} "
        f"failed, {len(left_out)} left out; {args.output}.md, {args.output}.json"
        + ("; once more goes further: what was compiled stays" if left_out else "")
    )
    return 1 if failed else 0


def checked(args) -> List[Dict]:
    """The records of all groups, written after each."""
    deadline, records = time.monotonic() + 60 * args.minutes, []
    with tempfile.TemporaryDirectory() as folder:
        for group in groups(args):
            for record in run_group(group, args, folder, deadline):
                records.append(record)
                print(line(record), flush=True)
            write(args, records)
            if group == "bring-up" and not all(record["ok"] for record in records):
                break
    return records


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
        TABLES: isinstance(tables, list) and digest(args.output + TABLES) in tables,
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
    try:
        about = json.loads(Path(args.output + RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def asked(args) -> Dict:
    """What makes a call the same work as another."""
    return {"device": args.device, "size": args.size, "groups": groups(args)}


def digest(path: str) -> str:
    """The SHA-256 of a file, "" where none can be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def groups(args) -> List[str]:
    """The groups that were asked for and make sense on the device."""
    found = [name for name in GROUPS if not args.only or name.split()[0] in args.only]
    left = {"speed tf32", "speed float16", "speed bfloat16"} if args.device == "cpu" else set()
    return [name for name in found if name not in left and (name != "sdm" or args.sdm)]


def run_group(group: str, args, folder: str, deadline: float) -> Iterator[Dict]:
    """The records of a group; after a crash or a case that hangs, a new process goes on with the
    next one.
    """
    skip, until = 0, min(time.monotonic() + GROUPS[group], deadline)
    while True:
        if time.monotonic() >= until:
            yield {
                "group": group,
                "case": "the rest" if skip else "all",
                "ok": None,
                "why": "out of time",
            }
            return
        pending: List[str] = []
        began, code, said = 0, None, []
        for kind, told in child(command(group, args, folder, skip), environment(group), until):
            if kind == "end":
                code, said = told
            elif "begins" in told:
                pending, began = [told["begins"]], began + 1
            else:
                pending = []
                yield told
        if not pending and code == 0:
            return
        why = (
            "out of time"
            if code is None
            else f"the process ended with {code}: {said[-1][:200] if said else ''}"
        )
        yield {"group": group, "case": pending[0] if pending else "start", "ok": False, "why": why}
        if not pending:
            return
        skip += began


def command(group: str, args, folder: str, skip: int) -> List[str]:
    if group == "sdm":
        return [
            sys.executable,
            str(ROOT / "benchmarks" / "sdm_speed.py"),
            "--sdm",
            args.sdm,
            "--device",
            args.device,
            "--size",
            args.size,
        ]
    return [
        sys.executable,
        "-m",
        "jseg.parity.gpu.child",
        group,
        args.device,
        args.size,
        folder,
        str(skip),
    ]


def environment(group: str) -> Dict[str, str]:
    found = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(
            [str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
        ).strip(os.pathsep),
    )
    if group not in ("speed tf32", "speed float16", "speed bfloat16"):
        found[EXACT] = "0"
    if group.startswith("kernel"):
        found.pop("JSEG_FUSED", None)  # there, which operators compute is what is compared
    return found


def child(
    words: List[str], variables: Dict[str, str], until: float
) -> Iterator[Tuple[str, object]]:
    """("record", each line of JSON) as it comes, then ("end", (exit code, or None if it was
    stopped; last lines on stderr)).
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=variables,
    )
    stopped, said = threading.Event(), []

    def stop():
        stopped.set()
        process.kill()

    timer = threading.Timer(max(0.0, until - time.monotonic()), stop)
    reader = threading.Thread(
        target=lambda: said.extend(text.strip() for text in process.stderr if text.strip()),
        daemon=True,
    )
    timer.start()
    reader.start()
    try:
        for text in process.stdout:
            if text.startswith("{"):
                try:
                    yield "record", json.loads(text)
                except ValueError:  # cut short when the process was stopped
                    pass
        process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        reader.join(5)
        process.stderr.close()
    yield "end", (None if stopped.is_set() else process.returncode, said[-20:])


SHOWN = (
    ("difference", "%.1e"),
    ("seconds", "%.4f s"),
    ("gigabytes", "%.2f GB"),
    ("ratio", "%.2f"),
    ("ratio with gradients", "%.2f"),
)


def line(record: Dict) -> str:
    mark = {True: "ok    ", False: "FAILED", None: "      "}[record["ok"]]
    numbers = [
        f"{name} {form % record[name]}" for name, form in SHOWN if record.get(name) is not None
    ]
    words = [record[name] for name in ("why", "cuda") if name in record]
    return f"{mark} {record['group']}: {record['case']}  " + ", ".join(numbers + words)


def write(args, records: List[Dict]) -> None:
    """Both files, as far as it has come, each whole or not at all."""
    from jseg.files import write_atomic

    text = ("\n".join(table(records)) + "\n").encode()
    settings = {
        **asked(args),
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }

    # The record goes first and knows the table before it and after it, so that a killed run knows
    # its own.
    tables = [
        found for found in (digest(args.output + TABLES), hashlib.sha256(text).hexdigest()) if found
    ]
    about = json.dumps(
        {"command": "gpu_check", "settings": settings, "tables": tables, "records": records},
        indent=1,
    )
    write_atomic(args.output + RECORD, lambda file: file.write(about.encode()))
    write_atomic(args.output + TABLES, lambda file: file.write(text))


def table(records: List[Dict]) -> List[str]:
    lines = [
        "| group | case | | difference | at most | time | memory | before / ours | with gradients "
        "| note |",
        "|" + "---|" * 10,
    ]
    for record in records:
        cells = [
            record["group"],
            record["case"],
            {True: "ok", False: "FAILED", None: "left out"}[record["ok"]],
        ]
        values = [
            form % record[name] if record.get(name) is not None else "" for name, form in SHOWN
        ]
        bound = f"{record['bound']:.0e}" if record.get("bound") else ""
        facts = [str(record[name]) for name in ("cuda", "archs", "jittor") if name in record]
        cells += (
            [values[0], bound]
            + values[1:]
            + [record.get("why", ", ".join(facts)).replace("|", "/")]
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(cli.run(main))
