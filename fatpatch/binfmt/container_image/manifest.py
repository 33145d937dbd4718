"""From a store to its images: indexes, manifests and configurations, each as hostile as any other bytes.

Sources: OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md, config.md); Docker image specification 1.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.container_image.store import INDEX, LAYOUT, MANIFEST, BlobStore
from fatpatch.model.diagnostics import Diagnostics

_OF_LAYERS = ("tar", "layer")
_MAX_DOCUMENT = 8 << 20
_MAX_IMAGES = 256
_MAX_LAYERS = 1000
_MAX_INDEXES = 1000
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_FOREIGN = ("nondistributable", "foreign")
_ALGORITHMS = {"sha256": 64, "sha512": 128}
_NAME = "org.opencontainers.image.ref.name"
_ATTESTATION = "vnd.docker.reference.type"

Json = dict[str, Any]


class LayerRef(NamedTuple):
    """A layer as a manifest names it. ``digest``: of the stored bytes; ``diff_id``: of the unpacked ones; None where it is not said."""

    name: str
    digest: str | None
    diff_id: str | None
    size: int | None
    created_by: str | None
    media_type: str


class ImageRef(NamedTuple):
    """An image: the name in its index, its platform such as linux/arm64, its layers from the lowest on."""

    name: str
    platform: str
    layers: tuple[LayerRef, ...]


class _Descriptor(NamedTuple):
    digest: str
    media_type: str
    size: int | None
    platform: str
    name: str


def images_of(store: BlobStore, platform: str | None, locator: str, diagnostics: Diagnostics) -> list[ImageRef]:
    """Every image of a store, or those of one platform. What cannot be read is a diagnostic."""
    wanted = platform or store.platform
    reader = _ManifestReader(store, wanted, locator, diagnostics)
    if store.root is not None:
        found = list(reader.of_digest(_Descriptor(store.root, "", None, "", ""), 0))
    elif store.open(LAYOUT) is not None and store.open(INDEX) is not None:
        found = list(reader.of_index(reader.document(INDEX, "index"), 0))
    else:
        found = list(reader.of_archive(reader.listed(MANIFEST)))
    others = [*reader.passed_over, *(image.platform for image in found if wanted and not fits(image.platform, wanted))]
    fitting = [image for image in found if wanted is None or fits(image.platform, wanted)]
    if wanted is not None and not fitting and others:
        there = ", ".join(dict.fromkeys(others))
        diagnostics.not_read(locator, 0, f"no image for {wanted}; there is {there}: choose with --platform")
    elif platform is None and others:
        diagnostics.add(
            "note", locator, None, f"read for {wanted} only; there is {', '.join(dict.fromkeys(others))} too: choose with --platform"
        )
    return fitting


def is_image(store: BlobStore) -> bool:
    """Whether a store is an OCI layout or a docker-archive; many other archives have a manifest.json."""
    if store.open(LAYOUT) is not None and store.open(INDEX) is not None:
        return True
    source = store.open(MANIFEST)
    if source is None or source.size > _MAX_DOCUMENT:
        return False
    try:
        value = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and any(isinstance(each, dict) and isinstance(each.get("Layers"), list) for each in value)


def fits(platform: str, wanted: str) -> bool:
    """Whether a platform is the one that is wanted: linux/arm64 names its variants too, and arm64 is linux/arm64."""
    wanted = wanted if "/" in wanted else f"linux/{wanted}"
    return platform == wanted or platform.startswith(f"{wanted}/")


def digest_problem(source: Source, digest: str | None) -> str | None:
    """Why the bytes are not those of a digest; None where they are, or where it cannot be told."""
    algorithm, _, said = (digest or "").partition(":")
    if _ALGORITHMS.get(algorithm) != len(said):
        return None if digest is None else f"{digest[:80]!a} is not a known digest"
    engine = hashlib.new(algorithm)
    for chunk in source.chunks():
        engine.update(chunk)
    return None if engine.hexdigest() == said else f"its bytes have the digest {algorithm}:{engine.hexdigest()}, expected {digest}"


class _ManifestReader:
    """One walk from the root document of a store. ``passed_over``: the other platforms whose images were not asked for."""

    def __init__(self, store: BlobStore, platform: str | None, locator: str, diagnostics: Diagnostics) -> None:
        self.store, self.platform, self.locator, self.diagnostics = store, platform, locator, diagnostics
        self.passed_over: list[str] = []
        self._seen: set[str] = set()
        self._above: list[str] = []
        self._images = 0

    def document(self, name: str, what: str, digest: str | None = None, size: int | None = None) -> Json:
        """A JSON object of the store; empty, with a diagnostic, where there is none."""
        value = self._json(name, what, digest, size)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._error(f"{what} {name[:80]!a}: expected a JSON object", what)
        return {}

    def listed(self, name: str) -> list[Any]:
        """A JSON list of the store."""
        value = self._json(name, "manifest", None, None)
        if not isinstance(value, list):
            self._error(f"{name}: expected a list of images", "manifest")
            return []
        return value

    def of_index(self, index: Json, depth: int) -> Iterator[ImageRef]:
        """The images of an index and of those that it names."""
        for each in _list(index, "manifests"):
            descriptor = _descriptor(each)
            if descriptor is None:
                self._error(f"an entry of the index has no digest: {json.dumps(each)[:80]}", "manifests")
            elif _ATTESTATION in _dict(each, "annotations"):
                continue
            elif self.platform is not None and descriptor.platform and not fits(descriptor.platform, self.platform):
                self.passed_over.append(descriptor.platform)
            else:
                yield from self.of_digest(descriptor, depth)

    def of_digest(self, at: _Descriptor, depth: int) -> Iterator[ImageRef]:
        """The images of a manifest or an index."""
        if at.digest in self._above or len(self._seen) > _MAX_INDEXES:
            why = "names itself" if at.digest in self._above else "is one of too many"
            self._error(f"the manifest {at.digest[:80]!a} {why}: left out", "manifests")
            return
        if at.digest in self._seen:  # two tags of one image
            return
        self._seen.add(at.digest)
        document = self.document(at.digest, "manifest", at.digest, at.size)
        if not document:
            return
        media = _text(document, "mediaType") or at.media_type
        if media in _INDEXES or "manifests" in document:
            if depth > 4:
                self._error(f"index {at.digest[:80]!a} is nested too deep", "manifests")
                return
            self._above.append(at.digest)
            yield from self.of_index(document, depth + 1)
            self._above.pop()
        elif "layers" in document:
            yield from self._of_manifest(document, at)
        else:
            self.diagnostics.not_read(self.locator, 0, f"manifest {at.digest[:80]!a} of type {media[:80]!a}: not read")

    def _of_manifest(self, manifest: Json, at: _Descriptor) -> Iterator[ImageRef]:
        config = _descriptor(manifest.get("config"))
        facts = (
            {} if config is None or "json" not in config.media_type else self.document(config.digest, "config", config.digest, config.size)
        )
        layers = [
            layer for each in _list(manifest, "layers") if (layer := _descriptor(each)) is not None and "in-toto" not in layer.media_type
        ]
        if not any(word in layer.media_type for layer in layers for word in _OF_LAYERS) and layers:
            self.diagnostics.not_read(
                self.locator, 0, f"manifest {at.digest[:80]!a}: its layers are not file systems ({layers[0].media_type[:80]!a})"
            )
            return
        refs = [LayerRef(layer.digest, layer.digest, None, layer.size, None, layer.media_type) for layer in layers]
        yield from self._image(at.name, _platform(facts) or at.platform, refs, facts)

    def of_archive(self, listed: list[Any]) -> Iterator[ImageRef]:
        """The images of a docker-archive."""
        for each in listed:
            if not isinstance(each, dict):
                self._error(f"an entry of {MANIFEST} is not an object", "manifest")
                continue
            path = _text(each, "Config")
            facts = self.document(path, "config", _digest_in(path)) if path else {}
            names = [name for name in _list(each, "RepoTags") if isinstance(name, str)]
            paths = [name for name in _list(each, "Layers") if isinstance(name, str)]
            refs = [LayerRef(name, _digest_in(name), None, None, None, "") for name in paths]
            yield from self._image(names[0][:240] if names else "", _platform(facts), refs, facts)

    def _image(self, name: str, platform: str, refs: list[LayerRef], facts: Json) -> Iterator[ImageRef]:
        self._images += 1
        if self._images > _MAX_IMAGES or len(refs) > _MAX_LAYERS:
            self._error("more images or layers than any real one has: left out", "manifests")
            return
        diffs = [each for each in _list(_dict(facts, "rootfs"), "diff_ids") if isinstance(each, str)]
        if facts and len(diffs) != len(refs):
            self._error(f"the configuration counts {len(diffs)} layers, the manifest {len(refs)}", "rootfs")
            diffs = []
        steps = [_text(each, "created_by") for each in _list(facts, "history") if isinstance(each, dict) and not each.get("empty_layer")]
        layers = []
        for index, ref in enumerate(refs):
            step = steps[index][:400] if len(steps) == len(refs) else None
            layers.append(ref._replace(diff_id=diffs[index] if diffs else None, created_by=step or None))
        yield ImageRef(name, platform or "unknown", tuple(layers))

    def _json(self, name: str, what: str, digest: str | None, size: int | None) -> Any:
        source = self.store.open(name, manifest=what == "manifest")
        if source is None:
            self._error(f"the {what} {name[:80]!a} is not there", what)
            return None
        if source.size > _MAX_DOCUMENT:
            self._error(f"the {what} {name[:80]!a} has {source.size:#x} bytes", what)
            return None
        if size is not None and size != source.size:
            self._error(f"the {what} {name[:80]!a} has {source.size:#x} bytes, its descriptor says {size:#x}", what)
        if (problem := digest_problem(source, digest)) is not None:
            self._error(f"the {what}: {problem}", "digest")
        try:
            return json.loads(source.read(0, source.size))
        except (ValueError, RecursionError) as error:
            self._error(f"the {what} {name[:80]!a} is not JSON: {error!s:.80}", what)
            return None

    def _error(self, message: str, field: str) -> None:
        self.diagnostics.error(self.locator, None, message, field=field)


def is_foreign(layer: LayerRef) -> bool:
    """Whether a layer is one that images name and do not carry."""
    return any(word in layer.media_type for word in _FOREIGN)


def _descriptor(value: Any) -> _Descriptor | None:
    if not isinstance(value, dict) or not _text(value, "digest"):
        return None
    size, names = value.get("size"), _dict(value, "annotations")
    count = size if isinstance(size, int) and 0 <= size < 1 << 60 else None
    return _Descriptor(
        _text(value, "digest"), _text(value, "mediaType"), count, _platform(_dict(value, "platform")), _text(names, _NAME)[:240]
    )


def _platform(value: Json) -> str:
    """``linux/arm64/v8`` of an object with os, architecture and variant."""
    parts = [_text(value, key)[:40] for key in ("os", "architecture", "variant")]
    return "/".join(filter(None, parts)) if parts[0] and parts[1] else ""


def _digest_in(path: str) -> str | None:
    """The digest that a path of a docker-archive says: ``blobs/sha256/HEX``, ``HEX.json``."""
    parts = path.split("/")
    word = parts[-1].removesuffix(".json").removesuffix(".tar")
    if len(word) == _ALGORITHMS["sha256"] and all(char in "0123456789abcdef" for char in word):
        return f"sha256:{word}"
    return None


def _text(value: Json, key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _list(value: Json, key: str) -> list[Any]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _dict(value: Json, key: str) -> Json:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
