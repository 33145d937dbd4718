"""What prune and recompress would save, by their own accounting and without an edit: the host of the code is not looked at."""

from __future__ import annotations

import re

from fatpatch.base.records import NamedTuple
from fatpatch.edit.rewrite.estimate import Estimate
from fatpatch.edit.rewrite.prune import PruneRequest, pruned
from fatpatch.edit.rewrite.recompress import LEVELS, RecompressRequest, recompressed
from fatpatch.edit.rewrite.rewrite_modules import TargetRewrite, rows_of
from fatpatch.edit.rewrite.select_images import KeepRequest
from fatpatch.model.tree import ImageEntry, Node
from fatpatch.scan.walk import Progress


class WhatIf(NamedTuple):
    """Patterns of targets to drop, and the codec for the rest; no ``codec`` leaves it as it is.

    ``exact``: compress every image, however many there are.
    """

    drop: tuple[str, ...] = ()
    codec: str | None = None
    level: int | None = None
    exact: bool = False


class Saving(NamedTuple):
    """Rows as in the dry run of the edits; ``lost``: targets of GPUs that some module no longer serves; ``estimate`` from a sample."""

    rows: tuple[TargetRewrite, ...]
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None = None

    @property
    def stored(self) -> int:
        """Bytes now."""
        return sum(row.stored for row in self.rows)

    @property
    def stored_then(self) -> int:
        """Bytes afterwards."""
        return sum(row.stored_then for row in self.rows)


def what_if(text: str) -> WhatIf:
    """Read ``drop=sm_50,sm_52;compress=zstd-19``; ValueError, saying what is expected, for anything else."""
    drop: list[str] = []
    codec, level = None, None
    for part in filter(None, (part.strip() for part in text.split(";"))):
        word, _, value = part.partition("=")
        if word.strip() == "drop" and value.strip(" ,"):
            drop += [target.strip() for target in value.split(",") if target.strip()]
        elif word.strip() == "compress" and (found := re.fullmatch(r"(zstd|lz4|none)(?:-(\d{1,2}))?", value.strip(), re.ASCII)):
            codec, level = found[1], int(found[2]) if found[2] else None
            if level is not None and not 1 <= level <= LEVELS[codec]:
                raise ValueError(f"a level of {codec} from 1 to {LEVELS[codec]}" if LEVELS[codec] else f"no level after {codec}")
        else:
            raise ValueError("parts such as drop=sm_50,sm_52 and compress=zstd-19 (zstd, lz4, none), with ; between them")
    if not drop and codec is None:
        raise ValueError("something to do, such as drop=sm_50,sm_52;compress=zstd-19")
    return WhatIf(tuple(drop), codec, level)


def saving(root: Node, asked: WhatIf, *, limit: int, progress: Progress | None = None) -> Saving:
    """The saving in ``root`` and its members. EditError when the file holds no code, or none for a target to drop."""
    notes, estimate = list[str](), None
    dropped, lost = dict[str, tuple[ImageEntry, ...]](), tuple[str, ...]()
    if asked.drop:
        modules, changes, notes, choice = pruned(root, PruneRequest(KeepRequest(drop=asked.drop), force=True, limit=limit))
        dropped, lost = choice.dropped, choice.lost
    if asked.codec is not None:
        request = RecompressRequest(asked.codec, asked.level, limit=limit, dropped=dropped, exact=asked.exact)
        modules, changes, more, estimate = recompressed(root, request, progress)
        notes = [*notes, *more]
    return Saving(tuple(rows_of(modules, changes)), lost, tuple(dict.fromkeys(notes)), estimate)
