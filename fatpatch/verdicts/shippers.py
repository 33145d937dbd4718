"""Who ships a library, and what its user can do there: rebuild with the project's own switch, or pin another release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fatpatch.gpus.toolkits import is_newest, newest_toolkit_for
from fatpatch.hosts.linking import mentions
from fatpatch.verdicts.judged import FileVerdict, Judged
from fatpatch.verdicts.nvidias import NAMES
from fatpatch.verdicts.remedy import Remedy


class Shipper(NamedTuple):
    """``command``: how to build for one architecture, with {arch} (61), {dotted} (6.1) and {target} (sm_61) in it; None where only another
    release helps. ``rebuilds``: whether nvcc's own options are worth a word, too.
    """

    name: str
    command: str | None
    words: str
    rebuilds: bool = False


_BY_PATH: Final = (
    (
        NAMES,
        Shipper("NVIDIA", None, "NVIDIA's libraries come compiled: pin the last release that has code for this GPU"),
    ),
    (
        re.compile(r"(?:^|/)(?:jaxlib|jax_cuda\d*_plugin|jax_plugins|xla_extension)"),
        Shipper("JAX", "python build/build.py build --wheels=jaxlib,jax-cuda-plugin --cuda_compute_capabilities={target}",
                "JAX builds for the capabilities that it is told"),
    ),
    (
        re.compile(r"(?:^|/)(?:tensorflow|tf_)"),
        Shipper("TensorFlow", "export TF_CUDA_COMPUTE_CAPABILITIES={dotted}; ./configure",
                "TensorFlow builds for the capabilities that it is told"),
    ),
    (
        re.compile(r"(?:^|/)(?:cupy|cupyx)"),
        Shipper("CuPy", 'CUPY_NVCC_GENERATE_CODE="arch=compute_{arch},code=sm_{arch}" pip install --no-binary cupy cupy',
                "CuPy builds its own kernels for the targets in this variable"),
    ),
    (
        re.compile(r"(?:^|/)(?:triton)/"),
        Shipper("Triton", None, "Triton compiles its kernels itself: take a release that supports this GPU"),
    ),
    (
        re.compile(r"(?:^|/)(?:node-llama-cpp|node_modules|llamaBins|bins)/"),
        Shipper("a node package", "npx node-llama-cpp source build --gpu cuda", "it compiles llama.cpp on this machine, for its GPU"),
    ),
)  # fmt: skip
_TORCH: Final = Shipper(
    "a PyTorch extension",
    'TORCH_CUDA_ARCH_LIST="{dotted}" pip install --no-binary :all: --no-build-isolation PACKAGE',
    "PyTorch extensions build for the capabilities in this variable",
)
_TORCH_NAMES: Final = (b"libtorch", b"libc10", b"torch_cuda.dll", b"c10.dll", b"torch_python")


def shipper(modules: Sequence[Judged]) -> Shipper | None:
    """Who ships the library of the modules; None where nothing tells."""
    if not modules or modules[0].host.family is not None:
        return None
    node = modules[0].node
    path = node.path.replace("\\", "/")
    for pattern, found in _BY_PATH:
        if pattern.search(path):
            return found
    return _TORCH if mentions(node, _TORCH_NAMES) else None


def by_shipper(found: Shipper | None, verdict: FileVerdict) -> Iterator[Remedy]:
    """What a user of the shipper's library can do."""
    device = verdict.environment.device
    if found is None or device.arch is None:
        return
    if found.command is None:
        yield Remedy(f"another release of {found.name}", None, None, found.words)
        return
    newest = newest_toolkit_for(device.target)
    last = "" if newest is None or is_newest(newest) else f"; CUDA {newest} is the last toolkit that can"
    command = found.command.format(arch=device.arch, dotted=f"{device.arch // 10}.{device.arch % 10}", target=f"sm_{device.arch}")
    yield Remedy(f"rebuild it ({found.name})", command, True, f"{found.words}{last}")
