// Stands in for CUDA's header of that name: bfloat16 as the device rounds it, to the nearest, ties
// to even.
#pragma once
#include "cuda_fp16.h"

namespace emulation {
inline uint16_t bfloat16_of_float(float value) {
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;  // NaN
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
}

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : bits(emulation::bfloat16_of_float(value)) {}
    __nv_bfloat16(double value) : __nv_bfloat16(float(value)) {}
    __nv_bfloat16(int value) : __nv_bfloat16(float(value)) {}
    operator float() const { return emulation::float_of_bits((uint32_t)bits << 16); }
};
EMULATION_OPERATORS(__nv_bfloat16)

struct __nv_bfloat162 { __nv_bfloat16 x, y; };
inline float __bfloat162float(__nv_bfloat16 value) { return value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return value; }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return value; }
