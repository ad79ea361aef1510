// cuDNN on the host: convolutions of two and three dimensions in any layout, forward, of the input
// and of the weights. Sums are float32 (float64 for float64), results rounded to the tensor's type.
#include <cudnn.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "numbers.h"

namespace {
using namespace emulated;
const int AXES = 5;  // image, channel, depth, height, width

Type type_of(cudnnDataType_t type) {
    return type == CUDNN_DATA_DOUBLE ? DOUBLE : type == CUDNN_DATA_HALF ? HALF
         : type == CUDNN_DATA_BFLOAT16 ? BFLOAT16 : FLOAT;
}

// Sizes and strides of five axes; two-dimensional arrays have a depth of 1.
struct Layout {
    Type type;
    long size[AXES], stride[AXES];

    long count() const { return size[0] * size[1] * size[2] * size[3] * size[4]; }

    cudnnStatus_t set(cudnnDataType_t of, int axes, const int* sizes, const long* strides) {
        if (axes != 4 && axes != 5) return CUDNN_STATUS_NOT_SUPPORTED;
        type = type_of(of);
        size[2] = 1, stride[2] = 0;
        for (int i = 0; i < axes; i++) {
            int axis = i < 2 ? i : i + AXES - axes;
            if (sizes[i] < 1) return CUDNN_STATUS_BAD_PARAM;
            size[axis] = sizes[i], stride[axis] = strides[i];
        }
        return CUDNN_STATUS_SUCCESS;
    }

    // act(place in the array, number of the value)
    template <class F> void each(F act) const {
        long number = 0;
        for (long a = 0; a < size[0]; a++)
            for (long b = 0; b < size[1]; b++)
                for (long z = 0; z < size[2]; z++)
                    for (long y = 0; y < size[3]; y++)
                        for (long x = 0; x < size[4]; x++)
                            act(a * stride[0] + b * stride[1] + z * stride[2] + y * stride[3]
                                + x * stride[4], number++);
    }
};
}

struct cudnnTensorStruct { Layout layout; };
struct cudnnFilterStruct { Layout layout; };
struct cudnnConvolutionStruct {
    long pad[3], stride[3], dilation[3], groups;  // of depth, height, width
    bool flipped;
};

namespace {
template <class S> std::vector<S> loaded(const Layout& layout, const void* array) {
    std::vector<S> values(layout.count());
    if (array)
        layout.each([&](long at, long i) { values[i] = read(layout.type, array, at); });
    return values;
}

template <class S>
void store(const Layout& layout, const std::vector<S>& values, void* array, S alpha, S beta) {
    layout.each([&](long at, long i) {
        S before = beta == S(0) ? S(0) : beta * S(read(layout.type, array, at));
        write(layout.type, array, at, alpha * values[i] + before);
    });
}

bool fits(const cudnnConvolutionStruct& c, const Layout& x, const Layout& w, const Layout& y) {
    bool channels = x.size[1] == w.size[1] * c.groups && y.size[1] == w.size[0]
                 && w.size[0] % c.groups == 0 && x.size[0] == y.size[0];
    for (int i = 0; i < 3; i++) {
        long reach = (w.size[2 + i] - 1) * c.dilation[i] + 1;
        long rows = (x.size[2 + i] + 2 * c.pad[i] - reach) / c.stride[i] + 1;
        channels = channels && y.size[2 + i] == rows;
    }
    return channels;
}

// act(first of x, step of x, count, first of y, weight) for every weight and row of y that it
// reaches; places are those of arrays without gaps.
template <class F>
void each_row(const cudnnConvolutionStruct& c, const Layout& x, const Layout& w, const Layout& y,
              F act) {
    const long *in = x.size + 2, *taps = w.size + 2, *out = y.size + 2;
    long own = w.size[0] / c.groups, weight = 0;
    for (long k = 0; k < w.size[0]; k++)
        for (long i = 0; i < w.size[1]; i++)
            for (long a = 0; a < taps[0]; a++)
                for (long b = 0; b < taps[1]; b++)
                    for (long e = 0; e < taps[2]; e++, weight++) {
                        long tap[3] = {a, b, e}, offset[3];
                        for (int axis = 0; axis < 3; axis++) {
                            long place = c.flipped ? taps[axis] - 1 - tap[axis] : tap[axis];
                            offset[axis] = place * c.dilation[axis] - c.pad[axis];
                        }

                        // the columns of y for which the tap is inside of x
                        long step = c.stride[2], shift = offset[2];
                        long first = shift >= 0 ? 0 : (-shift + step - 1) / step;
                        long last = shift >= in[2] ? 0 : (in[2] - shift + step - 1) / step;
                        long count = std::min(out[2], last) - first;
                        if (count <= 0) continue;
                        for (long n = 0; n < x.size[0]; n++)
                            for (long z = 0; z < out[0]; z++)
                                for (long v = 0; v < out[1]; v++) {
                                    long xz = z * c.stride[0] + offset[0];
                                    long xv = v * c.stride[1] + offset[1];
                                    if (xz < 0 || xz >= in[0] || xv < 0 || xv >= in[1]) continue;
                                    long channel = n * x.size[1] + k / own * w.size[1] + i;
                                    long from = (channel * in[0] + xz) * in[1] + xv;
                                    long to = ((n * y.size[1] + k) * out[0] + z) * out[1] + v;
                                    act(from * in[2] + first * step + shift, step, count,
                                        to * out[2] + first, weight);
                                }
                    }
}

enum Wanted { OUTPUT, INPUT, WEIGHTS };

template <class S>
void convolve(Wanted wanted, const cudnnConvolutionStruct& c, const Layout& x, void* x_array,
              const Layout& w, void* w_array, const Layout& y, void* y_array, S alpha, S beta) {
    std::vector<S> xs = loaded<S>(x, wanted == INPUT ? nullptr : x_array);
    std::vector<S> ws = loaded<S>(w, wanted == WEIGHTS ? nullptr : w_array);
    std::vector<S> ys = loaded<S>(y, wanted == OUTPUT ? nullptr : y_array);
    each_row(c, x, w, y, [&](long from, long step, long count, long to, long weight) {
        S *px = &xs[from], *py = &ys[to], factor = ws[weight], sum = 0;
        if (wanted == OUTPUT)
            for (long i = 0; i < count; i++) py[i] += factor * px[i * step];
        else if (wanted == INPUT)
            for (long i = 0; i < count; i++) px[i * step] += factor * py[i];
        else
            for (long i = 0; i < count; i++) sum += px[i * step] * py[i];
        if (wanted == WEIGHTS) ws[weight] += sum;
    });
    if (wanted == OUTPUT) store(y, ys, y_array, alpha, beta);
    if (wanted == INPUT) store(x, xs, x_array, alpha, beta);
    if (wanted == WEIGHTS) store(w, ws, w_array, alpha, beta);
}

cudnnStatus_t any(Wanted wanted, const void* alpha, const void* beta,
                  cudnnConvolutionDescriptor_t c, cudnnTensorDescriptor_t x, const void* x_array,
                  cudnnFilterDescriptor_t w, const void* w_array, cudnnTensorDescriptor_t y,
                  const void* y_array) {
    const Layout &lx = x->layout, &lw = w->layout, &ly = y->layout;
    bool one_type = lx.type == lw.type && lx.type == ly.type;
    if (!one_type || !fits(*c, lx, lw, ly)) {
        std::fprintf(stderr, "emulated cuDNN: shapes or types of a convolution do not fit\n");
        return CUDNN_STATUS_BAD_PARAM;
    }
    void *px = (void*)x_array, *pw = (void*)w_array, *py = (void*)y_array;
    if (lx.type == DOUBLE)
        convolve<double>(wanted, *c, lx, px, lw, pw, ly, py, *(double*)alpha, *(double*)beta);
    else
        convolve<float>(wanted, *c, lx, px, lw, pw, ly, py, *(float*)alpha, *(float*)beta);
    return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t make(T** descriptor) {
    *descriptor = new T();
    return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t destroy(T* descriptor) {
    delete descriptor;
    return CUDNN_STATUS_SUCCESS;
}
}

extern "C" {
size_t cudnnGetVersion() { return CUDNN_VERSION; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS"
         : status == CUDNN_STATUS_BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM"
         : "CUDNN_STATUS_NOT_SUPPORTED";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    *handle = (cudnnHandle_t)std::calloc(1, 8);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    std::free(handle);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* d) { return make(d); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* d) { return make(d); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) { return destroy(d); }
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* d) {
    cudnnStatus_t status = make(d);
    (*d)->groups = 1;
    return status;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) {
    return destroy(d);
}

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, cudnnDataType_t type,
                                         int count, const int* sizes, const int* strides) {
    long wide[AXES] = {};
    for (int i = 0; i < std::min(count, AXES); i++) wide[i] = strides[i];
    return tensor->layout.set(type, count, sizes, wide);
}

cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int count, const int* sizes) {
    long strides[AXES] = {}, run = 1;
    if (count > AXES) return CUDNN_STATUS_NOT_SUPPORTED;
    if (format == CUDNN_TENSOR_NHWC) strides[1] = 1, run = sizes[1];
    for (int i = count - 1; i >= 0; i--) {
        if (format == CUDNN_TENSOR_NHWC && i == 1) continue;
        strides[i] = run, run *= sizes[i];
    }
    return filter->layout.set(type, count, sizes, strides);
}

cudnnStatus_t cudnnSetConvolutionNdDescriptor(
        cudnnConvolutionDescriptor_t c, int count, const int* pads, const int* strides,
        const int* dilations, cudnnConvolutionMode_t mode, cudnnDataType_t sums) {
    if (count != 2 && count != 3) return CUDNN_STATUS_NOT_SUPPORTED;
    if (sums == CUDNN_DATA_BFLOAT16) return CUDNN_STATUS_BAD_PARAM;  // as cuDNN 9
    c->flipped = mode == CUDNN_CONVOLUTION;
    for (int axis = 0; axis < 3; axis++) c->pad[axis] = 0, c->stride[axis] = c->dilation[axis] = 1;
    for (int i = 0; i < count; i++) {
        if (pads[i] < 0 || strides[i] < 1 || dilations[i] < 1) return CUDNN_STATUS_BAD_PARAM;
        int axis = i + 3 - count;
        c->pad[axis] = pads[i], c->stride[axis] = strides[i], c->dilation[axis] = dilations[i];
    }
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t) {
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t c, int groups) {
    c->groups = groups;
    return groups < 1 ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(
        cudnnHandle_t, const void* alpha, cudnnTensorDescriptor_t x, const void* x_array,
        cudnnFilterDescriptor_t w, const void* w_array, cudnnConvolutionDescriptor_t c,
        cudnnConvolutionFwdAlgo_t, void*, size_t, const void* beta, cudnnTensorDescriptor_t y,
        void* y_array) {
    return any(OUTPUT, alpha, beta, c, x, x_array, w, w_array, y, y_array);
}

cudnnStatus_t cudnnConvolutionBackwardData(
        cudnnHandle_t, const void* alpha, cudnnFilterDescriptor_t w, const void* w_array,
        cudnnTensorDescriptor_t y, const void* y_array, cudnnConvolutionDescriptor_t c,
        cudnnConvolutionBwdDataAlgo_t, void*, size_t, const void* beta, cudnnTensorDescriptor_t x,
        void* x_array) {
    return any(INPUT, alpha, beta, c, x, x_array, w, w_array, y, y_array);
}

cudnnStatus_t cudnnConvolutionBackwardFilter(
        cudnnHandle_t, const void* alpha, cudnnTensorDescriptor_t x, const void* x_array,
        cudnnTensorDescriptor_t y, const void* y_array, cudnnConvolutionDescriptor_t c,
        cudnnConvolutionBwdFilterAlgo_t, void*, size_t, const void* beta,
        cudnnFilterDescriptor_t w, void* w_array) {
    return any(WEIGHTS, alpha, beta, c, x, x_array, w, w_array, y, y_array);
}

#define ALGORITHMS(direction, algorithm, A, B, C)                                               \
    cudnnStatus_t cudnnGetConvolution##direction##WorkspaceSize(                                \
            cudnnHandle_t, A, B, cudnnConvolutionDescriptor_t, C, algorithm##Algo_t,            \
            size_t* size) {                                                                     \
        *size = 0;                                                                              \
        return CUDNN_STATUS_SUCCESS;                                                            \
    }                                                                                           \
    cudnnStatus_t cudnnGetConvolution##direction##Algorithm_v7(                                 \
            cudnnHandle_t, A, B, cudnnConvolutionDescriptor_t, C, int, int* count,              \
            algorithm##AlgoPerf_t* results) {                                                   \
        *count = 1, *results = {};                                                              \
        return CUDNN_STATUS_SUCCESS;                                                            \
    }                                                                                           \
    cudnnStatus_t cudnnFindConvolution##direction##AlgorithmEx(                                 \
            cudnnHandle_t, A, const void*, B, const void*, cudnnConvolutionDescriptor_t, C,     \
            void*, int, int* count, algorithm##AlgoPerf_t* results, void*, size_t) {            \
        *count = 1, *results = {};                                                              \
        return CUDNN_STATUS_SUCCESS;                                                            \
    }
ALGORITHMS(Forward, cudnnConvolutionFwd, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
           cudnnTensorDescriptor_t)
ALGORITHMS(BackwardData, cudnnConvolutionBwdData, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
           cudnnTensorDescriptor_t)
ALGORITHMS(BackwardFilter, cudnnConvolutionBwdFilter, cudnnTensorDescriptor_t,
           cudnnTensorDescriptor_t, cudnnFilterDescriptor_t)

#define REFUSED(name, ...) \
    cudnnStatus_t name(__VA_ARGS__) { return CUDNN_STATUS_NOT_SUPPORTED; }
REFUSED(cudnnCreateRNNDescriptor, cudnnRNNDescriptor_t*)
REFUSED(cudnnDestroyRNNDescriptor, cudnnRNNDescriptor_t)
REFUSED(cudnnCreateDropoutDescriptor, cudnnDropoutDescriptor_t*)
REFUSED(cudnnDestroyDropoutDescriptor, cudnnDropoutDescriptor_t)
REFUSED(cudnnDropoutGetStatesSize, cudnnHandle_t, size_t*)
REFUSED(cudnnSetDropoutDescriptor, cudnnDropoutDescriptor_t, cudnnHandle_t, float, void*, size_t,
        unsigned long long)
}
