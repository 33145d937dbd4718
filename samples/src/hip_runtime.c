/* Stands in for ROCm's runtime (amdhip64), so that the sample libraries link without it. They load; they cannot launch. */
#define STUB(name) void name(void) {}
STUB(hipLaunchKernel)
STUB(__hipPopCallConfiguration)
STUB(__hipRegisterFatBinary)
STUB(__hipRegisterFunction)
STUB(__hipRegisterVar)
STUB(__hipUnregisterFatBinary)
STUB(atexit)
int _fltused; /* what Microsoft's linker wants of code with floating point */
