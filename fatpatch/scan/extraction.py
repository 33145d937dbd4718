"""Writes images, whole payloads and members to a folder, under predictable safe names, with an index of what is what."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

from fatpatch.base.errors import EditError, FatpatchError
from fatpatch.base.locator import matches, steps, target_matches
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.writing import write_file
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import IMAGE_FORMATS, IMAGE_SUFFIXES, KERNEL_PACKS, PTX_TEXTS, ImageKind, ModuleKind
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import members_below, payloads_below

IMAGE_KINDS = tuple(row.kind.value for row in IMAGE_FORMATS if row.kind not in (ImageKind.CONCATENATED, ImageKind.HOST))
INDEX = "index.json"
WHOLE, MEMBER = "fatbin", "member"
MEMBERS = "members"
_UNSAFE = lazy_pattern(r"[^A-Za-z0-9._+-]+")
_RESERVED = lazy_pattern(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_MAX_NAME = 120


class ExtractRequest(NamedTuple):
    """What to extract. ``kinds`` are image kinds, ``fatbin`` (whole payloads) and ``member``; empty: every image."""

    kinds: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    selects: tuple[str, ...] = ()

    def image(self, image: ImageEntry) -> bool:
        """Whether this image is wanted."""
        return (
            (not self.kinds or image.kind in self.kinds)
            and (not self.targets or any(target_matches(image.target, target) for target in self.targets))
            and self.place(image.locator)
        )

    def whole(self, payload: Payload) -> bool:
        """Whether this payload is wanted as it is."""
        targets = not self.targets or any(target_matches(image.target, target) for image in payload.images for target in self.targets)
        whole = payload.kind not in KERNEL_PACKS  # those are not things of their own in the file
        return whole and ModuleKind.FATBIN in self.kinds and targets and self.place(payload.locator)

    def place(self, locator: str) -> bool:
        """Whether a locator, or anything it lies in, is selected."""
        return not self.selects or any(matches(locator, select) or matches(locator, f"{select}!*") for select in self.selects)


class Extracted(NamedTuple):
    """One file written: ``path`` is relative to the folder, with forward slashes."""

    path: str
    locator: str
    kind: str
    target: str | None
    size: int
    sha256: str


def extract(node: Node, choice: ExtractRequest, folder: str, *, limit: int, replace: bool, diagnostics: Diagnostics) -> Iterator[Extracted]:
    """Write what is chosen below ``folder``. A part that cannot be read is a diagnostic and the next one follows.

    EditError when a file exists and ``replace`` is false, or when a link would lead out of the folder.
    """
    names = _Names(folder)
    for holder, payload in payloads_below(node):
        if holder.source is None:
            continue
        place = steps(holder.locator)[1:]
        if payload.kind == ModuleKind.KPACK:
            place = (*place, steps(payload.locator)[-1])
        if choice.whole(payload):
            pieces = holder.source.chunks(payload.offset, payload.size)
            yield _write(names, payload.locator, (*place, _whole_name(payload)), payload.kind, None, pieces, replace)
        reader = ImageReader(holder.source, limit)
        for image in payload.images:
            if not choice.image(image):
                continue
            try:
                data = reader.read(image)
            except FatpatchError as error:
                diagnostics.caught(image.locator, error)
                continue
            if image.kind in PTX_TEXTS:
                data = data.split(b"\0", 1)[0]
            name = f"{_step_name(image.locator, payload)}.{IMAGE_SUFFIXES.get(image.kind, 'bin')}"
            yield _write(names, image.locator, (*place, name), image.kind, image.target, [data], replace)
        holder.source.close()
    if "member" in choice.kinds:
        for member in members_below(node):
            if member.source is not None and choice.place(member.locator):
                place = (MEMBERS, *steps(member.locator)[1:])
                yield _write(names, member.locator, place, "member", None, member.source.chunks(), replace)
                member.source.close()


def _whole_name(payload: Payload) -> str:
    suffix = {ModuleKind.FATBIN: "fatbin", ModuleKind.OFFLOAD_BUNDLE: "hipfb"}.get(payload.kind, "bin")
    return f"{_payload_name(payload)}.{suffix}"


def _payload_name(payload: Payload) -> str:
    """``nv_fatbin.fatbin3``: the section without its dot, then the payload's own step."""
    own = steps(payload.locator)[-1].replace("[", "").replace("]", "") if "[" in payload.locator.rsplit("!", 1)[-1] else ""
    return ".".join(part for part in ((payload.section or "").lstrip("."), own) if part)


def _step_name(locator: str, payload: Payload) -> str:
    """The payload's name and whatever steps the image adds to it."""
    rest = [step.replace("#", "-").replace("[", "-").replace("]", "") for step in steps(locator[len(payload.locator) + 1 :])]
    return ".".join(part for part in (_payload_name(payload), *rest) if part)


def _write(
    names: _Names, locator: str, place: Sequence[str], kind: str, target: str | None, pieces: Iterable[bytes], replace: bool
) -> Extracted:
    path = names.path(place)
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            yield piece

    write_file(os.path.join(names.folder, *path.split("/")), counted(), replace=replace, sync=False)
    return Extracted(path=path, locator=locator, kind=kind, target=target, size=size, sha256=digest.hexdigest())


class _Names:
    """Hands out relative paths that are safe on every system, unique in any case, and never lead out of the folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._root = os.path.realpath(folder)
        self._files: set[str] = {INDEX}
        self._folders: set[str] = set()
        self._numbers: dict[str, int] = {}

    def path(self, place: Sequence[str]) -> str:
        """The path of a thing whose hostile names, outermost first, are ``place``."""
        parts = [_safe(part) for step in place for part in step.replace("\\", "/").split("/") if part not in ("", ".")]
        *folders, name = parts or ["image"]
        path = ""
        for folder in folders:
            path = self._free(path, folder, self._files)
            self._folders.add(path.lower())
        parent = path
        path = self._free(parent, name, self._files, self._folders)
        self._files.add(path.lower())
        self._make(parent)
        return path

    def _free(self, parent: str, name: str, *taken: set[str]) -> str:
        """``parent/name``, with a number before the suffix when that is taken."""
        stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
        path = wish = f"{parent}/{name}".lstrip("/")
        while any(path.lower() in names for names in taken):
            number = self._numbers[wish] = self._numbers.get(wish, 1) + 1
            path = f"{parent}/{stem}~{number}{dot}{suffix}".lstrip("/")
        return path

    def _make(self, parent: str) -> None:
        parts = parent.split("/") if parent else []
        if os.path.realpath(os.path.join(self._root, *parts)) != os.path.join(self._root, *parts):
            message = "a link in the folder leads elsewhere"
            raise EditError(message, locator=os.path.join(self.folder, *parts), hint="give an empty folder")
        try:
            os.makedirs(os.path.join(self._root, *parts), exist_ok=True)
        except OSError as error:
            reason = f"cannot make the folder: {error.strerror}"
            raise EditError(reason, locator=os.path.join(self.folder, *parts), hint="give an empty folder") from error


def _safe(part: str) -> str:
    clean = _UNSAFE.sub("_", part)
    if clean.strip(".") == "" or _RESERVED.match(clean) or clean.startswith("."):
        clean = f"_{clean}"
    if len(clean) > _MAX_NAME:
        digest = hashlib.sha256(part.encode("utf-8", "backslashreplace")).hexdigest()[:12]
        clean = f"{clean[: _MAX_NAME - 33]}~{digest}~{clean[-19:]}"
    return clean.rstrip(". ") or "_"
