"""Libraries of a package that it does not need on a GPU: made for others, or such that its Python code goes on without.

torchao 0.18 has a library for 9.0a alone and one for 10.0 and up. On either kind of GPU one of them has nothing, and on all others the
package runs by its Python code, which loads each of them in a ``try`` block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.source import Source
from fatpatch.binfmt.unpack import Workspace
from fatpatch.gpucode.cubin.bodies import COPIES_AHEAD
from fatpatch.gpus.selection import DEVICES, choose
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.tree import Node
from fatpatch.verdicts.aside import lacks
from fatpatch.verdicts.facts import FactsReader
from fatpatch.verdicts.module import EMPTY
from fatpatch.verdicts.outcome import HOPELESS, outcome_of
from fatpatch.verdicts.results import FileVerdict

_MAX_TEXT: Final = 1 << 18
_MAX_PLACES: Final = 32
_CHOOSY: Final = lazy_pattern(r"(?:^|/)(?:lib)?cusparseLt[^/]*\Z")
"""cuSPARSELt: each release lists the GPUs that it is for (9.0 since 0.6), and returns ARCH_MISMATCH on others; programs go on without."""
_ASKED: Final = 8
"""So many modules of a library stand for all."""
_LOADS: Final = lazy_pattern(r"load_library\(|import_module\(|CDLL\(")
_STRING: Final = lazy_pattern(r"""["']([^"'\\\n]{1,200})["']""")
_CLAUSE: Final = lazy_pattern(r"(?:except|else|finally)\b")


def unneeded(whole: Node, units: Sequence[FileVerdict], reader: FactsReader) -> tuple[FileVerdict, ...]:
    """Those of a package's libraries that lack code for the device and that it does not need there."""
    useful = [unit for unit in units if any(module.verdict.verdict != EMPTY for module in unit.here)]
    lacking = [unit for unit in useful if _lacks(unit)]
    if not lacking or len(useful) < 2:
        return ()
    gpus = {id(unit): _gpus(unit) for unit in useful}
    running = [unit for unit in useful if outcome_of(unit) not in HOPELESS]
    if running:
        modules = sum(len(unit.here) for unit in running)
        return tuple(
            unit
            for unit in lacking
            if all(gpus[id(unit)].isdisjoint(gpus[id(each)]) for each in running)
            or (len(unit.here) < modules and (_CHOOSY.search(unit.node.path) or _is_beyond(unit, min(gpus[id(unit)], default=0), reader)))
        )
    apart = sum(map(len, gpus.values())) == len(frozenset[int]().union(*gpus.values()))
    goes_on = len(lacking) == len(useful) and apart and all(_goes_on_without(whole, unit.node) for unit in lacking)
    return tuple(lacking) if goes_on else ()


def _lacks(unit: FileVerdict) -> bool:
    """Whether nothing but missing code stands against a library of CUDA code."""
    modules = [module for module in unit.here if module.verdict.verdict != EMPTY]
    return unit.trouble is None and all(module.payload.vendor == Vendor.NVIDIA and lacks(module) for module in modules)


def _is_beyond(unit: FileVerdict, least: int, reader: FactsReader) -> bool:
    """Whether a library is for GPUs above the device, and most of its modules have instructions that the device has not.

    FlashAttention in xformers 0.0.22 and PaddlePaddle 2.6, which begins at 8.0 as its kernels do. What was merely built for fewer GPUs
    does not look so: MAGMA's kernels in PyTorch.
    """
    arch = unit.environment.device.arch
    if arch is None or arch >= COPIES_AHEAD or least < COPIES_AHEAD:
        return False
    useful = [module for module in unit.here if module.verdict.verdict != EMPTY]
    asked = useful[:: max(len(useful) // _ASKED, 1)]
    found = 0
    for module in asked:
        images = [image for image in module.payload.images if image.kind == ImageKind.SASS and image.readable]
        smallest = min(images, key=lambda image: image.size or 0, default=None)
        found += smallest is not None and module.node.source is not None and bool(reader.copies_ahead(module.node.source, smallest))
    return 2 * found > len(asked)


def _gpus(unit: FileVerdict) -> frozenset[int]:
    """The SM numbers of GPUs that load something of a library."""
    useful = [module.payload.images for module in unit.here if module.verdict.verdict != EMPTY]
    lists = {tuple(image.target for image in images): images for images in useful}
    return frozenset(arch for arch in DEVICES if any(choose(images, arch).image is not None for images in lists.values()))


def _goes_on_without(whole: Node, library: Node) -> bool:
    """Whether the package's ``__init__.py`` beside a library loads it in a ``try`` block, and goes on where that fails."""
    name = file_name(library.path)
    lines = _beside(whole, library).splitlines()
    stem = name.partition(".")[0]
    mentions = [fnmatchcase(name, each) or each == stem for line in lines for each in _STRING.findall(line)]
    places = [index for index, line in enumerate(lines) if _LOADS.search(line)]
    return any(mentions) and 0 < len(places) <= _MAX_PLACES and all(_is_tried(lines, index) for index in places)


def _beside(whole: Node, library: Node) -> str:
    """The text of ``__init__.py`` in a library's folder, in an archive or installed; nothing where it cannot be read."""
    path = f"{library.path.replace(os.sep, '/').rpartition('/')[0]}/__init__.py"
    try:
        if whole.source is not None:
            member = next((each for each in whole.layout.members if each.name == path), None)
            workspace = Workspace(Limits(), whole.size)
            return "" if member is None else workspace.head(whole.source, member, _MAX_TEXT).decode(errors="replace")
        if library.source is None or library.source.path is None:
            return ""
        text = Source.open(os.path.join(os.path.dirname(library.source.path), "__init__.py"))
        try:
            return text.peek(0, _MAX_TEXT).decode(errors="replace")
        finally:
            text.close()
    except FatpatchError:
        return ""


def _is_tried(lines: Sequence[str], index: int) -> bool:
    """Whether a line stands in the body of ``try``, none of whose clauses raises."""
    for start, depth in _enclosing(lines, index):
        if lines[start].strip() == "try:":
            inside = [line.strip() for line in _block(lines, start, depth)]
            return any(line.startswith("except") for line in inside) and not any(line.startswith("raise") for line in inside)
    return False


def _enclosing(lines: Sequence[str], index: int) -> Iterator[tuple[int, int]]:
    """The lines that open the blocks around a line, the innermost first, each with its indentation."""
    depth = _depth(lines[index])
    for start in range(index - 1, -1, -1):
        if lines[start].strip() and _depth(lines[start]) < depth:
            depth = _depth(lines[start])
            yield start, depth


def _block(lines: Sequence[str], start: int, depth: int) -> Iterator[str]:
    """The lines of a ``try`` statement with its clauses."""
    for line in lines[start + 1 :]:
        if line.strip() and (_depth(line) < depth or (_depth(line) == depth and not _CLAUSE.match(line.strip()))):
            return
        yield line


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
