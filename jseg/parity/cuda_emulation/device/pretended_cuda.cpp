// A pretended NVIDIA driver and CUDA libraries, for compile checks on machines without a GPU (benchmarks/cuda_compile.py, toolkit.py).
// One device, memory of the host, kernels that are not run: whatever is computed comes out as zeros or as whatever lies there.
// Compiled once for each library with -DPRETENDED_<library>; all functions that are not here return 0 (weak symbols, made by the script).
#include <cstddef>
#include <cstdlib>
#include <cstring>

static int capability() {   // 80, 90, ...
    const char* given = std::getenv("PRETENDED_CAPABILITY");
    return given ? std::atoi(given) : 90;
}

#ifdef PRETENDED_cuda
extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDriverGetVersion(int* version) { *version = PRETENDED_VERSION * 1000; return 0; }
int cuDeviceGet(int* device, int i) { *device = i; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {   // 75 and 76: the compute capability's two numbers
    *value = attribute == 75 ? capability() / 10 : attribute == 76 ? capability() % 10 : 0;
    return 0;
}
}
#endif

#ifdef PRETENDED_cudart
#include <cuda_runtime_api.h>
static cudaError_t give(void** place, size_t size) { *place = std::calloc(1, size + 256); return cudaSuccess; }
template <class T> static cudaError_t make(T* handle) { *handle = (T)std::malloc(8); return cudaSuccess; }
extern "C" {
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
    std::memset(found, 0, sizeof *found);
    std::strcpy(found->name, "pretended");
    found->major = capability() / 10;
    found->minor = capability() % 10;
    found->multiProcessorCount = 100;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->maxThreadsPerMultiProcessor = 2048;
    found->sharedMemPerBlock = 49152;
    found->totalGlobalMem = (size_t)8 << 30;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; break;
        case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; break;
        case cudaDevAttrMultiProcessorCount: *value = 100; break;
        case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 49152; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** place, size_t size) { return give(place, size); }
cudaError_t cudaMallocManaged(void** place, size_t size, unsigned) { return give(place, size); }
cudaError_t cudaMallocHost(void** place, size_t size) { return give(place, size); }
cudaError_t cudaHostAlloc(void** place, size_t size, unsigned) { return give(place, size); }
cudaError_t cudaMallocAsync(void** place, size_t size, cudaStream_t) { return give(place, size); }
cudaError_t cudaFree(void* place) { std::free(place); return cudaSuccess; }
cudaError_t cudaFreeHost(void* place) { std::free(place); return cudaSuccess; }
cudaError_t cudaFreeAsync(void* place, cudaStream_t) { std::free(place); return cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) { std::memmove(to, from, size); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t) {
    return cudaMemcpy(to, from, size, kind);
}
cudaError_t cudaMemset(void* place, int value, size_t size) { std::memset(place, value, size); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void* place, int value, size_t size, cudaStream_t) { return cudaMemset(place, value, size); }
cudaError_t cudaMemGetInfo(size_t* left, size_t* total) { *left = *total = (size_t)8 << 30; return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "pretended"; }
const char* cudaGetErrorName(cudaError_t) { return "pretended"; }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return make(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) { *milliseconds = 1; return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return make(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return make(stream); }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
#endif
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) { function(data); return cudaSuccess; }
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void* data, unsigned) {
    function(stream, cudaSuccess, data);
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
    std::memset(found, 0, sizeof *found);
    found->ptxVersion = found->binaryVersion = capability();
    found->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) { *blocks = 2; return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
    *blocks = 2;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(void** kernel, const void* function) { *kernel = (void*)function; return cudaSuccess; }
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = *block = dim3{1, 1, 1};
    *shared = 0;
    *(void**)stream = nullptr;
    return cudaSuccess;
}
void** __cudaRegisterFatBinary(void*) { static void* handle[2]; return handle; }
char __cudaInitModule(void**) { return 1; }
}
#endif

#ifdef PRETENDED_cudnn
// Every algorithm is the first one and needs no working memory. Found algorithms begin with their number and their status.
typedef const void* Any;
static int found_one(int* count, void* found) {
    std::memset(found, 0, 2 * sizeof(int));
    *count = 1;
    return 0;
}
#define PRETEND(direction)                                                                                                           \
    int cudnnGetConvolution##direction##WorkspaceSize(Any, Any, Any, Any, Any, int, size_t* size) { *size = 0; return 0; }           \
    int cudnnFindConvolution##direction##AlgorithmEx(Any, Any, Any, Any, Any, Any, Any, Any, int, int* count, void* found, Any,      \
                                                     size_t) { return found_one(count, found); }                                     \
    int cudnnGetConvolution##direction##Algorithm_v7(Any, Any, Any, Any, Any, int, int* count, void* found) {                        \
        return found_one(count, found);                                                                                              \
    }
extern "C" {
PRETEND(Forward)
PRETEND(BackwardData)
PRETEND(BackwardFilter)
}
#endif

#ifdef PRETENDED_cusparse
extern "C" int cusparseSpMM_bufferSize(const void*, int, int, const void*, const void*, const void*, const void*, const void*, int, int,
                                       size_t* size) {
    *size = 0;
    return 0;
}
#endif
