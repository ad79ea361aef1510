"""oneDNN, which makes Jittor's CPU convolutions 50 times faster: it is whole before Jittor is
imported, or the import is refused.

Jittor itself fetches oneDNN from its makers' server or from the package jittor_offline and unpacks
it in place: an interrupted import leaves an incomplete folder, which it later takes for a whole
one. Here the archive of jittor_offline is unpacked beside the place and moved there in one step.
Mirrors `install_mkl` of jittor/compile_extern.py (names and checksums of the archives).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import struct
import sys
import tarfile
import tempfile
from typing import Optional

from jseg.machine.facts import Fact, RuntimeProblem

ARCHIVES = {
    "x86_64": ("dnnl_lnx_2.2.0_cpu_gomp", "35bbbdf550a9d8ad54db798e372000f6"),
    "aarch64": ("dnnl_lnx_2.2.0_cpu_gomp_aarch64", "72cf9b0b8fd6c3c786d35a9daaee22b8"),
}
HEADERS = (
    "include/mkldnn.hpp",
    "include/dnnl.hpp",
    "include/oneapi/dnnl/dnnl.hpp",
    "include/oneapi/dnnl/dnnl.h",
    "include/oneapi/dnnl/dnnl_types.h",
    "include/oneapi/dnnl/dnnl_config.h",
    "include/oneapi/dnnl/dnnl_version.h",
)


def wanted() -> bool:
    """Whether oneDNN is to be there: not where the user set use_mkl=0, nor where Jittor has no
    archive for Linux.
    """
    return (
        os.environ.get("use_mkl", "1") == "1"
        and sys.platform == "linux"
        and platform.machine() in ARCHIVES
    )


def folder(jittor_home: str) -> str:
    """Where Jittor expects oneDNN."""
    return os.path.join(jittor_home, ".cache", "jittor", "mkl", ARCHIVES[platform.machine()][0])


def is_whole(place: str) -> bool:
    """Whether the headers and the complete library lie there (an ELF file's section table is its
    end, so a cut file lacks it).
    """
    if not all(os.path.isfile(os.path.join(place, header)) for header in HEADERS):
        return False
    try:
        with open(os.path.join(place, "lib", "libmkldnn.so"), "rb") as library:
            head = library.read(64)
            (offset,) = struct.unpack_from("<Q", head, 0x28)
            size, count = struct.unpack_from("<HH", head, 0x3A)
            whole = os.fstat(library.fileno()).st_size >= offset + size * count
            return head[:5] == b"\x7fELF\x02" and whole
    except (OSError, struct.error):
        return False


def archive() -> Optional[str]:
    """The archive inside jittor_offline, or None if the package is not installed or lacks it."""
    spec = importlib.util.find_spec("jittor_offline")
    for parent in (spec.submodule_search_locations or []) if spec else []:
        path = os.path.join(parent, ARCHIVES[platform.machine()][0] + ".tgz")
        if os.path.isfile(path):
            return path
    return None


def fact(jittor_home: str) -> Fact:
    """oneDNN as `doctor` shows it; nothing is unpacked."""
    if os.environ.get("use_mkl", "1") != "1":
        return Fact("off (use_mkl=0): convolutions are about 50 times slower")
    if not wanted():
        return Fact("by Jittor's own means")
    place = folder(jittor_home)
    if is_whole(place):
        return Fact(f"2.2.0, {place}")
    if archive():
        return Fact(f"2.2.0, to be unpacked from {archive()}")
    return Fact(
        "missing",
        "oneDNN is missing, without which convolutions are about 50 times slower: "
        f"{sys.executable} -m pip install jittor_offline (or set use_mkl=0 to do without)",
    )


def prepare(jittor_home: str) -> None:
    """Put oneDNN where Jittor expects it, also in place of an incomplete folder; raise
    RuntimeProblem where it is not available.
    """
    if not wanted():
        return
    place = folder(jittor_home)
    if is_whole(place):
        return
    source = archive()
    if source is None and os.path.lexists(place):
        raise RuntimeProblem(
            f"oneDNN in {place} is incomplete: delete that folder and {sys.executable} -m pip "
            "install jittor_offline"
        )
    if source is None:
        raise RuntimeProblem(fact(jittor_home).problem)
    with open(source, "rb") as file:
        if hashlib.md5(file.read()).hexdigest() != ARCHIVES[platform.machine()][1]:
            raise RuntimeProblem(
                f"{source} is damaged: {sys.executable} -m pip install --force-reinstall "
                "--no-deps jittor_offline"
            )
    _unpack(source, place)


def _unpack(source: str, place: str) -> None:
    parent = os.path.dirname(place)
    os.makedirs(parent, exist_ok=True)
    # Jittor takes any folder of `parent` called dnnl*, so the temporary one is called otherwise.
    temporary = tempfile.mkdtemp(prefix=".unpacking-", dir=parent)
    try:
        with tarfile.open(source) as tar:
            members = [member for member in tar.getmembers() if "/examples" not in member.name]
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(temporary, members, **safe)
        if os.path.lexists(place) and not is_whole(place):
            os.rename(place, os.path.join(temporary, "broken"))
        if not os.path.lexists(place):
            os.rename(os.path.join(temporary, os.path.basename(place)), place)
    except (OSError, tarfile.TarError) as error:
        if not is_whole(place):  # another process may have been first
            raise RuntimeProblem(
                f"oneDNN cannot be unpacked into {parent} ({error}): make room or make it writable"
            ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
