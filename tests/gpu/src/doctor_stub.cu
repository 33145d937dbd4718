// Kernels whose body is missing below MINARCH, in the ways that real libraries leave it out, and two that are complete.
#include "doctor.cuh"
#ifdef IMAGE
#ifndef __CUDACC_RTC__
#include <cstdio>
#endif
#if __CUDA_ARCH__ >= MINARCH
#define HAVE 1
#endif
#endif

#ifdef HAVE
#define WRITE(number) out[1] = number, out[0] = MARK
#define LOUD(number) WRITE(number)
#define QUIET(number) WRITE(number)
#elif defined(IMAGE)
#define WRITE(number) (void)0
#define LOUD(number) printf("kernel %d is not compiled for this architecture\n", number), __trap()
#define QUIET(number) __trap()
#else
#define WRITE(number) (void)0
#define LOUD(number) (void)0
#define QUIET(number) (void)0
#endif

extern "C" __global__ void JOIN(MOD, _loud)(int *out, int n) { LOUD(11); }
extern "C" __global__ void JOIN(MOD, _quiet)(int *out, int n) { QUIET(12); }
extern "C" __global__ void JOIN(MOD, _nothing)(int *out, int n) { WRITE(13); }
extern "C" __global__ void JOIN(MOD, _early)(int *out, int n) {
    if ((int)threadIdx.x >= n) return;
    LOUD(14);
}
extern "C" __global__ void JOIN(MOD, _loop)(int *out, int n) {
    out[2] = 5;
    for (int i = 0; i < n; i++) LOUD(15);
    out[1] = 15;
    out[0] = MARK;
}
extern "C" __global__ void JOIN(MOD, _guard)(int *out, int n) {
#ifdef IMAGE
    if (n > 1024) __trap();
    out[1] = 16;
    out[0] = MARK;
#endif
}

RUN(JOIN(MOD, _loud))
RUN(JOIN(MOD, _quiet))
RUN(JOIN(MOD, _nothing))
RUN(JOIN(MOD, _early))
RUN(JOIN(MOD, _loop))
RUN(JOIN(MOD, _guard))
