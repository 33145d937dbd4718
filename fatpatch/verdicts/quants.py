"""Which kernels of a ggml program a model's tensor types lead to on a device (reference: llamafile, section 4).

The host picks the road by the compute capability that it decides by (610 for 6.1). Known for certain are the programs of 2023 and 24;
of newer ones only the two kernels that multiply quantised matrices.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.gguf.read import TENSOR_TYPES
from fatpatch.hostcode.family import MID_2024, PER_TYPE

VECTOR: Final = "multiplies by a few columns (every token)"
MATRIX: Final = "multiplies by many columns (the prompt)"
OLD_VECTOR: Final = "multiplies without integer dot products (every token)"
UNPACK: Final = "unpacks for the general multiplication"
ALWAYS: Final = "every model"

_DOT_PRODUCTS_FROM: Final = 610
_HALF_FROM: Final = 700
_QUANT = r"(iq\d_(?:xxs|xs|nl|s|m)|q\d_[01kK])"
_NUMBER = r"\d{1,4}"
_PATTERNS: Final = (
    (VECTOR, lazy_pattern(rf"_Z13mul_mat_vec_qILi{_NUMBER}ELi(?P<block>{_NUMBER})E(?:Li{_NUMBER}E{_NUMBER}block_{_QUANT})?")),
    (VECTOR, lazy_pattern(r"_Z\w{0,8}?(?:13mul_mat_vec_q|17mul_mat_vec_q_moe)IL9ggml_type(?P<code>\d{1,4})E")),
    (MATRIX, lazy_pattern(rf"_Z{_NUMBER}mul_mat_{_QUANT}ILb")),
    (MATRIX, lazy_pattern(r"_Z\w{0,8}?9mul_mat_qIL9ggml_type(?P<code>\d{1,4})E")),
    (OLD_VECTOR, lazy_pattern(rf"_Z{_NUMBER}dequantize_mul_mat_vec_{_QUANT}")),
    (OLD_VECTOR, lazy_pattern(rf"_Z22dequantize_mul_mat_vecI.*dequantize_{_QUANT}")),
    (UNPACK, lazy_pattern(rf"_Z{_NUMBER}dequantize_block_{_QUANT}")),
    (UNPACK, lazy_pattern(rf"_Z16dequantize_blockI.*dequantize_{_QUANT}")),
    (
        ALWAYS,
        lazy_pattern(
            r"_Z\w{0,6}?\d{1,4}(?:k_get_rows|(?:rms_)?norm_f32|rope\w*|soft_max_f32|[gs][ie]lu_f32|scale_f32|cpy_f32_f16|k_bin_bcast)"
        ),
    ),
)
_FAMILIES: Final = (  # kernels, where their bodies change, from where on the host launches them: builds of llamafile 0.8.1, its source
    (lazy_pattern(r"_Z\w{0,8}?13mul_mat_vec_qI"), (610,), 610),
    (lazy_pattern(r"_Z\w{0,8}?(?:9mul_mat_qI|\d{1,4}mul_mat_(?:iq|q)\d_\w+?ILb)"), (610, 700), 610),
    (lazy_pattern(r"_Z\w{0,8}?18flash_attn_ext_f16I"), (700,), 700),
    (lazy_pattern(r"_Z\w{0,8}?\d{1,4}flash_attn_(?:vec_ext_f16|tile_ext_f16|combine_results)I"), (600,), 600),
    (lazy_pattern(r"_Z25dequantize_block_q8_0_f16"), (600,), 700),
)
_HALF = lazy_pattern(r"6__half|_f16")
_QUANTISER = lazy_pattern(r"_Z\w{0,6}?13quantize_q8_1|_Z\w{0,6}?17quantize_mmq_q8_1")
_BLOCKS = {32: frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"})}
_KNOWN_TYPES = frozenset(TENSOR_TYPES.values())
_WITH_MMQ = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"})
PLAIN_TYPES: Final = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


class Role(NamedTuple):
    """What a kernel does in a multiplication: ``quants`` are the tensor types that it is for."""

    role: str
    quants: frozenset[str]


@functools.lru_cache(maxsize=16384)
def role_of(name: str) -> Role | None:
    """The role of a mangled kernel name; None for kernels that no model of a certain type is known to need."""
    if _QUANTISER.match(name):
        return Role(VECTOR, frozenset())  # of every quantised type
    for role, pattern in _PATTERNS:
        if found := pattern.match(name):
            return Role(role, frozenset(_quants(found)))
    return None


def _quants(found: re.Match[str]) -> Iterator[str]:
    groups = found.groupdict()
    if groups.get("code") is not None:
        yield TENSOR_TYPES.get(int(groups["code"]), f"type {groups['code']}")
        return
    named = next((group for group in found.groups() if group and not group.isdigit()), None)
    if named is not None:
        yield named.upper()
    elif groups.get("block") is not None:
        yield from _BLOCKS.get(int(groups["block"]), ())


def launched(names: Iterable[str], quants: frozenset[str], capability: int, era: str) -> dict[str, str]:
    """Kernel name -> its role, for those that a model with these tensor types launches.

    ``capability`` is what the host decides by, times 100 (610).
    """
    quantised = frozenset(quant for quant in quants - PLAIN_TYPES if quant in _KNOWN_TYPES)
    decided: dict[tuple[Role, bool], bool] = {}
    found = {}
    for name in names:
        role = role_of(name)
        if role is None:
            continue
        key = (role, bool(_HALF.search(name)))
        if key not in decided:
            hit = quantised & role.quants if role.quants else quantised
            decided[key] = role.role == ALWAYS or any(_taken(role.role, quant, key[1], capability, era) for quant in hit)
        if decided[key]:
            found[name] = role.role
    return found


def _taken(role: str, quant: str, half: bool, capability: int, era: str) -> bool:
    """Whether the host takes this road for a tensor type; of many columns it unpacks all but what mul_mat_q takes on exactly 6.1."""
    if role == UNPACK:
        wanted = half == (capability >= _HALF_FROM)
        return era == PER_TYPE and wanted and (capability != _DOT_PRODUCTS_FROM or quant not in _WITH_MMQ)
    if capability >= _DOT_PRODUCTS_FROM:
        return role == VECTOR or (role == MATRIX and (quant in _WITH_MMQ or era != PER_TYPE))
    return role == OLD_VECTOR and era == PER_TYPE


class Roads(NamedTuple):
    """What a program has kernels for: tensor types at all, and those that it can multiply without integer dot products."""

    types: frozenset[str]
    below: frozenset[str]
    bfloat16: bool


def roads_of(names: Iterable[str]) -> Roads:
    """The roads that a program's kernels make up."""
    types: set[str] = set()
    below: set[str] = set()
    bfloat16 = False
    for name in names:
        role = role_of(name)
        if role is not None:
            types |= role.quants
            below |= role.quants if role.role == OLD_VECTOR else frozenset()
        bfloat16 = bfloat16 or "bf16" in name or "bfloat16" in name
    return Roads(frozenset(types), frozenset(below), bfloat16)


def why_unsupported(roads: Roads, quant: str, capability: int, era: str) -> str | None:
    """Why a program cannot run a tensor type on a device at all; None when it can, or when that is not known."""
    if not roads.types or (quant in PLAIN_TYPES and quant != "BF16"):
        return None
    if quant == "BF16":
        return None if era != PER_TYPE or roads.bfloat16 else "the program has no kernels for BF16"
    if quant not in roads.types:
        return f"the program has no kernels for {quant}"
    if era == PER_TYPE and capability < _DOT_PRODUCTS_FROM and roads.below and quant not in roads.below:
        return f"the host has no road for {quant} below 6.1, and stops"
    return None


def needs_capability(name: str, era: str) -> int | None:
    """The capability from which on a host of 2023 or 24 launches a kernel, times 100; None when that is not known."""
    if era not in (PER_TYPE, MID_2024):
        return None
    return next((number for pattern, _, number in _FAMILIES if pattern.match(name)), None)


def steps_of(name: str, era: str) -> tuple[int, ...] | None:
    """The capabilities at which the body of a kernel changes; empty where it never does, None where that is not known."""
    if era != PER_TYPE:
        return None
    return next((steps for pattern, steps, _ in _FAMILIES if pattern.match(name)), ())


def quants_in(names: Iterable[str]) -> tuple[str, ...]:
    """The quantised tensor types that a program has kernels of their own for, in the order of their numbers."""
    roles = [role for name in names if (role := role_of(name)) is not None]
    known = {quant for role in roles if len(role.quants) == 1 for quant in role.quants}
    return tuple(name for name in TENSOR_TYPES.values() if name in known)
