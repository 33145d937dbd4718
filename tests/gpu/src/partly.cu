// One kernel that every GPU can run, and one whose code from compute_100 on uses an instruction that older GPUs lack.
#include "common.h"

__global__ void plain(int *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = 3 * i + 1;
}

__global__ void paired(float2 *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 sum, a = make_float2(i, 1), b = make_float2(1, i);
#if __CUDA_ARCH__ >= 1000
    asm("add.rn.f32x2 %0, %1, %2;" : "=l"(*(unsigned long long *)&sum) : "l"(*(unsigned long long *)&a), "l"(*(unsigned long long *)&b));
#else
    sum = make_float2(a.x + b.x, a.y + b.y);
#endif
    out[i] = sum;
}

extern "C" int run_a(void) {
    int *device = nullptr, host[COUNT];
    CHECK(cudaMalloc(&device, sizeof host));
    plain<<<BLOCKS, THREADS>>>(device, COUNT);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < COUNT; i++)
        if (host[i] != 3 * i + 1) return -1;
    return 0;
}

extern "C" int run_b(void) {
    float2 *device = nullptr;
    CHECK(cudaMalloc(&device, COUNT * sizeof *device));
    paired<<<BLOCKS, THREADS>>>(device, COUNT);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    return 0;
}
