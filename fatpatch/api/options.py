"""Options that several functions of the API take, and what they are where the caller leaves them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypedDict

from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple

PathLike = str | os.PathLike[str]


class RunOptions(TypedDict, total=False):
    """``jobs``: worker processes, None for one a processor; ``limits``: how much of a hostile file is followed."""

    jobs: int | None
    limits: Limits | None


class EditOptions(TypedDict, total=False):
    """``modules`` (locators or patterns) and ``members`` (paths in an archive) narrow an edit; a signed PE needs ``drop_signature``."""

    modules: Sequence[str]
    members: Sequence[str]
    drop_signature: bool
    limits: Limits | None


class GraftOptions(EditOptions, total=False):
    """The images to add: files by their kind, or those for ``targets`` of the binary ``donor``.

    ``retags``: pairs such as gfx1030:gfx1031, by which AMD objects are copied for another processor; ``rename_hash``: build-folder hashes
    in the kernels' names become those of the file.
    """

    cubins: PathLike | Sequence[PathLike]
    ptx: PathLike | Sequence[PathLike]
    fatbins: PathLike | Sequence[PathLike]
    hsaco: PathLike | Sequence[PathLike]
    donor: PathLike | None
    targets: Sequence[str]
    retags: Sequence[str]
    rename_hash: bool


class RunChoices(NamedTuple):
    """``RunOptions`` with what they are by default."""

    jobs: int | None = 1
    limits: Limits | None = None


class EditChoices(NamedTuple):
    """``EditOptions`` with what they are by default."""

    modules: Sequence[str] = ()
    members: Sequence[str] = ()
    drop_signature: bool = False
    limits: Limits | None = None


class GraftChoices(NamedTuple):
    """``GraftOptions`` with what they are by default."""

    modules: Sequence[str] = ()
    members: Sequence[str] = ()
    drop_signature: bool = False
    limits: Limits | None = None
    cubins: PathLike | Sequence[PathLike] = ()
    ptx: PathLike | Sequence[PathLike] = ()
    fatbins: PathLike | Sequence[PathLike] = ()
    hsaco: PathLike | Sequence[PathLike] = ()
    donor: PathLike | None = None
    targets: Sequence[str] = ()
    retags: Sequence[str] = ()
    rename_hash: bool = False
