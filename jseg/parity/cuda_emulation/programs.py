"""Our CUDA sources compiled by the C++ compiler and called: no Jittor, no GPU, no nvcc, and none of
CUDA's headers, which those in include/ stand in for.

    program = compile_kernels(folder, header, [Kernel(source, ("float32",), ("float32",))])
    outcome = program.run([Call(0, inputs, shapes, {"eps": 1e-5})], order="reverse")

A program holds the sources of one operator, each for some types. It is a process of its own, so a
kernel that writes where it must not ends that process alone; the sanitizers are linked into it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import Dict, List, Sequence, Tuple

import numpy as np

from jseg.parity.cuda_emulation.device_types import TYPES, from_memory, to_memory
from jseg.parity.cuda_emulation.translate import translate

HERE = os.path.dirname(os.path.abspath(__file__))
FAST_MATH = "-DEMULATION_FAST_MATH"  # approximate functions, no denormal numbers
ORDERS = ("forward", "reverse")  # random:SEED is another
MODES = {
    "plain": ("-O1",),
    # about what nvcc --use_fast_math makes of the source, which Jittor passes
    "fast": ("-O1", "-march=native", "-ffp-contract=fast", "-freciprocal-math", FAST_MATH),
    "portable": ("-O1",),  # fibers as on other processors than x86-64
    "races": ("-O1", "-g", "-fsanitize=thread"),
    "memory": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize=vptr"),
}
C_TYPES = {
    "float32": "float",
    "float16": "jittor::float16",
    "bfloat16": "jittor::bfloat16",
    "int32": "int",
}
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # fibers are kept to the end
    "TSAN_OPTIONS": "halt_on_error=0 exitcode=66 report_signal_unsafe=0",
    "UBSAN_OPTIONS": "halt_on_error=0 print_stacktrace=1",
}


@dataclass(frozen=True)
class Kernel:
    """Source as `jt.code` takes it, for arrays of these types."""

    source: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One call of a program's kernel: its number, its inputs, its outputs' shapes, its data."""

    kernel: int
    inputs: Sequence[np.ndarray]
    shapes: Sequence[Tuple[int, ...]]
    data: Dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a program computed, and its messages."""

    outputs: List[List[np.ndarray]]  # float64, of each call; none where the process broke off
    messages: str  # standard error: reports of the emulation and of the sanitizers
    exit_code: int  # 0; 3 after a failed CHECK; negative after a signal


@dataclass(frozen=True)
class Program:
    path: str
    kernels: Tuple[Kernel, ...]
    mode: str

    def run(self, calls: Sequence[Call], order: str = "forward", timeout: float = 600) -> Outcome:
        """Compute the calls with threads and blocks in that order, one of `ORDERS` or
        random:SEED.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("calls", "results")]
            with open(paths[0], "wb") as file:
                for call in calls:
                    file.write(self._packed(call))
            # The race detector needs its addresses, which randomised ones may be in the way of.
            fixed = ["setarch", "-R"] if self.mode == "races" and shutil.which("setarch") else []
            process = subprocess.run(
                [*fixed, self.path, order, *paths],
                stderr=subprocess.PIPE,
                env={**os.environ, **SANITIZERS},
                timeout=timeout,
            )
            messages = process.stderr.decode(errors="replace")
            with open(paths[1], "rb") as file:
                outputs = self._unpacked(calls, file.read())
        return Outcome(outputs, messages, process.returncode)

    def _packed(self, call: Call) -> bytes:
        kernel = self.kernels[call.kernel]
        inputs = [to_memory(*pair) for pair in zip(call.inputs, kernel.inputs)]
        sizes = [(array.nbytes, *_four(array.shape)) for array in inputs]
        sizes += [
            (_bytes(shape, kind), *_four(shape)) for shape, kind in zip(call.shapes, kernel.outputs)
        ]
        counts = [call.kernel, len(inputs), len(call.shapes), len(call.data)]
        parts = [np.array(counts, np.int64), np.array(sizes, np.int64)]
        parts += [np.array((name, value), "S24,f8") for name, value in call.data.items()]
        return b"".join(part.tobytes() for part in parts + inputs)

    def _unpacked(self, calls: Sequence[Call], results: bytes) -> List[List[np.ndarray]]:
        outputs, at = [], 0
        for call in calls:
            arrays = []
            for shape, kind in zip(call.shapes, self.kernels[call.kernel].outputs):
                end = at + _bytes(shape, kind)
                if end > len(results):
                    return outputs
                memory = np.frombuffer(results[at:end], TYPES[kind]).reshape(shape)
                arrays.append(from_memory(memory, kind))
                at = end
            outputs.append(arrays)
        return outputs


def _four(shape) -> Tuple[int, ...]:
    return (tuple(shape) + (1, 1, 1, 1))[:4]


def _bytes(shape, kind: str) -> int:
    return int(np.prod(shape)) * np.dtype(TYPES[kind]).itemsize


def compile_kernels(
    folder: str, header: str, kernels: Sequence[Kernel], mode: str = "plain"
) -> Program:
    """The kernels with their common header as one program, in a folder that keeps what it has.

    mode: one of `MODES`. Raises RuntimeError with the compiler's first lines where it refuses the
    source.
    """
    text = program_text(header, kernels)
    path = os.path.join(folder, f"{mode}-{_digest(text)}")
    if not os.path.exists(path):
        scheduler = _scheduler(folder, mode)
        with open(f"{path}.cc", "w", encoding="utf-8") as file:
            file.write(text)
        includes = [f"-I{place}" for place in (os.path.join(HERE, "include"), HERE, _jittor())]
        device = ["-include", os.path.join(HERE, "device.h")]
        options = [*MODES[mode], *_poison(), "-w", *includes, *device]
        _compile([*options, f"{path}.cc", scheduler], path)
    return Program(path, tuple(kernels), mode)


def program_text(header: str, kernels: Sequence[Kernel]) -> str:
    """The C++ of a program: the header, and each kernel's source as a function of its arrays."""
    parts = ['#define JIT_cuda 1\n#include "caller.h"\nusing namespace jittor;', translate(header)]
    for number, kernel in enumerate(kernels):
        arrays = [("in", i, kind) for i, kind in enumerate(kernel.inputs)]
        arrays += [("out", i, kind) for i, kind in enumerate(kernel.outputs)]
        lines = [f"void body_{number}(char** arrays, const long (*shapes)[4], Data& data) {{"]
        for place, (way, i, kind) in enumerate(arrays):
            name = f"{way}{i}"
            lines.append(f"typedef {C_TYPES[kind]} {name}_type;")
            lines.append(f"auto* {name}_p = ({name}_type*)arrays[{place}];")
            lines += [f"int {name}_shape{axis} = shapes[{place}][{axis}];" for axis in range(4)]
        parts.append("\n".join([*lines, translate(kernel.source), "}"]))
    bodies = ", ".join(f"body_{number}" for number in range(len(kernels)))
    return "\n".join(parts + [f"const Body BODIES[] = {{{bodies}}};", ""])


def _scheduler(folder: str, mode: str) -> str:
    """The scheduler's object file; no sanitizer instruments it."""
    options = ["-DEMULATION_UCONTEXT"] if mode == "portable" else []
    path = os.path.join(folder, f"scheduler-{_digest(' '.join(options))}.o")
    if not os.path.exists(path):
        _compile(["-O1", *options, "-c", os.path.join(HERE, "scheduler.cc")], path)
    return path


@functools.lru_cache(maxsize=None)
def _poison() -> Tuple[str, ...]:
    """The option with which local variables begin as large numbers, where the compiler has it."""
    option = "-ftrivial-auto-var-init=pattern"
    command = [_compiler(), option, "-x", "c++", "-fsyntax-only", os.devnull]
    return () if subprocess.run(command, stderr=subprocess.DEVNULL).returncode else (option,)


def _compiler() -> str:
    compiler = os.environ.get("cc_path") or "g++"
    if not shutil.which(compiler):
        raise RuntimeError(f"{compiler} is not there; the CUDA emulation compiles with it")
    return compiler


def _compile(arguments: Sequence[str], path: str) -> None:
    """Run the C++ compiler; the result appears whole or not at all."""
    temporary = f"{path}.{os.getpid()}"
    command = [_compiler(), "-std=c++14", *arguments, "-o", temporary]
    process = subprocess.run(command, stderr=subprocess.PIPE)
    if process.returncode:
        lines = process.stderr.decode(errors="replace").splitlines()
        errors = [line for line in lines if "error" in line] or lines
        raise RuntimeError("the C++ compiler refuses the source:\n" + "\n".join(errors[:10]))
    os.replace(temporary, path)


def _digest(text: str) -> str:
    """Of the text and of all files of the emulation that go into a program."""
    digest = hashlib.sha256(text.encode())
    for parent, _, names in sorted(os.walk(HERE)):
        for name in sorted(names):
            if name.endswith((".h", ".cc")):
                with open(os.path.join(parent, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]


def _jittor() -> str:
    """Jittor's C++ headers, of which our sources include type/fp16_compute.h; found without
    importing Jittor.
    """
    spec = importlib.util.find_spec("jittor")
    if spec is None:
        raise RuntimeError("Jittor is not installed; our CUDA sources include a header of it")
    return os.path.join(spec.submodule_search_locations[0], "src")
