"""The headers of a release by samples of its packages on a server: of a wheel, or of the tarballs of an npm package."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from fatpatch.base.limits import Limits
from fatpatch.base.locator import escape, file_name
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node
from fatpatch.named.unit import NamedUnit, opened_unit
from fatpatch.remote.address import scheme_of
from fatpatch.remote.opening import open_input
from fatpatch.scan.coverage import holders
from fatpatch.scan.packed_tar import Ratios
from fatpatch.scan.samples import SampledTree, sampled
from fatpatch.scan.tarball_samples import BLOCK, sampled_tarball
from fatpatch.verdicts.header_record import HeaderRecord, record_of

OnRead = Callable[[str, int, int], None]


class SampledPackages:
    """Takes samples; what one tarball was packed to is kept, since those of other releases are alike."""

    def __init__(self, on_read: OnRead) -> None:
        self.on_read = on_read
        self._ratios = Ratios()

    def record_of(self, unit: NamedUnit, limits: Limits) -> HeaderRecord | None:
        """A record of samples; None where all of it must be read. Of several files those that must be are read whole."""
        files = unit.parts or (unit,)
        trees = [self._tree(each, limits) for each in files]
        if all(each is None for each in trees):
            return None
        with ExitStack() as stack:
            members, read, modules = list[Node](), 0, 0
            for each, tree in zip(files, trees, strict=True):
                node = tree.root if tree is not None else stack.enter_context(opened_unit(each, limits, self.on_read))
                count = sum(len(holder.payloads) for holder in holders(node))
                members.append(node)
                read += count if tree is None else tree.sampled
                modules += count if tree is None else max(tree.modules, tree.sampled)
            size = sum(node.size for node in members)
            root = Node(escape(unit.shown), unit.shown, size, ContainerKind.FOLDER, "", tuple(members), (), (), member_count=len(members))
            return record_of(root, read, modules)

    def _tree(self, unit: NamedUnit, limits: Limits) -> SampledTree | None:
        """A tree of samples; None where the file must be read whole."""
        path = unit.path.partition("#")[0]
        tarball = path.endswith(".tgz")
        if not scheme_of(unit.path) or not (tarball or path.endswith(".whl")):
            return None
        source = open_input(unit.path, limits.remote._replace(block=BLOCK) if tarball else limits.remote)
        try:
            return sampled_tarball(source, file_name(unit.shown), self._ratios) if tarball else sampled(source, unit.shown)
        finally:
            source.close()
