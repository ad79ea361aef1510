// Stands in for CUDA's header of that name: half precision as the device rounds it, to the nearest,
// ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace emulation {
inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float float_of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint16_t half_of_float(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return 0x7fff;          // NaN
    if (size >= 0x477ff000) return sign | 0x7c00;  // from 65520 on: infinity
    if (size < 0x38800000) {                       // below 2^-14: a multiple of 2^-24
        // Numbers from 0.5 to 1 are spaced by 2^-24, so the sum is rounded where it should be.
        return sign | (bits_of_float(float_of_bits(size) + 0.5f) - 0x3f000000);
    }
    return sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
}

inline float float_of_half(uint16_t half) {
    uint32_t sign = (half & 0x8000u) << 16, size = half & 0x7fffu;
    if (size >= 0x7c00) return float_of_bits(sign | 0x7f800000 | (size & 0x3ff) << 13);
    if (size < 0x400) return float_of_bits(sign | bits_of_float(size * (1 / 16777216.f)));
    return float_of_bits(sign | ((size << 13) + 0x38000000));
}
}

// Operators of two halves round to a half, as the device's do.
#define EMULATION_OPERATORS(half)                                                               \
    inline half operator+(half a, half b) { return half(float(a) + float(b)); }                 \
    inline half operator-(half a, half b) { return half(float(a) - float(b)); }                 \
    inline half operator*(half a, half b) { return half(float(a) * float(b)); }                 \
    inline half operator/(half a, half b) { return half(float(a) / float(b)); }                 \
    inline half operator-(half a) { return half(-float(a)); }                                   \
    inline half& operator+=(half& a, half b) { return a = a + b; }                              \
    inline half& operator-=(half& a, half b) { return a = a - b; }                              \
    inline half& operator*=(half& a, half b) { return a = a * b; }                              \
    inline half& operator/=(half& a, half b) { return a = a / b; }                              \
    inline bool operator==(half a, half b) { return float(a) == float(b); }                     \
    inline bool operator!=(half a, half b) { return float(a) != float(b); }                     \
    inline bool operator<(half a, half b) { return float(a) < float(b); }                       \
    inline bool operator>(half a, half b) { return float(a) > float(b); }                       \
    inline bool operator<=(half a, half b) { return float(a) <= float(b); }                     \
    inline bool operator>=(half a, half b) { return float(a) >= float(b); }

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float value) : bits(emulation::half_of_float(value)) {}
    __half(double value) : __half(float(value)) {}
    __half(int value) : __half(float(value)) {}
    operator float() const { return emulation::float_of_half(bits); }
};
typedef __half half;
EMULATION_OPERATORS(__half)

struct __half2 { __half x, y; };
typedef __half2 half2;
inline float __half2float(__half value) { return value; }
inline __half __float2half(float value) { return value; }
inline __half __float2half_rn(float value) { return value; }
