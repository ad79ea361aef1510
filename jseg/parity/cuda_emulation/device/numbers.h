// Arrays of the types that the libraries take, read and written as double.
#pragma once
#include <cstdint>
#include <cstring>

namespace emulated {
enum Type { FLOAT, DOUBLE, HALF, BFLOAT16 };

inline size_t size_of(Type type) { return type == DOUBLE ? 8 : type == FLOAT ? 4 : 2; }

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline double read(Type type, const void* array, long i) {
    if (type == FLOAT) return ((const float*)array)[i];
    if (type == DOUBLE) return ((const double*)array)[i];
    if (type == HALF) return ((const _Float16*)array)[i];
    return float_of((uint32_t)((const uint16_t*)array)[i] << 16);
}

// Rounds to the nearest, ties to even.
inline void write(Type type, void* array, long i, double value) {
    if (type == FLOAT) {
        ((float*)array)[i] = value;
    } else if (type == DOUBLE) {
        ((double*)array)[i] = value;
    } else if (type == HALF) {
        ((_Float16*)array)[i] = (_Float16)(float)value;
    } else {
        float rounded = value;
        uint32_t bits;
        std::memcpy(&bits, &rounded, sizeof bits);
        bool nan = (bits & 0x7fffffff) > 0x7f800000;
        ((uint16_t*)array)[i] = nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
}
}
