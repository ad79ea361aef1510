"""A program that Jittor takes for nvcc: it translates CUDA source to C++, which g++ compiles.

Standard library only, and started once for each kernel: `toolkit.py` writes a script that calls
`main` with the folder of the toolkit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import List

from jseg.parity.cuda_emulation.translate import translate

VERSION = "13.0.88"  # of the CUDA that Jittor finds
HERE = os.path.dirname(os.path.abspath(__file__))
DEVICE = os.path.join(os.path.dirname(HERE), "device.h")
CODES = ("sm_75", "sm_80", "sm_90")
# Options of nvcc that g++ does not know.
LEFT_OUT = ("--cudart", "-ccbin", "--use_fast_math", "-arch", "-code", "-gencode", "-G", "-O")
TRANSLATED = (".cc", ".cu", ".cpp")


def main(top: str, arguments: List[str]) -> int:
    """What nvcc of the toolkit in the folder `top` does with these arguments; its exit code."""
    if "--version" in arguments:
        release = ".".join(VERSION.split(".")[:2])
        print(f"nvcc: an emulation by jseg\nCuda compilation tools, release {release}, V{VERSION}")
        return 0
    if "--list-gpu-code" in arguments:
        print("\n".join(CODES))
        return 0
    if "--dryrun" in arguments:
        print(f"#$ TOP={top}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.call(command(top, arguments, folder))


def command(top: str, arguments: List[str], folder: str) -> List[str]:
    """The command that compiles instead of nvcc; translated sources are written to `folder`."""
    words = ["g++", "-O1", "-fPIC", "-w", "-fpermissive", "-DEMULATED_DEVICE"]
    words += [f"-I{top}/translated", "-include", DEVICE]
    rest = iter(arguments)
    for word in rest:
        if word == "-x":
            next(rest)
        elif word == "-Xcompiler":
            words.append(next(rest))
        elif word.startswith(LEFT_OUT):
            continue
        elif word.endswith(TRANSLATED) and os.path.isfile(word):
            words += _translated(word, os.path.join(folder, str(len(words))))
        else:
            words.append(word)
    return [*words, f"-I{top}/include"]


def _translated(path: str, folder: str) -> List[str]:
    """The words for a source in its translation, beside which its own folder is searched."""
    os.mkdir(folder)
    with open(path, encoding="utf-8", errors="replace") as file:
        text = translate(file.read())
    source = os.path.join(folder, os.path.splitext(os.path.basename(path))[0] + ".cc")
    with open(source, "w", encoding="utf-8") as file:
        file.write(f'#line 1 "{path}"\n{text}')
    return [f"-I{os.path.dirname(os.path.abspath(path))}", source]
