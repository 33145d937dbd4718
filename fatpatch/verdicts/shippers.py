"""Who ships a library, and what its user can do there: rebuild with the project's own switch, or pin another release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.linking import TORCH, mentions
from fatpatch.verdicts.nvidias import NAMES
from fatpatch.verdicts.rebuilds import limit_of, toolkit_for
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict, Judged


class Shipper(NamedTuple):
    """``command``: how to build for one architecture, with {arch} (61), {dotted} (6.1), {target} (sm_61) and {package} in it; None where
    only another release helps. ``rebuilds``: whether nvcc's own options are worth a word, too.
    """

    name: str
    command: str | None
    words: str
    rebuilds: bool = False


_BY_PATH: Final = (
    (
        NAMES,
        Shipper("NVIDIA", None, "NVIDIA's libraries come compiled: pin an older release of {package} that has code for this GPU"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:lib)?torch/lib/|(?:^|/)(?:lib)?torch_(?:cuda|hip)\w*\.(?:so|dll)"),
        Shipper("PyTorch", 'TORCH_CUDA_ARCH_LIST="{dotted}" python setup.py bdist_wheel',
                "a checkout of PyTorch builds for the capabilities in this variable; another wheel of pytorch.org may have them"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:jaxlib|jax_cuda\d*_plugin|jax_plugins|xla_extension)"),
        Shipper("JAX", "python build/build.py build --wheels=jaxlib,jax-cuda-plugin --cuda_compute_capabilities={target}",
                "JAX builds for the capabilities that it is told"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:tensorflow|tf_)"),
        Shipper("TensorFlow", "export TF_CUDA_COMPUTE_CAPABILITIES={dotted}; ./configure",
                "TensorFlow builds for the capabilities that it is told"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:cupy|cupyx)"),
        Shipper("CuPy", 'CUPY_NVCC_GENERATE_CODE="arch=compute_{arch},code=sm_{arch}" pip install --no-binary cupy cupy',
                "CuPy builds its own kernels for the targets in this variable"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:triton)/"),
        Shipper("Triton", None, "Triton compiles its kernels itself: take a release that supports this GPU"),
    ),
    (
        lazy_pattern(r"(?:^|/)(?:node-llama-cpp|node_modules|llamaBins|bins)/"),
        Shipper("a node package", "npx node-llama-cpp source build --gpu cuda", "it compiles llama.cpp on this machine, for its GPU"),
    ),
)  # fmt: skip
_TORCH: Final = Shipper(
    "a PyTorch extension",
    'TORCH_CUDA_ARCH_LIST="{dotted}" pip install --no-binary {package} --no-build-isolation {package}',
    "PyTorch extensions build for the capabilities in this variable",
)
_DROPPED: Final = ((lazy_pattern(r"nvidia-cudnn-cu"), 70, "9.10", "9.11"),)
"""Package, the newest SM number that it dropped, the last release with code for it, the first without (cuDNN 9.11 release notes)."""


def shipper(modules: Sequence[Judged]) -> Shipper | None:
    """Who ships the library of the modules; None where nothing tells."""
    if not modules or modules[0].host.family is not None:
        return None
    node = modules[0].node
    path = node.path.replace("\\", "/")
    for pattern, found in _BY_PATH:
        if pattern.search(path):
            return found
    return _TORCH if mentions(node, TORCH) else None


def by_shipper(found: Shipper | None, verdict: FileVerdict) -> Iterator[Remedy]:
    """What a user of the shipper's library can do."""
    device = verdict.environment.device
    if found is None or device.arch is None:
        return
    package = _package(verdict.node.path) or "PACKAGE"
    if found.command is None:
        words = found.words.format(package=package if package != "PACKAGE" else "its package")
        pinned = _last_release(package, device.arch) if found.name == "NVIDIA" else None
        if pinned is not None:
            yield Remedy(
                "an older release", f'pip install "{package}<{pinned[1]}"', True, f"{pinned[0]} is the last with code for this GPU"
            )
        else:
            yield Remedy("an older release" if found.name == "NVIDIA" else f"another release of {found.name}", None, None, words)
        return
    newest = toolkit_for(verdict)
    last = "" if newest is None else limit_of(verdict, newest)
    dotted = f"{device.arch // 10}.{device.arch % 10}"
    command = found.command.format(arch=device.arch, dotted=dotted, target=f"sm_{device.arch}", package=package)
    yield Remedy(f"rebuild it ({found.name})", command, True, f"{found.words}{last}")


def _package(path: str) -> str | None:
    """``flash-attn`` of a wheel's name; None where the file is none."""
    found = re.match(r"([A-Za-z0-9_.]+)-\d[^-]*-.*\.whl\Z", file_name(path))
    return found[1].replace("_", "-") if found else None


def _last_release(package: str, arch: int) -> tuple[str, str] | None:
    """(the last release of a package with code for an SM number, the first without); None where it is not known."""
    return next(((last, first) for name, newest, last, first in _DROPPED if name.match(package) and arch <= newest), None)
