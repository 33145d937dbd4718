"""The documents of an image: which layers it has, and all of them after their layers and digests have changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fatpatch.base.errors import FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.slimming.image.layer import NewLayer
from fatpatch.slimming.image.store import INDEX, MANIFEST, ImageFiles, blob_name, plain

LABEL: Final = "fatpatch.slimmed"
"""The label of a slimmed image's configuration: what its libraries are for now."""

_ATTESTATION: Final = "vnd.docker.reference.type"
_MAX_MANIFESTS: Final = 1000
Json = dict[str, Any]


class Rewritten(NamedTuple):
    """The files of the new image by their names, and what to tell."""

    files: dict[str, str]
    notes: tuple[str, ...]


def layer_names(image: ImageFiles) -> list[str]:
    """The names of all layers, each once, in the order of the documents. FormatError when these are damaged."""
    found: dict[str, None] = {}
    try:
        for _, manifest in _manifests(image):
            found.update((blob_name(each["digest"]), None) for each in manifest.get("layers", ()))
        for row in _archives(image):
            found.update((image.real_name(plain(name)), None) for name in row["Layers"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"its documents are damaged: {error!r:.100}", locator=image.shown) from error
    return [name for name in found if image.path(name) is not None]


def rewritten(image: ImageFiles, layers: Mapping[str, NewLayer], mark: str, scratch: str) -> Rewritten:
    """All files with new ones for layers (by their names). ``mark`` goes into the labels of each image that changes."""
    try:
        return _Rewriting(image, layers, mark, scratch).run()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(f"its documents are damaged: {error!r:.100}", locator=image.shown) from error


def _manifests(image: ImageFiles) -> Iterator[tuple[str, Json]]:
    """(name, document) of each manifest of images that an OCI layout leads to."""
    if image.path(INDEX) is None:
        return
    waiting, seen = [INDEX], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen or len(seen) > _MAX_MANIFESTS:
            continue
        seen.add(name)
        document = image.document(name)
        if "manifests" in document:
            names = [blob_name(each["digest"]) for each in document["manifests"]]
            waiting += [each for each in names if image.path(each) is not None]
        elif "layers" in document:
            yield name, document


def _archives(image: ImageFiles) -> list[Json]:
    """The rows of a docker-archive."""
    return list(image.document(MANIFEST)) if image.path(MANIFEST) is not None else []


class _Rewriting:
    """The files of one image while they change. Names of blobs change with their digests."""

    def __init__(self, image: ImageFiles, layers: Mapping[str, NewLayer], mark: str, scratch: str) -> None:
        self.image, self.layers, self.mark, self.scratch = image, layers, mark, scratch
        self.renamed: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.gone: set[str] = set()
        self.notes: list[str] = []

    def run(self) -> Rewritten:
        for name, layer in self.layers.items():
            self._replace(name, layer.path, layer.digest.partition(":")[2])
        for name, manifest in list(_manifests(self.image)):
            self._manifest(name, manifest)
        if self.image.path(INDEX) is not None:
            self._index(INDEX, 0)
        if rows := _archives(self.image):
            self._store(MANIFEST, [self._archive(row) for row in rows])
        files = dict[str, str]()
        for name, path in self.image.files.items():
            if name not in self.gone:
                new = self.renamed.get(name, name)
                files[new] = self.made.get(new, path)
        return Rewritten(files, tuple(dict.fromkeys(self.notes)))

    def _replace(self, name: str, path: str, digest: str) -> str:
        """Give a file new bytes; a file that is named after its digest gets its new name."""
        folder, _, base = name.rpartition("/")
        stem, dot, ending = base.partition(".")
        if len(stem) == len(digest) and stem.isalnum():
            new = "/".join(filter(None, (folder, f"{digest}{dot}{ending}")))
        else:
            new = name
        self.renamed[name] = new
        self.made[new] = path
        return new

    def _store(self, name: str, document: Any) -> tuple[str, str, int]:
        """(new name, digest, size) of a document with new content."""
        data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        number = hashlib.sha256(data).hexdigest()
        path = os.path.join(self.scratch, f"document-{number}")
        with open(path, "wb") as sink:
            sink.write(data)
        return self._replace(name, path, number), f"sha256:{number}", len(data)

    def _config(self, name: str, layers: list[str]) -> tuple[str, str, int] | None:
        """The configuration with the new layers; None when none of them is new. ``layers``: their names, in order."""
        new = [self.layers.get(each) for each in layers]
        if not any(new):
            return None
        if name in self.renamed:  # two documents lead to it
            path = self.made[self.renamed[name]]
            with open(path, "rb") as stream:
                data = stream.read()
            return self.renamed[name], f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)
        config = self.image.document(name)
        diff_ids = config["rootfs"]["diff_ids"]
        if len(diff_ids) != len(layers):
            raise FormatError(f"has {len(layers)} layers, its configuration names {len(diff_ids)}", locator=self.image.shown)
        config["rootfs"]["diff_ids"] = [old if layer is None else layer.diff_id for old, layer in zip(diff_ids, new, strict=True)]
        settings = config.get("config") or {}
        config["config"] = {**settings, "Labels": {**(settings.get("Labels") or {}), LABEL: self.mark}}
        return self._store(name, config)

    def _manifest(self, name: str, manifest: Json) -> None:
        layers = [blob_name(each["digest"]) for each in manifest["layers"]]
        config = self._config(blob_name(manifest["config"]["digest"]), layers) if any(each in self.layers for each in layers) else None
        if config is None:
            return
        manifest["config"] |= {"digest": config[1], "size": config[2]}
        for each, layer_name in zip(manifest["layers"], layers, strict=True):
            layer = self.layers.get(layer_name)
            if layer is not None:
                each |= {"digest": layer.digest, "size": layer.size}
        self._store(name, manifest)

    def _index(self, name: str, depth: int) -> bool:
        """An index with the new digests of what it names; whether anything changed. What was said of old manifests goes."""
        document = self.image.document(name)
        changed, kept = False, []
        old_names = {each["digest"]: blob_name(each["digest"]) for each in document["manifests"]}
        for each in document["manifests"]:
            inner = old_names[each["digest"]]
            if depth < 8 and self.image.path(inner) is not None and "manifests" in self.image.document(inner):
                self._index(inner, depth + 1)
        for each in document["manifests"]:
            about = (each.get("annotations") or {}).get("vnd.docker.reference.digest")
            if (each.get("annotations") or {}).get(_ATTESTATION) and old_names.get(about) in self.renamed:
                self.gone.add(old_names[each["digest"]])
                self.notes.append("attestations of the old image were removed: they do not speak of the new one")
                changed = True
                continue
            new = self.renamed.get(old_names[each["digest"]])
            if new is not None:
                each |= {"digest": f"sha256:{new.rpartition('/')[2]}", "size": os.path.getsize(self.made[new])}
                changed = True
            kept.append(each)
        if changed:
            self._store(name, {**document, "manifests": kept})
        return changed

    def _archive(self, row: Json) -> Json:
        """A row of a docker-archive's manifest."""
        names = [self.image.real_name(plain(name)) for name in row["Layers"]]
        config_name = self.image.real_name(plain(row["Config"]))
        config = self._config(config_name, names)
        if config is None:
            return row
        new = {
            **row,
            "Config": config[0],
            "Layers": [self.renamed.get(real, given) for real, given in zip(names, row["Layers"], strict=True)],
        }
        if isinstance(row.get("LayerSources"), dict):
            diff_ids = dict(zip(self.image.document(config_name)["rootfs"]["diff_ids"], names, strict=True))
            new["LayerSources"] = dict(self._source(key, value, diff_ids) for key, value in row["LayerSources"].items())
        return new

    def _source(self, diff_id: str, source: Json, names: Mapping[str, str]) -> tuple[str, Json]:
        layer = self.layers.get(names.get(diff_id, ""))
        return (diff_id, source) if layer is None else (layer.diff_id, {**source, "digest": layer.digest, "size": layer.size})
