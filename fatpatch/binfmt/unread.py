"""Containers that are recognised and not read: a file that is one, and a program with one behind it.

What is compressed in them cannot be searched by magic: hits in it are chance, and what is missed would look like "no GPU code".
"""

from __future__ import annotations

from collections.abc import Callable

from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import HEADER, header_of
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container

_MAGICS = (
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!\x1a\x07", "RAR archive"),
    (0, b"\xed\xab\xee\xdb", "RPM package"),
    (0, b"hsqs", "squashfs file system"),
    (0, b"sqsh", "squashfs file system"),
    (0, b"MSCF\0\0\0\0", "cabinet archive"),
    (0, b"ISc(", "InstallShield cabinet"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE file, as an MSI package is"),
    (0, b"LZIP\x01", "lzip stream"),
    (0, b"\x02\x21\x4c\x18", "legacy LZ4 stream"),
    (0, b"\x89LZO\0\r\n\x1a\n", "lzop stream"),
    (0, b"\x1f\x9d", "compress stream"),
    (0, b"xar!\0\x1c", "xar archive"),
    (0, b"MSWIM\0\0\0", "Windows image (WIM)"),
    (0, b"QFI\xfb", "disk image (qcow2)"),
    (0, b"KDMV", "disk image (VMDK)"),
    (0, b"flatpak\0", "Flatpak bundle"),
    (0, b"xdg-app\0", "Flatpak bundle"),
    (0, b"070701", "cpio archive"),
    (0, b"070702", "cpio archive"),
    (0, b"070707", "cpio archive"),
    (0, b"\xc7\x71", "cpio archive"),
    (0, b"**ACE**", "ACE archive"),
    (0, b"ZPAQ", "ZPAQ archive"),
    (0, b"zPQ", "ZPAQ archive"),
    (0, b"LRZI", "lrzip stream"),
    (0, b"\xff\x06\0\0sNaPpY", "snappy stream"),
    (0, b"\x60\xea", "ARJ archive"),
    (0, b"\r\0\0\0\0\0\0\0nix-archive-1", "Nix archive"),
    (0, b"\x45\x3d\xcd\x28", "cramfs file system"),
    (0, b"-rom1fs-", "romfs file system"),
    (0, b"XFSB", "disk image (XFS)"),
    (0, b"LUKS\xba\xbe", "encrypted disk (LUKS)"),
    (0, b"Salted__", "encrypted file (OpenSSL)"),
    (0, b"age-encryption.org/", "encrypted file (age)"),
    (0, b"-----BEGIN PGP MESSAGE", "encrypted file (OpenPGP)"),
    (0, b"vhdxfile", "disk image (VHDX)"),
    (2, b"-lh", "LHA archive"),
    (3, b"NTFS    ", "disk image (NTFS)"),
    (3, b"mkfs.fat", "disk image (FAT)"),
    (7, b"**ACE**", "ACE archive"),
    (32, b"SIF_MAGIC", "Singularity image (SIF)"),
    (64, b"\x7f\x10\xda\xbe", "disk image (VDI)"),
    (512, b"EFI PART", "disk image (GPT)"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS file system"),
    (1080, b"\x53\xef", "disk image (ext2, ext3 or ext4)"),
    (0x8001, b"CD001", "ISO 9660 image"),
    (0x10040, b"_BHRfS_M", "disk image (Btrfs)"),
    (-512, b"koly\0\0\0\4", "Apple disk image"),
    (-512, b"conectix", "disk image (VHD)"),
)
"""Offset, from the end where it is negative; magic; name."""
_PROOFS: dict[bytes, Callable[[bytes], bool]] = {
    b"\x60\xea": lambda head: head[4:5] in (b"\x1e", b"\x22"),  # the size of ARJ's first header
    b"-lh": lambda head: head[6:7] == b"-",
    b"zPQ": lambda head: head[3:4] in (b"\1", b"\2"),  # the level
    b"\x53\xef": lambda head: len(head) > _SUPERBLOCK and not any(head[:1024]),
}
"""What else shows that a file is one, where the magic is short."""
_SUPERBLOCK = 1104
_SCRIPT_HEAD = 1 << 14
_TAIL = 1 << 14
_OVERLAY_HEAD = 1 << 16
_PYINSTALLER_HINT = "unpack it: pyinstxtractor FILE, or pyi-archive_viewer -r FILE"
_PYINSTALLER = b"MEI\x0c\x0b\x0a\x0b\x0e"
_SHORT_MAGICS = frozenset({b"\x1f\x9d", b"\xc7\x71", b"ISc(", b"ZPAQ", b"zPQ", b"KDMV", b"LRZI", b"\x60\xea", b"XFSB", b"-lh"})
_BEHIND = (
    (b"hsqs", "squashfs file system", False),
    (b"\xef\xbe\xad\xdeNullsoftInst", "NSIS installer", True),
    (b"7z\xbc\xaf\x27\x1c", "7z archive", True),
    (b"Rar!\x1a\x07", "RAR archive", True),
    (b"zlb\x1a", "Inno Setup installer", False),
    (b"idska32\x1a", "Inno Setup installer", True),
    (b"MSCF\0\0\0\0", "cabinet archive", True),
    (b"rDlPtS", "Inno Setup installer", True),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE file, as an MSI package is", False),
    (b"KAX", "Nuitka program", False),
    (b"KAY", "Nuitka program", False),
)
"""Magics behind a program: at once, or (True) somewhere in the first 64 KiB."""
_PACKERS = {
    "UPX0": "UPX",
    "UPX1": "UPX",
    ".MPRESS1": "MPRESS",
    ".aspack": "ASPack",
    ".vmp0": "VMProtect",
    ".vmp1": "VMProtect",
    ".themida": "Themida",
    ".enigma1": "Enigma",
}
"""Sections whose names tell what has packed a program."""
_UPX, _PACKED_HEAD = b"UPX!", 1 << 12
_INNO = b"Inno Setup Setup Data"
_DEEP = 1 << 20


LFS_POINTER = "a Git LFS pointer"


class Unread(NamedTuple):
    """What it is in words, its range in the file, and how to get at what is in it."""

    name: str
    start: int
    end: int
    hint: str = "unpack it with its own tool, and give what comes out"


def whole(source: Source) -> Unread | None:
    """The container that a file of no known kind is; None when it is none of those known here."""
    start = source.peek(0, 1 << 11)
    for at, magic, name in _MAGICS:
        found = start[at:] if 0 <= at < len(start) else source.peek(at + source.size if at < 0 else at, len(magic))
        if found.startswith(magic) and (magic not in _SHORT_MAGICS or _long_enough(source)) and _PROOFS.get(magic, bool)(start):
            return Unread(name, 0, source.size, _hint(name))
    head = start[:16]
    if len(head) == 16 and head[:4] == b"\4\0\0\0" and source.peek(16, 9) == b'{"files":':
        return Unread("Electron archive (asar)", 0, source.size, "unpack it: npx @electron/asar extract FILE FOLDER")
    if head[:2] == b"#!":
        script = source.peek(0, _SCRIPT_HEAD)
        if b"akeself" in script:
            return Unread("makeself archive", 0, source.size, "unpack it: sh FILE --noexec --target FOLDER")
        if source.size > _SCRIPT_HEAD and b"\0" in source.peek(source.size // 2, 4096):
            return Unread("self-extracting script", 0, source.size, "unpack it as the script does")
    return None


def behind(source: Source, container: Container) -> Unread | None:
    """The container behind an ELF or PE program, as installers, AppImages and PyInstaller write it; None where there is none."""
    inside = next((part for part in container.sections if part.name == "pydata"), None)
    if inside is not None:
        return Unread("PyInstaller archive", inside.offset, inside.offset + inside.size, _PYINSTALLER_HINT)
    packer = next((_PACKERS[part.name] for part in container.sections if part.name in _PACKERS), None)
    if packer is None and not container.sections and _UPX in source.peek(0, _PACKED_HEAD):
        packer = "UPX"
    if packer is not None:
        hint = "unpack it: upx -d FILE" if packer == "UPX" else "get the program as it was before it was packed"
        return Unread(f"program that {packer} packed", HEADER.size, source.size, hint)
    start = _program_end(source, container)
    if start >= source.size:
        return None
    tail = source.peek(max(source.size - _TAIL, 0), _TAIL)
    if _PYINSTALLER in tail:
        return Unread("PyInstaller archive", start, source.size, _PYINSTALLER_HINT)
    head = source.peek(start, _OVERLAY_HEAD)
    first = head.lstrip(b"\0")
    for magic, name, anywhere in _BEHIND:
        if first.startswith(magic) or (anywhere and magic in head):
            return Unread("AppImage" if source.peek(8, 2) == b"AI" else name, start, source.size, _hint(name))
    if source.peek(8, 2) == b"AI" and container.kind == ContainerKind.ELF:
        return Unread("AppImage", start, source.size, _hint("squashfs file system"))
    if container.kind == ContainerKind.PE and any(
        _INNO in source.peek(part.offset, min(part.size, _DEEP)) for part in container.sections[-4:]
    ):
        return Unread("Inno Setup installer", start, source.size, "unpack it: innoextract FILE")
    return None


def _long_enough(source: Source) -> bool:
    """Two bytes alone prove little: text and small files start with any."""
    return source.size > 1 << 12


def _hint(name: str) -> str:
    if name.startswith("squashfs"):
        return "unpack it: unsquashfs FILE (an AppImage by itself: FILE --appimage-extract)"
    if name.startswith("encrypted"):
        return "decrypt it first"
    if name.startswith(("disk image", "EROFS", "cramfs", "romfs")):
        return "mount it, or 7z x FILE, and give the folder"
    if name.startswith(("RPM", "cpio")):
        return "unpack it: rpm2cpio FILE | cpio -idm, or bsdtar -xf FILE"
    return "unpack it: 7z x FILE, and give the folder's files"


def _program_end(source: Source, container: Container) -> int:
    """Where the program's own bytes end in the file."""
    end = max((part.offset + part.size for part in (*container.sections, *container.segments)), default=0)
    if container.kind == ContainerKind.ELF:
        header = header_of(source.peek(0, HEADER.size))
        return end if header is None else max(end, header.sections_end)
    return end


def misnamed(name: str, source: Source, container: Container, packing: str | None) -> str | None:
    """What a file is, when that is not what its name says; None when it is, or when its name says nothing."""
    lower = name.lower().rsplit("/", 1)[-1]
    suffix = lower.rsplit(".", 1)[-1] if "." in lower else ""
    if ".tar." in lower or suffix in ("tgz", "tbz2", "txz"):
        return None if container.kind in (ContainerKind.TAR, ContainerKind.UNREAD) else describe(source, container, packing)
    wanted = _SUFFIXES.get(suffix)
    binary = suffix in _BINARY or name == STANDARD_INPUT
    if wanted is None and binary and container.kind == ContainerKind.RAW and not (suffix == "a" and _is_linker_script(source)):
        return page_or_pointer(source)
    if wanted is None or container.kind in (*wanted, ContainerKind.UNREAD) or (suffix == "so" and _is_linker_script(source)):
        return None
    return describe(source, container, packing)


def describe(source: Source, container: Container, packing: str | None) -> str:
    """A file in two words, for a name that promises something else."""
    if (known := page_or_pointer(source)) is not None:
        return known
    if container.kind != ContainerKind.RAW:
        return f"of the kind {container.kind}" + (f", packed by {packing}" if packing else "")
    head = source.peek(0, 512).strip()
    return "text" if head and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "of no known kind"


def page_or_pointer(source: Source) -> str | None:
    """What a failed download leaves: nothing, a page, or a pointer of Git LFS; None for other files."""
    if not source.size:
        return "an empty file"
    head = source.peek(0, 512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "an HTML page" if b"html" in head else "an XML document"
    return LFS_POINTER if head.startswith(b"version https://git-lfs") else None


def _is_linker_script(source: Source) -> bool:
    """Text for a linker in the place of a library, as libc.so is; or the name of the real one."""
    head = source.peek(0, 512).lstrip()
    return head.startswith((b"/* GNU ld script", b"INPUT", b"GROUP", b"OUTPUT_FORMAT")) or (
        source.size < 256 and b"\n" not in head.strip() and b".so" in head
    )


_SUFFIXES = {
    "whl": ("zip",),
    "zip": ("zip",),
    "conda": ("zip",),
    "dll": ("pe",),
    "pyd": ("pe",),
    "jar": ("zip",),
    "egg": ("zip",),
    "nupkg": ("zip",),
    "deb": ("ar",),
    "exe": ("pe", "ape"),
    "llamafile": ("ape", "elf", "pe", "macho", "zip"),
    "so": ("elf", "macho", "cubin", "ar"),
    "tar": ("tar",),
    "cubin": ("cubin",),
    "fatbin": ("fatbin",),
}
"""The kinds of container that a suffix promises."""

_BINARY = frozenset({"a", "bin", "co", "gguf", "hsaco", "lib", "msi", "node", "o", "ptx", "rpm", "7z"})
"""Suffixes of files that are no page and not empty."""
