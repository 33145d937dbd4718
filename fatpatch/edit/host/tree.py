"""New fatbins carried up the tree: into their host file, and each changed member into its archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fatpatch.base.errors import EditError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.base.overlay import Overlay
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.unpack import Workspace
from fatpatch.binfmt.zip.wheel_record import is_record, new_record
from fatpatch.binfmt.zip.write import edit_archive
from fatpatch.edit.host.bare import edit_bare
from fatpatch.edit.host.elf import edit_elf
from fatpatch.edit.host.host import HostEdit, Options
from fatpatch.edit.host.pe import edit_pe
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.model.kinds import Codec, ContainerKind
from fatpatch.model.tree import Member, Node
from fatpatch.scan.walk import located

Editor = Callable[[Node, Sequence[NewPayload], Options], HostEdit]
_EDITORS: dict[str, Editor] = {
    ContainerKind.ELF: edit_elf,
    ContainerKind.PE: edit_pe,
    ContainerKind.FATBIN: edit_bare,
    ContainerKind.CUBIN: edit_bare,
    ContainerKind.PTX: edit_bare,
    ContainerKind.BUNDLE: edit_bare,
}
_MAX_RECORD = 8 << 20


class TreeEdit(NamedTuple):
    """A file as it will be, how each payload was put in and each member replaced, and what to tell the user.

    ``moves``: by the locator of a host file, old to new offset of the payloads that moved. ``spare_at``: the old bytes stay
    as they are, so that cutting the file to its old size undoes the edit; a copy of the old zip directory lies there.
    ``compacted``: the host files and archives that bytes were taken out of.
    """

    overlay: Overlay
    placements: dict[str, str]
    members: dict[str, str]
    moves: dict[str, dict[int, int]]
    notes: tuple[str, ...]
    spare_at: int | None = None
    compacted: frozenset[str] = frozenset()


def edit_tree(node: Node, renewed: Mapping[str, NewPayload], options: Options) -> TreeEdit | None:
    """The edit of a node with everything below it; None when nothing of it changes. ``fatbins`` are by locator."""
    own = [renewed[payload.locator] for payload in node.payloads if payload.locator in renewed]
    children = [(child, edit) for child in node.members if (edit := edit_tree(child, renewed, options)) is not None]
    if not own and not children:
        return None
    if own and children:
        raise UnsupportedError("holds fatbins of its own and in members: edit it in two steps", locator=node.locator)
    if node.packing is not None and node.stored_at is None and node.packing != Codec.DEFLATE:
        raise UnsupportedError(f"is packed by {node.packing}", locator=node.locator, hint="unpack it, edit it, and pack it again")
    if own:
        editor = _EDITORS.get(node.container)
        if editor is None:
            hint = "edit the ELF or PE file itself" if node.container != ContainerKind.RAW else "the file type is not known"
            raise UnsupportedError(f"GPU code in {node.container} files cannot be edited", locator=node.locator, hint=hint)
        result = editor(node, own, options)
        where = frozenset({node.locator} if result.compacted else ())
        return TreeEdit(result.overlay, dict(result.placements), {}, {node.locator: dict(result.moves)}, result.notes, compacted=where)
    return _edit_members(node, children, options)


def _edit_members(node: Node, children: Sequence[tuple[Node, TreeEdit]], options: Options) -> TreeEdit:
    if not any(member.crc32 is not None for member in node.layout.members):
        hint = "unpack it, edit the file itself, and pack it again"
        raise UnsupportedError(f"members of {node.container} files cannot be edited", locator=node.locator, hint=hint)
    by_locator = {where: member for member, where in located(node.layout.members, node.locator)}
    replaced: dict[Member, Overlay] = {}
    placements: dict[str, str] = {}
    members: dict[str, str] = {}
    moves: dict[str, dict[int, int]] = {}
    notes: list[str] = []
    for child, edit in children:
        member = by_locator[child.locator]
        if child.size != member.size:
            raise UnsupportedError(
                "is a packed file inside an archive", locator=child.locator, hint="unpack it, edit it, and pack it again"
            )
        replaced[member] = edit.overlay
        placements |= edit.placements
        members |= edit.members
        moves |= edit.moves
        notes += edit.notes
    notes += _renew_record(node, replaced)
    result = edit_archive(node.content, node.locator, replaced, rebuild=options.rebuild)
    members |= {where: result.placements[member] for where, member in by_locator.items() if member in replaced}
    compacted = frozenset(where for _, edit in children for where in edit.compacted) | ({node.locator} if result.rebuilt else set())
    return TreeEdit(result.overlay, placements, members, moves, tuple(notes), result.spare_at, compacted)


def _renew_record(node: Node, replaced: dict[Member, Overlay]) -> list[str]:
    """Put a new RECORD among the replaced members of a wheel; what to say when signatures of it exist."""
    record = next((member for member in node.layout.members if is_record(member.name)), None)
    if record is None:
        return []
    if record.size > _MAX_RECORD:
        raise EditError(f"its RECORD has {record.size:#x} bytes", locator=node.locator)
    workspace = Workspace(Limits(), node.content.size)
    try:
        old = workspace.open(node.content, record).read(0, record.size)
    finally:
        workspace.close()
    replaced[record] = new_record(old, {member.name: overlay for member, overlay in replaced.items()}, node.locator)
    signatures = [member.name for member in node.layout.members if member.name in (f"{record.name}.jws", f"{record.name}.p7s")]
    return [f"{name} signs the old RECORD and no longer matches" for name in signatures]
