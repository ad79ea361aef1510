"""A GPU made of the CPU: CUDA source compiled by the C++ compiler, blocks one after another, a
block's threads as coroutines.

Threads change places at every __syncthreads() and at no other point, always in the same order. So
it shows wrong indices and sums, and shared memory that is read before a barrier that is missing;
not speed, and not races between blocks.
"""

import re

HEADER = """
#include <cmath>
#include <functional>
#include <ucontext.h>
#include <vector>
#define __global__ static
#define __device__
#define __shared__ static
namespace {
struct Place { volatile unsigned x; } blockIdx, threadIdx;
ucontext_t scheduler, fibers[1024];
volatile bool done[1024];
std::function<void()> body;

void fiber() { body(); done[threadIdx.x] = true; swapcontext(&fibers[threadIdx.x], &scheduler); }
void __syncthreads() { swapcontext(&fibers[threadIdx.x], &scheduler); }

void simulated(long blocks, unsigned threads, std::function<void()> kernel) {
    static std::vector<char> stacks;
    const size_t STACK = 1 << 16;
    stacks.resize(threads * STACK);
    body = kernel;
    for (long block = 0; block < blocks; block++) {
        blockIdx.x = block;
        for (unsigned i = 0; i < threads; i++) {
            getcontext(&fibers[i]);
            fibers[i].uc_stack.ss_sp = stacks.data() + i * STACK;
            fibers[i].uc_stack.ss_size = STACK;
            fibers[i].uc_link = &scheduler;
            makecontext(&fibers[i], fiber, 0);
            done[i] = false;
        }
        for (bool going = true; going;) {
            going = false;
            for (unsigned i = 0; i < threads; i++)
                if (!done[i]) {
                    threadIdx.x = i;
                    swapcontext(&scheduler, &fibers[i]);
                    going |= !done[i];
                }
        }
    }
}
}
"""


def source(cuda_source: str) -> str:
    """The source with its launches turned into calls of `simulated`."""
    found, launches = re.subn(
        r"(\w+(?:<[^<>]*>)?)<<<(.+?), (\w+)>>>\((.*)\);",
        r"simulated(\2, \3, [&] { \1(\4); });",
        cuda_source,
    )
    assert launches and "<<<" not in found
    return found


def install(monkeypatch, module) -> None:
    """Let a module of jseg.nn compute with its CUDA source."""
    monkeypatch.setattr(module, "CPU_HEADER", HEADER + module.CUDA_HEADER)
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(module, "CPU_" + name, source(getattr(module, "CUDA_" + name)))
