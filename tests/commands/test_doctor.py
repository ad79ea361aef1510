"""The doctor's line on CUDA: which case a machine is, and what is missing. (The rest of its screen:
test_cli.py.)
"""

import pytest
from support.fake_cuda import bare, cudnn, toolkit  # noqa: F401

from jseg.commands import doctor
from jseg.machine import cuda


@pytest.fixture
def line(bare, monkeypatch):
    """The row CUDA of a machine with the driver that is given."""

    def shown(driver=None):
        monkeypatch.setattr(cuda, "driver", lambda: driver)
        return doctor.unused_cuda()

    return shown


def test_no_cuda_at_all(line):
    assert (
        line()
        == "not used: no NVIDIA driver answers: install the driver, or start the container with "
        "its GPUs"
    )


def test_a_toolkit_without_a_driver_is_told_what_else_it_lacks(bare, line):
    toolkit(bare / "cuda")
    assert "no NVIDIA driver answers" in line()
    assert "; with a driver: nvcc 13.0.88 at " in line()
    assert "nvidia-cudnn-cu13" in line()
    cudnn(bare / "cuda", lib="lib64")
    assert line().endswith("cuDNN 9.2.1; through a home of links and headers")


def test_a_gpu_that_cannot_be_used_says_why(bare, line):
    toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    assert line((12, [80])).startswith("not used: nvcc 13.0.88 at ")
    assert line((12, [80])).count("newer than the driver") == 1
    assert "with a driver" not in line((12, [80]))


def test_a_gpu_in_use_is_told_with_its_case(bare, line):
    toolkit(bare / "cuda", "12.4.131")
    cudnn(bare / "cuda", "8.9.7", lib="lib64")
    assert line((12, [90])).endswith("cuDNN 8.9.7, 1 device(s) of compute capability 9.0; as it is")


def test_switched_off_is_told(bare, line, monkeypatch):
    monkeypatch.setenv("nvcc_path", "")
    assert line((12, [90])) == "not used: switched off: nvcc_path is set and empty"
