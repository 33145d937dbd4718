"""Kernel names of ggml to their part in a model, against names taken from shipped binaries."""

from __future__ import annotations

import pytest

from fatpatch.hostcode.family import ARCH_LIST, MID_2024, PER_TYPE
from fatpatch.verdicts.quants import (
    ALWAYS,
    MATRIX,
    OLD_VECTOR,
    UNPACK,
    VECTOR,
    launched,
    needs_capability,
    quants_in,
    roads_of,
    role_of,
    steps_of,
    why_unsupported,
)

INTERNAL = "XadL_ZN43_INTERNAL_35386c5a_12_ggml_cuda_cu_fe7a8db3"
MMVQ_Q8 = f"_Z13mul_mat_vec_qILi1ELi32ELi8E10block_q8_0Li2E{INTERNAL}17vec_dot_q8_0_q8_1EPKvPK10block_q8_1RKiEEvS1_S1_Pfiiii"
MMVQ_Q6K = f"_Z13mul_mat_vec_qILi1ELi256ELi32E10block_q6_KLi1E{INTERNAL}17vec_dot_q6_K_q8_1EPKvPK10block_q8_1RKiEEvS1_S1_Pfiiii"
MMVQ_IQ2 = f"_Z13mul_mat_vec_qILi1ELi256ELi8E13block_iq2_xxsLi1E{INTERNAL}20vec_dot_iq2_xxs_q8_1EPKvPK10block_q8_1RKiEEvS1_S1_Pfiiii"
MMVQ_NEW = "_Z13mul_mat_vec_qIL9ggml_type8ELi1EEvPKvS2_Pfiiii"
MMQ_Q8 = "_Z12mul_mat_q8_0ILb1EEvPKvS1_Pfiiiii"
MMQ_NEW = "_Z9mul_mat_qIL9ggml_type12ELi128ELi8ELb1EEvPKcS2_Pfiiiii"
DMMV_Q6K = "_Z27dequantize_mul_mat_vec_q6_kPKvPKfPfii"
DMMV_Q8 = f"_Z22dequantize_mul_mat_vecILi32ELi2E{INTERNAL}15dequantize_q8_0EPKviiR6float2EEvPKvPKfPfii"
DMMV_F16 = f"_Z22dequantize_mul_mat_vecILi1ELi1E{INTERNAL}11convert_f16EPKviiR6float2EEvPKvPKfPfii"
UNPACK_Q4K = "_Z21dequantize_block_q4_KI6__halfEvPKvPT_"
UNPACK_F32 = "_Z21dequantize_block_q4_KIfEvPKvPT_"
UNPACK_Q50 = f"_Z16dequantize_blockILi32ELi2E{INTERNAL}15dequantize_q5_0EPKviiR6float2E6__halfEvPKvPT2_l"
UNPACK_F16 = "_Z25dequantize_block_q8_0_f16ILb0EEvPKvP6__halfi"
DEMO = "_Z13mul_mat_vec_qILi1ELi32EEvPKiS1_Pfii"


@pytest.mark.parametrize(
    ("name", "role", "quants"),
    [
        (MMVQ_Q8, VECTOR, {"Q8_0"}),
        (MMVQ_Q6K, VECTOR, {"Q6_K"}),
        (MMVQ_IQ2, VECTOR, {"IQ2_XXS"}),
        (MMVQ_NEW, VECTOR, {"Q8_0"}),
        (MMQ_Q8, MATRIX, {"Q8_0"}),
        (MMQ_NEW, MATRIX, {"Q4_K"}),
        (DMMV_Q6K, OLD_VECTOR, {"Q6_K"}),
        (DMMV_Q8, OLD_VECTOR, {"Q8_0"}),
        (UNPACK_Q4K, UNPACK, {"Q4_K"}),
        (UNPACK_Q50, UNPACK, {"Q5_0"}),
        (UNPACK_F16, UNPACK, {"Q8_0"}),
        ("_Z13quantize_q8_1PKfPvii", VECTOR, set()),
        ("_Z8silu_f32PKfPfi", ALWAYS, set()),
        ("_Z12soft_max_f32ILb1ELi0ELi0EEvPKfS1_S1_Pfiiffffj", ALWAYS, set()),
    ],
)
def test_roles(name: str, role: str, quants: set[str]) -> None:
    found = role_of(name)
    assert found is not None
    assert (found.role, set(found.quants)) == (role, quants)


def test_names_without_a_role() -> None:
    for name in ("_Z14k_sum_rows_f32PKfPfi", "saxpy", DMMV_F16, "_Z13im2col_kernelI6__halfEvPKfPT_iiii", ""):
        assert role_of(name) is None, name
    assert "Q8_0" in role_of(DEMO).quants
    assert "Q6_K" not in role_of(DEMO).quants


ALL = [MMVQ_Q8, MMVQ_Q6K, MMVQ_IQ2, MMQ_Q8, DMMV_Q6K, DMMV_Q8, UNPACK_Q4K, UNPACK_F32, UNPACK_F16, "_Z8silu_f32PKfPfi"]


@pytest.mark.parametrize(
    ("quants", "capability", "expected"),
    [
        ({"Q8_0"}, 610, {MMVQ_Q8, MMQ_Q8}),
        ({"Q8_0"}, 750, {MMVQ_Q8, MMQ_Q8, UNPACK_F16}),
        ({"Q8_0"}, 600, {DMMV_Q8}),
        ({"Q8_0"}, 620, {MMVQ_Q8, MMQ_Q8}),
        ({"Q4_K"}, 620, {UNPACK_F32}),  # unlimited mul_mat_q on exactly 6.1 only; half precision from 7.0 on
        ({"Q4_K"}, 610, set()),
        ({"Q4_K"}, 860, {UNPACK_Q4K}),
        ({"Q6_K", "F32"}, 520, {DMMV_Q6K}),
        ({"IQ2_XXS"}, 610, {MMVQ_IQ2}),
        ({"F16", "F32"}, 610, set()),
    ],
)
def test_what_a_model_launches(quants: set[str], capability: int, expected: set[str]) -> None:
    found = launched(ALL, frozenset(quants), capability, PER_TYPE)
    assert found.pop("_Z8silu_f32PKfPfi") == ALWAYS
    assert set(found) == expected


def test_thresholds_of_kernels() -> None:
    assert needs_capability(MMVQ_IQ2, PER_TYPE) == needs_capability(MMQ_Q8, PER_TYPE) == needs_capability(MMQ_NEW, MID_2024) == 610
    assert needs_capability("_Z18flash_attn_ext_f16ILi256ELi32ELi4ELi64ELi1E6__halfEvPKc", PER_TYPE) == 700
    assert needs_capability(UNPACK_F16, PER_TYPE) == 700  # its body changes at 6.0, but half precision is taken from 7.0 on
    assert needs_capability(MMQ_NEW, ARCH_LIST) is None
    assert needs_capability("saxpy", PER_TYPE) is None


def test_types_of_a_program() -> None:
    assert quants_in([MMQ_NEW, MMVQ_NEW, MMVQ_IQ2, UNPACK_Q50, DEMO]) == ("Q5_0", "Q8_0", "Q4_K", "IQ2_XXS")


def test_steps_of_bodies() -> None:
    assert steps_of(MMQ_Q8, PER_TYPE) == (610, 700)
    assert steps_of(MMVQ_Q8, PER_TYPE) == (610,)
    assert steps_of(UNPACK_Q4K, PER_TYPE) == steps_of("saxpy", PER_TYPE) == ()
    assert steps_of(MMQ_NEW, ARCH_LIST) is steps_of(MMQ_NEW, MID_2024) is None


@pytest.mark.parametrize(
    ("quant", "capability", "words"),
    [
        ("Q8_0", 600, None),
        ("IQ2_XXS", 600, "below 6.1"),  # dequantize_mul_mat_vec has no case for it
        ("IQ2_XXS", 610, None),
        ("Q5_K", 610, "no kernels for Q5_K"),
        ("MXFP4", 750, "no kernels for MXFP4"),
        ("BF16", 750, "BF16"),
        ("F16", 500, None),
    ],
)
def test_types_that_a_program_cannot_run(quant: str, capability: int, words: str | None) -> None:
    found = why_unsupported(roads_of(ALL), quant, capability, PER_TYPE)
    assert found is None if words is None else words in found
    assert why_unsupported(roads_of(["saxpy"]), quant, capability, PER_TYPE) is None


def test_hostile_names() -> None:
    for name in ("_Z13mul_mat_vec_qIL9ggml_type" + "1" * 5000 + "E", "_Z13mul_mat_vec_qILi1ELi" + "9" * 5000 + "EEv", "_Z" + "9" * 9000):
        assert role_of(name) is None or len(role_of(name).quants) < 2
