"""What judging needs to know of one image: its kernels with the class of their bodies, and how it was made. Read once for all GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fatpatch.base.errors import FatpatchError, LimitError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Place, Source
from fatpatch.base.source_bytes import SourceBytes
from fatpatch.formats import numbers as n
from fatpatch.gpucode import flow
from fatpatch.gpucode.code_object.read import identity_of, read_code_object
from fatpatch.gpucode.code_object.target import CodeObjectHeader, identify
from fatpatch.gpucode.content import ImageReader, read_in_part
from fatpatch.gpucode.cubin.bodies import bodies_of, copies_ahead, encoding, kernel_sections
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.fatbin.driver_view import View, driver_view
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.messages import cubin_messages, ptx_messages
from fatpatch.gpucode.ptx.bodies import classified
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Payload
from fatpatch.verdicts import ptx_result as ptx_fate
from fatpatch.verdicts.cubin_result import unlinked
from fatpatch.verdicts.jit import Cost, estimated
from fatpatch.verdicts.opened import ImageContent, ImageOutline, OpenedImages

_Key = tuple[Place, str]
_FREE = 8 << 30
_RATIO = 100
_NAMES = 128 << 20
_HEADER = 64
_ORIGINS = 8


class ImageFacts(NamedTuple):
    """``bodies``: kernel name -> class. ``unlinked``: what fails when a relocatable image is not linked (``cubin_fate.unlinked``).

    ``problem``: why the image cannot be read; then the rest is empty.
    """

    bodies: dict[str, str]
    toolkit: str | None = None
    cost: Cost | None = None
    unlinked: tuple[tuple[str, int], ...] = ()
    problem: str = ""


class FactsReader:
    """Facts of the images of one file, each read at most once.

    ``limit`` bounds what one image may unpack to; all together may unpack to a hundred times ``size``, the file's, and some
    gigabytes. ``problems`` collects what could not be read, by locator: what hangs on it must not be called fine.
    """

    def __init__(self, limit: int, size: int) -> None:
        self.limit = limit
        self.problems: dict[str, str] = {}
        self._left = _FREE + _RATIO * size
        self._names_left = _NAMES
        self._places: dict[Place, Place] = {}
        self._toolkits: dict[_Key, str | None] = {}
        self._blob_key: Place | None = None
        self._blob = b""
        self._identities: dict[_Key, CodeObjectHeader | None] = {}
        self._known: dict[_Key, ImageFacts] = {}
        self._names: dict[_Key, frozenset[str] | None] = {}
        self._views: dict[Place, View | None] = {}
        """None where the driver sees what is listed, as of nearly all."""
        self._origins: dict[Place, int] = {}
        self._native: dict[Place, frozenset[int]] = {}
        self.opened = OpenedImages()

    def spend(self, image: ImageEntry) -> None:
        """Count what an image unpacks to; LimitError when the file asks for more than all real ones do."""
        self._left -= image.size or 0
        if self._left < 0:
            raise LimitError("the images of this file unpack to more than is sensible", locator=image.locator)

    def _key(self, source: Source, image: ImageEntry) -> _Key:
        place = source.place(0)
        return self._places.setdefault(place, place), image.locator

    def view(self, source: Source, payload: Payload) -> View:
        """The fatbin as the driver walks it."""
        key = source.place(payload.offset)
        if key not in self._views:
            view = _with_listed(driver_view(source, payload.offset, payload.locator), payload)
            self._views[key] = None if view == (payload.images, None, "") else view
        kept = self._views[key]
        return View(payload.images) if kept is None else kept

    def native(self, source: Source, payloads: Iterable[Payload]) -> frozenset[int]:
        """The SM numbers for which the modules of a library have SASS."""
        key = source.place(0)
        if key not in self._native:
            images = (image for payload in payloads for image in payload.images)
            self._native[key] = frozenset(arch_of(image) for image in images if image.kind == ImageKind.SASS)
        return self._native[key]

    def facts(self, source: Source, image: ImageEntry, content: ImageContent | None = None) -> ImageFacts:
        """Of one image; ``content`` is what it holds when it was opened just now."""
        key = self._key(source, image)
        if key not in self._known:
            self._known[key] = self._read(source, image, content)
        return self._known[key]

    def knows(self, source: Source, image: ImageEntry) -> bool:
        """Whether the facts of an image were read before."""
        return self._key(source, image) in self._known

    def adopt(self, source: Source, raw: ImageEntry, image: ImageEntry, outline: ImageOutline, facts: ImageFacts) -> bool:
        """Keep what another process has read of an image; False, and it is not kept, when the file asks for more than is sensible."""
        try:
            self.spend(image)
            self._counted(frozenset(facts.bodies))
        except LimitError:
            return False
        self.opened.adopt(source, raw, outline)
        key = self._key(source, image)
        self._known.setdefault(key, facts)
        if facts.toolkit is not None:
            self._toolkits.setdefault(key, facts.toolkit)
        return True

    def knows_names(self, source: Source, image: ImageEntry) -> bool:
        """Whether the kernels of an image were read before, without a problem."""
        found = self._known.get(self._key(source, image))
        return found is not None and not found.problem

    def names(self, source: Source, image: ImageEntry) -> frozenset[str] | None:
        """The kernel names of an image, without looking at their code; None when it cannot be read."""
        key = self._key(source, image)
        if key in self._known and not self._known[key].problem:
            return frozenset(self._known[key].bodies)
        if key not in self._names:
            try:
                reading = read_image(image.kind, self._view(source, image), detail=False)
                self._toolkits.setdefault(key, reading.producer)
                self._names[key] = self._counted(frozenset(row.name for row in reading.kernels))
            except FatpatchError:  # of an image that is not the one loaded: the answer does not hang on it
                self._names[key] = None
        return self._names[key]

    def identity(self, source: Source, image: ImageEntry) -> CodeObjectHeader | None:
        """What the header of an AMD code object says; None when the object cannot be read whole."""
        key = self._key(source, image)
        if key not in self._identities:
            try:
                data = self._view(source, image)
                self._identities[key] = read_code_object(data, detail=False).identity if isinstance(data, bytes) else identity_of(data)
            except FatpatchError as error:
                self.problems[image.locator] = error.message
                self._identities[key] = None
        return self._identities[key]

    def header(self, source: Source, image: ImageEntry) -> CodeObjectHeader | None:
        """As ``identity``, from the first bytes alone; those of a shared blob are all read at once."""
        key = source.place(image.data_offset)
        if image.within is None:
            return identify(source.peek(image.data_offset, _HEADER)) if image.compression == Codec.NONE else self.identity(source, image)
        if key != self._blob_key:
            try:
                self.spend(image)
                self._blob_key, self._blob = key, ImageReader(source, self.limit).blob(image)
            except FatpatchError as error:
                self.problems[image.locator] = error.message
                self._blob_key, self._blob = key, b""
        return identify(self._blob[image.within[0] : image.within[0] + _HEADER])

    def toolkit(self, source: Source, payload: Payload, spare: ImageEntry | None = None) -> str | None:
        """What made a module, by its smallest machine code other than ``spare``; None when that cannot be read."""
        images = [image for image in payload.images if image.kind == ImageKind.SASS and image.readable and image is not spare]
        smallest = min(images, key=lambda image: image.size or 0, default=None)
        if smallest is None:
            return None
        key = self._key(source, smallest)
        if key not in self._toolkits:
            try:
                self._toolkits[key] = Tables(self._bytes(source, smallest)).toolkit()
            except FatpatchError:
                self._toolkits[key] = None
        return self._toolkits[key]

    def origin(self, source: Source, payload: Payload, chosen: ImageEntry) -> str | None:
        """What made another image of a module than the one that is loaded: a graft may have brought that. Of a file some modules do."""
        place = source.place(0)
        asked = self._origins.get(place, 0)
        if asked >= _ORIGINS:
            return None
        self._origins[place] = asked + 1
        return self.toolkit(source, payload, chosen)

    def messages(self, source: Source, image: ImageEntry, kernels: Iterable[str]) -> dict[str, str]:
        """What kernels of an image print before they trap, as far as that can be told."""
        if image.kind == ImageKind.SASS:
            return self._told(source, image, lambda data: cubin_messages(data, kernels))
        return self._told(source, image, lambda data: ptx_messages(data, kernels, arch_of(image)))

    def shapes(self, source: Source, image: ImageEntry, kernels: Iterable[str]) -> dict[str, str]:
        """Kernel name -> a short hash of the opcodes of its body: stubs of one image share one, real bodies do not. Cubins only."""
        return self._told(source, image, lambda data: _shapes(data, kernels)) if image.kind == ImageKind.SASS else {}

    def copies_ahead(self, source: Source, image: ImageEntry) -> frozenset[str]:
        """The kernels of an image with instructions that no GPU below 8.0 has; none for PTX."""
        try:
            return copies_ahead(self._bytes(source, image)) if image.kind == ImageKind.SASS else frozenset()
        except FatpatchError:
            return frozenset()

    def _told(self, source: Source, image: ImageEntry, read: Callable[[bytes], dict[str, str]]) -> dict[str, str]:
        try:
            return read(self._bytes(source, image))
        except FatpatchError:
            return {}

    def _bytes(self, source: Source, image: ImageEntry) -> bytes:
        self.spend(image)
        return ImageReader(source, self.limit).read(image)

    def _view(self, source: Source, image: ImageEntry) -> bytes | SourceBytes:
        """As ``_bytes``; a large code object is no load, since only its tables are read."""
        if not read_in_part(image):
            self.spend(image)
        return ImageReader(source, self.limit).view(image)

    def _counted(self, names: frozenset[str]) -> frozenset[str]:
        self._names_left -= sum(map(len, names))
        if self._names_left < 0:
            raise LimitError("the kernel names of this file are longer than is sensible")
        return names

    def _read(self, source: Source, image: ImageEntry, content: ImageContent | None) -> ImageFacts:
        try:
            data = None if content is None else content.data
            if data is None:
                data = self._bytes(source, image)
            if data[:4] == n.ELF_MAGIC:
                tables = Tables(data)
                loose = unlinked(tables).items() if tables.identity.relocatable else ()
                found = ImageFacts(bodies_of(tables, self.opened.seen), tables.toolkit(), None, tuple(loose))
                self._toolkits.setdefault(self._key(source, image), found.toolkit)
            else:
                ptx = PtxText(data, self.opened.seen) if content is None or content.text is None else content.text
                loose = ptx_fate.unlinked(ptx.text).items() if ptx_fate.TO_BE_LINKED in (image.options or "") else ()
                found = ImageFacts(classified(ptx), None, estimated(ptx), tuple(loose))
            self._counted(frozenset(found.bodies))
        except FatpatchError as error:
            self.problems[image.locator] = error.message
            return ImageFacts({}, problem=error.message)
        return found


def _with_listed(view: View, payload: Payload) -> View:
    """The view with the listed images where they are the same: of a library with tens of thousands one record for each is kept."""
    listed = {image.offset: image for image in payload.images if image.within is None and image.readable}
    images = (known if (known := listed.get(raw.offset)) is not None and _range(known) == _range(raw) else raw for raw in view.images)
    return view._replace(images=tuple(images))


def _range(image: ImageEntry) -> tuple[int | None, ...]:
    """What is read of an image; the rest of both comes from the same header."""
    return image.data_offset, image.stored_bytes, image.stored_size, image.size, image.blob_size, image.kind_code, image.flags


def _shapes(data: bytes, kernels: Iterable[str]) -> dict[str, str]:
    import hashlib

    tables = Tables(data)
    reader, sections = encoding(tables.identity.arch), kernel_sections(tables)
    known: dict[int, str] = {}
    found = {}
    for name in kernels if reader is not None else ():
        section = sections.get(name)
        if section is not None and reader is not None:
            if section not in known:
                known[section] = hashlib.sha256(reader.shape(tables.content(tables.rows[section]))).hexdigest()[:12]
            found[name] = known[section]
    return found


def arch_of(image: ImageEntry) -> int:
    """The SM number in an image's target; 0 when there is none."""
    return Target(image.target).arch or 0


def is_dead(body: str) -> bool:
    """Whether a body does nothing useful: a stub, or empty."""
    return body in flow.STUBS or body == flow.EMPTY
