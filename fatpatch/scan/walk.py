"""The walk: from a path to the tree of everything in it. Reading only; a bad child is a diagnostic and the walk goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from fatpatch.base.errors import FatpatchError, InputError, LimitError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import STANDARD_INPUT, file_name, join
from fatpatch.base.source import Source
from fatpatch.binfmt import unpack, unread
from fatpatch.binfmt.codecs import STREAMS, stream_codec
from fatpatch.binfmt.identify import identify
from fatpatch.formats import numbers as n
from fatpatch.gpucode.bare import BARE_IMAGES, Bare, bare_payload, sniff_bare
from fatpatch.gpucode.locate import find_payloads
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ARCHIVES, CONTAINER_FORMATS, HOSTS, Codec, ContainerKind
from fatpatch.model.tree import Container, Inventory, Member, Node, Payload
from fatpatch.remote.opening import open_input
from fatpatch.scan.image_stores import store_at, store_in
from fatpatch.scan.kernel_folders import beside, is_kernel_file
from fatpatch.scan.slim_marks import marked

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fatpatch.binfmt.container_image.store import BlobStore

KINDS = tuple(row.kind.value for row in CONTAINER_FORMATS if row.kind not in (ContainerKind.FOLDER, ContainerKind.CONTAINER_IMAGE))
"""What a file can be read as."""

_POINTER = 1024
_FORCED = frozenset({ContainerKind.CUBIN, ContainerKind.PTX, ContainerKind.KPACK})
_HARMLESS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x00\x01\x00\x00", b"wOF2", b"%PDF")


class Kept(TypedDict, total=False):
    """What of a file is kept besides its GPU code.

    ``everything``: members that hold nothing that concerns us; ``all_kinds``: an inventory of SPIR-V and Metal code; ``keep_bytes``: the
    bytes of members without GPU code, as a check of archives needs them.
    """

    everything: bool
    all_kinds: bool
    keep_bytes: bool


Progress = Callable[[str, int, int], None]
"""Called with the locator of what is being read, and how much of how much of its archive is done."""


@contextmanager
def inspected(
    path: str,
    *,
    name: str | None = None,
    inside: str = "",
    limits: Limits | None = None,
    kind: str | None = None,
    progress: Progress | None = None,
    **kept: Unpack[Kept],
) -> Iterator[Node]:
    """The tree of the file at ``path``. Inside the block its images can be read; temporary files go when it ends.

    ``name`` is the first step of every locator (default: the last part of the path), behind ``inside``, the locator of a folder;
    ``kind`` forces the reader of the outermost file. InputError when the file cannot be read.
    """
    label = name or file_name(path)
    if kind is None and (store := store_at(path, limits)) is not None:
        workspace = unpack.Workspace(limits or Limits(), store.size)
        try:
            yield _TreeWalk(workspace, path, progress, **kept).image(store, join(inside, label), path, depth=0, diagnostics=Diagnostics())
        finally:
            store.close()
            workspace.close()
        return
    source = open_input(path, None if limits is None else limits.remote)
    try:
        with walked(source, label, path=path, inside=inside, limits=limits, kind=kind, progress=progress, **kept) as node:
            yield marked(node, path)
    finally:
        source.close()


@contextmanager
def walked(
    source: Source,
    name: str,
    *,
    path: str = "",
    inside: str = "",
    limits: Limits | None = None,
    kind: str | None = None,
    progress: Progress | None = None,
    **kept: Unpack[Kept],
) -> Iterator[Node]:
    """As ``inspected``, for bytes that are at hand, such as a file that is planned but not written yet."""
    workspace = unpack.Workspace(limits or Limits(), source.size)
    try:
        walk = _TreeWalk(workspace, path, progress, **kept)
        yield walk.node(source, join(inside, name), path, depth=0, kind=_forced(kind))
    finally:
        workspace.close()


def _forced(kind: str | None) -> ContainerKind | None:
    """The kind that a caller names; InputError for one that does not exist."""
    try:
        return None if kind is None else ContainerKind(kind)
    except ValueError:
        raise InputError(f"no kind of file is called {kind!r}", hint=f"one of {', '.join(KINDS)}") from None


class _TreeWalk:
    """One run over one input file."""

    def __init__(
        self,
        workspace: unpack.Workspace,
        path: str,
        progress: Progress | None,
        *,
        everything: bool = False,
        all_kinds: bool = False,
        keep_bytes: bool = False,
    ) -> None:
        self.workspace = workspace
        self.progress = progress
        self.everything = everything
        self.all_kinds = all_kinds
        self.keep_bytes = keep_bytes
        self.path = path

    def node(
        self, source: Source, locator: str, path: str, *, depth: int, kind: ContainerKind | None = None, member: Member | None = None
    ) -> Node:
        """The node of one file, its members read in turn."""
        diagnostics = Diagnostics()
        packing, file_size = None, source.size
        if kind is None and (codec := stream_codec(source)) is not None:
            try:
                packed, packing, notes = source, codec, list[str]()
                source = self.workspace.unpack(packed, codec, notes=notes)
                self.workspace.release(packed)
                for message in notes:
                    diagnostics.warning(locator, None, message, field="data")
            except FatpatchError as error:
                diagnostics.caught(locator, error)
        container, payloads = self._open(source, locator, kind, diagnostics)
        if container.kind == ContainerKind.TAR and kind is None and (store := store_in(source, container)) is not None:
            node = self.image(store, locator, path, depth=depth, diagnostics=diagnostics)
            return node._replace(size=file_size if member is None else source.size, packing=packing, source=source)
        if depth == 0 and container.kind == ContainerKind.RAW and source.peek(0, 4) == n.ZIP_LOCAL_MAGIC:  # a member like that is test data
            from fatpatch.binfmt.zip import read as zip_reader

            zip_reader.report_cut(source, locator, diagnostics)
        name = locator if locator == STANDARD_INPUT else path
        page = unread.page_or_pointer(source) if container.kind == ContainerKind.RAW and not container.members else None
        if page is not None and not container.detail:
            container = container._replace(detail=page.partition(" ")[2])
        if page == unread.LFS_POINTER and source.size < _POINTER:
            diagnostics.not_read(locator, 0, f"is {page}, not the file itself: fetch that with 'git lfs pull'")
        elif (
            kind is None
            and "::" not in path
            and not (container.kind == ContainerKind.RAW and container.members)  # a zip behind other bytes
            and not diagnostics.any_not_read
            and (found := unread.misnamed(name, source, container, packing)) is not None
        ):
            ending = f", though its name ends in .{name.rsplit('.', 1)[-1][:20]}" if "." in name else ""
            diagnostics.not_read(locator, 0, f"is {found}{ending}")
        members = self._members(source, container, locator, depth, diagnostics)
        return Node(
            locator=locator,
            path=path,
            size=file_size if member is None else source.size,
            container=container.kind,
            detail=container.detail,
            members=members,
            payloads=payloads,
            diagnostics=diagnostics.finish(),
            facts=container.facts,
            packing=packing if member is None or member.method == Codec.STORED else member.method,
            stored_at=member.offset if member is not None and member.method == Codec.STORED else None,
            member_count=len(container.members),
            source=source,
            inventory=self._inventory(source, container) if self.all_kinds else None,
            layout=container,
            kernel_files=tuple(each.name for each in container.members if is_kernel_file(each.name)) or (beside(path) if not depth else ()),
        )

    def image(self, store: BlobStore, locator: str, path: str, *, depth: int, diagnostics: Diagnostics) -> Node:
        """The node of a container image, its layers as one file system."""
        from fatpatch.scan.container_image import LayerReading, image_nodes

        def visit(content: Source, where: str, member: Member) -> tuple[Node | None, bool]:
            self._count(where, member)
            return self._visited(content, where, member, depth + 1)

        def matters(head: bytes, member: Member) -> bool:
            return self.everything or worth_reading(head, member)

        progress = self.progress or (lambda *_: None)
        reading = LayerReading(self.workspace, matters, visit, progress, self.keep_bytes, self.workspace.limits.platform)
        return image_nodes(store, locator, path, reading, diagnostics)

    def _inventory(self, source: Source, container: Container) -> tuple[Inventory, ...]:
        """That of a file; an archive's members each have their own."""
        if container.kind in ARCHIVES:
            return ()
        from fatpatch.gpucode.inventory import take_inventory

        return take_inventory(source)

    def _open(
        self, source: Source, locator: str, kind: ContainerKind | None, diagnostics: Diagnostics
    ) -> tuple[Container, tuple[Payload, ...]]:
        try:
            bare: Bare | None = sniff_bare(source) if kind is None else kind if kind in _FORCED else None
            if bare is not None and bare in BARE_IMAGES:
                payload = bare_payload(source, bare, locator, self.workspace.limits.image, diagnostics)
                return _bare_container(bare), (payload,)
            if bare is ContainerKind.KPACK:
                from fatpatch.gpucode.kpack import read_kpack

                return Container(kind=bare), read_kpack(source, locator, self.workspace.limits.images, diagnostics)
            container = Container(kind=bare) if isinstance(bare, ContainerKind) else identify(source, locator, diagnostics, kind)
            if kind is None and container.kind in (ContainerKind.RAW, *HOSTS) and not container.members:
                container = _unread(source, container, locator, diagnostics)
            return container, find_payloads(
                source, container, locator, self.workspace.limits.images, diagnostics, self.workspace.limits.image
            )
        except InputError:
            raise
        except FatpatchError as error:
            diagnostics.caught(locator, error)
            return Container(kind=kind or ContainerKind.RAW), ()

    def _members(self, source: Source, container: Container, locator: str, depth: int, diagnostics: Diagnostics) -> tuple[Node, ...]:
        nodes = []
        for member, where in located(container.members, locator):
            if depth + 1 > self.workspace.limits.depth:
                diagnostics.error(where, member.offset, f"nested deeper than {self.workspace.limits.depth}: not looked into")
                break
            try:
                self._count(where, member)
            except LimitError as error:
                diagnostics.caught(where, error)
                break
            if self.progress is not None:
                self.progress(where, member.offset, source.size)
            try:
                node = self._member(source, member, where, depth + 1)
            except FatpatchError as error:
                diagnostics.caught(where, error)
                continue
            if node is not None:
                nodes.append(node)
        return tuple(nodes)

    def _member(self, source: Source, member: Member, locator: str, depth: int) -> Node | None:
        """The node of one member; None when it holds nothing that concerns us."""
        begun = None if self.everything else self.workspace.begin(source, member)
        if begun is not None and not worth_reading(begun.head, member):
            return None
        content = self.workspace.open(source, member, begun)
        node, needed = self._visited(content, locator, member, depth)
        for used in (content, None if node is None else node.source):
            if used is not None and not used.shares(source):
                used.close()  # thousands of members must not hold thousands of descriptors
        if not needed:
            self.workspace.release(content)
        return node

    def _visited(self, content: Source, locator: str, member: Member, depth: int) -> tuple[Node | None, bool]:
        """The node of a member, if it concerns us, and whether its bytes are needed further on."""
        node = self.node(content, locator, member.name, depth=depth, member=member)
        kept = self.everything or node.container != ContainerKind.RAW or node.payloads or node.members or node.diagnostics or node.inventory
        needed = self.everything or self.keep_bytes or _needs_bytes(node)
        if not needed and node.source is not None and node.source is not content:
            self.workspace.release(node.source)  # what a codec was taken off of
        return (node if kept else None), needed

    def _count(self, where: str, member: Member) -> None:
        self.workspace.members += 1
        if self.workspace.members > self.workspace.limits.members:
            message = f"more than {self.workspace.limits.members} members in this run: the rest is left out"
            raise LimitError(message, locator=where, offset=member.offset)


@functools.lru_cache
def _bare_container(bare: Bare) -> Container:
    """One for all: a package may have tens of thousands of cubins."""
    if isinstance(bare, ContainerKind):
        return Container(kind=bare)
    return Container(kind=ContainerKind.ELF, detail="AMDGPU code object")


def _unread(source: Source, container: Container, locator: str, diagnostics: Diagnostics) -> Container:
    """The container, where it is or carries one that is recognised and not read: that is told, and never searched."""
    found = unread.whole(source) if container.kind == ContainerKind.RAW else unread.behind(source, container)
    if found is None:
        return container
    diagnostics.not_read(locator, found.start, f"{found.name}: not read; {found.hint}")
    return container._replace(opaque=found.start) if found.start else Container(kind=ContainerKind.UNREAD, detail=found.name, opaque=0)


def located(members: Iterable[Member], locator: str) -> Iterator[tuple[Member, str]]:
    """Each member with its locator; a name that occurs again gets a number."""
    seen: dict[str, int] = {}
    used: set[str] = set()
    for member in members:
        label = member.name
        while label in used:  # a member may be called as the second of another
            seen[member.name] = seen.get(member.name, 1) + 1
            label = f"{member.name}#{seen[member.name]}"
        used.add(label)
        yield member, join(locator, label)


def _needs_bytes(node: Node) -> bool:
    return bool(node.payloads) or any(_needs_bytes(member) for member in node.members)


def worth_reading(head: bytes, member: Member) -> bool:
    """Whether a member can hold GPU code: not when it is plain text or a picture, unless the text is PTX."""
    if not member.size or head.startswith(_HARMLESS) or _is_safetensors(head, member.size):
        return False
    if head.startswith((b"!<arch>", n.BUNDLE_MAGIC, n.KPACK_MAGIC, *n.APE_MAGICS)):
        return True
    return b"\0" in head or b".version" in head or any(head.startswith(magic) for magic, _ in STREAMS) or not head


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of weights begins so: the size of a JSON header, and that header."""
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < size
