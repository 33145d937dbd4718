"""Containers that are recognised and not read: a file that is one, and a program with one behind it.

What is compressed in them cannot be searched by magic: hits in it are chance, and what is missed would look like "no GPU code".
"""

from __future__ import annotations

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
    (32, b"SIF_MAGIC", "Singularity image (SIF)"),
    (7, b"**ACE**", "ACE archive"),
    (0x8001, b"CD001", "ISO 9660 image"),
)
_SCRIPT_HEAD = 1 << 14
_TAIL = 1 << 14
_OVERLAY_HEAD = 1 << 16
_PYINSTALLER_HINT = "unpack it: pyinstxtractor FILE, or pyi-archive_viewer -r FILE"
_PYINSTALLER = b"MEI\x0c\x0b\x0a\x0b\x0e"
_SHORT_MAGICS = frozenset({b"\x1f\x9d", b"\xc7\x71", b"ISc(", b"ZPAQ", b"KDMV"})
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
)
"""Magics behind a program: at once, or (True) somewhere in the first 64 KiB."""
_INNO = b"Inno Setup Setup Data"
_DEEP = 1 << 20


class Unread(NamedTuple):
    """What it is in words, its range in the file, and how to get at what is in it."""

    name: str
    start: int
    end: int
    hint: str = "unpack it with its own tool, and give what comes out"


def whole(source: Source) -> Unread | None:
    """The container that a file of no known kind is; None when it is none of those known here."""
    start = source.peek(0, 64)
    for at, magic, name in _MAGICS:
        found = start[at:] if at < 64 else source.peek(at, len(magic)) if not source.size % 2048 and source.size > at else b""
        if found.startswith(magic) and (magic not in _SHORT_MAGICS or _long_enough(source)):
            return Unread(name, 0, source.size, _hint(name))
    head = start[:16]
    if len(head) == 16 and head[:4] == b"\4\0\0\0" and source.peek(16, 9) == b'{"files":':
        return Unread("Electron archive (asar)", 0, source.size, "unpack it: npx @electron/asar extract FILE FOLDER")
    if head[:2] == b"#!":
        script = source.peek(0, _SCRIPT_HEAD)
        if b"akeself" in script:
            return Unread("makeself archive", 0, source.size, "unpack it: sh FILE --noexec --target FOLDER")
        if source.size > _SCRIPT_HEAD and (b"__ARCHIVE" in script or b"tail -n" in script) and b"\0" in source.peek(source.size // 2, 4096):
            return Unread("self-extracting script", 0, source.size, "unpack it as the script does")
    return None


def behind(source: Source, container: Container) -> Unread | None:
    """The container behind an ELF or PE program, as installers, AppImages and PyInstaller write it; None where there is none."""
    inside = next((part for part in container.sections if part.name == "pydata"), None)
    if inside is not None:
        return Unread("PyInstaller archive", inside.offset, inside.offset + inside.size, _PYINSTALLER_HINT)
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
    if wanted is None or container.kind in (*wanted, ContainerKind.UNREAD) or (suffix == "so" and _is_linker_script(source)):
        return None
    return describe(source, container, packing)


def describe(source: Source, container: Container, packing: str | None) -> str:
    """A file in two words, for a name that promises something else."""
    if not source.size:
        return "an empty file"
    head = source.peek(0, 512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "an HTML page" if b"html" in head else "an XML document"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if container.kind != ContainerKind.RAW:
        return f"of the kind {container.kind}" + (f", packed by {packing}" if packing else "")
    return "text" if head and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "of no known kind"


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
    "so": ("elf", "macho", "cubin", "ar"),
    "tar": ("tar",),
    "cubin": ("cubin",),
    "fatbin": ("fatbin",),
}
"""The kinds of container that a suffix promises."""
