"""Enums of words, each a str, whose members are looked up quickly.

Up to Python 3.11 the member of an Enum is found by a function that fails first: a quarter of a microsecond, many times for each image.
Here it is an attribute of its class. Types are checked as those of any Enum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enum import Enum

    class Word(str, Enum):
        """A name that reads, prints and hashes as its value."""

else:

    class _WordType(type):
        def __new__(cls, name, bases, body):
            words = {key: value for key, value in body.items() if not key.startswith("_") and isinstance(value, str)}
            made = super().__new__(cls, name, bases, {key: value for key, value in body.items() if key not in words})
            made._members = {}
            for key, value in words.items():
                member = made._members[value] = str.__new__(made, value)
                member.name, member.value = key, value
                setattr(made, key, member)
            return made

        def __call__(cls, value):
            try:
                return cls._members[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __iter__(cls):
            return iter(cls._members.values())

        def __len__(cls):
            return len(cls._members)

    def _repr(self):
        return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    def _reduce(self):
        return type(self), (self.value,)

    Word = _WordType("Word", (str,), {"__module__": __name__, "__repr__": _repr, "__reduce__": _reduce})
