"""The choice among AMD code objects (by the runtime's sources) and overrides."""

from __future__ import annotations

import pytest

from fatpatch.base.errors import InputError
from fatpatch.gpus.amd import choose_object, overridden, override_for, switch_for
from fatpatch.gpus.compatibility import compatibility
from fatpatch.gpus.devices import find
from fatpatch.model.tree import ImageEntry


def objects(*targets: str) -> list[ImageEntry]:
    return [ImageEntry(target, "hsaco", target, None, "none", 8, 8, index, 0, 8) for index, target in enumerate(targets)]


@pytest.mark.parametrize(
    ("targets", "device", "expected", "how"),
    [
        (("gfx1030", "gfx1031"), "gfx1031", "gfx1031", "native"),
        (("gfx1030",), "gfx1031", None, "none"),
        (("gfx10-3-generic", "gfx1030"), "gfx1031", "gfx10-3-generic", "generic"),
        (("gfx10-3-generic", "gfx1031"), "gfx1031", "gfx1031", "native"),
        (("gfx9-generic",), "gfx90a", None, "none"),
        (("amdgcnspirv",), "gfx1100", "amdgcnspirv", "spirv"),
        (("gfx90a:xnack+", "gfx90a:xnack-"), "gfx90a", "gfx90a:xnack-", "native"),
        (("gfx90a:sramecc-",), "gfx90a", None, "none"),
        (("gfx90a:xnack+",), "gfx90a:xnack+", "gfx90a:xnack+", "native"),
        ((), "gfx900", None, "none"),
        (("gfx1030:xnack-",), "gfx1030", None, "none"),
        (("gfx9-4-generic:sramecc+:xnack-",), "gfx942", "gfx9-4-generic:sramecc+:xnack-", "generic"),
        (("gfx9-4-generic:xnack+",), "gfx950", None, "none"),
    ],
)
def test_choice(targets: tuple[str, ...], device: str, expected: str | None, how: str) -> None:
    choice = choose_object(objects(*targets), device)
    assert (None if choice.image is None else choice.image.target, choice.how) == (expected, how)
    assert choice.reason


def test_a_feature_that_the_processor_lacks_is_told() -> None:
    assert "cannot set" in choose_object(objects("gfx1030:xnack-"), "gfx1030").reason


def test_a_feature_that_does_not_fit_is_told() -> None:
    assert "xnack+" in choose_object(objects("gfx90a:xnack+"), "gfx90a").reason


@pytest.mark.parametrize(("value", "target"), [("10.3.0", "gfx1030"), ("9.0.10", "gfx90a"), ("11.0.0", "gfx1100"), ("9.0.0", "gfx900")])
def test_override_values(value: str, target: str) -> None:
    assert overridden(value) == target


@pytest.mark.parametrize("value", ["", "10.3", "10.3.0.1", "64.0.0", "10.3.x", "9.0.a", "٩.0.0", "1" * 5000])
def test_values_that_the_runtime_refuses(value: str) -> None:
    with pytest.raises(InputError):
        overridden(value)


def test_advice() -> None:
    assert override_for("gfx1031", ["gfx1030"]).value == "10.3.0"
    assert override_for("gfx1031", ["gfx1100"]) is None
    assert override_for("gfx1010", ["gfx1030"]) is None  # another generation of the instruction set
    assert override_for("gfx906", ["gfx900"]) is None
    assert "not guaranteed" in override_for("gfx1102", ["gfx1100"]).caution


@pytest.mark.parametrize(
    ("code", "device", "same"),
    [
        ("gfx1030", "gfx1031", True), ("gfx1036", "gfx1032", True), ("gfx1201", "gfx1200", True), ("gfx1100", "gfx1102", False),
        ("gfx900", "gfx90c", False), ("gfx1010", "gfx1012", False), ("gfx1012", "gfx1010", None), ("gfx1030", "gfx1030", None),
        ("gfx906", "gfx900", None), ("gfx942", "gfx950", None), ("gfx1030", "gfx1100", None), ("gfx908", "gfx90a", None),
        ("gfx1101", "gfx1100", None), ("gfx701", "gfx702", None),
    ],
)  # fmt: skip
def test_compatibility(code: str, device: str, same: bool | None) -> None:
    kin = compatibility(code, device)
    assert (None if kin is None else kin.same) == same


def test_the_kin_with_the_same_instructions_goes_first() -> None:
    assert override_for("gfx1034", ["gfx1100", "gfx1032", "gfx1031"]).value == "10.3.1"
    found = override_for("gfx90c", ["gfx900:xnack-", "gfx906"])
    assert (found.value, found.target, found.safe, "plausible" in found.caution) == ("9.0.0", "gfx900", False, True)


@pytest.mark.parametrize(
    ("targets", "device", "setting"),
    [
        (("gfx90a:xnack+",), "gfx90a", "HSA_XNACK=1"),
        (("gfx90a:xnack-",), "gfx90a:xnack+", "HSA_XNACK=0"),
        (("gfx90a:sramecc-:xnack+",), "gfx90a", None),
        (("gfx90a:sramecc+:xnack+",), "gfx90a", "HSA_XNACK=1"),
        (("gfx908:xnack+",), "gfx90a", None),
        (("gfx1030",), "gfx1031", None),
    ],
)
def test_settings(targets: tuple[str, ...], device: str, setting: str | None) -> None:
    assert switch_for(objects(*targets), device) == setting


@pytest.mark.parametrize("text", ["gfx1031:xnack-", "gfx90a:foo+", "gfx1100:sramecc+"])
def test_a_setting_that_a_processor_lacks_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="has no setting"):
        find(text)
