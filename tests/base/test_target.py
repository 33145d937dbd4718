"""A target as one value, against the targets that NVIDIA's and AMD's compilers name."""

from __future__ import annotations

import pytest

from fatpatch.gpus.tables import table
from fatpatch.model.target import Target, named_target, target_key


@pytest.mark.parametrize(
    ("text", "form", "arch", "suffix", "vendor"),
    [
        ("sm_61", "sm", 61, "", "nvidia"),
        ("sm_90a", "sm", 90, "a", "nvidia"),
        ("compute_120f", "compute", 120, "f", "nvidia"),
        ("lto_90", "lto", 90, "", "nvidia"),
        ("gfx90a", "gfx", None, "", "amd"),
        ("gfx90a:sramecc+:xnack-", "gfx", None, "", "amd"),
        ("gfx9-4-generic", "gfx", None, "", "amd"),
        ("amdgcnspirv", "", None, "", "amd"),
        ("spir64_gen", "", None, "", "intel"),
        ("unknown", "", None, "", "nvidia"),
        ("sm_", "", None, "", "nvidia"),
        ("sm_90aa", "", None, "", "nvidia"),
    ],
)
def test_parts(text: str, form: str, arch: int | None, suffix: str, vendor: str) -> None:
    target = Target(text)
    assert (target, target.form, target.arch, target.suffix, target.vendor) == (text, form, arch, suffix, vendor)
    assert target.sm == (arch if form == "sm" else None)
    if form in ("sm", "compute"):
        assert target.level == (arch, suffix)
    else:
        with pytest.raises(ValueError, match="not of the form"):
            _ = target.level


def test_features_have_no_order() -> None:
    target = Target("gfx90a:sramecc+:xnack-")
    assert (target.processor, target.features, target.generic) == ("gfx90a", (("sramecc", "+"), ("xnack", "-")), False)
    assert target.means("gfx90a:xnack-:sramecc+")
    assert not target.means("gfx90a:xnack+:sramecc+")
    assert not target.means("gfx90a")
    assert Target("gfx11-generic").generic


def test_order() -> None:
    right = [
        "sm_61",
        "sm_90",
        "sm_90a",
        "sm_100",
        "compute_75",
        "gfx908",
        "gfx90a",
        "gfx9-4-generic",
        "gfx1030",
        "gfx11-generic",
        "gfx1100",
    ]
    assert sorted([*right[5:], *right[:5]], key=target_key) == right


def test_every_row_of_the_tables_reads_as_it_is_written() -> None:
    for row in table("amd_targets"):
        assert Target(row["gfx"]).processor == row["gfx"]
        assert named_target(row["gfx"].upper()) == row["gfx"]
    assert (named_target("6.1"), named_target("SM61"), named_target("compute_90a")) == ("sm_61", "sm_61", "sm_90a")
    assert named_target("GTX 1060") is None
