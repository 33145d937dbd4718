"""From the words of a user to units: the one resolver of every command that reads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.named.unit import NamedUnit, NamingChoices
from fatpatch.remote.inputs import is_image_layout, is_registry_image

_PREFIX: Final = lazy_pattern(r"(pypi|npm|pid):(.+)\Z", re.DOTALL)
_PINNED: Final = lazy_pattern(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]{1,60})\Z")


def resolve(words: Sequence[str], shown: Sequence[str], choices: NamingChoices) -> list[NamedUnit]:
    """A unit for each word, in their order; ``shown`` is how a path is named in results.

    A path that exists is that path, whatever else its name could mean. A word that names nothing does not hide the others; InputError
    where it is the only one.
    """
    units = []
    for word, name in zip(words, shown, strict=True):
        try:
            units.append(_resolved(word, name, choices))
        except FatpatchError as error:
            if len(words) == 1:
                raise
            units.append(NamedUnit(name, word, problem=error))
    return units


def environment(choices: NamingChoices) -> NamedUnit:
    """The environment that the choices name, else the active one, as a unit."""
    from fatpatch.scan.distributions import installed
    from fatpatch.scan.environments import active_environment, environment_of

    folder = active_environment() if choices.python is None else environment_of(choices.python)
    shown = os.path.basename(os.path.realpath(folder))
    return NamedUnit(shown, folder, None, installed(folder, shown), whole=True)


def is_package(word: str) -> bool:
    """Whether a word names an installed distribution rather than a file: no path of that name is there."""
    from fatpatch.scan.ledgers import is_name

    pinned = _PINNED.fullmatch(word)
    return not os.path.lexists(word) and is_name(pinned[1] if pinned else word)


def _resolved(word: str, shown: str, choices: NamingChoices) -> NamedUnit:
    if is_image_layout(word) or is_registry_image(word):
        return NamedUnit(shown, word)
    if os.path.isdir(word):
        from fatpatch.scan.distributions import installed

        return NamedUnit(shown, word, None, installed(word, shown), whole=True)
    if os.path.lexists(word) or "\0" in word:
        return NamedUnit(shown, word)
    if (prefix := _PREFIX.match(word)) is not None:
        return _prefixed(prefix[1], prefix[2], choices)
    if is_package(word):
        from fatpatch.scan.distributions import named

        where = environment(choices).where
        assert where is not None
        found = named(word, where)
        return NamedUnit(found.shown, "", found, where)
    return NamedUnit(shown, word)  # an address, a pattern, or a path that is not there: opening it says so


def _prefixed(kind: str, name: str, choices: NamingChoices) -> NamedUnit:
    if kind == "pid":
        from fatpatch.scan.process import process

        found = process(name)
        return NamedUnit(found.shown, "", found)
    if kind == "npm":
        from fatpatch.named.npm import package_unit

        return package_unit(name, choices)
    from fatpatch.named.pypi import wheel_unit

    return wheel_unit(name, choices)
