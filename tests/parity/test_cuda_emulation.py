"""The emulated device itself: what it computes, what it refuses, what it reports."""

import numpy as np
import pytest

from jseg.parity.cuda_emulation.device_types import from_memory, rounded, to_memory
from jseg.parity.cuda_emulation.programs import Call, Kernel, compile_kernels
from jseg.parity.cuda_emulation.translate import translate

HEADER = """
#include <type/fp16_compute.h>
namespace {
__global__ void neighbours(const float* x, float* y) {
    __shared__ float all[64];
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = all[(threadIdx.x + 1) % 64];
}
__global__ void neighbours_at_once(const float* x, float* y) {
    __shared__ float all[64];
    all[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = all[(threadIdx.x + 1) % 64];
}
__global__ void places(float* y) {  // of a grid of 2 x 3 blocks of 2 x 2 x 4 threads
    unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    y[block * 16 + thread] = 100 * blockIdx.x + 10 * blockIdx.y + threadIdx.z;
}
__global__ void warp(const float* x, float* y) {
    float sum = x[threadIdx.x];
    for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(0xffffffff, sum, bits);
    float above = __shfl_down_sync(0xffffffff, x[threadIdx.x], 1);
    float below = __shfl_up_sync(0xffffffff, x[threadIdx.x], 1);
    float third = __shfl_sync(0xffffffff, x[threadIdx.x], 3);
    unsigned votes = __ballot_sync(0xffffffff, x[threadIdx.x] > 20);
    y[threadIdx.x] = sum;
    y[64 + threadIdx.x] = above;
    y[128 + threadIdx.x] = below;
    y[192 + threadIdx.x] = third;
    y[256 + threadIdx.x] = __popc(votes);
}
__global__ void warps(const float* x, float* y) {  // of 32 blocks
    float sum = x[threadIdx.x];
    for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(0xffffffff, sum, bits);
    if (threadIdx.x % 32 == 0) y[2 * blockIdx.x + threadIdx.x / 32] = sum;
}
__global__ void count(float* y) { atomicAdd(y + threadIdx.x % 2, 1.f); }
__global__ void clear(float* y) { y[threadIdx.x] = 0; }
__global__ void unset(float* y) { __shared__ float all[64]; y[threadIdx.x] = all[threadIdx.x]; }
__global__ void dynamic(float* y) {
    extern __shared__ float all[];
    all[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = all[63 - threadIdx.x];
}
__global__ void apart(float* y) {
    if (threadIdx.x < 32) __syncthreads();
    else {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}
__global__ void early(float* y) {
    y[threadIdx.x] = 1;
    if (threadIdx.x == 5) return;
    __syncthreads();
}
__global__ void half_a_warp(float* y) {
    y[threadIdx.x] = threadIdx.x < 16 ? __shfl_xor_sync(0xffffffff, 1.f, 1) : 1.f;
}
__global__ void part_of_a_warp(float* y) { y[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1.f, 16); }
__global__ void beside(float* y) { y[threadIdx.x == 63 ? 70 : threadIdx.x] = 1; }
}
"""
BODIES = {
    "neighbours": "neighbours<<<1, 64>>>(in0_p, out0_p);",
    "neighbours at once": "neighbours_at_once<<<1, 64>>>(in0_p, out0_p);",
    "places": "places<<<dim3(2, 3), dim3(2, 2, 4)>>>(out0_p);",
    "warp": "warp<<<1, 64>>>(in0_p, out0_p);",
    "count": "clear<<<1, 64>>>(out0_p); count<<<5, 64>>>(out0_p);",
    "unset": "unset<<<1, 64>>>(out0_p);",
    "dynamic": "dynamic<<<1, 64, 256>>>(out0_p);",
    "apart": "apart<<<1, 64>>>(out0_p);",
    "early": "early<<<1, 64>>>(out0_p);",
    "half a warp": "half_a_warp<<<1, 64>>>(out0_p);",
    "part of a warp": "part_of_a_warp<<<1, 40>>>(out0_p);",
    "beside": "beside<<<1, 64>>>(out0_p);",
    "many threads": "unset<<<1, 1025>>>(out0_p);",
    "no block": "unset<<<0, 64>>>(out0_p);",
    "tall grid": "unset<<<dim3(1, 65536), 64>>>(out0_p);",
    "much memory": "dynamic<<<1, 64, 49153>>>(out0_p);",
    "checked": """
        dynamic<<<1, 64, 49153>>>(out0_p);
        cudaError_t error = cudaGetLastError();
        CHECK(error == cudaSuccess) << "checked:" << cudaGetErrorString(error);
    """,
    "warps": "warps<<<32, 64>>>(in0_p, out0_p);",
    "nothing": "",
}
SIZES = {"places": 96, "warp": 320}
X = np.arange(64.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def call(folder):
    """call(name of a body, order, mode) -> (its output or None, messages, exit code)."""
    kernels = [Kernel(source, ("float32",), ("float32",)) for source in BODIES.values()]

    def compute(name, order="forward", mode="plain"):
        program = compile_kernels(folder, HEADER, kernels, mode)
        shape = (SIZES.get(name, 64),)
        outcome = program.run([Call(list(BODIES).index(name), [X], [shape])], order)
        output = outcome.outputs[0][0] if outcome.outputs else None
        return output, outcome.messages, outcome.exit_code

    return compute


@pytest.mark.parametrize(
    "order, mode",
    [
        *((order, "plain") for order in ("forward", "reverse", "random:1", "random:2")),
        ("reverse", "portable"),
    ],
)
@pytest.mark.parametrize("name", ["neighbours", "places", "warp", "count", "dynamic"])
def test_a_right_kernel_computes_the_same_in_every_order(call, name, order, mode):
    block, thread = np.arange(96) // 16, np.arange(96) % 16
    halves = X.reshape(2, 32)
    lanes = np.arange(64) % 32
    expected = {
        "neighbours": np.roll(X, -1),
        "places": 100 * (block % 2) + 10 * (block // 2) + thread // 4,
        "warp": np.concatenate(
            [
                np.repeat(halves.sum(1), 32),
                X + (lanes < 31),
                X - (lanes > 0),
                np.repeat(halves[:, 3], 32),
                np.repeat((halves > 20).sum(1), 32),
            ]
        ),
        "count": np.where(X < 2, 160, 0),
        "dynamic": X[::-1],
    }
    output, messages, code = call(name, order, mode)
    assert (messages, code) == ("", 0)
    np.testing.assert_array_equal(output, expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["forward", "random:1"])
def test_shuffles_of_many_blocks_are_no_race(call, order):
    output, messages, code = call("warps", order, "races")
    assert (messages, code) == ("", 0)
    np.testing.assert_array_equal(output, np.tile(X.reshape(2, 32).sum(1), 32))


def test_the_order_shows_a_race_and_poison_what_is_not_written(call):
    forward, messages, code = call("neighbours at once")
    reverse, _, _ = call("neighbours at once", "reverse")
    assert (messages, code) == ("", 0)
    assert np.isnan(forward).sum() == 63 and np.isnan(reverse).sum() == 1
    assert np.isnan(call("unset")[0]).all() and np.isnan(call("nothing")[0]).all()


@pytest.mark.parametrize(
    "name, message",
    [
        ("apart", "apart: threads of a block wait at different barriers"),
        ("early", "early: threads have ended while others wait at a barrier"),
        ("half a warp", "half_a_warp: lanes of a warp wait for lanes that are elsewhere"),
        ("part of a warp", "part_of_a_warp: a shuffle reads a lane that is not there"),
        ("beside", "memory beside output 0 is written to"),
    ],
)
def test_what_the_device_leaves_undefined_is_reported(call, name, message):
    _, messages, code = call(name)
    assert f"emulation: {message}" in messages and code == 0


@pytest.mark.parametrize(
    "name, message",
    [
        ("many threads", "unset: a block of that size is refused; grid 1, 1, 1 of 1025, 1, 1"),
        ("no block", "unset: a grid of that size is refused"),
        ("tall grid", "unset: a grid of that size is refused"),
        ("much memory", "dynamic: more than 48 KB of dynamic shared memory are refused"),
    ],
)
def test_a_launch_that_a_gpu_refuses_computes_nothing_and_is_reported(call, name, message):
    output, messages, code = call(name)
    assert np.isnan(output).all() and code == 0
    assert f"emulation: {message}" in messages


def test_a_check_of_the_last_error_ends_the_program(call):
    output, messages, code = call("checked")
    assert output is None and code == 3
    assert "checked: invalid argument" in messages


def test_half_types_round_as_the_device_does(folder):
    """To the nearest, ties to even, in every place of their range and beside it."""
    header = """
    #include <type/fp16_compute.h>
    template <class T> __global__ void convert(long n, const float* x, T* y, float* back) {
        for (long i = threadIdx.x; i < n; i += 32) {
            y[i] = T(x[i]);
            back[i] = float(y[i]);
        }
    }
    """
    source = "convert<<<1, 32>>>(in0_shape0, in0_p, out0_p, out1_p);"
    kinds = ("float16", "bfloat16")
    kernels = [Kernel(source, ("float32",), (kind, "float32")) for kind in kinds]
    program = compile_kernels(folder, header, kernels)
    for number, kind in enumerate(kinds):
        # all numbers of the type, and all ties between two
        bits = np.arange(1 << 16, dtype=np.uint16)
        values = from_memory(bits.view(np.float16) if kind == "float16" else bits, kind)
        values = np.sort(values[np.isfinite(values)])
        others = [1e5, -1e5, 65519.9, 65520, 1e-8, np.inf]
        x = np.concatenate([values, (values[1:] + values[:-1]) / 2, others]).astype(np.float32)
        x = np.concatenate([x, np.nextafter(x, np.float32(0))])
        outcome = program.run([Call(number, [x], [x.shape] * 2)])
        assert outcome.messages == ""
        with np.errstate(over="ignore"):
            expected = rounded(x, kind)
        for output in outcome.outputs[0]:
            np.testing.assert_array_equal(output, expected)


def test_memory_of_bfloat16_is_the_nearest():
    stored = to_memory([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-9], "bfloat16")
    expected = [1.0, 1.0, 1 + 2.0**-6, -1.0]
    np.testing.assert_array_equal(from_memory(stored, "bfloat16"), expected)


@pytest.mark.parametrize(
    "cuda, cpp",
    [
        (
            "k<<<1, 2>>>(x);",
            'emulation::launch(emulation::configured(1, 2), "k", [&](auto&... a) { k(a...); }, x);',
        ),
        (
            "n::k<A<3>, true> <<<dim3(1, 2), f(3, 4), 5>>> ();",
            "emulation::launch(emulation::configured(dim3(1, 2), f(3, 4), 5), "
            '"n::k", [&](auto&... a) { n::k<A<3>, true>(a...); });',
        ),
        (
            "__shared__ float a[T][T + 1], b;",
            "typedef float a_t[T][T + 1]; a_t& a = emulation::shared<a_t>([] {}); "
            "typedef float b_t; b_t& b = emulation::shared<b_t>([] {});",
        ),
        (
            "extern __shared__ __align__(16) float a[];",
            "float* a = (float*)emulation::dynamic_shared();",
        ),
        ('log("k<<<1>>>(x)"); // k<<<1, 2>>>(x);', 'log("k<<<1>>>(x)"); // k<<<1, 2>>>(x);'),
        ("f(')'); k<<<1, 2>>>(x, /* ) */ y);", None),
    ],
)
def test_launches_and_shared_memory_become_cpp(cuda, cpp):
    translated = translate(cuda)
    assert translated == cpp if cpp else translated.endswith("{ k(a...); }, x, /* ) */ y);")


@pytest.mark.parametrize("cuda", ["k<<<1, 2>>>;", "k<<<1, (2>>>(x);", "__shared__ float;"])
def test_what_cannot_be_read_is_an_error_that_shows_it(cuda):
    with pytest.raises(ValueError, match="k<<<|float;?$"):
        translate(cuda)


def test_a_source_that_does_not_compile_shows_the_compilers_line(folder):
    with pytest.raises(RuntimeError, match="(?s)refuses the source.*no_such_kernel"):
        compile_kernels(folder, "", [Kernel("no_such_kernel<<<1, 1>>>();", (), ())])
