// CUDA's runtime on the host, as far as Jittor 1.3.11 and our sources call it: memory, streams and
// events of a device whose kernels run at once. What it offers beside pretended_cuda.cpp.
#include "../scheduler.h"
#define NOTHING_TO_DO(name) \
    extern "C" int name(...) { return 0; }
NOTHING_TO_DO(cudaStreamDestroy)
NOTHING_TO_DO(cudaStreamSynchronize)
NOTHING_TO_DO(cudaStreamWaitEvent)
NOTHING_TO_DO(cudaEventDestroy)
NOTHING_TO_DO(cudaEventRecord)
NOTHING_TO_DO(cudaEventSynchronize)
NOTHING_TO_DO(cudaDeviceSynchronize)
NOTHING_TO_DO(cudaDeviceReset)
NOTHING_TO_DO(cudaSetDevice)

extern "C" int cudaGetLastError() { return emulation::last_error(); }
extern "C" int cudaPeekAtLastError() { return emulation::last_error(false); }
