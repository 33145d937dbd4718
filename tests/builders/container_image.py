"""Container images, made of nothing but the standard library: layers by tarfile, documents by json, digests by hashlib."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

PACKERS = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress, "xz": lzma.compress, "bzip2": bz2.compress}


class Entry(NamedTuple):
    """``kind``: f file, d folder, l symbolic link, h hard link, p pipe."""

    kind: str
    name: str
    content: bytes | str = b""


def layer(entries: Sequence[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for kind, name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            info.type = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}[
                kind
            ]
            if isinstance(content, str):
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Image:
    """One image: ``layers`` are unpacked archives, ``blobs`` what an OCI layout keeps, by digest; ``manifest`` its descriptor."""

    def __init__(self, layers: Sequence[bytes], codec: str = "gzip", architecture: str = "amd64", os: str = "linux") -> None:
        self.layers = [PACKERS[codec](each) for each in layers]
        self.platform = {"os": os, "architecture": architecture}
        self.config = json.dumps(
            {
                **self.platform,
                "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]},
                "history": [{"created_by": f"step {index}"} for index in range(len(layers))],
                "config": {},
            }
        ).encode()
        self.blobs = {digest(each): each for each in (self.config, *self.layers)}
        ending = "" if codec == "none" else f"+{codec}"
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", self.config),
            "layers": [descriptor(f"application/vnd.oci.image.layer.v1.tar{ending}", each) for each in self.layers],
        }
        self.manifest = self.add(document)

    def add(self, document: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        self.blobs[digest(data)] = data
        return {**descriptor(document["mediaType"], data), "platform": self.platform}


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def oci_files(images: Sequence[Image], *, nested: bool = False, names: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of an OCI layout; ``nested``: with one index between, as docker buildx writes it."""
    blobs = {key: value for image in images for key, value in image.blobs.items()}
    manifests: list[dict[str, Any]] = [image.manifest for image in images]
    for each, name in zip(manifests, names, strict=False):
        each["annotations"] = {"org.opencontainers.image.ref.name": name}
    if nested:
        inner = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}).encode()
        blobs[digest(inner)] = inner
        manifests = [descriptor("application/vnd.oci.image.index.v1+json", inner)]
    files = {f"blobs/{key.replace(':', '/')}": value for key, value in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    return files


def docker_files(images: Sequence[Image], tags: Sequence[str] = ("app:latest",)) -> dict[str, bytes]:
    """The files of a docker-archive."""
    files: dict[str, bytes] = {}
    rows = []
    for image, tag in zip(images, tags, strict=True):
        config = f"{digest(image.config)[7:]}.json"
        paths = [f"{digest(each)[7:]}/layer.tar" for each in image.layers]
        files |= {config: image.config, **dict(zip(paths, image.layers, strict=True))}
        rows.append({"Config": config, "RepoTags": [tag], "Layers": paths})
    files["manifest.json"] = json.dumps(rows).encode()
    return files


def as_folder(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def as_tar(files: dict[str, bytes], path: Path) -> Path:
    path.write_bytes(layer([Entry("f", name, data) for name, data in files.items()]))
    return path
