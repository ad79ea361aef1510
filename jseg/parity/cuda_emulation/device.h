// What CUDA source expects of the device, for the C++ compiler (C++14); included (-include) before
// source that translate.py has rewritten. CUDA's own headers give the host's view; where there are
// none, those in include/ do.
#pragma once
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <math.h>
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include "scheduler.h"

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define blockDim emulation::threads
#define gridDim emulation::blocks
#define warpSize 32

// -- launches and shared memory -------------------------------------------------------------------

namespace emulation {
inline Launch configured(dim3 grid, dim3 block, size_t dynamic = 0, cudaStream_t = nullptr) {
    return {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, dynamic};
}

template <class F, class... A>
void launch(const Launch& launch, const char* kernel, F function, A... arguments) {
    auto body = [&] { function(arguments...); };
    run(launch, kernel, [](void* b) { (*(decltype(body)*)b)(); }, &body);
}

// The block's memory for one declaration: every one passes a lambda, whose type is its own.
template <class T, class Declaration> T& shared(Declaration) {
    static int number = 0;
    return *(T*)place_of(number, sizeof(T));
}
}

// -- barriers, shuffles and votes -----------------------------------------------------------------

namespace emulation {
const unsigned ALL_LANES = 0xffffffffu;
inline void sync_warp(const char* file, int line, unsigned mask = ALL_LANES) {
    meet(mask, nullptr, 0, file, line);
}

template <class T>
T from_lane(const char* file, int line, unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 16, "a shuffle of more than 16 bytes");
    unsigned meeting = meet(mask, &value, sizeof value, file, line);
    if (source == lane()) return value;
    if (!(mask >> source & 1) || !value_of(source, meeting, (void*)&value, sizeof value)) {
        report("a shuffle reads a lane that is not there", file, line);
        std::memset((void*)&value, 0xff, sizeof value);
    }
    return value;
}

template <class T>
T shfl(const char* file, int line, unsigned mask, T value, int source, int width = 32) {
    unsigned first = lane() & ~(width - 1);
    return from_lane(file, line, mask, value, first + (source & (width - 1)));
}

template <class T>
T shfl_xor(const char* file, int line, unsigned mask, T value, int bits, int width = 32) {
    unsigned source = lane() ^ bits;
    bool near = (source & ~(width - 1)) <= (lane() & ~(width - 1));
    return from_lane(file, line, mask, value, near ? source : lane());
}

template <class T>
T shfl_up(const char* file, int line, unsigned mask, T value, unsigned delta, int width = 32) {
    bool inside = (lane() & (width - 1)) >= delta;
    return from_lane(file, line, mask, value, inside ? lane() - delta : lane());
}

template <class T>
T shfl_down(const char* file, int line, unsigned mask, T value, unsigned delta, int width = 32) {
    bool inside = (lane() & (width - 1)) + delta < (unsigned)width;
    return from_lane(file, line, mask, value, inside ? lane() + delta : lane());
}

inline unsigned ballot(const char* file, int line, unsigned mask, int predicate) {
    int value = predicate != 0;
    unsigned votes = 0, meeting = meet(mask, &value, sizeof value, file, line);
    for (unsigned k = 0; k < 32; k++)
        if (mask >> k & 1 && value_of(k, meeting, &value, sizeof value))
            votes |= unsigned(value) << k;
    return votes;
}
}
#define __syncthreads() emulation::barrier(__FILE__, __LINE__)
#define __syncwarp(...) emulation::sync_warp(__FILE__, __LINE__, ##__VA_ARGS__)
#define __shfl_sync(...) emulation::shfl(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) emulation::shfl_xor(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) emulation::shfl_up(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) emulation::shfl_down(__FILE__, __LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) emulation::ballot(__FILE__, __LINE__, mask, p)
#define __any_sync(mask, p) (emulation::ballot(__FILE__, __LINE__, mask, p) != 0)
#define __all_sync(mask, p) (emulation::ballot(__FILE__, __LINE__, mask, !(p)) == 0)
#define __activemask() emulation::ALL_LANES
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)

// -- atomic operations ----------------------------------------------------------------------------

namespace emulation {
template <class T> struct Same { typedef T type; };
template <size_t SIZE> struct Bits;
template <> struct Bits<2> { typedef uint16_t type; };
template <> struct Bits<4> { typedef uint32_t type; };
template <> struct Bits<8> { typedef uint64_t type; };

// Fibers do not interrupt each other; the atomic form is for the race detector.
template <class T, class F> T atomic(T* place, F change) {
#ifdef __SANITIZE_THREAD__
    typedef typename Bits<sizeof(T)>::type U;
    U before = __atomic_load_n((U*)place, __ATOMIC_RELAXED), after;
    T old;
    do {
        std::memcpy((void*)&old, &before, sizeof old);
        T changed = change(old);
        std::memcpy(&after, (void*)&changed, sizeof changed);
    } while (!__atomic_compare_exchange_n((U*)place, &before, after, false, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return old;
#else
    T old = *place;
    *place = change(old);
    return old;
#endif
}
}
#define EMULATION_ATOMIC(name, expression)                                                      \
    template <class T> T name(T* place, typename emulation::Same<T>::type v) {                  \
        return emulation::atomic(place, [v](T old) -> T { return expression; });                \
    }
EMULATION_ATOMIC(atomicAdd, T(old + v))
EMULATION_ATOMIC(atomicSub, T(old - v))
EMULATION_ATOMIC(atomicMax, (v > old ? v : old))
EMULATION_ATOMIC(atomicMin, (v < old ? v : old))
EMULATION_ATOMIC(atomicExch, v)
EMULATION_ATOMIC(atomicAnd, old & v)
EMULATION_ATOMIC(atomicOr, old | v)
EMULATION_ATOMIC(atomicXor, old ^ v)
#undef EMULATION_ATOMIC
template <class T>
T atomicCAS(T* place, typename emulation::Same<T>::type expected,
            typename emulation::Same<T>::type v) {
    return emulation::atomic(place, [=](T old) -> T { return old == expected ? v : old; });
}

// -- functions of the device that the host's headers lack -----------------------------------------

namespace emulation {
template <class A, class B>
using Common = typename std::enable_if<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value,
                                       typename std::common_type<A, B>::type>::type;
// As on the device, the one that is a number where the other is NaN.
inline float larger(float a, float b) { return std::fmax(a, b); }
inline double larger(double a, double b) { return std::fmax(a, b); }
template <class T> T larger(T a, T b) { return a < b ? b : a; }
inline float smaller(float a, float b) { return std::fmin(a, b); }
inline double smaller(double a, double b) { return std::fmin(a, b); }
template <class T> T smaller(T a, T b) { return b < a ? b : a; }

template <class To, class From> To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    std::memcpy((void*)&result, &value, sizeof result);
    return result;
}
}
template <class A, class B> emulation::Common<A, B> max(A a, B b) {
    typedef emulation::Common<A, B> T;
    return emulation::larger(T(a), T(b));
}
template <class A, class B> emulation::Common<A, B> min(A a, B b) {
    typedef emulation::Common<A, B> T;
    return emulation::smaller(T(a), T(b));
}
#define EMULATION_HALVES(name, expression)                                                      \
    inline __half name(__half half) { float v = half; return __half(float(expression)); }       \
    inline __nv_bfloat16 name(__nv_bfloat16 half) {                                             \
        float v = half;                                                                         \
        return __nv_bfloat16(float(expression));                                                \
    }
EMULATION_HALVES(hexp, std::exp(v))
EMULATION_HALVES(hlog, std::log(v))
EMULATION_HALVES(hsqrt, std::sqrt(v))
EMULATION_HALVES(hrsqrt, 1 / std::sqrt(v))
EMULATION_HALVES(hsin, std::sin(v))
EMULATION_HALVES(hcos, std::cos(v))
EMULATION_HALVES(hfloor, std::floor(v))
EMULATION_HALVES(hceil, std::ceil(v))
EMULATION_HALVES(hrint, std::rint(v))
#undef EMULATION_HALVES
inline int __float_as_int(float v) { return emulation::bits<int>(v); }
inline unsigned __float_as_uint(float v) { return emulation::bits<unsigned>(v); }
inline float __int_as_float(int v) { return emulation::bits<float>(v); }
inline float __uint_as_float(unsigned v) { return emulation::bits<float>(v); }
inline long long __double_as_longlong(double v) { return emulation::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return emulation::bits<double>(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1 / v; }
inline float __fsqrt_rn(float v) { return std::sqrt(v); }
inline float __saturatef(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __mul24(int a, int b) { return a * b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
template <class T> T __ldg(const T* p) { return *p; }

#ifdef EMULATION_FAST_MATH
// About what nvcc's --use_fast_math, which Jittor passes, makes of these: the errors that the CUDA
// programming guide states for ex2.approx, lg2.approx and sin.approx; denormal results are 0.
namespace emulation {
const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f, TURN = 6.283185307f;
inline float fast_exp(float v) {
    volatile float power = v * LOG2_E;
    float result = std::exp2((float)power);
    return std::fabs(result) < 1.17549435e-38f ? 0.f : result * (1 + 1.2e-7f);
}
inline float fast_log(float v) {
    float power = std::log2(v), step = 4194304;  // 2^22
    return (std::fabs(power) < 1 ? std::round(power * step) / step : power) * LN_2;
}
inline float fast_wave(float (*wave)(float), float v) {
    volatile float turns = v * (1 / TURN);
    float step = 2097152;  // 2^21
    return std::round(wave(TURN * (turns - std::floor((float)turns))) * step) / step;
}
inline float fast_sin(float v) { return fast_wave(std::sin, v); }
inline float fast_cos(float v) { return fast_wave(std::cos, v); }
}
#define expf emulation::fast_exp
#define logf emulation::fast_log
#define sinf emulation::fast_sin
#define cosf emulation::fast_cos
#endif
