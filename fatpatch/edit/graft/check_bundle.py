"""What must hold of bundles after an edit: old code objects verbatim and in order, the new ones whole, packed as before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.edit.graft.plan import Graft
from fatpatch.edit.payload.bundle import ALIGNMENT
from fatpatch.edit.transaction.comparison import HostPair
from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Payload


def bundle_checks(pair: HostPair, grafts: Sequence[Graft], limit: int) -> Iterator[CheckResult]:
    """The checks of all edited bundles of one host file; reading a compressed one checks its hash."""
    old_reader, new_reader = ImageReader(pair.old.content, limit), ImageReader(pair.new.content, limit)
    ids: list[str] = []
    kept, given, packed, targets = [], [], [], []
    for payload in {graft.module.locator: graft.module.payload for graft in grafts}.values():
        mine = [graft for graft in grafts if graft.module.locator == payload.locator]
        found = pair.counterpart(payload)
        assert found is not None
        fresh = {_key(graft.new_image.target): graft for graft in mine}
        replaced = {graft.replaced.identifier for graft in mine if graft.replaced is not None}
        before = [image for image in payload.images if image.identifier not in replaced]
        after = [image for image in found.images if _key(image.target) not in fresh]
        ids += _id_problems(found, len(before) + len(mine))
        if [image.identifier for image in after] != [image.identifier for image in before]:
            kept.append(f"{found.locator}: the old entries are not as they were")
        else:
            kept += [
                f"{new.locator} differs" for old, new in zip(before, after, strict=True) if old_reader.read(old) != new_reader.read(new)
            ]
        for image in found.images:
            if _key(image.target) in fresh:
                data = new_reader.read(image)
                given += [] if data == fresh[_key(image.target)].new_image.content() else [f"{image.locator} does not hold the given bytes"]
                targets += (
                    [] if Target(read_code_object(data).target).means(image.target) else [f"{image.locator} is for another processor"]
                )
        if (found.format, found.version) != (payload.format, payload.version) or _codecs(found) != _codecs(payload):
            packed.append(f"{found.locator} uses another codec")
        packed += [f"{image.locator} is not aligned" for image in found.images if _start(image, found) % ALIGNMENT]
    yield check_of("entries of every bundle as planned", ids)
    yield check_of("old code objects byte-identical", kept)
    yield check_of("new code objects are the given bytes", given)
    yield check_of("new code objects name their own processor", targets)
    yield check_of("bundles packed as before, objects aligned", packed)


def _key(target: str) -> tuple[str, ...]:
    """A target whose features have no order."""
    return tuple(sorted(target.split(":")))


def _id_problems(bundle: Payload, expected: int) -> Iterator[str]:
    ids = [image.identifier for image in bundle.images]
    if len(ids) != expected or len(set(ids)) != expected:
        yield f"{bundle.locator} has {len(ids)} entries, {len(set(ids))} different ones, expected {expected}"


def _codecs(bundle: Payload) -> set[str]:
    return {image.compression for image in bundle.images}


def _start(image: ImageEntry, bundle: Payload) -> int:
    """Where an object starts in its bundle."""
    return image.within[0] if image.within is not None else image.data_offset - bundle.offset
