"""Module ids in kernel names: ``_INTERNAL_07a10a41`` and ``_GLOBAL__N__07a10a41`` hold 8 digits that nvcc derives from the source's folder.

Two builds of one source in different folders differ in nothing else, and the same length makes them replaceable in the bytes
(measured: cubin and PTX so treated run; reference, graft, section D).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fatpatch.base.errors import EditError
from fatpatch.base.locator import escape
from fatpatch.gpucode.signature import hashes_of, without_hashes


def renames_between(given: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Which ids of the ``given`` kernel names must become which, so that they equal the ``wanted`` ones.

    EditError when one id would have to become two.
    """
    by_form: dict[str, list[str]] = {}
    for name in wanted:
        by_form.setdefault(without_hashes(name), []).append(name)
    exact = {name for names in by_form.values() for name in names}
    renames: dict[str, str] = {}
    for name in given:
        partners = by_form.get(without_hashes(name), [])
        if name in exact or not partners:
            continue
        if len(partners) > 1:
            raise EditError(f"{escape(name)} could be any of {len(partners)} kernels", hint="compile in the folder of the original build")
        for old, new in zip(hashes_of(name), hashes_of(partners[0]), strict=True):
            if renames.setdefault(old, new) != new:
                raise EditError(
                    f"{old} would have to become both {renames[old]} and {new}", hint="compile in the folder of the original build"
                )
    return {old: new for old, new in renames.items() if old != new}


def rename_hashes(data: bytes, renames: dict[str, str]) -> bytes:
    """``data`` with every id replaced at once, so that a swap of two ids works too."""
    if not renames:
        return data
    table = {old.encode(): new.encode() for old, new in renames.items()}
    return re.sub(b"|".join(map(re.escape, table)), lambda found: table[found[0]], data)
