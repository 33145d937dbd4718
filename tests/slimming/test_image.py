"""``slim`` of container images: tarfile, hashlib and json look at the results; skopeo and umoci where they are installed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from builders.container_image import Entry, Image, as_folder, as_tar, digest, docker_files, layer, oci_files
from edit.elf_builder import fatpatch
from slimming.test_slim import GPU, environment, hashed, libraries, slim, wrong_rows

__all__ = ["libraries"]
SITE = "opt/venv/lib/python3.11/site-packages"


def three_layers(tmp_path: Path, libraries: list[Path]) -> list[bytes]:
    """A base; a venv with a package; a layer that hides a file, has another library, and a RECORD of the layer below."""
    env, site = environment(tmp_path, libraries[:2])
    venv = [Entry("d", "opt"), Entry("d", "opt/venv")]
    for path in sorted(env.rglob("*")):
        name = f"opt/venv/{path.relative_to(env)}"
        venv.append(Entry("d", name) if path.is_dir() else Entry("f", name, path.read_bytes()))
    venv.append(Entry("l", f"{SITE}/kernels/link.so", "0/libplain.so"))
    venv.append(Entry("h", f"{SITE}/kernels/hard.so", f"{SITE}/kernels/0/libplain.so"))
    info = "opt/late-1.0.dist-info"
    record = (
        f"kernels/0/libplain.so,,\nlate.so,{hashed(libraries[2].read_bytes())},{libraries[2].stat().st_size}\nlate-1.0.dist-info/RECORD,,\n"
    )
    late = [Entry("f", "opt/late.so", libraries[2].read_bytes()), Entry("f", f"{info}/RECORD", record.encode())]
    late += [Entry("f", "etc/.wh.gone", b""), Entry("p", "etc/pipe")]
    base = [Entry("d", "etc"), Entry("f", "etc/gone", b"gone"), Entry("f", "etc/long/" + "n" * 200, b"a long name"), Entry("d", "usr")]
    assert site.is_dir()
    return [layer(base), layer(venv), layer(late, tarfile.GNU_FORMAT)]


def blobs_of(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}  # type: ignore[union-attr]


def unpacked(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if data[:4] == b"\x28\xb5\x2f\xfd" else data


def images_in(path: Path) -> list[tuple[dict[str, Any], list[bytes]]]:
    """(configuration, layers) of each image, every digest and size on the way compared."""
    files = blobs_of(path)
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    found = []

    def follow(entry: dict[str, Any]) -> None:
        data = files["blobs/" + entry["digest"].replace(":", "/")]
        assert (digest(data), len(data)) == (entry["digest"], entry["size"])
        document = json.loads(data)
        for each in document.get("manifests", ()):
            follow(each)
        if "layers" in document:
            parts = []
            for each in [document["config"], *document["layers"]]:
                part = files["blobs/" + each["digest"].replace(":", "/")]
                assert len(part) == each["size"]
                parts.append(part)
            found.append((json.loads(parts[0]), [unpacked(part) for part in parts[1:]]))

    if "index.json" in files:
        for each in json.loads(files["index.json"])["manifests"]:
            follow(each)
    for row in json.loads(files.get("manifest.json", b"[]")):
        config = files[row["Config"]]
        assert hashlib.sha256(config).hexdigest() == row["Config"].rpartition("/")[2].removesuffix(".json")
        found.append((json.loads(config), [unpacked(files[name]) for name in row["Layers"]]))
    for config, layers in found:
        assert config["rootfs"]["diff_ids"] == [digest(each) for each in layers]
    return found


def contents(data: bytes) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for each in archive:
            content = archive.extractfile(each).read() if each.isreg() else b""  # type: ignore[union-attr]
            assert each.name not in found
            found[each.name] = (each.type, each.mode, each.uid, each.mtime, each.linkname, content)
    return found


FORMS: dict[str, Callable[[list[bytes], Path], Path]] = {
    "docker": lambda layers, tmp: as_tar(docker_files([Image(layers, "none")]), tmp / "image.tar"),
    "oci-gzip": lambda layers, tmp: as_folder(oci_files([Image(layers)], names=["app"]), tmp / "image"),
    "oci-zstd": lambda layers, tmp: as_tar(oci_files([Image(layers, "zstd")], nested=True), tmp / "image.tar"),
    "both": lambda layers, tmp: as_tar(both(Image(layers, "none")), tmp / "image.tar"),
}


def both(image: Image) -> dict[str, bytes]:
    """As Docker 25 saves it: an OCI layout with a manifest.json that names the same blobs, and an attestation."""
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.manifest["digest"]}
    statement = image.add(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": image.manifest, "layers": []}
    )
    files = oci_files([image], names=["app"])
    index = json.loads(files["index.json"])
    index["manifests"].append({**statement, "annotations": about})
    files["index.json"] = json.dumps(index).encode()
    blob = lambda data: f"blobs/{digest(data).replace(':', '/')}"  # noqa: E731
    files["manifest.json"] = json.dumps(
        [
            {
                "Config": blob(image.config),
                "RepoTags": ["app:latest"],
                "Layers": [blob(each) for each in image.layers],
                "LayerSources": {
                    digest(each): {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": len(each), "digest": digest(each)}
                    for each in image.layers
                },
            }
        ]
    ).encode()
    return files


@pytest.mark.parametrize("form", FORMS)
def test_layers_digests_and_documents(form: str, tmp_path: Path, libraries: list[Path]) -> None:
    layers = three_layers(tmp_path, libraries)
    path = FORMS[form](layers, tmp_path)
    before = blobs_of(path)
    out = tmp_path / ("out" if path.is_dir() else "out.tar")
    planned = slim(path, "--for", GPU, "--dry-run").out
    assert "layer 2" in planned
    told = slim(path, "--for", GPU, "-o", out).out
    assert ("attestations" in told) is (form == "both")
    assert blobs_of(path) == before
    found = images_in(out)
    assert len(found) == (2 if form == "both" else 1)
    for config, made in found:
        assert config["config"]["Labels"]["fatpatch.slimmed"].startswith("built for sm_61 only")
        assert made[0] == layers[0]
        for number, (old, new) in enumerate(zip(layers[1:], made[1:], strict=True), 2):
            was, now = contents(old), contents(new)
            differing = {name for name in now if was.get(name) != now[name]}
            own, root = (("kernels-1.0", SITE), ("late-1.0", "opt"))[number - 2]
            names = ["kernels/0/libplain.so", "kernels/0/libtable.so"] if number == 2 else ["late.so"]
            info = [f"{own}.dist-info/RECORD", f"{own}.dist-info/fatpatch-slim.json"]
            assert differing == {f"{root}/{name}" for name in (*names, *info)}
            assert was.keys() - now.keys() == set()
            assert [each for each in now if each in was] == list(was)
            assert {name: row[:5] for name, row in was.items()} == {name: row[:5] for name, row in now.items() if name in was}
            site = tmp_path / f"unpacked-{number}"
            with tarfile.open(fileobj=io.BytesIO(new)) as archive:
                archive.extractall(site, [each for each in archive if each.isreg()], filter="data")
            if number == 2:
                assert wrong_rows(site / SITE) == []
            shutil.rmtree(site)
    assert "built for sm_61 only (slimmed for GeForce GTX 1080 on " in fatpatch("inspect", out).out
    assert fatpatch("slim", path, "--for", GPU, "-o", out).code == 6
    assert fatpatch("slim", path, "--for", GPU, "--in-place").code == 2


def test_a_layer_that_is_not_read_is_said(tmp_path: Path, libraries: list[Path]) -> None:
    path = as_tar(docker_files([Image(three_layers(tmp_path, libraries), "xz")]), tmp_path / "image.tar")
    told = slim(path, "--for", GPU, "-o", tmp_path / "out.tar").out
    assert "layer 2 is no tar archive, plain or packed by gzip or zstd: it is left as it is" in told
    assert (tmp_path / "out.tar").read_bytes() == path.read_bytes()


def test_nothing_to_do_copies(tmp_path: Path, libraries: list[Path]) -> None:
    path = FORMS["docker"](three_layers(tmp_path, libraries), tmp_path)
    slim(path, "--for", "RTX 3060", "--for", GPU, "--for", "V100", "--for", "T4", "--keep-ptx", "-o", tmp_path / "out.tar")
    assert images_in(tmp_path / "out.tar")


@pytest.mark.parametrize("name", ["manifest.json", "index.json", "config", "layer", "digest"])
def test_a_damaged_image_ends_in_words(name: str, tmp_path: Path, libraries: list[Path]) -> None:
    image = Image(three_layers(tmp_path, libraries))
    files = oci_files([image]) if name != "manifest.json" else docker_files([image])
    if name == "config":
        files[f"blobs/{digest(image.config).replace(':', '/')}"] = b'{"rootfs": {"diff_ids": []}}'
    elif name == "digest":
        files[f"blobs/{digest(image.layers[1]).replace(':', '/')}"] = gzip.compress(image.layers[1])
    elif name == "layer":
        files[f"blobs/{digest(image.layers[1]).replace(':', '/')}"] = image.layers[1][:-200]
    else:
        files[name] = b'[{"Layers": 3}]' if name == "manifest.json" else b'{"manifests": [{"digest": "../../x"}]}'
    answer = fatpatch("slim", as_tar(files, tmp_path / "bad.tar"), "--for", GPU, "-o", tmp_path / "out.tar")
    assert answer.code in (4, 6), answer
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.skipif(not (shutil.which("skopeo") and shutil.which("umoci")), reason="needs skopeo and umoci")
def test_skopeo_and_umoci_accept_it(tmp_path: Path, libraries: list[Path]) -> None:
    path = FORMS["oci-gzip"](three_layers(tmp_path, libraries), tmp_path)
    slim(path, "--for", GPU, "-o", tmp_path / "out")

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    facts = json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/out:app"))
    assert facts["Labels"]["fatpatch.slimmed"].startswith("built for sm_61 only")
    run("skopeo", "copy", "--insecure-policy", f"oci:{tmp_path}/out:app", f"docker-archive:{tmp_path}/again.tar:app:1")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/out:app", str(tmp_path / "bundle"))
    assert wrong_rows(tmp_path / "bundle/rootfs" / SITE) == []
    slim(tmp_path / "again.tar", "--for", GPU, "--dry-run")
