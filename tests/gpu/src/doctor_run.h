/* What every module of the doctor's libraries exports: run_KERNEL(n, answer), which launches one kernel on one thread and says how it went. */
#pragma once
#include <cuda_runtime_api.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

struct answer {
    int setup;  /* cudaMalloc and cudaMemset; launch, sync and copy are -1 when it failed */
    int launch; /* cudaGetLastError after the launch */
    int sync;
    int copy;
    int mark;   /* first number the kernel wrote: which image ran; -1 = it wrote nothing */
    int kernel; /* second number: which kernel of the image */
};

static int *doctor_begin(struct answer *to) {
    int *memory = 0;
    to->launch = to->sync = to->copy = to->mark = to->kernel = -1;
    to->setup = cudaMalloc((void **)&memory, 64);
    if (!to->setup) to->setup = cudaMemset(memory, 0xff, 64);
    if (!to->setup) to->setup = cudaDeviceSynchronize();
    return to->setup ? 0 : memory;
}

static void doctor_end(struct answer *to, int *memory, int launched) {
    int words[2] = {-1, -1};
    to->launch = launched;
    to->sync = cudaDeviceSynchronize();
    to->copy = cudaMemcpy(words, memory, sizeof words, cudaMemcpyDeviceToHost);
    to->mark = words[0];
    to->kernel = words[1];
    cudaGetLastError();
    cudaFree(memory);
    cudaGetLastError();
}
