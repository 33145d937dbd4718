"""Many places with GPU code in one file: a row each, below the targets that they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fatpatch.api.inspection import target_table
from fatpatch.base.shared_names import shared_beginning
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.commands.inspect.remarks import remarks
from fatpatch.model.tree import Payload

_WIDTH = 80


class _PlaceRow:
    """One place: its cells, its targets and what is to be said of it."""

    def __init__(self, name: str, payloads: list[Payload]) -> None:
        table = target_table(payloads)
        self.name = name
        self.targets = tuple(row.target for row in table)
        self.remarks = tuple(remarks(payloads, table)) if table else ("no images",)
        codecs = sorted({codec for row in table for codec, _, _ in row.facts})
        images = sum(row.images for row in table)
        sizes = [size(_total([getattr(row, field) for row in table])) for field in ("stored", "size")]
        self.cells = [str(len(payloads)), str(images), *sizes, ", ".join(codecs)]


def _total(sizes: list[int | None]) -> int | None:
    """The sum; None where one is not known, as of images that share a blob."""
    known = [each for each in sizes if each is not None]
    return sum(known) if len(known) == len(sizes) else None


def many_lines(groups: Mapping[str, list[Payload]], file: str) -> Iterator[str]:
    """The lines for places with their payloads; ``file`` is left out of their names, and so is what all begin with."""
    import textwrap

    names = {place: place.removeprefix(f"{file}!") for place in groups}
    beginning = shared_beginning(list(names.values()))
    sections = {name.rpartition("!")[2] for name in names.values()}
    ending = len(f"!{sections.pop()}") if len(sections) == 1 else 0
    rows = [_PlaceRow(names[place][len(beginning) : len(names[place]) - ending], payloads) for place, payloads in groups.items()]
    by_targets: dict[tuple[str, ...], list[_PlaceRow]] = {}
    for row in rows:
        by_targets.setdefault(row.targets, []).append(row)
    for targets, alike in by_targets.items():
        yield ""
        heading = ", ".join(targets) or "no images"
        yield from textwrap.wrap(f"{plural(len(alike), 'place')} with {heading}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        shared = set.intersection(*(set(row.remarks) for row in alike))
        yield from (f"  {words}" for words in alike[0].remarks if words in shared)
        if beginning:
            yield f"  in {safe(beginning)}"
        header = ["modules", "images", "stored", "unpacked", "codec", "place"]
        yield from (f"  {line}" for line in columns(header, [[*row.cells, safe(row.name)] for row in alike], left=frozenset({4, 5})))
        for row in alike:
            yield from (f"    {safe(row.name)}: {words}" for words in row.remarks if words not in shared)
