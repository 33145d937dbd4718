"""What a file holds, as frozen records. A number that was not computed is None, never 0.

Sizes and offsets are bytes. An offset counts from the start of the innermost stored file that holds the thing: a member of
a zip counts from its own first byte. All records are named tuples: a frozen dataclass takes three times as long to make, and
defining its class ten times as long, at every start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.model.kinds import Codec, ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.slim_mark import SlimMark

if TYPE_CHECKING:
    from fatpatch.model.container_image import ContainerImage, FileOrigin


class Diagnostic(NamedTuple):
    """What a reader complains about: where, in which field, and what it expected."""

    locator: str
    level: str  # note, warning, error
    offset: int | None
    message: str
    field: str | None = None


class ImageEntry(NamedTuple):
    """One entry of a payload: machine code or intermediate code for one target.

    ``offset`` is where its header starts, in bundles the object itself; the stored bytes are ``stored_bytes`` long from
    ``data_offset`` on. ``within`` is the range inside the decompressed blob that several images share (concatenated entries,
    compressed bundles), ``blob_digest`` the first 8 bytes of that blob's MD5 where the file states them.
    """

    locator: str
    kind: ImageKind
    target: str
    code_version: str | None
    compression: Codec
    stored_size: int | None
    size: int | None
    offset: int
    data_offset: int
    stored_bytes: int
    blob_size: int | None = None
    within: tuple[int, int] | None = None
    producer: str | None = None
    flags: int | None = None
    kind_code: int | None = None
    identifier: str | None = None
    options: str | None = None
    readable: bool = True
    blob_digest: bytes | None = None


class Wrapper(NamedTuple):
    """The 24 bytes by which host code names a payload."""

    version: int
    offset: int


class Payload(NamedTuple):
    """A fatbin, an offload bundle, or a bare image; ``found_by`` names the evidence that led to it.

    ``format``: plain or ccob (of ``version``) for a bundle, the compression of a kernel pack. ``fillers``: entries of a fatbin that
    stand where images were removed in place, and ``filler_size`` their bytes.
    """

    locator: str
    vendor: Vendor
    kind: ModuleKind
    section: str | None
    offset: int
    size: int
    found_by: tuple[str, ...]
    images: tuple[ImageEntry, ...]
    wrapper: Wrapper | None = None
    format: str | None = None
    version: int | None = None
    fillers: int = 0
    filler_size: int = 0


class Section(NamedTuple):
    """A named range of a container; ``address`` is where it is loaded."""

    name: str
    offset: int
    size: int
    address: int = 0
    writable: bool = False
    executable: bool = False


class Member(NamedTuple):
    """A file inside an archive. ``offset`` is where its stored bytes start, ``size`` its length once unpacked.
    ``method``: a Codec, or words for one that is not known.

    ``parts``: of a sparse file, (offset, size) of each piece of data; zeros lie between them and are not stored.
    """

    name: str
    offset: int
    stored_size: int
    size: int
    method: str = Codec.STORED
    header_offset: int = 0
    crc32: int | None = None
    parts: tuple[tuple[int, int], ...] = ()


class ModelFacts(NamedTuple):
    """What a GGUF header says: architecture, file type, and how many tensors of each type."""

    version: int
    architecture: str | None
    file_type: str | None
    name: str | None
    tensors: int
    tensor_types: tuple[tuple[str, int], ...]


class Container(NamedTuple):
    """What one reader made of one source: its kind in words, its ranges, and the files inside it.

    ``opaque``: file offset from which on nothing is searched: a container that is recognised and not read lies there.
    """

    kind: ContainerKind
    detail: str = ""
    sections: tuple[Section, ...] = ()
    segments: tuple[Section, ...] = ()
    members: tuple[Member, ...] = ()
    facts: ModelFacts | None = None
    relocatable: bool = False
    opaque: int | None = None


class Inventory(NamedTuple):
    """Code without a target, of one kind: how many pieces and bytes, their versions, and the entry points by how often they occur."""

    kind: str
    pieces: int
    size: int
    versions: tuple[str, ...]
    entry_points: tuple[tuple[str, int], ...]


_NOT_READ: Final = Container(kind=ContainerKind.RAW)


class Node(NamedTuple):
    """A file, or a member of one, with all that was found in it and below it.

    ``layout``: its sections, segments and members, as its reader found them; ``image``: of a container image; ``origin``: of a file in
    one; ``slimmed``: the mark that ``slim`` left beside it.
    """

    locator: str
    path: str
    size: int
    container: ContainerKind
    detail: str
    members: tuple[Node, ...]
    payloads: tuple[Payload, ...]
    diagnostics: tuple[Diagnostic, ...]
    facts: ModelFacts | None = None
    packing: str | None = None
    stored_at: int | None = None
    member_count: int = 0
    source: Source | None = None
    inventory: tuple[Inventory, ...] | None = None
    image: ContainerImage | None = None
    origin: FileOrigin | None = None
    kernel_files: tuple[str, ...] = ()
    slimmed: SlimMark | None = None
    layout: Container = _NOT_READ

    @property
    def content(self) -> Source:
        """The bytes of a file that is open. Folders, container images and files that only their headers are known of have none."""
        assert self.source is not None
        return self.source


def place_of(payload: Payload) -> str:
    """The locator of the file or section that holds a payload: its siblings share it."""
    return (
        payload.locator.rsplit("!", 1)[0]
        if payload.section is not None
        or payload.kind in (ModuleKind.FATBIN, ModuleKind.OFFLOAD_BUNDLE, ModuleKind.KPACK, ModuleKind.KPACK_REFERENCE)
        else payload.locator
    )


def stored_ranges(payloads: Iterable[Payload]) -> Iterator[tuple[int, int]]:
    """Where the stored bytes of all images lie, [start, end)."""
    for payload in payloads:
        for image in payload.images:
            yield image.data_offset, image.data_offset + image.stored_bytes
