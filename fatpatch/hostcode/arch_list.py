"""The list of compute capabilities that a program was compiled for, as the program itself keeps it.

nvcc defines ``__CUDA_ARCH_LIST__`` (500,600,700 for three targets). ggml prints it from stubs in its images and, since 2025, keeps it as
a string behind ``ARCHS`` in its host code, where it also decides by it as constants that no longer can be read; CUB has it in its
namespace and so in kernel names. Only strings are read here, not those constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.code import pieces, read_host
from fatpatch.hostcode.constants import occurrences
from fatpatch.model.tree import Node

STUB_MESSAGE: Final = b"has no device code compatible with CUDA arch"
"""Part of what ggml's stubs print; the list is a string of its own beside it."""

_FEATURE = b"\0ARCHS\0"
_COMMA = lazy_pattern(rb",(?=\d{3,4}[,\0])")
_LIST = lazy_pattern(rb"\d{3,4}(?:,\d{3,4})*\Z")
_CUB = lazy_pattern(rb"CUB_(?=\d{6}_)\d{6}_(?:SM_)?(\d{3,4}(?:_\d{3,4})*)")
_PTX_BYTES = lazy_pattern(rb"\{(\d{1,3}(?:, ?\d{1,3}){2,399})\}")
_LOWEST, _HIGHEST = 200, 1990
_MAX_LENGTH = 128
_MAX_LISTS = 256


class ArchList(NamedTuple):
    """One list: capabilities times 100 in ascending order, and where it was found (feature, string, namespace, image)."""

    values: tuple[int, ...]
    where: str


def arch_list(node: Node, images: Iterable[bytes] = ()) -> tuple[int, ...] | None:
    """The list that a file was compiled for: 500, 600, 700; None when there is none, or several that do not agree.

    ``images`` are unpacked images of the file; the reader of images is another layer's. A list behind ``ARCHS`` counts most, then
    one that stands alone in the host's constants, then one in an image, then the namespace of CUB.
    """
    found = arch_lists(node, images)
    for where in ("feature", "string", "image", "namespace"):
        different = {entry.values for entry in found if entry.where == where}
        if different:
            return different.pop() if len(different) == 1 else None
    return None


def arch_lists(node: Node, images: Iterable[bytes] = ()) -> tuple[ArchList, ...]:
    """Every different list, in the order of discovery; at most 256."""
    found: dict[ArchList, None] = {}
    host, _ = read_host(node)
    for piece in pieces(host, host.data) if host is not None else ():
        for entry in _in_constants(piece.data):
            if len(found) < _MAX_LISTS:
                found.setdefault(entry)
    for image in images:
        for values in _in_image(image):
            if len(found) < _MAX_LISTS:
                found.setdefault(ArchList(values, "image"))
    return tuple(found)


def _in_constants(data: bytes) -> Iterator[ArchList]:
    for at in occurrences(data, _FEATURE):
        start = at + len(_FEATURE)
        values = _values(data[start : start + _MAX_LENGTH].split(b"\0", 1)[0], b",")
        if values:
            yield ArchList(values, "feature")
    for values in _strings(data):
        yield ArchList(values, "string")
    for hit in _CUB.finditer(data):
        values = _values(hit[1], b"_")
        if values:
            yield ArchList(values, "namespace")


def _strings(data: bytes) -> Iterator[tuple[int, ...]]:
    """C strings that are such a list of two or more."""
    last = 0
    for hit in _COMMA.finditer(data):
        if hit.start() < last:
            continue
        start = data.rfind(b"\0", max(hit.start() - _MAX_LENGTH, 0), hit.start()) + 1
        end = data.find(b"\0", hit.start(), hit.start() + _MAX_LENGTH)
        last = max(end, hit.end())
        if (start or hit.start() <= 4) and end > 0 and (values := _values(data[start:end], b",")):
            yield values


def _in_image(data: bytes) -> Iterator[tuple[int, ...]]:
    """The lists in one unpacked image; a list of one only where ggml's stub message is, too."""
    if data[:4] != b"\x7fELF" and b".version" in data[:4096]:
        texts = [text for hit in _PTX_BYTES.finditer(data) if (text := _text(hit[1])) is not None]
        speaks = any(STUB_MESSAGE in text for text in texts)
        for text in texts:
            if (values := _values(text, b",")) and (len(values) > 1 or speaks):
                yield values
        return
    yield from _strings(data)
    for at in occurrences(data, STUB_MESSAGE):
        for text in data[max(at - 512, 0) : at + 512].split(b"\0"):
            if (values := _values(text, b",")) and len(values) == 1:
                yield values


def _text(numbers: bytes) -> bytes | None:
    """The string that a PTX array of bytes spells."""
    values = [int(number) for number in numbers.split(b",")]
    return bytes(values).split(b"\0", 1)[0] if max(values) < 256 else None


def _values(text: bytes, separator: bytes) -> tuple[int, ...]:
    """The numbers of a list, if they can be one: multiples of ten, ascending, in the range of NVIDIA's GPUs."""
    if not _LIST.match(text.replace(separator, b",")) or len(text) > _MAX_LENGTH:
        return ()
    values = tuple(int(number) for number in text.split(separator))
    ascending = all(first < second for first, second in pairwise(values))
    return values if ascending and all(value % 10 == 0 and _LOWEST <= value <= _HIGHEST for value in values) else ()
