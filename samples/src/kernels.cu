// Small kernels with different resources and parameter lists. Own code, written for this project.
struct Big { float values[40]; char tag; };

extern "C" __global__ void scale(float *x, float factor, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor;
}

extern "C" __global__ void __launch_bounds__(128) reverse(int *x, int n) {
    __shared__ int tile[128];
    if (threadIdx.x < n) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < n) x[threadIdx.x] = tile[n - 1 - threadIdx.x];
}

template <typename T> __global__ void gather(T *out, const T *in, Big big, unsigned char shift, double weight) {
    T local[16];
    for (int i = 0; i < 16; ++i) local[i] = in[(i + shift) & 15] + (T)big.values[i];
    out[threadIdx.x] = local[(threadIdx.x * 7) & 15] * (T)weight;
}

template __global__ void gather<float>(float *, const float *, Big, unsigned char, double);
template __global__ void gather<double>(double *, const double *, Big, unsigned char, double);

#if __CUDA_ARCH__ >= 700
// A kernel that old targets do not have: a hole in the matrix.
extern "C" __global__ void only_new(int *x) { x[threadIdx.x] += __match_any_sync(~0u, threadIdx.x); }
#endif
