"""A quick named tuple does what typing's does."""

from __future__ import annotations

import pickle
import re
import typing

import pytest
from conftest import ROOT

from fatpatch.base.records import NamedTuple


class Quick(NamedTuple):
    """One with a default, a method and a property."""

    first: int
    second: tuple[str, ...] = ()

    @property
    def both(self) -> tuple[int, tuple[str, ...]]:
        return self.first, self.second

    def doubled(self) -> Quick:
        return self._replace(first=2 * self.first)


class Usual(typing.NamedTuple):
    first: int
    second: tuple[str, ...] = ()


def test_it_is_a_named_tuple() -> None:
    made, usual = Quick(1, ("a",)), Usual(1, ("a",))
    assert made == usual == (1, ("a",))
    assert repr(made) == repr(usual).replace("Usual", "Quick")
    for name in ("_fields", "_field_defaults", "__match_args__", "__slots__"):
        assert getattr(Quick, name) == getattr(Usual, name)
    assert (made._asdict(), made.both, made.doubled().first) == (usual._asdict(), (1, ("a",)), 2)
    assert pickle.loads(pickle.dumps(made)) == made
    assert (Quick.__doc__, Quick.__module__, Quick.__mro__[-2:]) == (
        "One with a default, a method and a property.",
        __name__,
        (tuple, object),
    )


def test_wrong_arguments_are_type_errors() -> None:
    for wrong in ((), (1, (), 3)):
        with pytest.raises(TypeError):
            Quick(*wrong)
    with pytest.raises(TypeError):
        Quick(third=1)  # type: ignore[call-arg]


def test_a_field_without_a_default_stands_in_front() -> None:
    with pytest.raises(TypeError):

        class Wrong(NamedTuple):
            first: int = 1
            second: int


def test_all_records_of_the_package_are_made_so() -> None:
    usual = re.compile(r"^from typing import .*\bNamedTuple\b(?! as)", re.MULTILINE)
    paths = sorted((ROOT / "fatpatch").rglob("*.py"))
    assert len(paths) > 300
    assert [path.name for path in paths if usual.search(path.read_text("utf-8"))] == []
