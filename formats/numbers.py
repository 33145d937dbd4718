"""Magic numbers, codes and bits that layouts and readers both name. Plain values: importing this loads nothing else.

Each value is checked against literals of its own in tests/build, which never import this module.
"""

from __future__ import annotations

from typing import Final

# CUDA fatbin (reference: CUDA fatbin, container; entry header)
FATBIN_MAGIC: Final = 0xBA55ED50
FATBIN_MAGIC_BYTES: Final = b"\x50\xed\x55\xba"
FATBIN_VERSION: Final = 1
FATBIN_HEADER_SIZE: Final = 16
ENTRY_HEADER_SIZE: Final = 64
ENTRY_VERSION: Final = 0x0101

KIND_FILLER: Final = 0x0
KIND_PTX: Final = 0x1
KIND_ELF: Final = 0x2
KIND_TEXT_CUBIN: Final = 0x4
KIND_NVVM: Final = 0x8
KIND_INDEX: Final = 0x20
KIND_RELOCATABLE_PTX: Final = 0x40
KIND_TILE_IR: Final = 0x80
KIND_CONCATENATED: Final = 0x100
FATBIN_ENTRIES: Final = (
    (KIND_FILLER, "", "", "filler: bytes that were an image; version and sizes as in any entry, all else zero; no driver looks at it"),
    (KIND_PTX, "ptx", "compute_", "PTX text"),
    (KIND_ELF, "sass", "sm_", "cubin (ELF)"),
    (KIND_TEXT_CUBIN, "text-cubin", "sm_", "text cubin of old toolkits"),
    (KIND_NVVM, "lto", "lto_", "NVVM / LTO-IR; obfuscated when flag 0x10000 is set"),
    (KIND_INDEX, "index", "index_", "index"),
    (KIND_RELOCATABLE_PTX, "reloc-ptx", "compute_", "relocatable PTX"),
    (KIND_TILE_IR, "tileir", "tile_", "Tile IR (13.x)"),
    (KIND_CONCATENATED, "concat", "concat_", "concatenated entry (13.x): several images in one compressed blob; driver 580 ignores it"),
)
"""Each kind of entry: its number, the kind of image it holds (empty: none), what its target begins with, and words."""

FLAG_64BIT: Final = 0x1
FLAG_DEBUG: Final = 0x2
FLAG_CUDA: Final = 0x4
FLAG_OPENCL: Final = 0x8
FLAG_HOST_LINUX: Final = 0x10
FLAG_HOST_MAC: Final = 0x20
FLAG_HOST_WINDOWS: Final = 0x40
FLAG_ZLIB: Final = 0x1000
FLAG_LZ4: Final = 0x2000
FLAG_LZ4_FRAME: Final = 0x4000
FLAG_ZSTD: Final = 0x8000
FLAG_OBFUSCATED: Final = 0x10000
FLAG_ARCH_SPECIFIC: Final = 0x100000
FLAG_FAMILY_SPECIFIC: Final = 0x200000
FLAG_MERCURY: Final = 0x1000000

# Fatbin wrapper (fatbinary_section.h) and its HIP twin
WRAPPER_MAGIC: Final = 0x466243B1
WRAPPER_MAGIC_BYTES: Final = b"\xb1\x43\x62\x46"
HIP_WRAPPER_MAGIC: Final = 0x48495046
HIP_KPACK_MAGIC: Final = 0x4B504948

# Codecs
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
LZ4_FRAME_MAGIC: Final = b"\x04\x22\x4d\x18"
GZIP_MAGIC: Final = b"\x1f\x8b\x08"
XZ_MAGIC: Final = b"\xfd7zXZ\x00"
BZIP2_MAGIC: Final = b"BZh"
LZMA_HEAD: Final = b"\x5d\x00\x00"

# ELF (gABI) and its GPU machines
ELF_MAGIC: Final = b"\x7fELF"
EM_386: Final = 3
EM_ARM: Final = 40
EM_X86_64: Final = 62
EM_AARCH64: Final = 183
EM_CUDA: Final = 190
EM_INTELGT: Final = 205
EM_AMDGPU: Final = 224
ET_REL: Final = 1
ET_EXEC: Final = 2
ET_DYN: Final = 3
SHT_PROGBITS: Final = 1
SHT_SYMTAB: Final = 2
SHT_RELA: Final = 4
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8
SHT_REL: Final = 9
SHT_DYNSYM: Final = 11
SHN_LORESERVE: Final = 0xFF00
SHF_WRITE: Final = 1
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
PT_NULL: Final = 0
PT_LOAD: Final = 1
PT_DYNAMIC: Final = 2
PT_INTERP: Final = 3
PT_NOTE: Final = 4
PT_PHDR: Final = 6
PT_GNU_STACK: Final = 0x6474E551
PT_GNU_RELRO: Final = 0x6474E552
PT_GNU_PROPERTY: Final = 0x6474E553
PT_TLS: Final = 7
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
PT_GNU_EH_FRAME: Final = 0x6474E550
DT_PLTRELSZ: Final = 2
DT_PLTGOT: Final = 3
DT_HASH: Final = 4
DT_STRTAB: Final = 5
DT_SYMTAB: Final = 6
DT_RELA: Final = 7
DT_RELASZ: Final = 8
DT_STRSZ: Final = 10
DT_RELRSZ: Final = 35
DT_JMPREL: Final = 23
DT_RELR: Final = 36
DT_FLAGS_1: Final = 0x6FFFFFFB
DF_1_PIE: Final = 0x08000000
DT_GNU_HASH: Final = 0x6FFFFEF5
R_X86_64_RELATIVE: Final = 8
R_AARCH64_RELATIVE: Final = 1027

# Cubin
CUBIN_OSABI_OLD: Final = 0x33
CUBIN_OSABI_NEW: Final = 0x41
EF_ACCELERATED_OLD: Final = 0x800
EF_ACCELERATED_NEW: Final = 0x8
STO_CUDA_ENTRY: Final = 0x10

EIFMT_NVAL: Final = 1
EIFMT_BVAL: Final = 2
EIFMT_HVAL: Final = 3
EIFMT_SVAL: Final = 4

EIATTR_MAX_THREADS: Final = 0x05
EIATTR_REQNTID: Final = 0x10
EIATTR_MIN_STACK_SIZE: Final = 0x12
EIATTR_KPARAM_INFO: Final = 0x17
EIATTR_REGCOUNT: Final = 0x2F
EIATTR_KPARAM_INFO_V2: Final = 0x45

COMPAT_ACCELERATOR_TARGET: Final = 9
NOTE_TOOLKIT_INFO: Final = 2000
NOTE_CUDA_INFO: Final = 1000

# clang offload bundles
BUNDLE_MAGIC: Final = b"__CLANG_OFFLOAD_BUNDLE__"
CCOB_MAGIC: Final = b"CCOB"
OFFLOAD_BINARY_MAGIC: Final = b"\x10\xff\x10\xad"
KPACK_MAGIC: Final = b"KPAK"
NOTE_AMDGPU_METADATA: Final = 32
BITCODE_MAGIC: Final = b"BC\xc0\xde"
BITCODE_WRAPPER_MAGIC: Final = b"\xde\xc0\x17\x0b"
SPIRV_MAGIC: Final = b"\x03\x02\x23\x07"
METALLIB_MAGIC: Final = b"MTLB"

# Archives and models
ZIP_LOCAL_MAGIC: Final = b"PK\x03\x04"
ZIP_CENTRAL_MAGIC: Final = b"PK\x01\x02"
ZIP_END_MAGIC: Final = b"PK\x05\x06"
ZIP64_END_MAGIC: Final = b"PK\x06\x06"
ZIP64_LOCATOR_MAGIC: Final = b"PK\x06\x07"
AR_MAGIC: Final = b"!<arch>\n"
GGUF_MAGIC: Final = b"GGUF"
APE_MAGICS: Final = (b"MZqFpD='", b"jartsr='", b"APEDBG='")
