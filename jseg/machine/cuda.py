"""How Jittor gets to CUDA on this machine, or why it does not.

The driver is asked in a child process, and no toolkit is used without a driver that answers:
importing Jittor with nvcc would then abort the process. Standard library only.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from jseg.machine import cuda_home, cuda_toolkit
from jseg.machine.cuda_home import Home
from jseg.machine.cuda_toolkit import Toolkit
from jseg.machine.facts import PIP
from jseg.machine.program_output import program_output

# Initialising CUDA here would break Jittor, which forks while it is imported, and a broken driver
# may abort.
_ASK_DRIVER = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, version = ctypes.c_int(0), ctypes.c_int(0)
if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
    raise SystemExit(1)
cuda.cuDriverGetVersion(ctypes.byref(version))
print(version.value // 1000, end=" ")
for i in range(count.value):
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), i)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    print(major.value * 10 + minor.value, end=" ")
"""


@dataclass(frozen=True)
class Choice:
    """What becomes of CUDA; `reason` says it in one line, with the remedy where there is one.

    case: "chosen" (the user set nvcc_path), "stock" (Jittor builds on the toolkit as it is), "home"
    (it builds on `home`, see cuda_home.py) or "cpu". nvcc: the compiler that Jittor is to use, ""
    for the CPU. devices: compute capabilities, as 80, 90, ...
    """

    case: str
    nvcc: str
    reason: str
    toolkit: Optional[Toolkit] = None
    home: Optional[Home] = None
    devices: Tuple[int, ...] = ()


def driver() -> Optional[Tuple[int, List[int]]]:
    """(CUDA major version of the NVIDIA driver, compute capability of each device as 80, 90, ...),
    or None if no driver answers.
    """
    answer = program_output(sys.executable, "-I", "-S", "-c", _ASK_DRIVER).split()
    return (int(answer[0]), [int(word) for word in answer[1:]]) if answer else None


def choose() -> Choice:
    """What becomes of CUDA on this machine; the user's nvcc_path wins."""
    nvcc_path = os.environ.get("nvcc_path")
    if nvcc_path is not None:
        if not nvcc_path:
            return Choice("cpu", "", "switched off: nvcc_path is set and empty")
        return Choice("chosen", nvcc_path, f"nvcc_path={nvcc_path} is set")
    answer = driver()
    if answer is not None:
        return choose_for(*answer)

    # An empty CUDA_VISIBLE_DEVICES, -1 or a number that no GPU has hides all GPUs.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        reason = (
            "no NVIDIA driver answers: install the driver, or start the container with its GPUs"
        )
    else:
        reason = (
            f"no GPU answers with CUDA_VISIBLE_DEVICES={visible}: unset it, or list GPUs that are "
            "there"
        )
    nvcc = next(iter(cuda_toolkit.compilers()), None)
    kit = cuda_toolkit.toolkit(nvcc) if nvcc else None
    return Choice("cpu", "", f"{_name(kit)}, but {reason}" if kit else reason, kit)


def choose_for(newest: int, devices: Sequence[int]) -> Choice:
    """The first toolkit that works with a driver for CUDA `newest` and devices of those compute
    capabilities, as 80, 90, ...
    """
    refused = []  # (what is lacking can be installed, problem, toolkit)
    for nvcc in cuda_toolkit.compilers():
        kit = cuda_toolkit.toolkit(nvcc)
        if kit is None:
            problem = f"{nvcc} does not run: reinstall the CUDA toolkit, or take it off PATH"
            refused.append((False, problem, None))
            continue
        problem = _misfit(kit, newest, devices)
        lacking = "" if problem else cuda_toolkit.missing(kit)
        if problem or lacking:
            refused.append((bool(lacking), problem or f"{_name(kit)}: {lacking}", kit))
            continue
        return _use(kit, tuple(devices))

    # Report the first toolkit that only lacks something, before those that can never work.
    if refused:
        _, problem, kit = max(refused, key=lambda entry: entry[0])
        return Choice("cpu", "", problem, kit, devices=tuple(devices))
    if newest >= 13:
        extras = "nvcc,cudart,cccl,cublas,curand,cufft,cusparse,nvjitlink,nvrtc"
        packages = f"'cuda-toolkit[{extras}]=={newest}.*' nvidia-cudnn-cu{newest}"
        remedy = f"{PIP} install {packages}"
    else:
        remedy = f"install CUDA toolkit {newest} (pip's packages for it lack nvcc)"
    reason = f"no nvcc on PATH, in /usr/local/cuda or in pip's packages: {remedy}"
    return Choice("cpu", "", reason, devices=tuple(devices))


def _use(kit: Toolkit, devices: Tuple[int, ...]) -> Choice:
    """That toolkit, as it is or through a home."""
    text = f"{_name(kit)}, cuDNN {'.'.join(map(str, kit.cudnn))}"
    if devices:
        capabilities = " and ".join(_decimal(number) for number in sorted(set(devices)))
        text += f", {len(devices)} device(s) of compute capability {capabilities}"

    known_devices = max(devices, default=0) <= cuda_toolkit.NEWEST_CAPABILITY
    if known_devices and cuda_toolkit.jittor_finds_all(kit):
        return Choice("stock", kit.nvcc, f"{text}; as it is", kit, None, devices)
    home = cuda_home.plan(kit, devices)
    place = home.folder if devices else "a home of links and headers"
    return Choice("home", home.nvcc, f"{text}; through {place}", kit, home, devices)


def _misfit(kit: Toolkit, newest: int, devices: Sequence[int]) -> str:
    """Why that toolkit can never be used on these devices, with the remedy; "" if it can."""
    if kit.version[0] > newest:
        return (
            f"{_name(kit)} is newer than the driver, which is for CUDA {newest}: update the "
            f"driver, or install CUDA toolkit {newest}"
        )
    if kit.version[0] < 11 or () < kit.cudnn < (8,):
        what = f"cuDNN {'.'.join(map(str, kit.cudnn))}" if kit.version[0] >= 11 else "it"
        return (
            f"{_name(kit)}: {what} is too old: install CUDA toolkit 11 or newer with cuDNN 8 or "
            "newer"
        )
    known = cuda_toolkit.capabilities(kit)
    beyond = [number for number in devices if known and number not in known]
    if beyond:
        remedy = "a newer" if max(beyond) > max(known) else "an older"
        return (
            f"{_name(kit)} does not compile for compute capability {_decimal(beyond[0])}: "
            f"install {remedy} CUDA toolkit, or leave that GPU out of CUDA_VISIBLE_DEVICES"
        )
    return ""


def _name(kit: Toolkit) -> str:
    return f"nvcc {'.'.join(map(str, kit.version))} at {kit.nvcc}"


def _decimal(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"
