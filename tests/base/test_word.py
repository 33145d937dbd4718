"""Words: enums whose members are strs and attributes of their class, as those of Python's Enum otherwise."""

from __future__ import annotations

import copy
import enum
import json
import pickle

import pytest

from fatpatch.base.word import Word


class Colour(Word):
    """As the kinds of the model are declared."""

    RED = "red"
    DARK_BLUE = "dark-blue"


class Oracle(str, enum.Enum):
    """The same in Python's own words."""

    RED = "red"
    DARK_BLUE = "dark-blue"


def test_members_are_strings_with_a_name() -> None:
    assert [(each.name, each.value) for each in Colour] == [(each.name, each.value) for each in Oracle]
    assert {Colour.DARK_BLUE: 1}["dark-blue"] == 1
    assert (str(Colour.RED), f"{Colour.RED:>4}", json.dumps([Colour.RED])) == ("red", " red", '["red"]')
    assert repr(Colour.RED) == repr(Oracle.RED).replace("Oracle", "Colour")
    assert len(Colour) == 2


def test_a_value_gives_its_member() -> None:
    assert Colour("dark-blue") is Colour.DARK_BLUE
    for wrong in ("green", 7, []):
        with pytest.raises(ValueError, match="is not a valid Colour"):
            Colour(wrong)


def test_a_member_stays_itself_in_copies_and_other_processes() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(Colour.RED, protocol)) is Colour.RED
    assert copy.deepcopy({"a": Colour.RED})["a"] is Colour.RED
