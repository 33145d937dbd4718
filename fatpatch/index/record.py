"""What one file gives to the index: plain rows, the same on every machine, that travel between processes."""

from __future__ import annotations

import hashlib

from fatpatch.base.records import NamedTuple


class KnownState(NamedTuple):
    """By what a file is known not to have changed: size, time of modification (ns), and what a server calls it (ETag).

    ``image_limit``: what an image might unpack to when it was read.
    """

    size: int | None
    mtime_ns: int | None
    tag: str | None
    image_limit: int


class PayloadRow(NamedTuple):
    """``inside`` is its locator without the file's name, ``holder`` that of the file or member that holds it (empty: the file)."""

    inside: str
    holder: str
    vendor: str
    kind: str
    section: str | None
    offset: int
    size: int


class EntryRow(NamedTuple):
    """One image where it lies; ``image`` is the sha256 of its unpacked bytes, None when it cannot be unpacked."""

    payload: str
    ordinal: int
    target: str
    compression: str
    stored_size: int
    image: str | None


class ImageRow(NamedTuple):
    """An image, wherever it occurs."""

    sha256: str
    kind: str
    size: int | None
    code_version: str | None
    producer: str | None


class KernelRow(NamedTuple):
    """A kernel of an image; sizes in bytes, ``body`` real, stub or None."""

    image: str
    name: str
    registers: int | None
    shared_bytes: int | None
    local_bytes: int | None
    code_size: int | None
    body: str | None


class FindingRow(NamedTuple):
    """What could not be read: ``rule`` FP002 (damaged) or FP003 (not looked into)."""

    rule: str
    level: str
    inside: str
    message: str


class VerdictRow(NamedTuple):
    """How the GPUs of a target fare with a holder, with the best driver that they can have."""

    holder: str
    gpu: str
    outcome: str
    works: bool


class FileRows(NamedTuple):
    """All rows of one file's contents."""

    container: str
    payloads: tuple[PayloadRow, ...]
    entries: tuple[EntryRow, ...]
    images: tuple[ImageRow, ...]
    kernels: tuple[KernelRow, ...]
    findings: tuple[FindingRow, ...]
    verdicts: tuple[VerdictRow, ...]

    @property
    def key(self) -> str:
        """The same for files with the same GPU code in the same places."""
        return hashlib.sha256(repr(tuple(self)).encode("utf-8", "backslashreplace")).hexdigest()[:32]


class KeptRelease(NamedTuple):
    """The headers of a release. ``state``: of a file its size and time; empty for an address, whose file does not change.

    ``modules``: how many it has, of which ``sampled`` were read (None: all); ``fetched``: bytes that it took.
    """

    address: str
    state: str
    tool_version: str
    headers: str
    modules: int
    sampled: int | None
    fetched: int


class Examined(NamedTuple):
    """One file: its contents, or why it could not be read."""

    location: str
    state: KnownState
    contents: FileRows | None
    error: str | None
