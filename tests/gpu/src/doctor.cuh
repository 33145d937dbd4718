// Compiled twice: with IMAGE for the images, where MARK is replaced in the PTX text; without it for the host code, whose images are replaced.
#pragma once
#define MARK 123456789
#ifndef IMAGE
#include "doctor_run.h"
#define RUN(kernel)                                                               \
    extern "C" void JOIN(run_, kernel)(int n, struct answer *to) {                \
        int *memory = doctor_begin(to);                                           \
        if (!memory) return;                                                      \
        KERNEL(kernel)<<<1, 1>>>(memory, n);                                      \
        doctor_end(to, memory, cudaGetLastError());                               \
    }
#ifndef KERNEL
#define KERNEL(kernel) kernel
#endif
#else
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define RUN(kernel)
#endif
