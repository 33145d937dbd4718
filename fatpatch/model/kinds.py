"""The kinds of things that files hold, each with one row of facts: containers, modules, images, codecs, vendors.

Code compares with these names, never with literals. Each is a str, so that JSON, tables and messages show its value.
"""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.base.word import Word


class Vendor(Word):
    """Whose GPUs run a module."""

    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"


VENDOR_WORDS: Final[dict[str, str]] = {Vendor.NVIDIA: "NVIDIA", Vendor.AMD: "AMD", Vendor.INTEL: "Intel"}


class ContainerKind(Word):
    """What a file is."""

    APE = "ape"
    ELF = "elf"
    PE = "pe"
    ZIP = "zip"
    AR = "ar"
    GGUF = "gguf"
    TAR = "tar"
    MACHO = "macho"
    FATBIN = "fatbin"
    CUBIN = "cubin"
    PTX = "ptx"
    BUNDLE = "bundle"
    KPACK = "kpack"
    UNREAD = "unread"
    RAW = "raw"
    FOLDER = "folder"
    CONTAINER_IMAGE = "container_image"


class ContainerFormat(NamedTuple):
    """A row of the registry. ``reader``: the module of fatpatch.binfmt with ``KIND``, ``probe`` and ``read``; empty where there is none.

    ``archive``: its members are files of their own, and it has no code itself. ``zip_tail``: a zip may stand behind it.
    """

    kind: ContainerKind
    words: str
    reader: str = ""
    archive: bool = False
    zip_tail: bool = False


CONTAINER_FORMATS: Final = (
    ContainerFormat(ContainerKind.APE, "APE", "ape.read"),
    ContainerFormat(ContainerKind.ELF, "ELF", "elf.read", zip_tail=True),
    ContainerFormat(ContainerKind.PE, "PE", "pe.read", zip_tail=True),
    ContainerFormat(ContainerKind.ZIP, "zip", "zip.read", archive=True),
    ContainerFormat(ContainerKind.AR, "ar archive", "ar.read", archive=True),
    ContainerFormat(ContainerKind.GGUF, "GGUF model", "gguf.read"),
    ContainerFormat(ContainerKind.TAR, "tar", "tar.read", archive=True),
    ContainerFormat(ContainerKind.MACHO, "Mach-O", zip_tail=True),
    ContainerFormat(ContainerKind.FATBIN, "CUDA fatbin"),
    ContainerFormat(ContainerKind.CUBIN, "CUDA cubin"),
    ContainerFormat(ContainerKind.PTX, "PTX text"),
    ContainerFormat(ContainerKind.BUNDLE, "offload bundle"),
    ContainerFormat(ContainerKind.KPACK, "ROCm kernel pack"),
    ContainerFormat(ContainerKind.UNREAD, "not read:"),
    ContainerFormat(ContainerKind.FOLDER, "files", archive=True),
    ContainerFormat(ContainerKind.CONTAINER_IMAGE, "container image", archive=True),
    ContainerFormat(ContainerKind.RAW, "unknown bytes", zip_tail=True),
)
"""Those with a reader in probe order: APE before PE, whose magic it shares; tar, which has only a checksum, last."""

CONTAINER_WORDS: Final[dict[str, str]] = {row.kind: row.words for row in CONTAINER_FORMATS}
ARCHIVES: Final = frozenset(row.kind for row in CONTAINER_FORMATS if row.archive)
HOSTS: Final = frozenset({ContainerKind.ELF, ContainerKind.PE})
"""Programs and libraries, whose code registers the modules in them."""


class ModuleKind(Word):
    """What holds images: a container of theirs, or a bare image."""

    FATBIN = "fatbin"
    OFFLOAD_BUNDLE = "offload_bundle"
    OFFLOAD_BINARY = "offload_binary"
    OFFLOAD_SECTION = "offload_section"
    KPACK = "kpack"
    KPACK_REFERENCE = "kpack_reference"
    CUBIN = "cubin"
    PTX = "ptx"
    CODE_OBJECT = "code_object"


MODULE_WORDS: Final[dict[str, str]] = {
    ModuleKind.FATBIN: "CUDA fatbin",
    ModuleKind.OFFLOAD_BUNDLE: "offload bundle",
    ModuleKind.OFFLOAD_BINARY: "offload binary",
    ModuleKind.OFFLOAD_SECTION: "offload section",
    ModuleKind.CODE_OBJECT: "AMD code object",
    ModuleKind.KPACK: "library in a kernel pack",
    ModuleKind.KPACK_REFERENCE: "reference to a kernel pack",
}
KERNEL_PACKS: Final = frozenset({ModuleKind.KPACK, ModuleKind.KPACK_REFERENCE})
BARE_MODULES: Final = frozenset({ModuleKind.CUBIN, ModuleKind.PTX, ModuleKind.CODE_OBJECT})
"""Modules that are one image and nothing else."""


class BundleForm(Word):
    """How an offload bundle is stored: as it is, or compressed as a whole (CCOB)."""

    PLAIN = "plain"
    CCOB = "ccob"


class ImageKind(Word):
    """What the bytes of an image are."""

    SASS = "sass"
    PTX = "ptx"
    LTO = "lto"
    HSACO = "hsaco"
    SPIRV = "spirv"
    ZEBIN = "zebin"
    BITCODE = "bitcode"
    RELOCATABLE_PTX = "reloc-ptx"
    TILE_IR = "tileir"
    INDEX = "index"
    TEXT_CUBIN = "text-cubin"
    CONCATENATED = "concat"
    HOST = "host"
    UNKNOWN = "unknown"


class ImageFormat(NamedTuple):
    """A row of the registry: the suffix of an extracted file, whether kernels are read from it, whether a host launches them by name."""

    kind: ImageKind
    suffix: str = "bin"
    kernels: bool = False
    launched: bool = False


IMAGE_FORMATS: Final = (
    ImageFormat(ImageKind.SASS, "cubin", kernels=True, launched=True),
    ImageFormat(ImageKind.PTX, "ptx", kernels=True, launched=True),
    ImageFormat(ImageKind.LTO, "ltoir"),
    ImageFormat(ImageKind.HSACO, "hsaco", kernels=True, launched=True),
    ImageFormat(ImageKind.SPIRV, "spv", kernels=True),
    ImageFormat(ImageKind.ZEBIN, "zebin", kernels=True),
    ImageFormat(ImageKind.BITCODE, "bc"),
    ImageFormat(ImageKind.RELOCATABLE_PTX, "ptx", kernels=True, launched=True),
    ImageFormat(ImageKind.TILE_IR, "tileir"),
    ImageFormat(ImageKind.INDEX),
    ImageFormat(ImageKind.TEXT_CUBIN),
    ImageFormat(ImageKind.CONCATENATED),
    ImageFormat(ImageKind.HOST),
    ImageFormat(ImageKind.UNKNOWN),
)
IMAGE_SUFFIXES: Final[dict[str, str]] = {row.kind: row.suffix for row in IMAGE_FORMATS}
WITH_KERNELS: Final = frozenset(row.kind for row in IMAGE_FORMATS if row.kernels)
LAUNCHED: Final = frozenset(row.kind for row in IMAGE_FORMATS if row.launched)
PTX_TEXTS: Final = frozenset({ImageKind.PTX, ImageKind.RELOCATABLE_PTX})


class Codec(Word):
    """How bytes are packed: images (none to zstd), members of archives, and single files."""

    NONE = "none"
    LZ4 = "lz4"
    LZ4_FRAME = "lz4-frame"
    ZLIB = "zlib"
    ZSTD = "zstd"
    STORED = "stored"
    SPARSE = "sparse"
    DEFLATE = "deflate"
    GZIP = "gzip"
    XZ = "xz"
    BZIP2 = "bzip2"
    LZMA = "lzma"
