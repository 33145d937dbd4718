#pragma once
#include <cuda_runtime.h>

#define COUNT 1000
#define THREADS 128
#define BLOCKS ((COUNT + THREADS - 1) / THREADS)
#define CHECK(call)                                  \
    do {                                             \
        cudaError_t check_code = (call);             \
        if (check_code != cudaSuccess) return check_code; \
    } while (0)
