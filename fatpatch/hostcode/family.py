"""Host programs that are known to choose kernels by the device: the ggml family (llama.cpp, llamafile, whisper.cpp and what embeds them).

Its strings and kernel names tell how it decides. Up to 2024 by the device's compute capability, against constants; since February 2025
by the highest entry of its own list of targets that is not above the device's (llama.cpp pull request 11775).
"""

from __future__ import annotations

from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.arch_list import arch_list
from fatpatch.hostcode.code import read_host
from fatpatch.hostcode.constants import find_texts
from fatpatch.hostcode.linking import TORCH, mentions
from fatpatch.model.tree import Node

PER_TYPE: Final = "2023-24 (MMQ per type)"
MID_2024: Final = "mid 2024"
ARCH_LIST: Final = "2025 on (arch list decides)"
UNKNOWN_ERA: Final = "unknown"

_FORCE_MMQ = b"GGML_CUDA_FORCE_MMQ:"
_TENSOR_CORES = b"CUDA_USE_TENSOR_CORES:"
_ARCH_LIST_DECIDES = b"compiled with any CUDA arch <= "
_OWN = (b"ggml-cuda.cu", b"GGML_CUDA_MAX_DEVICES", b"GGML_CUDA_NO_PINNED", _FORCE_MMQ, _TENSOR_CORES, _ARCH_LIST_DECIDES)
_ALSO = (b"ggml_cuda_init", b"ggml_init_cublas", b"ggml_backend_cuda")
_KERNELS = (
    ("a mul_mat_q kernel for each quantisation", lazy_pattern(r"_Z\d+mul_mat_q[2-8]_[01K]ILb"), PER_TYPE),
    ("mul_mat_vec_q with the block type as argument", lazy_pattern(r"_Z13mul_mat_vec_qI.*block_i?q"), PER_TYPE),
    ("mul_mat_q with the type as argument", lazy_pattern(r"_Z9mul_mat_qIL9ggml_type"), MID_2024),
    ("mul_mat_vec_q with the type as argument", lazy_pattern(r"_Z13mul_mat_vec_qIL9ggml_type"), MID_2024),
    ("mul_mat_f", lazy_pattern(r"_Z\w{0,8}9mul_mat_fI"), ARCH_LIST),
    ("flash_attn_tile", lazy_pattern(r"_Z15flash_attn_tileI"), ARCH_LIST),
    ("mul_mat_vec_q_moe", lazy_pattern(r"_Z17mul_mat_vec_q_moe"), ARCH_LIST),
    ("mul_mat_vec_q", lazy_pattern(r"_Z13mul_mat_vec_q"), None),
    ("quantize_q8_1", lazy_pattern(r"_Z\w{0,4}13quantize_q8_1"), None),
    ("dequantize_block", lazy_pattern(r"_Z\w{0,4}16dequantize_block"), None),
)
_ORDER = (PER_TYPE, MID_2024, ARCH_LIST)


class Family(NamedTuple):
    """What a host program is. ``era`` is how old its code is, ``evidence`` in words what shows it.

    ``arch_list`` is what it was compiled for (610 for 6.1), None when it does not say. ``force_mmq`` is the setting it was compiled with,
    as it would print it, None when it has no such print. ``uses_arch_list``: it decides by its list, not by the device alone.
    """

    project: str
    era: str
    evidence: tuple[str, ...]
    arch_list: tuple[int, ...] | None
    force_mmq: bool | None
    uses_arch_list: bool


def family(node: Node, names: frozenset[str]) -> Family | None:
    """The family of the host code of one file with the kernels ``names``; None when it is not known to fatpatch."""
    host, _ = read_host(node)
    texts = find_texts(host, (*_OWN, *_ALSO)) if host is not None else {}
    kernels = [(words, era) for words, pattern, era in _KERNELS if any(pattern.match(name) for name in names)]
    own = [needle for needle in _OWN if needle in texts]
    if not own and (
        len(kernels) < 2 or mentions(node, TORCH)
    ):  # PyTorch extensions have copies of such kernels, with host code of their own
        return None
    decides = _ARCH_LIST_DECIDES in texts
    eras = {era for _, era in kernels if era is not None} | ({ARCH_LIST} if decides else set())
    era = max(eras, key=_ORDER.index, default=UNKNOWN_ERA)
    found = [f'string "{_shown(needle)}"' for needle in (*_OWN, *_ALSO) if needle in texts]
    evidence = (*found, *(f"kernels: {words}" for words, _ in kernels))
    listed = arch_list(node)
    by_list = decides or (era == ARCH_LIST and listed is not None)  # programs of that time decide by the list that they print
    return Family("ggml", era, evidence, listed, _setting(texts.get(_FORCE_MMQ, ())), by_list)


def _setting(texts: tuple[bytes, ...]) -> bool | None:
    """What the printed line says; None when it is missing or there are both."""
    said = {word for text in texts if (word := text.partition(b":")[2].strip()) in (b"yes", b"no")}
    return said == {b"yes"} if len(said) == 1 else None


def _shown(needle: bytes) -> str:
    return needle.decode("ascii").rstrip(": ")
