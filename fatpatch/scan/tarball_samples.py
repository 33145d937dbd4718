"""Samples of the CUDA modules in a .tgz on a server, such as npm's packages: as of a wheel, but all members are one stream."""

from __future__ import annotations

from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.source import Source
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node
from fatpatch.scan.few_modules import FewModules
from fatpatch.scan.ledgers import ARCHIVE, LIBRARY
from fatpatch.scan.packed_library import Budget, ModulePlaces, PackedLibrary
from fatpatch.scan.packed_modules import PackedModules
from fatpatch.scan.packed_tar import PackedTar, Ratios
from fatpatch.scan.samples import SampledTree, sampled_libraries
from fatpatch.scan.spread import spread
from fatpatch.scan.tarball_library import TarLibrary, cuda_library

_LEAST: Final = 256 << 10
"""A shorter file is read whole."""

BLOCK: Final = 4 << 10
"""In such blocks it is fetched."""

_BUDGET: Final = 4_400_000


def sampled_tarball(source: Source, name: str, ratios: Ratios) -> SampledTree | None:
    """Samples of a .tgz, whose tree has no members where it has no CUDA modules; None where it must be read whole.

    ``ratios``: what was learned of other archives of the same release. As of wheels, AMD's code is not looked at.
    """
    if source.size < _LEAST:
        return None
    budget = Budget(_BUDGET, BLOCK)
    try:
        libraries = _libraries(PackedTar(source, budget, ratios))
    except FatpatchError:
        return None
    if libraries is None:
        return None
    samples = sampled_libraries(libraries, budget, name, _read)
    if samples is None:
        return None
    root = Node(name, name, source.size, ContainerKind.TAR, "", samples.nodes, (), (), member_count=len(samples.nodes))
    return SampledTree(root, samples.read, samples.modules)


def _read(library: PackedLibrary, places: ModulePlaces, budget: Budget) -> PackedModules | None:
    modules = FewModules(library, places, budget)
    modules.bound()
    modules.run()
    return modules if modules.stand_for_all() else None


def _libraries(tar: PackedTar) -> list[TarLibrary] | None:
    """The libraries with CUDA modules; None where the members are not known, or one is an archive itself."""
    members = tar.members()
    if members is None or any(ARCHIVE.search(each.name) for each in members):
        return None
    named = [each for each in members if LIBRARY.search(each.name) and each.size]
    found = (cuda_library(tar, named[index]) for index in spread([each.name for each in named]))
    return [each for each in found if each is not None]
