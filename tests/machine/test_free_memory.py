"""jseg/machine/free_memory.py, on kernels made up for the test and on the one that is there."""

import subprocess

import numpy as np
import pytest
from support.child_python import write

from jseg.machine import free_memory
from jseg.machine.free_memory import GpuMemory, free_bytes, gpu_memory, resident_bytes

MEGABYTE = 1 << 20


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Writes a file of /proc or of the control groups; 8 GB of memory are free."""
    monkeypatch.setattr(free_memory, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(free_memory, "GROUPS", str(tmp_path / "groups"))
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:  {8000 << 10} kB\n")
    return lambda path, text: write(tmp_path / path, f"{text}\n")


def test_without_limits_it_is_the_system_s(kernel):
    assert free_bytes() == 8000 * MEGABYTE
    kernel("groups/memory.max", "max")
    kernel("groups/memory.current", 3000 * MEGABYTE)
    assert free_bytes() == 8000 * MEGABYTE


def test_a_group_s_limit_counts_but_not_its_cached_files(kernel):
    kernel("groups/memory.max", 4000 * MEGABYTE)
    kernel("groups/memory.current", 3000 * MEGABYTE)
    assert free_bytes() == 1000 * MEGABYTE
    kernel("groups/memory.stat", f"anon 5\ninactive_file {500 * MEGABYTE}\nactive_file 7")
    assert free_bytes() == 1500 * MEGABYTE
    kernel("groups/memory.max", 2000 * MEGABYTE)
    assert free_bytes() == 0


def test_the_narrowest_of_the_groups_around_a_process_counts(kernel):
    kernel("proc/self/cgroup", "0::/user.slice/job")
    for path, limit in (("user.slice", 900), ("user.slice/job", 5000)):
        kernel(f"groups/{path}/memory.max", limit * MEGABYTE)
        kernel(f"groups/{path}/memory.current", 100 * MEGABYTE)
    assert free_bytes() == 800 * MEGABYTE


def test_groups_of_the_first_version(kernel):
    kernel("proc/self/cgroup", "5:cpu,cpuacct:/other\n4:memory:/docker/abc")
    kernel("groups/memory/memory.limit_in_bytes", 700 * MEGABYTE)  # of a container, whose path
    kernel("groups/memory/memory.usage_in_bytes", 300 * MEGABYTE)  # is not there
    kernel("groups/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {50 * MEGABYTE}")
    assert free_bytes() == 450 * MEGABYTE


@pytest.mark.parametrize("code, expected", [(0, GpuMemory(5 << 30, 8 << 30)), (2, None)])
def test_a_gpu_tells_through_the_runtime_that_is_loaded(kernel, tmp_path, code, expected):
    assert gpu_memory() is None
    library = tmp_path / "a folder/libcudart.so.12.9"
    source = f"""
    #include <stddef.h>
    int cudaMemGetInfo(size_t* free, size_t* total) {{
        *free = 5ul << 30; *total = 8ul << 30; return {code};
    }}"""
    write(tmp_path / "a folder/memory.c", source)
    call = ["gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "a folder/memory.c")]
    subprocess.run(call, check=True)
    kernel("proc/self/maps", f"7f00-7f01 r-xp 00000000 08:01 42    {library}\n7f02 rw-p 00 00 0")
    assert gpu_memory() == expected


def test_of_a_gpu_s_memory_a_part_stays_unused():
    assert GpuMemory(20 * 10**9, 24 * 10**9).usable == 17_800_000_000  # 0.95 * 20 - 0.05 * 24


def test_other_systems_tell_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(free_memory, "PROC", str(tmp_path))
    assert (free_bytes(), resident_bytes("VmRSS")) == (None, None)


def test_this_system_tells_in_bytes():
    ones = np.ones(64 << 20, np.uint8)
    assert (64 << 20) <= resident_bytes("VmRSS") <= resident_bytes("VmHWM") and ones[-1]
    assert resident_bytes("VmNothing") is None
    assert free_bytes() > MEGABYTE
