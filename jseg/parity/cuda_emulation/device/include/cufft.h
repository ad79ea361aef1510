// Stands in for cuFFT's header of that name: everything is refused. No network of ours has a
// Fourier transform.
#pragma once
#include <cuda_runtime_api.h>

typedef float2 cufftComplex;
typedef double2 cufftDoubleComplex;
typedef int cufftHandle;
typedef enum {
    CUFFT_SUCCESS = 0,
    CUFFT_INVALID_PLAN = 1,
    CUFFT_ALLOC_FAILED = 2,
    CUFFT_INVALID_TYPE = 3,
    CUFFT_INVALID_VALUE = 4,
    CUFFT_INTERNAL_ERROR = 5,
    CUFFT_EXEC_FAILED = 6,
    CUFFT_SETUP_FAILED = 7,
    CUFFT_INVALID_SIZE = 8,
    CUFFT_UNALIGNED_DATA = 9,
    CUFFT_INVALID_DEVICE = 11,
    CUFFT_NO_WORKSPACE = 13,
    CUFFT_NOT_IMPLEMENTED = 14,
    CUFFT_NOT_SUPPORTED = 16
} cufftResult;
typedef enum { CUFFT_C2C = 0x29, CUFFT_Z2Z = 0x69 } cufftType;
typedef cufftType cufftType_t;
#define CUFFT_FORWARD -1
#define CUFFT_INVERSE 1

template <class... Arguments> cufftResult emulation_refuses_fft(Arguments&&...) {
    return CUFFT_NOT_SUPPORTED;
}
#define cufftCreate emulation_refuses_fft
#define cufftDestroy emulation_refuses_fft
#define cufftPlanMany emulation_refuses_fft
#define cufftSetStream emulation_refuses_fft
#define cufftExecC2C emulation_refuses_fft
#define cufftExecZ2Z emulation_refuses_fft
