/* Loads a DLL as Windows would and prints what its fatbin wrappers lead to, one record a line.

   pe_loader.exe DLL [moved]

   moved: the preferred address range is reserved first, so that the loader must relocate the DLL.

   image preferred=0x.. base=0x.. size=0x.. resolved=1     resolved=0: an import is missing, loaded without its imports
   wrapper index=0 version=1 magic=1 payload=23744          magic=0: no fatbin container there
   entry wrapper=0 kind=2 arch=61 flags=0x11 stored=23680 sum=1234

   Exit status: 0; 1 after a line on stderr; 2 for a wrong call. */

#define __USE_MINGW_ANSI_STDIO 1
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

#define WRAPPER_MAGIC 0x466243B1u
#define FATBIN_MAGIC 0xBA55ED50u
#define MAX_WRAPPERS (1u << 20)
#define MAX_ENTRIES (1u << 16)

#pragma pack(push, 1)
typedef struct {
    uint32_t magic, version;
    uint64_t payload, extra;
} Wrapper;

typedef struct {
    uint32_t magic;
    uint16_t version, header_size;
    uint64_t payload_size;
} Container;

typedef struct {
    uint16_t kind, version;
    uint32_t header_size;
    uint64_t payload_size;
    uint32_t compressed_size, options_offset;
    uint16_t minor, major;
    uint32_t arch, identifier_offset, identifier_length;
    uint64_t flags, key, uncompressed_size;
} Entry;
#pragma pack(pop)

typedef struct {
    const uint8_t *base;
    uint64_t size;
} Image;

static int problem(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return 1;
}

/* Whether all of a range lies inside the image and is mapped, readable memory. */
static int readable(const Image *image, uint64_t address, uint64_t size) {
    const uint64_t base = (uintptr_t)image->base;
    if (address < base || address - base > image->size || size > image->size - (address - base)) return 0;
    for (uint64_t at = address; at < address + size;) {
        MEMORY_BASIC_INFORMATION region;
        if (!VirtualQuery((const void *)(uintptr_t)at, &region, sizeof region)) return 0;
        if (region.State != MEM_COMMIT || (region.Protect & (PAGE_NOACCESS | PAGE_GUARD))) return 0;
        at = (uintptr_t)region.BaseAddress + region.RegionSize;
    }
    return 1;
}

static int print_entries(unsigned wrapper, const uint8_t *at, uint64_t left) {
    for (unsigned number = 0; left; number++) {
        Entry entry;
        if (number == MAX_ENTRIES) return problem("wrapper %u: too many entries", wrapper);
        if (left < sizeof entry) return problem("wrapper %u: entry %u: %llu bytes left", wrapper, number, (unsigned long long)left);
        memcpy(&entry, at, sizeof entry);
        if (entry.header_size < sizeof entry || entry.header_size > left || entry.payload_size > left - entry.header_size)
            return problem("wrapper %u: entry %u reaches over the end of its fatbin", wrapper, number);
        uint32_t sum = 0;
        for (uint64_t i = 0; i < entry.payload_size; i++) sum += at[entry.header_size + i];
        printf("entry wrapper=%u kind=%u arch=%u flags=0x%llx stored=%llu sum=%u\n", wrapper, entry.kind, entry.arch,
               (unsigned long long)entry.flags, (unsigned long long)entry.payload_size, sum);
        at += entry.header_size + entry.payload_size;
        left -= entry.header_size + entry.payload_size;
    }
    return 0;
}

static int print_wrapper(const Image *image, unsigned index, const Wrapper *wrapper) {
    Container container;
    if (!readable(image, wrapper->payload, sizeof container))
        return problem("wrapper %u: pointer 0x%llx is outside the image", index, (unsigned long long)wrapper->payload);
    const uint8_t *at = (const uint8_t *)(uintptr_t)wrapper->payload;
    memcpy(&container, at, sizeof container);
    const int good = container.magic == FATBIN_MAGIC && container.version == 1 && container.header_size == sizeof container;
    printf("wrapper index=%u version=%u magic=%d payload=%llu\n", index, wrapper->version, good,
           (unsigned long long)(good ? container.payload_size : 0));
    if (!good) return 0;
    if (!readable(image, wrapper->payload + sizeof container, container.payload_size))
        return problem("wrapper %u: its fatbin reaches out of the image", index);
    return print_entries(index, at + sizeof container, container.payload_size);
}

static int print_section(const Image *image, const IMAGE_SECTION_HEADER *section, unsigned *count) {
    const uint8_t *start = image->base + section->VirtualAddress;
    const uint64_t size = section->Misc.VirtualSize;
    int failed = 0;
    if (!readable(image, (uintptr_t)start, size)) return problem("section .nvFatBi is outside the image");
    for (uint64_t at = 0; at + sizeof(Wrapper) <= size;) {
        Wrapper wrapper;
        memcpy(&wrapper, start + at, sizeof wrapper);
        if (wrapper.magic != WRAPPER_MAGIC) {
            at += 8;
            continue;
        }
        if (*count == MAX_WRAPPERS) return problem("too many wrappers");
        failed |= print_wrapper(image, (*count)++, &wrapper);
        at += sizeof wrapper;
    }
    return failed;
}

static int print_wrappers(HMODULE module) {
    const uint8_t *base = (const uint8_t *)module;
    const IMAGE_NT_HEADERS64 *header = (const IMAGE_NT_HEADERS64 *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const Image image = {base, header->OptionalHeader.SizeOfImage};
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(header);
    unsigned count = 0;
    int failed = 0;
    if (!readable(&image, (uintptr_t)section, (uint64_t)header->FileHeader.NumberOfSections * sizeof *section))
        return problem("the section table is outside the image");
    for (unsigned i = 0; i < header->FileHeader.NumberOfSections; i++)
        if (!memcmp(section[i].Name, ".nvFatBi", 8)) failed |= print_section(&image, &section[i], &count);
    return failed;
}

/* The preferred base and the size in memory, from the header in the file; base 0 when it cannot be read. */
static Image preferred(const wchar_t *path) {
    const Image none = {NULL, 0};
    IMAGE_DOS_HEADER dos;
    IMAGE_NT_HEADERS64 header;
    FILE *file = _wfopen(path, L"rb");
    if (!file) return none;
    const int whole = fread(&dos, sizeof dos, 1, file) == 1 && dos.e_magic == IMAGE_DOS_SIGNATURE && dos.e_lfanew > 0 &&
                      !fseek(file, dos.e_lfanew, SEEK_SET) && fread(&header, sizeof header, 1, file) == 1;
    fclose(file);
    if (!whole || header.Signature != IMAGE_NT_SIGNATURE || header.OptionalHeader.Magic != IMAGE_NT_OPTIONAL_HDR64_MAGIC) return none;
    const Image image = {(const uint8_t *)(uintptr_t)header.OptionalHeader.ImageBase, header.OptionalHeader.SizeOfImage};
    return image;
}

int wmain(int argc, wchar_t **argv) {
    const int moved = argc == 3 && !wcscmp(argv[2], L"moved");
    if (argc < 2 || (argc > 2 && !moved)) {
        fputs("usage: pe_loader.exe DLL [moved]\n", stderr);
        return 2;
    }
    const Image wanted = preferred(argv[1]);
    if (!wanted.base) return problem("not a readable PE32+ file");
    if (moved && !VirtualAlloc((void *)(uintptr_t)wanted.base, wanted.size, MEM_RESERVE, PAGE_NOACCESS))
        return problem("the preferred range cannot be reserved: error %lu", GetLastError());
    int resolved = 1;
    HMODULE module = LoadLibraryExW(argv[1], NULL, 0);
    DWORD error = GetLastError();
    if (!module && (error == ERROR_MOD_NOT_FOUND || error == ERROR_PROC_NOT_FOUND)) {
        resolved = 0;
        module = LoadLibraryExW(argv[1], NULL, DONT_RESOLVE_DLL_REFERENCES);
        error = GetLastError();
    }
    if (!module) return problem("LoadLibraryEx: error %lu", error);
    printf("image preferred=0x%llx base=0x%llx size=0x%llx resolved=%d\n", (unsigned long long)(uintptr_t)wanted.base,
           (unsigned long long)(uintptr_t)module, (unsigned long long)wanted.size, resolved);
    return print_wrappers(module);
}
