// Compiled with -rdc for the images and never linked. The host code knows all kernels; an image has those it is compiled with.
#include "doctor.cuh"

#ifdef IMAGE
__device__ __noinline__ int inside(int n) { return n * 3; }
extern "C" __global__ void JOIN(MOD, _inside)(int *out, int n) {
    out[1] = inside(n) + 21;
    out[0] = MARK;
}
#ifdef WITH_DATA
__device__ int kept[4] = {1, 2, 3, 4};
extern "C" __global__ void JOIN(MOD, _data)(int *out, int n) {
    out[1] = kept[n & 3] + 21;
    out[0] = MARK;
    kept[n & 3] = n;
}
#endif
#ifdef WITH_OUTSIDE
extern __device__ int outside(int n);
extern "C" __global__ void JOIN(MOD, _outside)(int *out, int n) {
    out[1] = outside(n) + 23;
    out[0] = MARK;
}
#endif
#else
extern "C" __global__ void JOIN(MOD, _inside)(int *, int) {}
extern "C" __global__ void JOIN(MOD, _data)(int *, int) {}
extern "C" __global__ void JOIN(MOD, _outside)(int *, int) {}
#endif

RUN(JOIN(MOD, _inside))
RUN(JOIN(MOD, _data))
RUN(JOIN(MOD, _outside))
