"""The base of an option's type, with the type of its values; click before 8.5 has only the plain one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click import ParamType as OptionType
else:

    class OptionType(click.ParamType):
        """``OptionType[int]`` is the type of an option whose values are integers."""

        def __class_getitem__(cls, item: object) -> type[OptionType]:
            return cls


__all__ = ["OptionType"]
