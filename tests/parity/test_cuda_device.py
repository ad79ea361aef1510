"""The emulated device: its compiler's answers, its libraries against NumPy and SciPy."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import correlate

from jseg.machine import cuda_toolkit
from jseg.parity.cuda_emulation.device import compiler, toolkit

FLOAT, HALF, BFLOAT16 = 0, 2, 14  # cudaDataType
NO_TRANSPOSE, TRANSPOSE = 0, 1
IN_FLOAT, IN_TF32 = 68, 77  # cublasComputeType_t
BAD_PARAM, NOT_SUPPORTED, INVALID_VALUE = 2000, 15, 7


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """cuBLAS, cuDNN and cuRAND of the emulated device, without CUDA's own headers."""
    path = str(tmp_path_factory.mktemp("libraries") / "libraries.so")
    folders = (toolkit.INCLUDE, os.path.join(toolkit.CORE, "include"))
    sources = [os.path.join(toolkit.HERE, f"{name}.cc") for name in toolkit.ON_HOST]
    scheduler = os.path.join(toolkit.CORE, "scheduler.cc")
    words = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-w", *(f"-I{f}" for f in folders)]
    subprocess.run([*words, *sources, scheduler, "-o", path], check=True)
    return ctypes.CDLL(path)


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


# -- cuBLAS ----------------------------------------------------------------------------------------


def product(libraries, a, b, kinds=(FLOAT,) * 3, sums=IN_FLOAT, ops=(0, 0), out=np.float32):
    """Batches of a [n, k, m] and b [n, columns, k], columns one after another: [n, columns, m]."""
    (batch, k, m), columns = a.shape, b.shape[1]
    if ops[0]:
        k, m = m, k
    c = np.full((batch, columns, m), 7, out)
    one, zero = (np.array([v], np.float32) for v in (1, 0))
    status = libraries.cublasGemmStridedBatchedEx(
        None,
        *ops,
        *(m, columns, k, pointer(one)),
        *(pointer(a), kinds[0], a.shape[2], ctypes.c_longlong(a[0].size)),
        *(pointer(b), kinds[1], b.shape[2], ctypes.c_longlong(b[0].size)),
        *(pointer(zero), pointer(c), kinds[2], m, ctypes.c_longlong(c[0].size)),
        *(batch, sums, -1),
    )
    return status, c


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [False, True])
def test_product(libraries, transposed):
    a, b = draw(3, 5, 4), draw(3, 6, 5, seed=1)
    expected = np.einsum("nkm,njk->njm", a.astype(np.float64), b)
    stored = np.ascontiguousarray(a.transpose(0, 2, 1)) if transposed else a
    status, c = product(libraries, stored, b, ops=(int(transposed), NO_TRANSPOSE))
    assert status == 0
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-6)


def test_product_of_halves_has_float_sums(libraries):
    """4096 times 1 with 0.25: sums in half precision would stop growing."""
    a, b = np.ones((1, 4096, 1), np.float16), np.full((1, 1, 4096), 0.25, np.float16)
    status, c = product(libraries, a, b, (HALF,) * 3, out=np.float16)
    assert status == 0 and c.item() == 1024


def test_product_refuses_what_cublas_refuses(libraries, capfd):
    halves = draw(1, 4, 4).astype(np.float16)
    assert product(libraries, halves, halves, (HALF,) * 3, IN_TF32)[0] == NOT_SUPPORTED
    assert product(libraries, draw(1, 4, 4), halves, (FLOAT, HALF, FLOAT))[0] == NOT_SUPPORTED
    assert "emulated cuBLAS" in capfd.readouterr().err


# -- cuDNN -----------------------------------------------------------------------------------------


class Convolution:
    """Descriptors of a convolution of x [n, channels, h, w] with w [k, channels / groups, 3, 3]."""

    def __init__(self, libraries, x, w, stride, pad, groups):
        self.libraries, self.x, self.w = libraries, x, w
        size = [(x.shape[2 + i] + 2 * pad - w.shape[2 + i]) // stride + 1 for i in (0, 1)]
        self.y_shape = (x.shape[0], w.shape[0], *size)
        self.c = self._made("Convolution")
        pairs = [self._ints(v, v) for v in (pad, stride, 1)]
        assert not libraries.cudnnSetConvolutionNdDescriptor(self.c, 2, *pairs, 1, 0)
        assert not libraries.cudnnSetConvolutionGroupCount(self.c, groups)

    def _made(self, name):
        descriptor = ctypes.c_void_p()
        getattr(self.libraries, f"cudnnCreate{name}Descriptor")(ctypes.byref(descriptor))
        return descriptor

    @staticmethod
    def _ints(*values):
        return (ctypes.c_int * len(values))(*values)

    def tensor(self, array):
        """The descriptor of an array in whatever layout it has."""
        descriptor = self._made("Tensor")
        strides = self._ints(*(s // array.itemsize for s in array.strides))
        sizes = self._ints(*array.shape)
        self.libraries.cudnnSetTensorNdDescriptor(descriptor, 0, 4, sizes, strides)
        return descriptor

    def filter(self, array):
        descriptor = self._made("Filter")
        self.libraries.cudnnSetFilterNdDescriptor(descriptor, 0, 0, 4, self._ints(*array.shape))
        return descriptor

    def run(self, name, *arrays):
        """cudnnConvolution<name> of the first two of the arrays into the third; the status."""
        one, zero = (np.array([v], np.float32) for v in (1, 0))
        described = []
        for array in arrays:
            describe = self.filter if array.shape == self.w.shape else self.tensor
            described.append((describe(array), pointer(array)))
        call = getattr(self.libraries, f"cudnnConvolution{name}")
        (a, b), end = described[:2], described[2]
        work = (None, ctypes.c_size_t(0))
        return call(None, pointer(one), *a, *b, self.c, 0, *work, pointer(zero), *end)


def reference(x, w, stride, pad, groups):
    """The convolution in float64, and its arrays padded."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    own = w.shape[1]
    rows = []
    for k in range(w.shape[0]):
        first = k // (w.shape[0] // groups) * own
        part = padded[:, first : first + own]
        rows.append([correlate(image, w[k].astype(np.float64), "valid")[0] for image in part])
    return np.array(rows).transpose(1, 0, 2, 3)[:, :, ::stride, ::stride]


@pytest.mark.parametrize("stride, pad, groups", [(1, 1, 1), (2, 1, 2), (2, 0, 1), (3, 2, 1)])
def test_convolution(libraries, stride, pad, groups):
    """Forward against SciPy; the gradients by <y, conv(x, w)> = <x, of_x> = <w, of_w>."""
    channels_last = draw(2, 7, 9, 4)
    x, w = channels_last.transpose(0, 3, 1, 2), draw(6, 4 // groups, 3, 3, seed=1)
    convolution = Convolution(libraries, x, w, stride, pad, groups)
    y = np.full(convolution.y_shape, 7, np.float32)
    assert convolution.run("Forward", x, w, y) == 0
    expected = reference(x, w, stride, pad, groups)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)

    g = draw(*y.shape, seed=2)
    of_x, of_w = np.full(x.shape, 7, np.float32), np.full(w.shape, 7, np.float32)
    assert convolution.run("BackwardData", w, g, of_x) == 0
    assert convolution.run("BackwardFilter", x, g, of_w) == 0
    for i in (0, 17, 50):  # finite differences of a linear function are exact
        for array, gradient in ((x, of_x), (w, of_w)):
            place = np.unravel_index(i, array.shape)
            moved = array.copy()
            moved[place] += 1
            arrays = (moved, w) if array is x else (x, moved)
            change = (reference(*arrays, stride, pad, groups) - expected) * g
            assert gradient[place] == pytest.approx(change.sum(), rel=1e-4, abs=1e-4)


def test_convolution_refuses_shapes_that_do_not_fit(libraries, capfd):
    x, w = draw(1, 4, 6, 6), draw(6, 4, 3, 3)
    convolution = Convolution(libraries, x, w, 1, 1, 1)
    assert convolution.run("Forward", x, w, np.zeros((1, 6, 5, 6), np.float32)) == BAD_PARAM
    assert "do not fit" in capfd.readouterr().err


# -- cuRAND ----------------------------------------------------------------------------------------


def test_random_numbers(libraries):
    generator = ctypes.c_void_p()
    libraries.curandCreateGenerator(ctypes.byref(generator), 100)
    libraries.curandSetPseudoRandomGeneratorSeed(generator, ctypes.c_ulonglong(1))
    values, count = np.zeros(20001, np.float32), ctypes.c_size_t
    mean, deviation = ctypes.c_float(2), ctypes.c_float(3)
    normal = libraries.curandGenerateNormal
    assert normal(generator, pointer(values), count(20001), mean, deviation) == 105  # not even
    assert normal(generator, pointer(values), count(20000), mean, deviation) == 0
    assert values[:20000].mean() == pytest.approx(2, abs=0.1) and values[20000] == 0
    assert values[:20000].std() == pytest.approx(3, abs=0.1)
    assert libraries.curandGenerateUniform(generator, pointer(values), count(20001)) == 0
    assert 0 < values.min() and values.max() <= 1


# -- the compiler and the toolkit ------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, answer",
    [
        ("--version", "release 13.0, V13.0.88"),
        ("--list-gpu-code", "sm_90"),
        ("--dryrun", "#$ TOP=/top"),
    ],
)
def test_answers_of_the_compiler(option, answer, capfd):
    assert compiler.main("/top", [option]) == 0
    assert answer in "".join(capfd.readouterr())


def test_command_of_the_compiler(tmp_path):
    source = tmp_path / "kernel.cu"
    source.write_text("__global__ void k(); void f() { k<<<1, 2>>>(); }\n")
    words = [str(source), "-x", "cu", "-Xcompiler", "-fopenmp", "-arch=compute_90", "-I/a", "-O3"]
    folder = tmp_path / "translated"
    folder.mkdir()
    made = compiler.command("/top", [*words, "-std=c++17", "-o", "kernel.so"], str(folder))
    assert made[0] == "g++" and "-fopenmp" in made and "-I/a" in made and "-std=c++17" in made
    assert not {"-x", "cu", "-arch=compute_90", "-O3", str(source)} & set(made)
    translated = next(word for word in made if word.endswith("kernel.cc"))
    with open(translated) as file:
        text = file.read()
    assert f'#line 1 "{source}"' in text and "<<<" not in text


def test_missing_headers_are_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(toolkit.ToolkitError, match="pip install --no-deps 'nvidia-cuda-runtime"):
        toolkit.cuda_headers()


@pytest.mark.slow
def test_toolkit_is_what_jseg_looks_for(tmp_path):
    try:
        toolkit.cuda_headers()
    except toolkit.ToolkitError as error:
        pytest.skip(str(error))
    top = toolkit.build(str(tmp_path))
    assert toolkit.build(str(tmp_path)) == top
    kit = cuda_toolkit.toolkit(os.path.join(top, "bin", "nvcc"))
    assert kit.version == (13, 0, 88) and kit.cudnn == (9, 0, 0) and kit.top == top
    assert cuda_toolkit.missing(kit) == "" and 90 in cuda_toolkit.capabilities(kit)
