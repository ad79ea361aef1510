// CCCL 3, which comes with CUDA 13, removed names from namespace cub that kernels of Jittor 1.3.11
// use.
#pragma once
#include_next <cub/cub.cuh>
#include <cub/version.cuh>
#if CUB_MAJOR_VERSION >= 3
#include <cstddef>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
namespace cub {
struct Max {
    template <class T> __host__ __device__ constexpr T operator()(const T& a, const T& b) const {
        return b > a ? b : a;
    }
};
struct Min {
    template <class T> __host__ __device__ constexpr T operator()(const T& a, const T& b) const {
        return b < a ? b : a;
    }
};
struct Sum {
    template <class T> __host__ __device__ constexpr T operator()(const T& a, const T& b) const {
        return a + b;
    }
};
__device__ __forceinline__ unsigned int LaneId() {
    unsigned int lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}
template <class T, class Offset = std::ptrdiff_t>
using CountingInputIterator = thrust::counting_iterator<T>;
template <class T, class Operation, class Iterator, class Offset = std::ptrdiff_t>
struct TransformInputIterator : thrust::transform_iterator<Operation, Iterator, T> {
    __host__ __device__ TransformInputIterator(Iterator iterator, Operation operation)
        : thrust::transform_iterator<Operation, Iterator, T>(iterator, operation) {}
};
}
#endif
