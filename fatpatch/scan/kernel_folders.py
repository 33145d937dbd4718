"""Folders of kernel libraries: rocBLAS, hipBLASLt, hipSPARSELt (Tensile) and MIOpen, of whose files a program loads those for its GPU.

Sources: how ROCm 5 to 7 install them; rocBLAS issues 1267, 1331 and 1339; TheRock issue 5478 (a GPU without its index).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple

_PLACE = lazy_pattern(r"(?:\A|/)(rocblas|hipblaslt|hipsparselt)/library/(?:gfx[0-9a-z]{3,12}/)?[^/]+\Z|(?:\A|/)(miopen)/db/[^/]+\Z", re.I)
_PARENTS = ("/library/", "/db/")
_TENSILE = ("TensileLibrary_", "TensileLiteLibrary_", "Kernels.so-", "hipblasltTransform", "extop_")
_GFX = lazy_pattern(r"(?<![a-z0-9])gfx([0-9]{1,2}[0-9a-f]{2})((?:-?(?:xnack|sramecc)[+-])*)(?![0-9a-z])", re.I)
_LIBRARY = lazy_pattern(r"(?:lib)?(rocblas|hipblaslt|hipsparselt)(?:\.so(?:\.[0-9.]+)?|\.dll)\Z", re.I)
_OBJECT, _INDEX = (".co", ".hsaco"), (".dat", ".dat.zlib")
_NAMES = {"rocblas": "rocBLAS", "hipblaslt": "hipBLASLt", "hipsparselt": "hipSPARSELt", "miopen": "MIOpen"}
_NEEDED = lazy_pattern(
    r"(?:TensileLibrary_(?:lazy_)?\*\.dat(?:\.zlib)?|Kernels\.so-\d+-\*\.hsaco|extop_\*\.co|hipblasltTransform_\*\.hsaco)\Z"
)
"""Files without which a GPU's other files are of no use; the star stands for the GPU."""
_MAX_FILES = 200_000
TENSILE, MIOPEN = "Tensile", "MIOpen"


def root_of(detail: str) -> str:
    """Where the files of a node lie whose ``detail`` is ``rocBLAS kernels``: it was named itself, and its paths do not tell."""
    name = detail.removesuffix(" kernels").lower()
    return f"{name}/library" if name in _NAMES and name != detail.lower() else ""


class TargetFiles(NamedTuple):
    """The files of one processor: how many, and the names of those that others have as a rule and it lacks."""

    target: str
    files: int
    missing: tuple[str, ...]


class KernelFolder(NamedTuple):
    """One folder: whose it is (Tensile where its name does not say), its path, what is there by processor, its first code object."""

    library: str
    folder: str
    targets: tuple[TargetFiles, ...]
    first: str = ""

    def of(self, processor: str) -> TargetFiles | None:
        """What is there for a processor such as gfx1030."""
        return next((each for each in self.targets if each.target == processor), None)


def is_kernel_file(path: str) -> bool:
    """Whether a file is one of a kernel library, by its path."""
    if path.rpartition("/")[2].startswith(_TENSILE):
        return True
    lower = path.lower()
    return any(parent in lower for parent in _PARENTS) and _PLACE.search(path) is not None


def is_object(path: str) -> bool:
    """Whether a file of a kernel library is a code object, by its name."""
    return path.endswith(_OBJECT)


def folder_of(path: str) -> str:
    """The folder of a kernel library that a file lies in, without the part for one GPU."""
    folder = path.rpartition("/")[0]
    last = folder.rpartition("/")[2]
    return folder.rpartition("/")[0] if _GFX.fullmatch(last) else folder


def beside(path: str) -> tuple[str, ...]:
    """Of a library on this machine the files of its folder of kernels, of a file in such a folder all files there.

    Their paths are below the folder of the library, or below the folder itself.
    """
    name = os.path.basename(path)
    if name.lower().removeprefix("lib").startswith(tuple(_NAMES)) and (found := _LIBRARY.match(name)) is not None:
        home, place = os.path.dirname(os.path.realpath(path)), f"{found[1].lower()}/library"
    elif is_object(path) and is_kernel_file(path.replace(os.sep, "/")):
        home, place = folder_of(os.path.abspath(path).replace(os.sep, "/")), ""
    else:
        return ()
    try:
        return _files_in(home, place, os.stat(os.path.join(home, place)).st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=4)
def _files_in(home: str, place: str, _changed: int) -> tuple[str, ...]:
    """The files of a folder of kernels, and of those in it for one GPU; kept, since each of thousands asks for its siblings."""
    names: list[str] = []
    root = os.path.join(home, place) if place else home
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, home).replace(os.sep, "/")
        names += [name if here == "." else f"{here}/{name}" for name in sorted(files)]
        folders[:] = sorted(each for each in folders if _GFX.fullmatch(each)) if folder == root else []
    return tuple(names[:_MAX_FILES])


def kernel_folders(paths: Iterable[str], root: str = "") -> list[KernelFolder]:
    """The folders of kernel libraries that some paths make; ``root``: where they lie, which may say whose they are."""
    return list(_folders(tuple(paths), root))


@functools.lru_cache(maxsize=8)
def _folders(paths: tuple[str, ...], root: str) -> tuple[KernelFolder, ...]:
    groups: dict[str, list[str]] = {}
    for count, path in enumerate(paths):
        if count < _MAX_FILES and is_kernel_file(f"{root}/{path}"):
            groups.setdefault(folder_of(path), []).append(path)
    found = []
    for folder, files in sorted(groups.items()):
        place = _PLACE.search(f"{root}/{files[0]}")
        name = TENSILE if place is None else _NAMES[(place[1] or place[2]).lower()]
        targets = tuple(_by_target(files, complete=name != MIOPEN))
        if targets:
            found.append(KernelFolder(name, folder, targets, min(filter(is_object, files), default="")))
    return tuple(found)


def _by_target(paths: list[str], *, complete: bool) -> Iterator[TargetFiles]:
    """What each processor has, beside its siblings."""
    stems: dict[str, dict[str, str]] = {}
    counts: dict[str, int] = {}
    for path in paths:
        name = path.rpartition("/")[2]
        target = _GFX.search(name)
        if target is None:
            continue
        processor = f"gfx{target[1].lower()}"
        counts[processor] = counts.get(processor, 0) + 1
        stems.setdefault(processor, {}).setdefault(f"{name[: target.start()]}*{name[target.end() :]}", name)
    everything = {stem for own in stems.values() for stem in own}
    for processor in sorted(counts, key=lambda name: (len(name), name)):
        own = stems[processor]
        missing = sorted(_missing(own.keys(), stems, everything)) if complete else []
        yield TargetFiles(processor, counts[processor], tuple(stem.replace("*", processor, 1) for stem in missing))


def _missing(own: Iterable[str], stems: dict[str, dict[str, str]], everything: set[str]) -> set[str]:
    """The files that a processor lacks: those that are always needed, and the other half of a pair that others have whole."""
    mine = set(own)
    lacking = {stem for stem in everything - mine if _NEEDED.match(stem) and not _has_other_index(stem, mine)}
    for stem in mine:
        base, ending = _split(stem)
        for other in _OBJECT if ending in _INDEX else _INDEX:
            partner = base + other
            whole = any(stem in each and partner in each for each in stems.values())
            if whole and not any(base + each in mine for each in (_OBJECT if ending in _INDEX else _INDEX)):
                lacking.add(partner)
    return lacking


def _has_other_index(stem: str, mine: set[str]) -> bool:
    """Whether a processor has an index of another form (lazy or whole, compressed or plain)."""
    return stem.startswith("TensileLibrary_") and any(each.startswith("TensileLibrary_") and _NEEDED.match(each) for each in mine)


def _split(stem: str) -> tuple[str, str]:
    ending = next((each for each in (*_INDEX[::-1], *_OBJECT) if stem.endswith(each)), "")
    return stem.removesuffix(ending) if ending else stem, ending
