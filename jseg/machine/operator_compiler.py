"""Jittor's operators compiled in a quarter of the time, to the same code.

Jittor compiles an operator the first time that a shape or a type needs it. g++ spends nine tenths
of that time parsing the same headers; it can keep what it has parsed (a precompiled header, .gch
beside the .h) and uses it only if flags and macros are those it was made with; otherwise it reads
the header as text, which is slower and gives the same code. Half of what is left goes to Jittor's
tool for assembly, which compile_operator.sh starts only for the operators that need it.

Jittor keeps an operator under its name and compiles it again where the command was another one. So
operators that are compiled with our command have a folder of their own: a program that uses Jittor
without jseg finds its operators as it left them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shlex
import subprocess

PREFIX, HEADER, SCRIPT = "jseg_", "operators.h", "compile_operator.sh"
FOLDERS = ("jit", "obj_files", "tmp", f"{HEADER}.gch")  # the first three are Jittor's
INCLUDES = (
    "<cmath>",
    "<algorithm>",
    '"var.h"',
    '"fused_op.h"',
    '"ops/op_register.h"',
    '"ops/code_op.h"',
    '"misc/cuda_flags.h"',
)
MACROS = "-DJIT=1 -DJIT_cpu=1"  # the first two lines of every operator's source
VARIANTS = {"plain": [], "debug": ["-g"]}  # by the compiler alone, and by Jittor's tool
MOST_SECONDS = 300


def use(jittor) -> bool:
    """Have Jittor compile operators by the script and with the precompiled headers, made now if
    they are missing.

    Returns whether it does: only GCC is asked to, and whatever goes wrong leaves Jittor as it was.
    CUDA operators are compiled by nvcc with flags of their own, which this does not touch.
    """
    flags = jittor.flags.cc_flags
    if jittor.flags.cc_type != "g++" or HEADER in flags:
        return HEADER in flags

    # GCC does not look whether the headers have changed since, so the folder is named by them.
    sources = os.path.join(os.path.dirname(jittor.__file__), "src")
    cache = jittor.flags.cache_path
    folder = os.path.join(cache, f"{PREFIX}{_digest(sources, flags)}")
    header, script = os.path.join(folder, HEADER), os.path.join(folder, SCRIPT)
    if not _make_folder(folder, cache) or not _compile(jittor.flags.cc_path, flags, header):
        return False

    jittor.flags.cc_flags = f'{flags} {MACROS} -include"{header}" '
    jittor.flags.cache_path = folder
    python = jittor.flags.python_path
    if not python.startswith("/bin/sh "):
        jittor.flags.python_path = f'/bin/sh "{script}" --python="{python}"'
    return True


def _make_folder(folder: str, cache: str) -> bool:
    """Make the cache of our operators beside Jittor's own; whether it is there then."""
    try:
        for name in FOLDERS:
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.join(cache, "gen"), os.path.join(folder, "gen"))  # generated headers
        _write(os.path.join(folder, SCRIPT), _script())  # Jittor compares the path, so one for all
    except OSError:
        return False
    return True


def _digest(sources: str, flags: str) -> str:
    """The compiler's flags and the contents of the script and of all of Jittor's headers, in twelve
    letters.
    """
    digest = hashlib.md5(flags.encode() + _script())
    for path in sorted(glob.glob(os.path.join(sources, "**", "*.h"), recursive=True)):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]


def _script() -> bytes:
    with open(os.path.join(os.path.dirname(__file__), SCRIPT), "rb") as file:
        return file.read()


def _write(path: str, content: bytes) -> None:
    """Write a file whole, unless it is there."""
    if os.path.exists(path):
        return
    partial = f"{path}.{os.getpid()}.part"
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def _compile(compiler: str, flags: str, header: str) -> bool:
    """Write the header and compile its variants at the same time; whether all are there then."""
    targets = {name: os.path.join(f"{header}.gch", name) for name in VARIANTS}
    missing = [name for name, target in targets.items() if not os.path.exists(target)]
    if not missing:
        return True
    words = [word for word in shlex.split(flags) if not re.match(r"-(l|L|Wl,|shared)", word)]
    command = [compiler, *words, *MACROS.split(), "-x", "c++-header", header]

    # Each is written under another name first: a variant that is there is whole. GCC tries every
    # file in the folder, so the other name is outside of it.
    partial = {name: f"{header}.{os.getpid()}.{name}.part" for name in missing}
    processes = []
    try:
        _write(header, "".join(f"#include {name}\n" for name in INCLUDES).encode())
        for name in missing:
            processes.append(_start([*command, *VARIANTS[name], "-o", partial[name]]))
        statuses = [process.wait(MOST_SECONDS) for process in processes]
        if any(statuses):
            return False
        for name in missing:
            os.replace(partial[name], targets[name])
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for path in partial.values():
            with contextlib.suppress(OSError):
                os.unlink(path)
    return True


def _start(command: list) -> subprocess.Popen:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
