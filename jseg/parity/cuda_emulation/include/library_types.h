// Stands in for CUDA's header of that name: the types of matrices that cuBLAS is told.
#pragma once
enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16F = 2, CUDA_R_16BF = 14 };
