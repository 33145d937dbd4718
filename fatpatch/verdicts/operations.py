"""Which operations fail where some modules have no code for the device: their kernels by what their names say they compute."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple

_OPERATIONS: Final = (
    ("attention", lazy_pattern(r"flash|fmha|attention|attn|(?<![a-z])mla(?![a-z])", re.IGNORECASE)),
    ("mixture of experts", lazy_pattern(r"moe|expert|grouped_?gemm", re.IGNORECASE)),
    ("communication", lazy_pattern(r"nccl|all_?reduce|all_?gather|all2all|(?<![a-z])deep_?ep", re.IGNORECASE)),
    ("convolution", lazy_pattern(r"conv(?!ert)|wgrad|dgrad|implicit_gemm", re.IGNORECASE)),
    ("matrix multiplication", lazy_pattern(r"gemm|gemv|matmul|mul_mat|contraction|cutlass|marlin|(?<![a-z])mma(?![a-z])", re.IGNORECASE)),
    ("linear algebra", lazy_pattern(r"magma|potr[fs]|getr[fs]|trs[mv]|geqrf|syevd|herk|syrk|trmm|batched.*inverse", re.IGNORECASE)),
    ("FFT", lazy_pattern(r"(?<![a-z])(?:cu)?fft", re.IGNORECASE)),
    ("normalization", lazy_pattern(r"norm", re.IGNORECASE)),
    ("quantization", lazy_pattern(r"quant", re.IGNORECASE)),
    ("sparse matrices", lazy_pattern(r"spmm|spmv|csr|coo2|sparse", re.IGNORECASE)),
    ("sorting and selection", lazy_pattern(r"sort|top_?k|scan|radix|select", re.IGNORECASE)),
    ("random numbers", lazy_pattern(r"rand|philox|dropout", re.IGNORECASE)),
    ("embedding", lazy_pattern(r"embedding|rotary|(?<![a-z])rope(?![a-z])", re.IGNORECASE)),
    ("copies and elementwise operations", lazy_pattern(r"copy|fill|elementwise|transpose|reshape|pointwise", re.IGNORECASE)),
)
_HEAD_SIZE: Final = lazy_pattern(r"(?:hdim|head_?dim|_k)_?(\d{2,3})(?!\d)", re.IGNORECASE)
_TYPES: Final = (
    ("int8", lazy_pattern(r"(?<![a-z])s8(?![0-9])|int8|(?<![a-z0-9])i8(?![0-9])", re.IGNORECASE)),
    ("FP8", lazy_pattern(r"e4m3|e5m2|fp8|float8", re.IGNORECASE)),
    ("FP4", lazy_pattern(r"e2m1|fp4|float4_e", re.IGNORECASE)),
)
OTHER: Final = "other kernels"
"""The words for kernels whose names say nothing that is known here."""
_MAX_SIZES: Final = 4
_EMPTY: Final = "EmptyKernel"
"""CUB launches it to ask for its own target."""


class Operation(NamedTuple):
    """Modules whose kernels compute the same: ``words`` such as "attention for head size 128", how many, and a kernel's name."""

    words: str
    modules: int
    kernel: str


def operations(modules: Iterable[frozenset[str]], show: Callable[[str], str]) -> list[Operation]:
    """What the modules compute, each given by its kernels' names; most modules first. ``show`` demangles a name."""
    counts: dict[str, int] = {}
    sizes: dict[str, set[int]] = {}
    examples: dict[str, str] = {}
    for names in modules:
        if not names:
            continue
        words = _operation(names)
        counts[words] = counts.get(words, 0) + 1
        telling = [name for name in names if _word(name) == words.removeprefix(_type(names))] or list(names)
        examples.setdefault(words, show(min(telling, key=lambda name: (_EMPTY in name, len(name), name))))
        if words.endswith("attention"):
            sizes.setdefault(words, set()).update(int(size) for name in names for size in _HEAD_SIZE.findall(name))
    rows = [Operation(words + _for_sizes(sizes.get(words, set())), count, examples[words]) for words, count in counts.items()]
    return sorted(rows, key=lambda row: (row.words == OTHER, -row.modules, row.words))


def _operation(names: frozenset[str]) -> str:
    """What most kernels of a module compute, of equals the first of the table; with the type of number where all say the same."""
    votes = Counter(map(_word, names))
    word = max((word for word in (*(row[0] for row in _OPERATIONS), OTHER) if word in votes), key=votes.__getitem__)
    return f"{_type(names)}{word}" if word == "matrix multiplication" else word


def _word(name: str) -> str:
    return next((word for word, pattern in _OPERATIONS if pattern.search(name)), OTHER)


def _type(names: frozenset[str]) -> str:
    """``int8 `` where all names say so."""
    return next((f"{kind} " for kind, pattern in _TYPES if all(pattern.search(name) for name in names)), "")


def _for_sizes(sizes: set[int]) -> str:
    known = sorted(size for size in sizes if size % 8 == 0 and 16 <= size <= 576)
    if not known or len(known) > _MAX_SIZES:
        return ""
    return f" for head size{'s' if len(known) > 1 else ''} {', '.join(map(str, known))}"
