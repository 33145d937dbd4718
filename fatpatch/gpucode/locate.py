"""Finds payloads in a container and says which evidence led to each: section, wrapper, magic, or the file itself.

No single evidence is enough. Real fatbins sit in sections of other names (.rodata, .ldata, .cask_resource) and without any
wrapper; the bare magic occurs in compilers and debuggers as a constant.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from types import ModuleType

from fatpatch.base.source import Source
from fatpatch.binfmt.zip.read import first_local_header
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import IMAGE_LIMIT
from fatpatch.gpucode.fatbin.read import STRICT_MAGIC
from fatpatch.gpucode.finder import BARE_MAGICS, Finder, Range
from fatpatch.gpucode.magics import Magics
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import HOSTS, ContainerKind
from fatpatch.model.tree import Container, Payload

FATBIN_SECTIONS = frozenset({".nv_fatbin", "__nv_relfatbin", ".nv_fatb", "__nv_rel"})
BUNDLE_SECTIONS = frozenset({".hip_fatbin", ".hip_fat"})
PAYLOAD_SECTIONS = FATBIN_SECTIONS | BUNDLE_SECTIONS
_OFFLOAD_BINARY_SECTION = ".llvm.offloading"
_ENTRY_SECTION = n.BUNDLE_MAGIC.decode()
_ENTRY_SECTION_CUT = "__CLANG_"  # eight characters are all that a PE image keeps of a name
_BARREN = (
    ".debug",
    ".zdebug",
    ".rel.",
    ".rela",
    ".eh_frame",
    ".gcc_except_table",
    ".symtab",
    ".strtab",
    ".dynsym",
    ".dynstr",
    ".gnu",
    ".pdata",
)
_NEIGHBOUR = 1 << 12
_SEARCHABLE = frozenset({*HOSTS, ContainerKind.APE, ContainerKind.MACHO, ContainerKind.RAW, ContainerKind.FATBIN, ContainerKind.BUNDLE})


def find_payloads(
    source: Source, container: Container, locator: str, limit: int, diagnostics: Diagnostics, image_limit: int = IMAGE_LIMIT
) -> tuple[Payload, ...]:
    """All payloads of a container in file order, up to ``limit`` images; its members are not looked into."""
    if container.kind not in _SEARCHABLE:
        return ()
    finder = Finder(source, locator, limit, diagnostics, image_limit)
    finder.follow(container)
    if container.kind in (ContainerKind.FATBIN, ContainerKind.BUNDLE):
        evidence = "file"
        named = [Range(0, source.size, None)]
    else:
        evidence = "section"
        named = list(_named(container))
    # NVIDIA's tools align every fatbin to 8; files embedded as they are (include_bytes) lie anywhere.
    if any(part.section in FATBIN_SECTIONS for part in named):
        finder.magics = Magics(source, BARE_MAGICS, STRICT_MAGIC, finder.budget)
    for part in named:
        if container.kind == ContainerKind.FATBIN or part.section in FATBIN_SECTIONS:
            finder.fatbin_chain(part, evidence)
        else:
            _offload(finder, part, evidence)
    if container.kind not in (ContainerKind.FATBIN, ContainerKind.BUNDLE):
        unnamed = _with_magic(finder, list(_unnamed(source, container)))
        for part in unnamed:
            finder.search(part)
            if not finder.by_toolkit:
                _offload_search().search(finder, part)
        _check_pointers(finder)
        for part in unnamed:
            _search_bare(finder, part)
    return finder.payloads()


def _with_magic(finder: Finder, parts: list[Range]) -> list[Range]:
    """Those ranges in which a magic begins or to which a wrapper points: in most libraries none. Neighbours are read as one range."""
    ordered = sorted(parts, key=lambda part: part.start)
    kept = {part.start for part in ordered if bisect.bisect_left(finder.targets, part.start) < bisect.bisect_left(finder.targets, part.end)}
    number = 0
    while number < len(ordered):
        last = number
        while last + 1 < len(ordered) and ordered[last + 1].start - ordered[last].end <= _NEIGHBOUR:
            last += 1
        hit = finder.magics.first(ordered[number].start, ordered[last].end)
        if hit < 0:
            number = last + 1
            continue
        while ordered[number].end <= hit:
            number += 1
        if ordered[number].start <= hit:
            kept.add(ordered[number].start)
            number += 1
    return [part for part in parts if part.start in kept]


def _search_bare(finder: Finder, part: Range) -> None:
    """Images without a container; the search is imported where a first look has found something."""
    if any(finder.magics.find(magic, start, end) >= 0 for start, end in finder.gaps(part) for magic in BARE_MAGICS):
        from fatpatch.gpucode import bare_search

        bare_search.search(finder, part)


def _offload_search() -> ModuleType:
    """The searches of what is not CUDA: a listing of CUDA files does without their import."""
    from fatpatch.gpucode.bundle import search as offload_search

    return offload_search


def _offload(finder: Finder, part: Range, evidence: str) -> None:
    """What clang, ROCm and SYCL put into a section of theirs."""
    section = part.section or ""
    if section.startswith((_ENTRY_SECTION, _ENTRY_SECTION_CUT)):
        _offload_search().entry_section(finder, part, section[len(_ENTRY_SECTION) :])
    elif section.startswith(_OFFLOAD_BINARY_SECTION):
        _offload_search().binary_chain(finder, part, evidence)
    else:
        _offload_search().bundle_chain(finder, part, evidence)


def _check_pointers(finder: Finder) -> None:
    """Each wrapper must point to a payload that was found, by whatever evidence."""
    others = False
    for target, pointer in finder.pointers.items():
        others |= pointer.magic != n.WRAPPER_MAGIC
        if pointer.magic == n.WRAPPER_MAGIC and target not in finder.found:
            got = finder.source.peek(target, 4).hex()
            message = f"expected a fatbin (50ed55ba) at {target:#x}, got {got or 'nothing'}"
            finder.diagnostics.error(finder.locator, pointer.wrapper.offset + 8, message, field="fatbin pointer")
    if others:
        _offload_search().check_pointers(finder)


def _named(container: Container) -> Iterator[Range]:
    """The sections whose name says what they hold, in file order, none of them over another."""
    at = 0
    for section in sorted(container.sections, key=lambda section: section.offset):
        start, end = max(section.offset, at), section.offset + section.size
        if _known(section.name) and start < end:
            at = end
            yield Range(start, end, section.name)


@functools.lru_cache(maxsize=1024)
def _may_hold(name: str) -> bool:
    """Whether a section is searched, by its name: libraries have the same few."""
    return not _known(name) and not name.startswith(_BARREN)


@functools.lru_cache(maxsize=1024)
def _known(name: str) -> bool:
    return name in FATBIN_SECTIONS or name in BUNDLE_SECTIONS or name.startswith((_OFFLOAD_BINARY_SECTION, _ENTRY_SECTION_CUT))


def _unnamed(source: Source, container: Container) -> Iterator[Range]:
    """The ranges that no section name announces: data sections, and what lies outside sections and members."""
    taken = [(m.header_offset, m.offset + m.stored_size) for m in container.members]
    at = 0
    for section in sorted(container.sections, key=lambda section: section.offset):
        start, end = max(section.offset, at), section.offset + section.size
        taken.append((section.offset, end))
        if not section.executable and start < end and _may_hold(section.name):
            at = end
            yield Range(start, end, section.name)
    at = int(container.kind in HOSTS)  # whose own magic is no image
    reach = source.size if not container.members else first_local_header(source, min(member.header_offset for member in container.members))
    reach = reach if container.opaque is None else min(reach, container.opaque)
    for begin, end in [*sorted(taken), (reach, reach)]:
        start = min(begin, reach)  # behind it lie members, also replaced ones that no directory names any more, and directories
        if start - at > n.ENTRY_HEADER_SIZE:
            yield Range(at, start, None)
        at = max(at, end)
