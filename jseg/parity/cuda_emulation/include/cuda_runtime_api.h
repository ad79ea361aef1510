// Stands in for CUDA's header of that name.
#pragma once
#include "cuda_runtime.h"
