"""Jittor's headers compiled once, so that each operator compiles in a third of the time.

Jittor compiles an operator the first time that a shape or a type needs it, and g++ spends nine
tenths of that time parsing the same headers. GCC can keep what it has parsed (a precompiled header,
.gch beside the .h) and uses it only if flags and macros are those it was made with; otherwise it
reads the header as text, which is slower and gives the same code.

Jittor keeps an operator under its name and compiles it again where the command was another one. So
operators that are compiled with our flags have a folder of their own: a program that uses Jittor
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

PREFIX, HEADER = "jseg_", "operators.h"
FOLDERS = ("jit", "obj_files", "tmp")  # what Jittor writes below its cache while it computes
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
DEBUG = "-g"  # what Jittor adds where it compiles an operator to assembly
MOST_SECONDS = 300


def use(jittor) -> bool:
    """Have Jittor's C++ compiler take the precompiled headers, made now if they are missing.

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
    header = os.path.join(folder, HEADER)
    if not _make_folder(folder, cache):
        return False
    if not os.path.exists(f"{header}.gch") and not _compile(jittor.flags.cc_path, flags, header):
        return False
    jittor.flags.cc_flags = f'{flags} {MACROS} -include"{header}" '
    jittor.flags.cache_path = folder
    return True


def _make_folder(folder: str, cache: str) -> bool:
    """Make the cache of our operators beside Jittor's own; whether it is there then."""
    try:
        for name in FOLDERS:
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.join(cache, "gen"), os.path.join(folder, "gen"))  # generated headers
    except OSError:
        return False
    return True


def _digest(sources: str, flags: str) -> str:
    """The compiler's flags and the contents of all of Jittor's headers, in twelve letters."""
    digest = hashlib.md5(flags.encode())
    for path in sorted(glob.glob(os.path.join(sources, "**", "*.h"), recursive=True)):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]


def _compile(compiler: str, flags: str, header: str) -> bool:
    """Write the header and compile it under another name first; whether it is there then."""
    partial = f"{header}.{os.getpid()}.part"
    words = [word for word in shlex.split(flags) if not re.match(r"-(l|L|Wl,|shared)", word)]
    command = [compiler, *words, DEBUG, *MACROS.split(), "-x", "c++-header", header, "-o", partial]
    try:
        with open(partial, "w", encoding="ascii") as file:
            file.write("".join(f"#include {name}\n" for name in INCLUDES))
        os.replace(partial, header)
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MOST_SECONDS,
            check=True,
        )
        os.replace(partial, f"{header}.gch")
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)
    return True
