// Module B: a constant array, a double-sized device variable, and a kernel in an anonymous namespace, whose name holds a hash of the source's folder.
#include "common.h"

__constant__ float cb[4] = {0.5f, 1.5f, 2.5f, 3.5f};
__device__ unsigned long long gb = 0;

#ifdef __CUDACC_RDC__
__device__ int twice(int value) { return 2 * value; }
#endif

__global__ void kb1(float *out, const float *in, int n, float add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = cb[i % 4] * in[i] + add;
}

namespace {
__global__ void kb2(const float *in, int n) {
    __shared__ unsigned long long part;
    if (threadIdx.x == 0) part = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&part, (unsigned long long)in[i]);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&gb, part);
}
} // namespace

// 0, a cudaError_t, or -1 / -2 for wrong numbers.
extern "C" int run_b(void) {
    const float factors[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    const unsigned long long zero = 0;
    float *in = nullptr, *out = nullptr, host[COUNT];
    unsigned long long total = 0, sum = 0;
    CHECK(cudaMemcpyToSymbol(cb, factors, sizeof factors));
    CHECK(cudaMemcpyToSymbol(gb, &zero, sizeof zero));
    CHECK(cudaMalloc(&in, sizeof host));
    CHECK(cudaMalloc(&out, sizeof host));
    for (int i = 0; i < COUNT; i++) host[i] = (float)i;
    CHECK(cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice));
    kb1<<<BLOCKS, THREADS>>>(out, in, COUNT, 7.0f);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < COUNT; i++) {
        if (host[i] != factors[i % 4] * (float)i + 7.0f) return -1;
        sum += (unsigned long long)host[i];
    }
    kb2<<<BLOCKS, THREADS>>>(out, COUNT);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpyFromSymbol(&total, gb, sizeof total));
    if (total != sum) return -2;
    CHECK(cudaFree(in));
    return cudaFree(out);
}
