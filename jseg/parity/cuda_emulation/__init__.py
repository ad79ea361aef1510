"""CUDA source computed by the CPU: the kernels themselves, without a GPU, a driver or nvcc.

`translate` turns launches and shared memory of CUDA source into C++; device.h gives that C++ what
a kernel expects of the device; scheduler.cc runs the threads, in an order that can be chosen;
`programs` compiles sources of ours and calls them.
"""
