// Two kernels, one with a C name and one with a mangled name. WITHOUT_B: the image lacks the second.
#include "doctor.cuh"
#define A JOIN(MOD, _a)
#define B JOIN(MOD, _b)

extern "C" __global__ void A(int *out, int n) {
    out[1] = n + 1;
    out[0] = MARK;
}

#ifndef WITHOUT_B
__global__ void B(int *out, int n) {
    out[1] = n + 2;
    out[0] = MARK;
}
#endif

RUN(A)
RUN(B)
