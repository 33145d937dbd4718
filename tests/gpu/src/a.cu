// Module A. Built as RDC, ka2 calls a device function of module B, so that the two must be linked.
#include "common.h"

__constant__ int ca = 3;
__device__ int ga = 0;

#ifdef __CUDACC_RDC__
extern __device__ int twice(int value);
#else
static __device__ int twice(int value) { return 2 * value; }
#endif

__global__ void ka1(int *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = ca * i + 1;
}

__global__ void ka2(const int *in, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&ga, twice(in[i]));
}

// 0, a cudaError_t, or -1 / -2 / -3 for wrong numbers.
extern "C" int run_a(void) {
    const int factor = 5, zero = 0;
    int *device = nullptr, host[COUNT], total = -1, sum = 0;
    CHECK(cudaMemcpyToSymbol(ca, &factor, sizeof factor));
    CHECK(cudaMemcpyToSymbol(ga, &zero, sizeof zero));
    CHECK(cudaMalloc(&device, sizeof host));
    ka1<<<BLOCKS, THREADS>>>(device, COUNT);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < COUNT; i++) {
        if (host[i] != factor * i + 1) return -1;
        sum += 2 * host[i];
    }
    ka2<<<BLOCKS, THREADS>>>(device, COUNT);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpyFromSymbol(&total, ga, sizeof total));
    if (total != sum) return -2;
    return cudaFree(device);
}
