"""What a user may name, and how it is shown: files, folders, addresses, installed packages, projects of an index, processes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fatpatch.named.reading import UnitReader
from fatpatch.named.resolve import environment, resolve
from fatpatch.named.unit import NamedUnit, NamingChoices, files_of
from fatpatch.remote.address import scheme_of, shown_address
from fatpatch.remote.inputs import Input
from fatpatch.remote.opening import refuse_address
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.walk import Progress

__all__ = [
    "Input",
    "NamedUnit",
    "NamingChoices",
    "Progress",
    "UnitReader",
    "all_diagnostics",
    "environment",
    "files_of",
    "payloads_below",
    "refuse_address",
    "resolve",
    "shown_paths",
    "with_dependencies",
]


def shown_paths(paths: Sequence[str]) -> list[str]:
    """How each path is named in results: as given; an absolute one by its last parts, as few as tell it from the others.

    An address is shown without what may be a secret in it.
    """
    paths = [shown_address(path) if scheme_of(path) else path for path in paths]
    absolute = [path for path in paths if os.path.isabs(path)]
    parts = {path: path.replace(os.sep, "/").strip("/").split("/") for path in absolute}
    result = []
    for path in paths:
        if path not in parts:
            result.append(path)
            continue
        own = parts[path]
        count = 1
        while count < len(own) and any(other != path and parts[other][-count:] == own[-count:] for other in parts):
            count += 1
        result.append("/".join(own[-count:]))
    return result


def with_dependencies(names: Sequence[str], choices: NamingChoices) -> list[NamedUnit]:
    """Projects of an index (``pypi:NAME``), each with what pip would install beside it."""
    from fatpatch.named.dependencies import with_dependencies as gathered

    return [gathered(name.removeprefix("pypi:"), choices) for name in names]
