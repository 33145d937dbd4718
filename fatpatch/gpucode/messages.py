"""The message that a stub prints before it traps, out of the strings that its code names (reference: stubs, section A).

In a cubin the addresses lie in constant bank 4, or in the code, and relocations lead from there to strings in .nv.global.init; in
PTX the strings are byte lists of ``.global`` variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.elf.elf64 import SYMBOL, TYPE
from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.bodies import encoding, kernel_sections
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.ptx.bodies import body_words

_MAX_STRINGS = 64
_MAX_KERNELS = 2000
_MAX_LENGTH = 2000
_FIELD = lazy_pattern(r"%(?:l{0,2}[diux]|[sp])")
_ARCH_LIST = lazy_pattern(r"\d{3,4}(?:,\d{3,4})*\Z|__CUDA_ARCH_LIST__\Z")
_LINE_OF_FILE = lazy_pattern(r"\A%s:%d: ")
_PTX_VARIABLE = lazy_pattern(rb"\.global[^;={]{0,200}?\.b8[ \t]{1,8}([A-Za-z_$%][\w$]{0,4096})\[\d{0,12}\][ \t]{0,8}=[ \t]{0,8}\{")


def cubin_messages(data: bytes, kernels: Iterable[str]) -> dict[str, str]:
    """Kernel name -> what it prints, for those of ``kernels`` whose code names a format string. FormatError for a damaged cubin."""
    tables = Tables(data)
    reader = encoding(tables.identity.arch)
    if reader is None:
        return {}
    strings, sections = _Strings(tables), kernel_sections(tables)
    slots = strings.slots(b".nv.constant4")
    known: dict[int, str | None] = {}
    found = {}
    for name in islice(kernels, _MAX_KERNELS):
        section = sections.get(name, -1)
        if section >= 0 and section not in known:
            places = [slots[at] for at in reader.constants(tables.content(tables.rows[section])) if at in slots]
            places += strings.slots(b".text." + name.encode("utf-8", "surrogateescape")).values()
            texts = (strings.text(*place) for place in dict.fromkeys(places))
            known[section] = _message(list(islice(filter(None, texts), _MAX_STRINGS)), tables.identity.arch)
        if message := known.get(section):
            found[name] = message
    return found


class _Strings:
    """The strings of .nv.global.init, by the places that are relocated to them."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._row = tables.by_name().get(b".nv.global.init")
        self._index = -1 if self._row is None else next(i for i, row in enumerate(tables.rows) if row is self._row)
        self._data = tables.content(self._row)
        symbols = next((row for row in tables.rows if row[TYPE] == n.SHT_SYMTAB), None)
        self._symbols = tables.content(symbols)

    def slots(self, section: bytes) -> dict[int, tuple[int, int]]:
        """Offset in a section -> (symbol, addend) of its relocation."""
        found = {}
        for prefix in (b".rel", b".rela"):
            row = self._tables.by_name().get(prefix + section)
            for at, symbol, addend in () if row is None else self._tables.relocations(row):
                found[at] = (symbol, addend)
        return found

    def text(self, symbol: int, addend: int) -> str | None:
        """The string that a symbol leads to; None for a symbol elsewhere."""
        if (symbol + 1) * SYMBOL.size > len(self._symbols):
            return None
        _, _, _, section, value, _ = SYMBOL.unpack_from(self._symbols, symbol * SYMBOL.size)
        start = value + addend
        if section != self._index or not 0 <= start < len(self._data):
            return None
        end = self._data.find(b"\0", start, start + _MAX_LENGTH)
        return self._data[start:end].decode("utf-8", "backslashreplace") if end > start else None


def ptx_messages(text: bytes, kernels: Iterable[str], arch: int) -> dict[str, str]:
    """Kernel name -> what it prints, for those of ``kernels`` whose body names a byte list with a format string."""
    strings = dict(_byte_lists(text))
    found = {}
    for name, words in body_words(text, frozenset(islice(kernels, _MAX_KERNELS))):
        named = [strings[word] for word in dict.fromkeys(words) if word in strings]
        if message := _message(named[:_MAX_STRINGS], arch):
            found[name] = message
    return found


def _byte_lists(text: bytes) -> Iterator[tuple[bytes, str]]:
    """(name, decoded string) of each ``.global`` list of bytes."""
    at = 0
    while (found := _PTX_VARIABLE.search(text, at)) is not None:
        end = text.find(b"}", found.end(), found.end() + 8 * _MAX_LENGTH)
        at = max(end, found.end())
        if end >= 0 and (decoded := _bytes(text[found.end() : end])) is not None:
            yield found[1], decoded


def _bytes(values: bytes) -> str | None:
    try:
        data = bytes(int(value[:8]) & 0xFF for value in values.split(b",") if value.strip())
    except ValueError:
        return None
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _message(strings: list[str], arch: int | None) -> str | None:
    """The format with its fields filled as far as the other strings allow: a list of archs, a file, then names in order.

    The arch that the macro ``__CUDA_ARCH__`` gave is that of the image; other numbers are not known and left out.
    """
    form = next((text for text in strings if _FIELD.search(text)), None)
    if form is None:
        return None
    others = [text for text in strings if text is not form]
    lists = [text for text in others if _ARCH_LIST.match(text)]
    files = [text for text in others if text not in lists and re.search(r"\.(?:cu|cuh|h|hpp|cpp)\Z", text)]
    names = [text for text in others if text not in lists and text not in files]
    form = _LINE_OF_FILE.sub("%s: " if files else "", form)

    def fill(found: re.Match[str]) -> str:
        before = form[: found.start()].lower()
        if found[0] != "%s":
            return str(arch * 10) if arch is not None and before.endswith(("arch ", "arch: ", "sm_")) else "?"
        if "compiled for" in before[-40:] and lists:
            return lists.pop(0)
        if not before.strip() and files:
            return files.pop(0)
        return names.pop(0) if names else lists.pop(0) if lists else "?"

    return " ".join(_FIELD.sub(fill, form).split())
