// Stands in for CUDA's header of that name where CUDA is not installed: the types and functions
// that our sources and Jittor's type/fp16_compute.h name.
#pragma once
#include <cmath>
#include <cstddef>
#include "../scheduler.h"
#include "driver_types.h"

#define __forceinline__ inline
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define EMULATION_VECTORS(type, name)                                                           \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                    \
    struct name##3 { type x, y, z; };                                                           \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                            \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                 \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATION_VECTORS(int, int)
EMULATION_VECTORS(unsigned, uint)
EMULATION_VECTORS(float, float)
EMULATION_VECTORS(double, double)
#undef EMULATION_VECTORS

inline cudaError_t cudaGetLastError() { return cudaError_t(emulation::last_error()); }
inline cudaError_t cudaPeekAtLastError() { return cudaError_t(emulation::last_error(false)); }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
#define EMULATION_ERROR_TEXT(function, none, value, configuration)                              \
    inline const char* function(cudaError_t error) {                                            \
        if (error == cudaSuccess) return none;                                                  \
        return error == cudaErrorInvalidValue ? value : configuration;                          \
    }
EMULATION_ERROR_TEXT(cudaGetErrorName, "cudaSuccess", "cudaErrorInvalidValue",
                     "cudaErrorInvalidConfiguration")
EMULATION_ERROR_TEXT(cudaGetErrorString, "no error", "invalid argument",
                     "invalid configuration argument")
#undef EMULATION_ERROR_TEXT

inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline double rsqrt(double v) { return 1 / std::sqrt(v); }
