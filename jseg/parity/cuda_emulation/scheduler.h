// The emulated device as device.h and the stand-ins of CUDA's libraries see it; see scheduler.cc.
#pragma once
#include <cstddef>

namespace emulation {
struct Index { unsigned x, y, z; };
struct Launch { Index grid, block; size_t dynamic; };  // dynamic: bytes of shared memory

extern Index thread, block, threads, blocks;  // threadIdx, blockIdx, blockDim, gridDim

// Runs a kernel: entry(body) once for each thread. A launch that a GPU would refuse computes
// nothing, is reported, and leaves its error for last_error().
void run(const Launch& launch, const char* kernel, void (*entry)(void*), void* body);
int last_error(bool clear = true);  // a cudaError_t

void barrier(const char* file, int line);  // __syncthreads()

// All lanes of the mask meet, each with a value of up to 16 bytes; value_of gives what another
// lane brought to that meeting, and false where it brought nothing.
unsigned meet(unsigned mask, const void* value, size_t size, const char* file, int line);
bool value_of(unsigned lane, unsigned meeting, void* value, size_t size);
unsigned lane();

// Shared memory of the present block, full of NaN at first: of a declaration, whose number is 0
// before its first use, or what the launch asked for.
void* place_of(int& number, size_t size);
void* dynamic_shared();

// What a GPU would refuse or leaves undefined: one line to standard error for each place.
void report(const char* what, const char* file, int line);
}

extern "C" {
void emulation_set_order(const char* order);  // forward, reverse, or random:SEED
unsigned long emulation_launches();
unsigned long emulation_reports();
}
