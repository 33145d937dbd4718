"""Which images a user wants to keep: by target, or as those that some GPUs load. And whom that leaves without code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.locator import target_matches
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.amd import choose_object, offered
from fatpatch.gpus.devices import Device
from fatpatch.gpus.fleet import by_target
from fatpatch.gpus.selection import DEVICES, choose
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.target import Target, target_key
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below

_LOADABLE = frozenset({"sass", "ptx", "hsaco", "spirv"})


class KeepRequest(NamedTuple):
    """Patterns of targets to keep or to drop (sm_75, sm_8*, gfx90a), or the GPUs that the file is for; one of the three.

    ``keep_ptx``: with ``devices``, also the PTX that newer GPUs would compile; ``strip_lto``: code for link-time optimization goes.
    """

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    keep_ptx: bool = False
    strip_lto: bool = False


Pair = tuple[Node, Payload]
"""A payload and the file that holds it."""


class ImageSelection(NamedTuple):
    """For each payload (by locator) the images that go; what to tell the user; names of targets that no longer run anything."""

    dropped: dict[str, tuple[ImageEntry, ...]]
    lost: tuple[str, ...]
    notes: tuple[str, ...]


def chosen(everything: Sequence[Pair], request: KeepRequest, modules: Sequence[Pair], *, force: bool) -> ImageSelection:
    """What the request takes out of ``modules``, which are some of ``everything`` that the file holds.

    EditError when a target is named that is nowhere, or when a module would no longer load on a GPU that other modules still serve.
    """
    chooser = _Chooser()
    _refuse_unknown(modules, request, chooser)
    vendors = {device.vendor for device in request.devices}
    dropped = {}
    notes = [f"kept is what {device.name} loads ({device.target})" for device in request.devices]
    for _, payload in modules:
        if request.devices and payload.vendor not in vendors:
            notes.append(f"code of {payload.vendor.upper()} GPUs is left as it is: none of those named is one")
            continue
        kept = {id(image) for image in _kept(payload, request, chooser)}
        if gone := tuple(image for image in payload.images if id(image) not in kept):
            dropped[payload.locator] = gone
    if request.devices:
        others = {image.kind for _, payload in modules for image in payload.images} - _LOADABLE
        others -= {"lto"} if request.strip_lto else set()
        notes += [f"images of kind {kind} are kept: no GPU loads them itself; --drop takes them by target" for kind in sorted(others)]
    lost, broken = _losses(everything, dropped, request.devices, chooser)
    if not force:
        if broken:
            raise _broken(broken)
        _refuse_all(everything, dropped)
    if _texts(everything, {}) and not _texts(everything, dropped):
        notes.append("no PTX is left: a GPU newer than those that the SASS is for will find nothing")
    return ImageSelection(dropped, lost, tuple(dict.fromkeys(notes)))


def _texts(modules: Sequence[Pair], dropped: Mapping[str, tuple[ImageEntry, ...]]) -> bool:
    gone = {id(image) for images in dropped.values() for image in images}
    return any(image.kind == ImageKind.PTX and id(image) not in gone for _, payload in modules for image in payload.images)


def _refuse_all(everything: Sequence[Pair], dropped: Mapping[str, tuple[ImageEntry, ...]]) -> None:
    """EditError when nothing at all would be left."""
    if dropped and all(len(dropped.get(payload.locator, ())) == len(payload.images) for _, payload in everything):
        raise EditError("nothing would be left in the file", hint="keep some target; --force prunes all the same")


def _kept(payload: Payload, request: KeepRequest, chooser: _Chooser) -> Iterator[ImageEntry]:
    for image in payload.images:
        if image.kind == ImageKind.LTO and request.strip_lto:
            continue
        if not (request.keep or request.drop or request.devices):
            yield image
        elif request.keep:
            if any(target_matches(image.target, pattern) for pattern in request.keep):
                yield image
        elif request.drop:
            if not any(target_matches(image.target, pattern) for pattern in request.drop):
                yield image
        elif image.kind not in _LOADABLE:
            yield image
    for device in request.devices:
        yield from loaded(payload, device.target, device.arch, chooser)
    if request.keep_ptx:
        texts = [image for image in payload.images if image.kind == ImageKind.PTX and not Target(image.target).suffix]
        yield from (image for image in texts if image.target == max((each.target for each in texts), key=target_key))


def loads_any(node: Node, devices: Sequence[Device]) -> bool:
    """Whether one of the GPUs loads anything of a file."""
    chooser = _Chooser()
    return any(
        True for _, payload in payloads_below(node) for device in devices for _ in loaded(payload, device.target, device.arch, chooser)
    )


def unloaded(node: Node, devices: Sequence[Device]) -> Iterator[Pair]:
    """The payloads of a file of which none of the GPUs loads anything."""
    chooser = _Chooser()
    for holder, payload in payloads_below(node):
        if not any(True for device in devices for _ in loaded(payload, device.target, device.arch, chooser)):
            yield holder, payload


class Loss(NamedTuple):
    """A module, the GPU on which it would no longer load, and the target of the image that it loads there now."""

    locator: str
    target: str
    loaded: str


class _Chooser:
    """What GPUs load; asked once for all payloads whose images have the same labels, as most of a file's have."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], int] = {}
        self._kind_of: dict[int, tuple[Sequence[ImageEntry], int]] = {}
        self._known: dict[tuple[int, int], int | None] = {}

    def image(self, images: Sequence[ImageEntry], arch: int) -> ImageEntry | None:
        """The image of those of one fatbin that the driver takes."""
        key = arch, self._kind(images)
        if key not in self._known:
            chosen = choose(images, arch).image
            self._known[key] = next((index for index, image in enumerate(images) if image is chosen), None)
        index = self._known[key]
        return None if index is None else images[index]

    def _kind(self, images: Sequence[ImageEntry]) -> int:
        """A number for all images with these labels; what was asked for is held, so that nothing else gets its id."""
        found = self._kind_of.get(id(images))
        if found is None:
            number = self._kinds.setdefault(tuple(map(_label, images)), len(self._kinds))
            found = self._kind_of[id(images)] = images, number
        return found[1]


def _label(image: ImageEntry) -> tuple[object, ...]:
    """All that the choice looks at."""
    padded = image.stored_bytes != image.stored_size
    return image.kind, image.kind_code, image.target, image.flags, image.compression, image.within is None, padded


def loaded(payload: Payload, target: str, arch: int | None, chooser: _Chooser) -> Iterator[ImageEntry]:
    """What a GPU loads of a payload; an AMD GPU in each of the modes that it can run in."""
    modes = [target] if arch is not None else _modes(target, [payload])
    for mode in modes:
        image = _taken(payload, mode, arch, chooser)
        if image is not None:
            yield image
            if image.kind == ImageKind.RELOCATABLE_PTX:  # all of them are linked together
                yield from (other for other in payload.images if other.kind == ImageKind.RELOCATABLE_PTX and other is not image)


def _taken(payload: Payload, target: str, arch: int | None, chooser: _Chooser) -> ImageEntry | None:
    """The one image that a GPU takes in one mode."""
    if payload.vendor == Vendor.NVIDIA and arch is not None:
        return chooser.image(payload.images, arch)
    if payload.vendor == Vendor.AMD and arch is None:
        return choose_object(offered(payload.images), target).image
    return None


def _modes(target: str, payloads: Sequence[Payload]) -> list[str]:
    """The target as it is, and with every setting that objects for it demand: a user may switch XNACK."""
    processor = Target(target).processor
    images = (image for payload in payloads if payload.vendor == Vendor.AMD for image in payload.images)
    demanded = [image.target for image in images if Target(image.target).processor == processor and Target(image.target).features]
    return list(dict.fromkeys([target, *demanded]))


def _losses(
    modules: Sequence[tuple[Node, Payload]], dropped: Mapping[str, tuple[ImageEntry, ...]], devices: Sequence[Device], chooser: _Chooser
) -> tuple[tuple[str, ...], list[Loss]]:
    """(targets that are not served any more; modules that no longer load on a GPU that is to be kept).

    To be kept are the devices, where some are named; else every GPU that some module of the file still serves.
    """
    lost: list[str] = []
    broken: list[Loss] = []
    named = {Target(device.target).processor for device in devices}
    payloads = [payload for _, payload in modules]
    pairs = [(each, _without(each, dropped[each.locator]) if each.locator in dropped else each) for each in payloads]
    for target, arch in _targets(payloads):
        without, still = [], False
        for payload, rest in pairs:
            before = _taken(payload, target, arch, chooser)
            after = before if before is None or rest is payload else _taken(rest, target, arch, chooser)
            if after is not None:
                still = True
            elif before is not None:
                without.append(Loss(payload.locator, target, before.target))
        if without and (Target(target).processor in named if named else still):
            broken += without
        elif without:
            lost.append(target)
    return tuple(lost), broken


def _targets(payloads: Sequence[Payload]) -> Iterator[tuple[str, int | None]]:
    vendors = {payload.vendor for payload in payloads}
    if Vendor.NVIDIA in vendors:
        yield from ((f"sm_{arch}", arch) for arch in DEVICES)
    if Vendor.AMD in vendors:
        own = [target for target, devices in by_target().items() if devices[0].vendor == Vendor.AMD]
        yield from ((mode, None) for target in own for mode in _modes(target, payloads))


def _without(payload: Payload, gone: Sequence[ImageEntry]) -> Payload:
    away = set(map(id, gone))
    return payload._replace(images=tuple(image for image in payload.images if id(image) not in away))


def _broken(broken: Sequence[Loss]) -> EditError:
    """The refusal in words, and the targets that would have to stay."""
    locator, target, image = broken[0]
    devices = sorted({loss.target for loss in broken}, key=target_key)
    modules = len({loss.locator for loss in broken})
    more = f"; {modules} modules would be lost so, on {', '.join(devices)}" if len(broken) > 1 else ""
    message = f"a GPU of {target} loads {image} here and would find nothing, while other modules of the file still run on it{more}"
    wanted = sorted({loss.loaded for loss in broken}, key=target_key)
    return EditError(message, locator=locator, hint=f"keep {', '.join(wanted)} too; --force prunes all the same")


def _refuse_unknown(modules: Sequence[tuple[Node, Payload]], request: KeepRequest, chooser: _Chooser) -> None:
    there = sorted({image.target for _, payload in modules for image in payload.images}, key=target_key)
    for pattern in (*request.keep, *request.drop):
        if not any(target_matches(target, pattern) for target in there):
            raise EditError(f"nothing in the file is for {pattern!r}", hint=f"its targets are {', '.join(there)}")
    if request.devices and not any(
        True for _, payload in modules for device in request.devices for _ in loaded(payload, device.target, device.arch, chooser)
    ):
        names = ", ".join(device.name for device in request.devices)
        raise EditError(f"nothing in the file runs on {names}, so nothing would be left", hint=f"its targets are {', '.join(there)}")
