"""Libraries that must lie beside a file: whether its archive has them, and which package does (sources: NVIDIA's packages on PyPI)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fatpatch.base.locator import file_name
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.beside import Beside, libraries_beside
from fatpatch.model.tree import Node

_PACKAGES: Final = {
    "cublas": "cublas", "cublasLt": "cublas", "cudart": "cuda-runtime", "nvrtc": "cuda-nvrtc", "cudnn": "cudnn", "cufft": "cufft",
    "curand": "curand", "cusparseLt": "cusparselt", "cusparse": "cusparse", "cusolver": "cusolver", "nccl": "nccl",
    "nvJitLink": "nvjitlink", "cupti": "cuda-cupti", "nvToolsExt": "nvtx", "cufile": "cufile", "nvshmem_host": "nvshmem",
    "nvjpeg": "nvjpeg",
}  # fmt: skip
_OF_CUDA: Final = frozenset({"cublas", "cublasLt", "cudart", "nvrtc", "nvJitLink"})
"""Libraries whose major version is that of CUDA."""
_ALWAYS_SUFFIXED: Final = frozenset({"cudnn", "nccl", "cusparseLt", "nvshmem_host"})
"""Libraries whose packages end in -cu13 for CUDA 13 too; those of the toolkit lost their suffix with it."""
_FIRST_PLAIN: Final = 13


class Needed(NamedTuple):
    """A library that a file loads. ``here``: it is in the same archive; ``package``: what pip installs it with, empty when not known."""

    library: Beside
    here: bool
    package: str


def needed(root: Node, nodes: Sequence[Node], others: frozenset[str] = frozenset()) -> tuple[Needed, ...]:
    """What the libraries ``nodes`` of a file load, each name once, what is missing first.

    ``others``: names of further files that are there, in small letters.
    """
    there = {file_name(name.replace("\\", "/")).lower() for name in _members(root)} | others
    rows: dict[str, Needed] = {}
    for node in nodes:
        found = libraries_beside(node)
        cuda = max((version for each in found if each.base in _OF_CUDA and (version := _major(each.name))), default=None)
        for each in found:
            if each.name not in rows or (each.imported and not rows[each.name].library.imported):
                rows[each.name] = Needed(each, _is_there(each.name, there), _package(each, cuda))
    return tuple(sorted(rows.values(), key=lambda row: (row.here, not row.library.imported, row.library.name)))


def _members(node: Node) -> Iterator[str]:
    for member in node.members:
        yield member.path
        yield from _members(member)


def _is_there(name: str, there: set[str]) -> bool:
    """Whether a file of the name is there; auditwheel puts a digest into it: libcudart-9335f6a2.so.12.8.90 for libcudart.so.12."""
    wanted = re.compile(re.escape(name.lower()).replace(r"\.so", r"(?:-[0-9a-f]{8})?\.so", 1) + r"(?:\.\d+)*")
    return any(wanted.fullmatch(each) for each in there)


def _major(name: str) -> int | None:
    found = re.search(r"\.so\.(\d+)|64_(\d+)", name)
    if found is None:
        return None
    number = int(found[1] or found[2])
    return number // 10 if number >= 100 else number  # cudart64_110.dll


def _package(library: Beside, cuda: int | None) -> str:
    name = _PACKAGES.get(library.base)
    if name is None or cuda is None:
        return ""
    suffix = "" if cuda >= _FIRST_PLAIN and library.base not in _ALWAYS_SUFFIXED else f"-cu{cuda}"
    return f"nvidia-{name}{suffix}"
