// Stands in for CUB 2 and Thrust: what Jittor 1.3.11 uses of them. What a block or a warp does
// together goes by shared memory and barriers of the emulation, what a device does by loops.
#pragma once
#include <cuda_runtime.h>
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <numeric>
#include <vector>

#ifdef EMULATED_DEVICE
namespace cub {
struct Max {
    template <class T> constexpr T operator()(const T& a, const T& b) const { return b > a ? b : a; }
};
struct Min {
    template <class T> constexpr T operator()(const T& a, const T& b) const { return b < a ? b : a; }
};
struct Sum {
    template <class T> constexpr T operator()(const T& a, const T& b) const { return a + b; }
};
template <class Key, class Value> struct KeyValuePair { Key key; Value value; };

inline unsigned LaneId() { return emulation::lane(); }
inline unsigned place_in_block() {
    return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}

// -- a block, a warp ------------------------------------------------------------------------------

// As CUB's, the result is the first thread's alone, and the storage must not be used again before
// a barrier.
template <class T, int THREADS> struct BlockReduce {
    struct TempStorage { T values[THREADS]; };
    TempStorage& storage;
    BlockReduce(TempStorage& storage) : storage(storage) {}

    template <class Operation> T Reduce(T value, Operation operation) {
        if (blockDim.x * blockDim.y * blockDim.z != THREADS)
            emulation::report("cub::BlockReduce is for blocks of another size", __FILE__, __LINE__);
        unsigned place = place_in_block();
        storage.values[place] = value;
        emulation::barrier("cub::BlockReduce", __LINE__);
        if (place) {
            std::memset((void*)&value, 0xff, sizeof value);
            return value;
        }
        for (int i = 1; i < THREADS; i++) value = operation(value, storage.values[i]);
        return value;
    }
    T Sum(T value) { return Reduce(value, cub::Sum()); }
};

template <class T, int THREADS> struct BlockScan {
    struct TempStorage { T values[THREADS]; };
    TempStorage& storage;
    BlockScan(TempStorage& storage) : storage(storage) {}

    template <int COUNT> void InclusiveSum(T (&in)[COUNT], T (&out)[COUNT]) {
        unsigned place = place_in_block();
        T own = in[0], sum = T();
        for (int i = 1; i < COUNT; i++) own += in[i];
        storage.values[place] = own;
        emulation::barrier("cub::BlockScan", __LINE__);
        for (unsigned i = 0; i < place; i++) sum += storage.values[i];
        for (int i = 0; i < COUNT; i++) out[i] = sum += in[i];
    }
};

template <class T, int LANES = 32> struct WarpReduce {
    struct TempStorage {};
    WarpReduce(TempStorage&) {}

    T Sum(T value) {
        for (unsigned distance = 1; distance < LANES; distance *= 2) {
            T other = emulation::shfl_down("cub::WarpReduce", __LINE__, emulation::ALL_LANES, value,
                                           distance, LANES);
            if ((emulation::lane() & (LANES - 1)) + distance < LANES) value = value + other;
        }
        return value;
    }
};

// -- a device -------------------------------------------------------------------------------------

// Every function is called twice, the first time for the size of its working memory.
inline bool asks_for_size(const void* memory, size_t& bytes) {
    if (!memory) bytes = 1;
    return !memory;
}

struct DeviceSegmentedReduce {
    template <class In, class Out, class Offsets, class Before>
    static cudaError_t first(void* memory, size_t& bytes, In in, Out out, int segments,
                             Offsets begin, Offsets end, Before before) {
        if (asks_for_size(memory, bytes)) return cudaSuccess;
        for (int s = 0; s < segments; s++) {
            auto values = in + begin[s];
            int best = 0;
            for (int i = 1; i < end[s] - begin[s]; i++)
                if (before(values[i], values[best])) best = i;
            out[s].key = best, out[s].value = values[best];
        }
        return cudaSuccess;
    }
    template <class In, class Out, class Offsets>
    static cudaError_t ArgMin(void* memory, size_t& bytes, In in, Out out, int segments,
                              Offsets begin, Offsets end) {
        return first(memory, bytes, in, out, segments, begin, end,
                     [](auto a, auto b) { return a < b; });
    }
    template <class In, class Out, class Offsets>
    static cudaError_t ArgMax(void* memory, size_t& bytes, In in, Out out, int segments,
                              Offsets begin, Offsets end) {
        return first(memory, bytes, in, out, segments, begin, end,
                     [](auto a, auto b) { return a > b; });
    }
};

template <class Key, class Value, class Before>
void sort_pairs(const Key* keys, Key* sorted_keys, const Value* values, Value* sorted, long count,
                Before before) {
    std::vector<long> order(count);
    std::iota(order.begin(), order.end(), 0L);
    std::stable_sort(order.begin(), order.end(),
                     [&](long a, long b) { return before(keys[a], keys[b]); });
    for (long i = 0; i < count; i++) {
        sorted_keys[i] = keys[order[i]];
        sorted[i] = values[order[i]];
    }
}

struct DeviceRadixSort {
    template <class Key, class Value>
    static cudaError_t SortPairs(void* memory, size_t& bytes, const Key* keys, Key* sorted_keys,
                                 const Value* values, Value* sorted, long count) {
        if (!asks_for_size(memory, bytes))
            sort_pairs(keys, sorted_keys, values, sorted, count,
                       [](Key a, Key b) { return a < b; });
        return cudaSuccess;
    }
};

struct DeviceSegmentedRadixSort {
    template <class Key, class Value, class Offsets, class Before>
    static cudaError_t sort(void* memory, size_t& bytes, const Key* keys, Key* sorted_keys,
                            const Value* values, Value* sorted, int segments, Offsets begin,
                            Offsets end, Before before) {
        if (asks_for_size(memory, bytes)) return cudaSuccess;
        for (int s = 0; s < segments; s++)
            sort_pairs(keys + begin[s], sorted_keys + begin[s], values + begin[s],
                       sorted + begin[s], end[s] - begin[s], before);
        return cudaSuccess;
    }
    template <class Key, class Value, class Offsets>
    static cudaError_t SortPairs(void* memory, size_t& bytes, const Key* keys, Key* sorted_keys,
                                 const Value* values, Value* sorted, int, int segments,
                                 Offsets begin, Offsets end) {
        return sort(memory, bytes, keys, sorted_keys, values, sorted, segments, begin, end,
                    [](Key a, Key b) { return a < b; });
    }
    template <class Key, class Value, class Offsets>
    static cudaError_t SortPairsDescending(void* memory, size_t& bytes, const Key* keys,
                                           Key* sorted_keys, const Value* values, Value* sorted,
                                           int, int segments, Offsets begin, Offsets end) {
        return sort(memory, bytes, keys, sorted_keys, values, sorted, segments, begin, end,
                    [](Key a, Key b) { return a > b; });
    }
};

struct DeviceScan {
    template <class In, class Out>
    static cudaError_t InclusiveSum(void* memory, size_t& bytes, In in, Out out, long count) {
        if (!asks_for_size(memory, bytes)) std::partial_sum(in, in + count, out);
        return cudaSuccess;
    }
};

struct DeviceSelect {
    template <class In, class Flags, class Out, class Count>
    static cudaError_t Flagged(void* memory, size_t& bytes, In in, Flags flags, Out out,
                               Count selected, long count) {
        if (asks_for_size(memory, bytes)) return cudaSuccess;
        long number = 0;
        for (long i = 0; i < count; i++)
            if (flags[i]) out[number++] = in[i];
        *selected = number;
        return cudaSuccess;
    }
};

template <class T, class Offset = std::ptrdiff_t> struct CountingInputIterator {
    T first;
    CountingInputIterator(T first) : first(first) {}
    T operator[](long i) const { return first + i; }
};
template <class T, class Operation, class In, class Offset = std::ptrdiff_t>
struct TransformInputIterator {
    In in;
    Operation operation;
    TransformInputIterator(In in, Operation operation) : in(in), operation(operation) {}
    T operator[](long i) const { return operation(in[i]); }
};
}

namespace thrust {
const int device = 0;
template <class T> using device_ptr = T*;
template <class T> T* device_pointer_cast(T* place) { return place; }
template <class T> T* raw_pointer_cast(T* place) { return place; }
using std::reverse_iterator;
template <class T> std::reverse_iterator<T> make_reverse_iterator(T place) {
    return std::reverse_iterator<T>(place);
}
template <class I> void sequence(I begin, I end) { std::iota(begin, end, 0); }
template <class I, class Before> void sort(int, I begin, I end, Before before) {
    std::stable_sort(begin, end, before);
}
template <class I, class Out> void inclusive_scan(I begin, I end, Out out) {
    std::partial_sum(begin, end, out);
}
template <class I, class Places, class Out> void scatter(I begin, I end, Places places, Out out) {
    for (long i = 0; i < end - begin; i++) out[places[i]] = begin[i];
}
template <class I, class Equal> I unique(I begin, I end, Equal equal) {
    return std::unique(begin, end, equal);
}
}
#endif
