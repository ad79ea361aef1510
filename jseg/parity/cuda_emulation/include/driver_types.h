// Stands in for CUDA's header of that name.
#pragma once
enum cudaError { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
typedef cudaError cudaError_t;
typedef struct CUstream_st* cudaStream_t;
