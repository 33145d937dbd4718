/* doctor_jit REPEATS [FILE]   Times cuModuleLoadDataEx of one PTX text; context made and compiler loaded before. One line of JSON. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char tiny[] = ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry warm(.param .u64 p)\n{\n.reg .b64 %rd<3>;\n"
                           "ld.param.u64 %rd1, [p];\nst.global.u64 [%rd1], %rd1;\nret;\n}\n";

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static char *whole(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    if (!text || fread(text, 1, (size_t)size, file) != (size_t)size) return 0;
    text[size] = 0;
    fclose(file);
    return text;
}

int main(int count, char **words) {
    if (count < 2) return 2;
    int repeats = atoi(words[1]);
    char *text = count > 2 ? whole(words[2]) : 0;
    if (count > 2 && !text) return 3;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) {
        printf("@{\"error\": \"no libcuda.so.1\"}\n");
        return 5;
    }
#define GET(type, name) __typeof__(type) name = (__typeof__(type))dlsym(driver, #name)
    GET(int (*)(unsigned), cuInit);
    GET(int (*)(void **, int), cuDevicePrimaryCtxRetain);
    GET(int (*)(void *), cuCtxSetCurrent);
    GET(int (*)(void **, const void *, unsigned, int *, void **), cuModuleLoadDataEx);
    GET(int (*)(void *), cuModuleUnload);
    GET(int (*)(unsigned *, void *), cuModuleGetFunctionCount);
    void *context = 0, *module = 0;
    int code = cuInit(0);
    if (!code) code = cuDevicePrimaryCtxRetain(&context, 0);
    if (!code) code = cuCtxSetCurrent(context);
    double start = seconds(CLOCK_MONOTONIC);
    if (!code) code = cuModuleLoadDataEx(&module, tiny, 0, 0, 0);
    printf("@{\"warm\": %d, \"warm_seconds\": %.6f", code, seconds(CLOCK_MONOTONIC) - start);
    if (!code) cuModuleUnload(module);
    unsigned functions = 0;
    if (!code && text) {
        printf(", \"times\": [");
        for (int i = 0; i < repeats && !code; i++) {
            double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
            code = cuModuleLoadDataEx(&module, text, 0, 0, 0);
            wall = seconds(CLOCK_MONOTONIC) - wall;
            cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
            printf("%s[%.6f, %.6f]", i ? ", " : "", wall, cpu);
            if (!code && cuModuleGetFunctionCount) cuModuleGetFunctionCount(&functions, module);
            if (!code) cuModuleUnload(module);
        }
        printf("]");
    }
    printf(", \"rc\": %d, \"functions\": %u}\n", code, functions);
    fflush(stdout);
    return 0;
}
