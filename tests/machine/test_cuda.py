"""jseg/machine/cuda.py: which case of CUDA a machine is, on toolkits and drivers made up for the
test.
"""

import os

import pytest
from support.fake_cuda import bare, cudnn, driver, toolkit, write  # noqa: F401

from jseg.machine import cuda


def test_nvcc_without_a_driver_means_the_cpu(bare, monkeypatch):
    nvcc = toolkit(bare / "cuda")
    monkeypatch.setattr(cuda, "driver", lambda: None)
    found = cuda.choose()
    assert (found.case, found.nvcc, found.devices) == ("cpu", "", ())
    assert found.toolkit.nvcc == str(nvcc)
    assert found.reason.startswith(f"nvcc 13.0.88 at {nvcc}, but no NVIDIA driver answers: ")


def test_no_cuda_at_all_means_the_cpu(bare, monkeypatch):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert cuda.choose() == cuda.Choice(
        "cpu",
        "",
        "no NVIDIA driver answers: install the driver, or start the container with its GPUs",
    )


@pytest.mark.parametrize("hidden", ["", "-1", "7"])
def test_gpus_that_the_user_has_hidden_are_not_the_driver_s_fault(bare, monkeypatch, hidden):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert (
        cuda.choose().reason
        == f"no GPU answers with CUDA_VISIBLE_DEVICES={hidden}: unset it, or list GPUs that are "
        "there"
    )


def test_the_user_s_nvcc_path_wins(bare, monkeypatch):
    toolkit(bare / "cuda")
    monkeypatch.setattr(cuda, "driver", lambda: pytest.fail("the driver need not be asked"))
    monkeypatch.setenv("nvcc_path", "")
    assert (cuda.choose().case, cuda.choose().nvcc) == ("cpu", "")
    assert "switched off" in cuda.choose().reason
    monkeypatch.setenv("nvcc_path", "/my/nvcc")
    assert (cuda.choose().case, cuda.choose().nvcc, cuda.choose().home) == (
        "chosen",
        "/my/nvcc",
        None,
    )


def test_a_driver_that_aborts_does_not_answer(tmp_path, monkeypatch):
    driver(tmp_path, monkeypatch, body="abort()")
    assert cuda.driver() is None


def test_the_driver_is_asked_in_another_process(tmp_path, monkeypatch):
    driver(tmp_path, monkeypatch)
    assert cuda.driver() == (12, [80, 86])
    with open("/proc/self/maps") as file:
        assert str(tmp_path) not in file.read(), (
            "CUDA must not be initialised in a process that will fork"
        )


def test_a_machine_with_a_driver_is_asked_whole(bare, monkeypatch):
    toolkit(bare / "cuda", "12.4.131")
    cudnn(bare / "cuda", "8.9.7", lib="lib64")
    driver(bare, monkeypatch)
    found = cuda.choose()
    assert (found.case, found.devices) == ("stock", (80, 86))
    assert "2 device(s) of compute capability 8.0 and 8.6" in found.reason


CASES = [
    ("11.8.89", "8.9.7", 90, "stock"),
    ("12.4.131", "8.9.7", 80, "stock"),
    ("12.9.86", "8.9.7", 120, "home"),
    ("12.4.131", "9.2.1", 80, "home"),
    ("13.0.88", "9.2.1", 90, "home"),
    ("13.0.88", "8.9.7", 90, "home"),
]


@pytest.mark.parametrize("release, version, device, case", CASES)
def test_the_cases(bare, release, version, device, case):
    nvcc = toolkit(bare / "cuda", release)
    cudnn(bare / "cuda", version, lib="lib64")
    found = cuda.choose_for(13, [device])
    assert found.case == case
    assert found.reason.startswith(
        f"nvcc {release} at {nvcc}, cuDNN {version}, 1 device(s) of compute capability "
    )
    assert found.nvcc == (
        str(nvcc) if case == "stock" else os.path.join(found.home.folder, "bin/nvcc")
    )
    assert not os.path.exists(bare / "home"), "nothing is written before it is wanted"


def test_pip_s_packages_alone_are_enough(bare):
    toolkit(bare / "site/nvidia/cu13")
    cudnn(bare / "site/nvidia/cudnn", versioned_only=True)
    write(bare / "site/nvidia_cudnn_cu13-9.2.1.dist-info/METADATA")
    assert cuda.choose_for(13, [90]).case == "home"


NEWER = "is newer than the driver, which is for CUDA 12"
COMPILES = "does not compile for compute capability"


@pytest.mark.parametrize(
    "release, version, newest, device, words",
    [
        ("13.0.88", "9.2.1", 12, 90, f"{NEWER}: update the driver, or install CUDA toolkit 12"),
        ("10.2.89", "8.9.7", 12, 80, "it is too old: install CUDA toolkit 11 or newer"),
        ("11.8.89", "7.6.5", 12, 80, "cuDNN 7.6.5 is too old"),
        ("13.0.88", "9.2.1", 13, 70, f"{COMPILES} 7.0: install an older CUDA toolkit"),
        ("13.0.88", "9.2.1", 13, 130, f"{COMPILES} 13.0: install a newer CUDA toolkit"),
        ("13.0.88", "", 13, 90, "cuDNN's header and library not found: "),
    ],
)
def test_what_cannot_work_is_one_line_with_the_remedy(
    bare, release, version, newest, device, words
):
    nvcc = toolkit(bare / "cuda", release)
    if version:
        cudnn(bare / "cuda", version, lib="lib64")
    found = cuda.choose_for(newest, [device])
    assert (found.case, found.nvcc, found.devices) == ("cpu", "", (device,))
    assert words in found.reason
    assert str(nvcc) in found.reason and "\n" not in found.reason


def test_the_first_toolkit_that_works_is_taken_and_the_nearest_refusal_told(bare):
    toolkit(bare / "cuda-13.0")
    assert "newer than the driver" in cuda.choose_for(12, [80]).reason
    old = toolkit(bare / "cuda-12.4", "12.4.131")
    lacking = cuda.choose_for(12, [80])
    assert (
        "nvcc 12.4.131" in lacking.reason
        and "cuDNN's header and library not found" in lacking.reason
    ), "it is nearer to working"
    cudnn(bare / "cuda-12.4", lib="lib64")
    found = cuda.choose_for(12, [80])
    assert found.case == "home" and str(old) in found.reason


@pytest.mark.parametrize(
    "newest, words", [(13, "pip install 'cuda-toolkit[nvcc,"), (12, "install CUDA toolkit 12 (")]
)
def test_a_gpu_without_a_toolkit_is_told_what_to_install(bare, newest, words):
    found = cuda.choose_for(newest, [90])
    assert found.case == "cpu"
    assert found.reason.startswith("no nvcc on PATH")
    assert words in found.reason


def test_an_nvcc_that_does_not_run_is_named(bare):
    broken = write(bare / "cuda/bin/nvcc", "#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    assert cuda.choose_for(13, [90]).reason.startswith(f"{broken} does not run: ")
