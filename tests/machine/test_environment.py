"""jseg/machine/environment.py: the variables that Jittor is given, on toolkits and drivers made up
for the test. (What reaches a Jittor that is imported: test_runtime.py.)
"""

import os
import subprocess
import sysconfig
from types import SimpleNamespace

import pytest
from support.fake_cuda import bare, cudnn, toolkit, write  # noqa: F401

from jseg.machine import cuda, environment
from jseg.machine.facts import RuntimeProblem


@pytest.fixture
def machine(bare, monkeypatch):
    """(folder, what is set and said where the driver answers so)."""

    def variables(newest=13, devices=(90,)):
        monkeypatch.setattr(cuda, "driver", lambda: (newest, list(devices)))
        return environment.cuda_variables()

    for name in ("SIZE", "LOCAL_RANK", "LOCAL_SIZE"):
        monkeypatch.delenv(f"OMPI_COMM_WORLD_{name}", raising=False)
    monkeypatch.delenv("use_nccl", raising=False)
    toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    return bare, variables


def test_the_python_config_answers_for_the_running_python(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = environment.python_config()
    includes = subprocess.check_output([path, "--includes"], universal_newlines=True).split()
    assert os.path.isfile(os.path.join(includes[0][2:], "Python.h"))
    suffix = subprocess.check_output([path, "--extension-suffix"], universal_newlines=True)
    assert suffix.strip() == sysconfig.get_config_var("EXT_SUFFIX")
    assert environment.python_config() == path and len(os.listdir(os.path.dirname(path))) == 1


def test_a_home_is_built_and_jittor_is_led_to_it(machine):
    folder, variables = machine
    values, remarks = variables()
    assert set(values) == {"nvcc_path"} and remarks == []
    assert values["nvcc_path"].startswith(str(folder / "home/.cache/jseg/cuda-home"))
    assert os.access(values["nvcc_path"], os.X_OK)


def test_a_gpu_that_is_not_used_is_remarked_on(bare, monkeypatch):
    toolkit(bare / "cuda")
    monkeypatch.setattr(cuda, "driver", lambda: (13, [90]))
    values, (remark,) = environment.cuda_variables()
    assert values == {"nvcc_path": ""}
    assert remark.startswith("the CPU computes, not the GPU: nvcc 13.0.88 at ")


def test_a_machine_without_a_gpu_needs_no_remark(bare, monkeypatch):
    toolkit(bare / "cuda")
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert environment.cuda_variables() == ({"nvcc_path": ""}, [])


def test_the_user_s_nvcc_without_a_driver_is_remarked_on(bare, monkeypatch):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    monkeypatch.setenv("nvcc_path", "/my/nvcc")
    values, (remark,) = environment.cuda_variables()
    assert values == {"nvcc_path": "/my/nvcc"}
    assert "nvcc_path=/my/nvcc is set, but no NVIDIA driver answers: Jittor may abort" in remark


def test_a_cache_that_cannot_hold_the_home_is_refused(machine):
    folder, variables = machine
    write(folder / "home", "a file")
    line = "cuda-home, where compiled code is kept, cannot be written .*: set HOME"
    with pytest.raises(RuntimeProblem, match=line):
        variables()


def test_a_number_that_no_gpu_has_is_refused(machine, monkeypatch):
    _, variables = machine
    monkeypatch.setenv("device_id", "1")
    assert variables(devices=(90, 90))[0]["nvcc_path"]
    line = "device_id=1 in the environment names no GPU, there are 1, numbered from 0"
    with pytest.raises(RuntimeProblem, match=line):
        variables()


def test_several_processes_use_nccl_where_it_is(machine, monkeypatch):
    folder, variables = machine
    write(folder / "usr/include/nccl.h")
    write(folder / "usr/lib64/libnccl.so.2")
    assert set(variables()[0]) == {"nvcc_path"}, "one process needs none"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    values, remarks = variables()
    assert set(values) == {"nvcc_path", "nccl_include_path", "nccl_lib_path"} and remarks == []
    assert os.path.isfile(values["nccl_include_path"] + "/nccl.h")
    assert os.path.isfile(values["nccl_lib_path"] + "/libnccl.so")

    # Jittor would leave NCCL, without a word, where processes would share a GPU.
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    values, (remark,) = variables()
    assert values["use_nccl"] == "0" and "2 processes see 1 GPU(s) here" in remark
    values, remarks = variables(devices=(90, 90))
    assert "nccl_lib_path" in values and "CUDA_VISIBLE_DEVICES" not in values and remarks == []


def test_with_nccl_a_process_takes_its_gpu_before_jittor_is_there(tmp_path, monkeypatch):
    """Else each would keep a context on GPU 0, where Jittor opens a stream."""
    taken = []
    library = SimpleNamespace(cudaSetDevice=taken.append)
    paths = {str(tmp_path / "lib64" / "libcudart.so"): library}
    monkeypatch.setattr(environment.ctypes, "CDLL", paths.__getitem__)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3")
    values = {"nvcc_path": str(tmp_path / "bin" / "nvcc")}
    environment.take_gpu(values)
    assert taken == []
    environment.take_gpu({**values, "nccl_lib_path": "/usr/lib"})
    assert taken == [3]


@pytest.mark.parametrize(
    "visible, count, expected",
    [
        (None, 2, "0101"),
        ("4,5", 2, "4545"),
        (" 6 , 2,7", 3, ["6", "2", "7", "6"]),
        ("3", 1, "3333"),
        ("0,1,9,2", 2, "0101"),
        ("GPU-8932f937-d72c,GPU-1b6d2a1e-11aa", 2, ["GPU-8932f937-d72c", "GPU-1b6d2a1e-11aa"] * 2),
        ("MIG-1/2/0,MIG-1/3/0", 1, ["MIG-1/2/0", "MIG-1/3/0"] * 2),
    ],
)
def test_without_nccl_each_process_has_its_gpu_of_the_user_s_list(
    machine, monkeypatch, visible, count, expected
):
    """CUDA sees the entries up to the first that names no GPU, and one MIG instance; a scheduler's
    list is respected.
    """
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for rank, gpu in enumerate(expected):
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", str(rank))
        values, (remark,) = machine[1](devices=(90,) * count)
        assert (values["use_nccl"], values["CUDA_VISIBLE_DEVICES"]) == ("0", gpu)
        assert "NCCL is not found" in remark and "install nvidia-nccl-cu13" in remark


def test_variables_are_set_for_a_while_and_the_user_s_win(monkeypatch):
    monkeypatch.setenv("cache_name", "mine")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.delenv("use_cutt", raising=False)
    values = {"cache_name": "default", "use_cutt": "0", "CUDA_VISIBLE_DEVICES": "5"}
    with environment.apply(values):
        assert [os.environ[name] for name in values] == ["mine", "0", "5"]
    assert os.environ["cache_name"] == "mine" and "use_cutt" not in os.environ
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5", "CUDA may be asked after the import only"
