"""Intel's ahead-of-time code: zebin ELF files, one a device, alone or in an ar archive (seen in SYCL programs, spir64_gen)."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.errors import FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import ElfTables, header_of
from fatpatch.formats import numbers as n

_AR_HEADER = 60
_MAX_MEMBERS = 1000
_CODE = b".text."
_NO_KERNELS = (".text.Intel_Symbol_Table_Void_Program",)


class Zebin(NamedTuple):
    """Kernel names in order, and the devices (12.60.7: an IP version) that the archive has code for."""

    kernels: tuple[str, ...]
    devices: tuple[str, ...]


def read_zebin(data: bytes) -> Zebin:
    """Read a zebin or an archive of them; FormatError when it is neither."""
    kernels: dict[str, None] = {}
    devices: dict[str, None] = {}
    members = list(_members(data)) if data.startswith(n.AR_MAGIC) else [("", data)]
    for name, content in members:
        if content[:4] != n.ELF_MAGIC:
            continue
        if name:
            devices[name.split(".", 1)[-1] if name.startswith("64.") else name] = None
        kernels |= dict.fromkeys(_kernels(content))
    if not data.startswith((n.AR_MAGIC, n.ELF_MAGIC)):
        raise FormatError(f"expected an ELF file or an ar archive, got {data[:8].hex()}", offset=0, field="zebin")
    return Zebin(tuple(kernels), tuple(devices))


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = len(n.AR_MAGIC)
    for _ in range(_MAX_MEMBERS):
        header = data[at : at + _AR_HEADER]
        size = header[48:58].strip()
        if len(header) < _AR_HEADER or not size.isdigit():
            return
        start = at + _AR_HEADER
        yield header[:16].strip().rstrip(b"/").decode("ascii", "backslashreplace"), data[start : start + int(size)]
        at = start + int(size) + (int(size) & 1)


def _kernels(data: bytes) -> Iterator[str]:
    """The names of the sections of code: one a kernel."""
    header = header_of(data)
    if header is None or not header.sections_fit(len(data)) or header.shstrndx >= header.shnum:
        return
    for name in ElfTables(data, header, "zebin").by_name():
        text = name.decode("utf-8", "backslashreplace")
        if name.startswith(_CODE) and text not in _NO_KERNELS:
            yield text[len(_CODE) :]
