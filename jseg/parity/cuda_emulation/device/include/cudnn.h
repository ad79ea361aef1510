// Stands in for cuDNN's header of that name: the convolutions of cuDNN 9 as Jittor 1.3.11 calls
// them. convolutions.cc computes them.
#pragma once
#define CUDNN_H_
#define CUDNN_MAJOR 9
#define CUDNN_MINOR 0
#define CUDNN_PATCHLEVEL 0
#define CUDNN_VERSION 90000
#include <cuda_runtime_api.h>

typedef struct cudnnContext* cudnnHandle_t;
typedef struct cudnnTensorStruct* cudnnTensorDescriptor_t;
typedef struct cudnnFilterStruct* cudnnFilterDescriptor_t;
typedef struct cudnnConvolutionStruct* cudnnConvolutionDescriptor_t;
typedef struct cudnnRNNStruct* cudnnRNNDescriptor_t;
typedef struct cudnnDropoutStruct* cudnnDropoutDescriptor_t;

typedef enum {
    CUDNN_STATUS_SUCCESS = 0,
    CUDNN_STATUS_BAD_PARAM = 2000,
    CUDNN_STATUS_NOT_SUPPORTED = 3000
} cudnnStatus_t;
typedef enum {
    CUDNN_DATA_FLOAT = 0,
    CUDNN_DATA_DOUBLE = 1,
    CUDNN_DATA_HALF = 2,
    CUDNN_DATA_INT8 = 3,
    CUDNN_DATA_INT32 = 4,
    CUDNN_DATA_BFLOAT16 = 9
} cudnnDataType_t;
typedef enum { CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC } cudnnTensorFormat_t;
typedef enum { CUDNN_CONVOLUTION, CUDNN_CROSS_CORRELATION } cudnnConvolutionMode_t;
typedef enum {
    CUDNN_DEFAULT_MATH,
    CUDNN_TENSOR_OP_MATH,
    CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION,
    CUDNN_FMA_MATH
} cudnnMathType_t;
typedef enum { CUDNN_NON_DETERMINISTIC, CUDNN_DETERMINISTIC } cudnnDeterminism_t;
typedef enum { CUDNN_RNN_RELU, CUDNN_RNN_TANH, CUDNN_LSTM, CUDNN_GRU } cudnnRNNMode_t;
enum {
    CUDNN_RNN_ALGO_STANDARD = 0,
    CUDNN_LINEAR_INPUT = 0,
    CUDNN_UNIDIRECTIONAL = 0,
    CUDNN_BIDIRECTIONAL = 1
};
typedef enum {
    CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
    CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
    CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
    CUDNN_CONVOLUTION_FWD_ALGO_FFT,
    CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
    CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
    CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
    CUDNN_CONVOLUTION_FWD_ALGO_COUNT
} cudnnConvolutionFwdAlgo_t;
typedef enum {
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT
} cudnnConvolutionBwdFilterAlgo_t;
typedef enum {
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT
} cudnnConvolutionBwdDataAlgo_t;

template <class Algorithm> struct cudnnEmulatedPerf {
    Algorithm algo;
    cudnnStatus_t status;
    float time;
    size_t memory;
    cudnnDeterminism_t determinism;
    cudnnMathType_t mathType;
    int reserved[3];
};
typedef cudnnEmulatedPerf<cudnnConvolutionFwdAlgo_t> cudnnConvolutionFwdAlgoPerf_t;
typedef cudnnEmulatedPerf<cudnnConvolutionBwdFilterAlgo_t> cudnnConvolutionBwdFilterAlgoPerf_t;
typedef cudnnEmulatedPerf<cudnnConvolutionBwdDataAlgo_t> cudnnConvolutionBwdDataAlgoPerf_t;

extern "C" {
size_t cudnnGetVersion();
const char* cudnnGetErrorString(cudnnStatus_t);
cudnnStatus_t cudnnCreate(cudnnHandle_t*);
cudnnStatus_t cudnnDestroy(cudnnHandle_t);

// Descriptors.
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t*);
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t);
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t*);
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t);
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t*);
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t);
cudnnStatus_t cudnnSetTensorNdDescriptor(
    cudnnTensorDescriptor_t, cudnnDataType_t, int count, const int* sizes, const int* strides);
cudnnStatus_t cudnnSetFilterNdDescriptor(
    cudnnFilterDescriptor_t, cudnnDataType_t, cudnnTensorFormat_t, int count, const int* sizes);
cudnnStatus_t cudnnSetConvolutionNdDescriptor(
    cudnnConvolutionDescriptor_t, int count, const int* pads, const int* strides,
    const int* dilations, cudnnConvolutionMode_t, cudnnDataType_t);
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t);
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t, int);

// Convolutions.
cudnnStatus_t cudnnConvolutionForward(
    cudnnHandle_t, const void* alpha, cudnnTensorDescriptor_t, const void* x,
    cudnnFilterDescriptor_t, const void* w, cudnnConvolutionDescriptor_t,
    cudnnConvolutionFwdAlgo_t, void* workspace, size_t, const void* beta, cudnnTensorDescriptor_t,
    void* y);
cudnnStatus_t cudnnConvolutionBackwardData(
    cudnnHandle_t, const void* alpha, cudnnFilterDescriptor_t, const void* w,
    cudnnTensorDescriptor_t, const void* y, cudnnConvolutionDescriptor_t,
    cudnnConvolutionBwdDataAlgo_t, void* workspace, size_t, const void* beta,
    cudnnTensorDescriptor_t, void* x);
cudnnStatus_t cudnnConvolutionBackwardFilter(
    cudnnHandle_t, const void* alpha, cudnnTensorDescriptor_t, const void* x,
    cudnnTensorDescriptor_t, const void* y, cudnnConvolutionDescriptor_t,
    cudnnConvolutionBwdFilterAlgo_t, void* workspace, size_t, const void* beta,
    cudnnFilterDescriptor_t, void* w);

// Algorithms: the first one for everything, without a workspace.
#define CUDNN_EMULATED_ALGORITHMS(direction, algorithm, A, B, C)                                \
    cudnnStatus_t cudnnGetConvolution##direction##WorkspaceSize(                                \
        cudnnHandle_t, A, B, cudnnConvolutionDescriptor_t, C, algorithm##Algo_t, size_t*);      \
    cudnnStatus_t cudnnGetConvolution##direction##Algorithm_v7(                                 \
        cudnnHandle_t, A, B, cudnnConvolutionDescriptor_t, C, int, int*,                        \
        algorithm##AlgoPerf_t*);                                                                \
    cudnnStatus_t cudnnFindConvolution##direction##AlgorithmEx(                                 \
        cudnnHandle_t, A, const void*, B, const void*, cudnnConvolutionDescriptor_t, C, void*,  \
        int, int*, algorithm##AlgoPerf_t*, void*, size_t);
CUDNN_EMULATED_ALGORITHMS(Forward, cudnnConvolutionFwd, cudnnTensorDescriptor_t,
                          cudnnFilterDescriptor_t, cudnnTensorDescriptor_t)
CUDNN_EMULATED_ALGORITHMS(BackwardData, cudnnConvolutionBwdData, cudnnFilterDescriptor_t,
                          cudnnTensorDescriptor_t, cudnnTensorDescriptor_t)
CUDNN_EMULATED_ALGORITHMS(BackwardFilter, cudnnConvolutionBwdFilter, cudnnTensorDescriptor_t,
                          cudnnTensorDescriptor_t, cudnnFilterDescriptor_t)

// Recurrent networks: refused.
cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t*);
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t);
cudnnStatus_t cudnnCreateDropoutDescriptor(cudnnDropoutDescriptor_t*);
cudnnStatus_t cudnnDestroyDropoutDescriptor(cudnnDropoutDescriptor_t);
cudnnStatus_t cudnnDropoutGetStatesSize(cudnnHandle_t, size_t*);
cudnnStatus_t cudnnSetDropoutDescriptor(
    cudnnDropoutDescriptor_t, cudnnHandle_t, float, void*, size_t, unsigned long long);
}
