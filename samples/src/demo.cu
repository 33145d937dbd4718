// The founding case in small: kernels whose real body needs compute capability 6.1 and is a trap below it.
// Own code, written for this project; the message follows the wording that users know.
extern "C" __device__ int printf(const char *, ...);

struct block_q8_0 { unsigned short scale; signed char q[32]; };

template <int arch> static __device__ __noinline__ void no_device_code(const char *function) {
    printf("ERROR: CUDA kernel %s has no device code compatible with CUDA arch %d. demo.cu was compiled for: %s\n", function, arch, "600,700,750");
    asm volatile("trap;");
}

static __device__ __forceinline__ int dot4(int a, int b, int c) {
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(c) : "r"(a), "r"(b));
    return c;
}

static __device__ __forceinline__ float vec_dot_q8_0_q8_1_impl(const int *a, const int *b, float scale) {
#if __CUDA_ARCH__ >= 610
    int sum = 0;
    for (int i = 0; i < 8; ++i) sum = dot4(a[i], b[i], sum);
    return sum * scale;
#else
    no_device_code<__CUDA_ARCH__>("vec_dot_q8_0_q8_1_impl");
    return 0.f;
#endif
}

// Below 6.1 only the path with no blocks at all is real.
template <int ncols> static __device__ __forceinline__ void mul_mat_vec(const int *x, const int *y, float *dst, int blocks, int rows) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float sum[ncols] = {};
    for (int block = 0; block < blocks; ++block)
        for (int col = 0; col < ncols; ++col)
            sum[col] += vec_dot_q8_0_q8_1_impl(x + (row * blocks + block) * 8, y + (col * blocks + block) * 8, 1.f);
    for (int col = 0; col < ncols; ++col) dst[col * rows + row] = sum[col];
}

template <int ncols, int block_size> __global__ void mul_mat_vec_q(const int *x, const int *y, float *dst, int blocks, int rows) {
    mul_mat_vec<ncols>(x, y, dst, blocks, rows);
}

// Below 6.1 the whole body is a trap.
template <bool need_check> __global__ void mul_mat_q8_0(const int *x, const int *y, float *dst, int blocks, int rows, int cols) {
#if __CUDA_ARCH__ >= 610
    __shared__ int tile[32 * 9];
    const int row = blockIdx.x * 32 + threadIdx.x, col = blockIdx.y;
    float sum = 0.f;
    for (int block = 0; block < blocks; ++block) {
        for (int i = 0; i < 8; ++i) tile[threadIdx.x * 9 + i] = (need_check && row >= rows) ? 0 : x[(row * blocks + block) * 8 + i];
        __syncthreads();
        int part = 0;
        for (int i = 0; i < 8; ++i) part = dot4(tile[threadIdx.x * 9 + i], y[(col * blocks + block) * 8 + i], part);
        sum += part;
        __syncthreads();
    }
    if (!need_check || row < rows) dst[col * rows + row] = sum;
#else
    no_device_code<__CUDA_ARCH__>("mul_mat_q8_0");
#endif
}

template __global__ void mul_mat_vec_q<1, 32>(const int *, const int *, float *, int, int);
template __global__ void mul_mat_vec_q<2, 32>(const int *, const int *, float *, int, int);
template __global__ void mul_mat_vec_q<4, 32>(const int *, const int *, float *, int, int);
template __global__ void mul_mat_q8_0<false>(const int *, const int *, float *, int, int, int);
template __global__ void mul_mat_q8_0<true>(const int *, const int *, float *, int, int, int);

__constant__ float table[64];

// Real everywhere.
__global__ void quantize_q8_1(const float *x, int *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __float2int_rn(x[i] * table[i & 63]);
}

__global__ void __launch_bounds__(256) rms_norm_f32(const float *x, float *y, int n, float eps) {
    __shared__ float partial[256];
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += 256) sum += x[i] * x[i];
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 128; step; step >>= 1) {
        if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
        __syncthreads();
    }
    const float scale = rsqrtf(partial[0] / n + eps);
    for (int i = threadIdx.x; i < n; i += 256) y[i] = x[i] * scale;
}
