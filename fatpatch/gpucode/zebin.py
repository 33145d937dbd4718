"""Intel's ahead-of-time code: zebin ELF files, one a device, alone or in an ar archive (seen in SYCL programs, spir64_gen)."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.errors import FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.ar import read as ar
from fatpatch.binfmt.elf.elf64 import ElfTables, header_of
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics

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
    members = [("", data)]
    if data.startswith(n.AR_MAGIC):
        archive = ar.read(Source.of(data), "", Diagnostics()).members[:_MAX_MEMBERS]
        members = [(each.name, data[each.offset : each.offset + each.size]) for each in archive]
    for name, content in members:
        if content[:4] != n.ELF_MAGIC:
            continue
        if name:
            devices[name.split(".", 1)[-1] if name.startswith("64.") else name] = None
        kernels |= dict.fromkeys(_kernels(content))
    if not data.startswith((n.AR_MAGIC, n.ELF_MAGIC)):
        raise FormatError(f"expected an ELF file or an ar archive, got {data[:8].hex()}", offset=0, field="zebin")
    return Zebin(tuple(kernels), tuple(devices))


def _kernels(data: bytes) -> Iterator[str]:
    """The names of the sections of code: one a kernel."""
    header = header_of(data)
    if header is None or not header.sections_fit(len(data)) or header.shstrndx >= header.shnum:
        return
    for name in ElfTables(data, header, "zebin").by_name():
        text = name.decode("utf-8", "backslashreplace")
        if name.startswith(_CODE) and text not in _NO_KERNELS:
            yield text[len(_CODE) :]
