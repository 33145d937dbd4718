/* The host side of a sample library: fatbins and wrappers in the sections that nvcc uses. Own code. */
#ifdef _WIN32
#define FATBIN_SECTION ".nv_fatb"
#define WRAPPER_SECTION ".nvFatBi"
#define EXPORT __declspec(dllexport)
#define SYMBOL(name) #name
#else
#define FATBIN_SECTION ".nv_fatbin,\"a\",@progbits"
#define WRAPPER_SECTION ".nvFatBinSegment"
#define EXPORT __attribute__((visibility("default")))
#define SYMBOL(name) #name
#endif

__asm__(
#ifdef _WIN32
    ".section " FATBIN_SECTION ",\"dr\"\n"
#else
    ".section " FATBIN_SECTION "\n"
#endif
    ".balign 16\n"
    "fatbin_data:\n"
    ".incbin \"" FATBIN_FILE "\"\n"
    ".text\n");

extern const unsigned long long fatbin_data[];

struct wrapper { int magic, version; const void *data; void *extra; };

__attribute__((section(WRAPPER_SECTION), used, aligned(8))) struct wrapper fatbin_wrapper = {0x466243b1, 1, fatbin_data, 0};

EXPORT const void *ggml_cuda_link(void) { return &fatbin_wrapper; }
