"""Which kernels of a ggml program a model's tensor types lead to on a device (reference: llamafile, section 4).

The host picks the road by the compute capability that it decides by (610 for 6.1). Known for certain are the programs of 2023 and 24;
of newer ones only the two kernels that multiply quantised matrices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fatpatch.containers.gguf import TENSOR_TYPES
from fatpatch.hosts.family import MID_2024, PER_TYPE

VECTOR: Final = "multiplies by a few columns (every token)"
MATRIX: Final = "multiplies by many columns (the prompt)"
OLD_VECTOR: Final = "multiplies without integer dot products (every token)"
UNPACK: Final = "unpacks for the general multiplication"
ALWAYS: Final = "every model"

_DOT_PRODUCTS_FROM: Final = 610
_MMQ_LIMITED_FROM: Final = 700
_QUANT = r"(iq\d_(?:xxs|xs|nl|s|m)|q\d_[01kK])"
_PATTERNS: Final = (
    (VECTOR, re.compile(rf"_Z13mul_mat_vec_qILi\d+ELi(?P<block>\d+)E(?:Li\d+E\d+block_{_QUANT})?")),
    (VECTOR, re.compile(r"_Z\w{0,8}?(?:13mul_mat_vec_q|17mul_mat_vec_q_moe)IL9ggml_type(?P<code>\d+)E")),
    (MATRIX, re.compile(rf"_Z\d+mul_mat_{_QUANT}ILb")),
    (MATRIX, re.compile(r"_Z\w{0,8}?9mul_mat_qIL9ggml_type(?P<code>\d+)E")),
    (OLD_VECTOR, re.compile(rf"_Z\d+dequantize_mul_mat_vec_{_QUANT}")),
    (OLD_VECTOR, re.compile(rf"_Z22dequantize_mul_mat_vecI.*dequantize_{_QUANT}")),
    (UNPACK, re.compile(rf"_Z\d+dequantize_block_{_QUANT}")),
    (UNPACK, re.compile(rf"_Z16dequantize_blockI.*dequantize_{_QUANT}")),
    (ALWAYS, re.compile(r"_Z\w{0,6}?\d+(?:k_get_rows|rms_norm_f32|rope_\w*|soft_max_f32|silu_f32|cpy_f32_f16|k_bin_bcast)")),
)
_THRESHOLDS: Final = (  # measured on shipped binaries: where a body is left out, and read from the source of the time
    (re.compile(r"_Z\w{0,8}?(?:13mul_mat_vec_qI|9mul_mat_qI|\d+mul_mat_(?:iq|q)\d_\w+?ILb)"), 610),
    (re.compile(r"_Z\w{0,8}?18flash_attn_ext_f16I"), 700),
    (re.compile(r"_Z\w{0,8}?\d+flash_attn_(?:vec_ext_f16|tile_ext_f16|combine_results)I"), 600),
    (re.compile(r"_Z25dequantize_block_q8_0_f16"), 600),
)
_QUANTISER = re.compile(r"_Z\w{0,6}?13quantize_q8_1|_Z\w{0,6}?17quantize_mmq_q8_1")
_BLOCKS = {32: frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"})}
_WITH_MMQ = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"})
PLAIN_TYPES: Final = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


class Role(NamedTuple):
    """What a kernel does in a multiplication: ``quants`` are the tensor types that it is for."""

    role: str
    quants: frozenset[str]


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
    found = {}
    quantised = quants - PLAIN_TYPES
    for name in names:
        role = role_of(name)
        if role is None:
            continue
        if role.role == ALWAYS:
            found[name] = ALWAYS
        elif (hit := quantised & role.quants if role.quants else quantised) and any(
            _taken(role.role, quant, capability, era) for quant in hit
        ):
            found[name] = role.role
    return found


def _taken(role: str, quant: str, capability: int, era: str) -> bool:
    """Whether the host takes this road for a tensor type. K-quants and others alike; IQ types have no road without dot products."""
    if capability >= _DOT_PRODUCTS_FROM:
        if role in (VECTOR, MATRIX):
            return role == VECTOR or quant in _WITH_MMQ or era != PER_TYPE
        return role == UNPACK and (capability >= _MMQ_LIMITED_FROM or quant not in _WITH_MMQ) and era == PER_TYPE
    return role in (OLD_VECTOR, UNPACK) and era == PER_TYPE


def needs_capability(name: str, era: str) -> int | None:
    """The capability from which on a host of 2023 or 24 launches a kernel, times 100; None when that is not known."""
    if era not in (PER_TYPE, MID_2024):
        return None
    return next((number for pattern, number in _THRESHOLDS if pattern.match(name)), None)


def quants_in(names: Iterable[str]) -> tuple[str, ...]:
    """The quantised tensor types that a program has kernels of their own for, in the order of their numbers."""
    roles = [role for name in names if (role := role_of(name)) is not None]
    known = {quant for role in roles if len(role.quants) == 1 for quant in role.quants}
    return tuple(name for name in TENSOR_TYPES.values() if name in known)
