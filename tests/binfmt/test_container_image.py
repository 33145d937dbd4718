"""Container images as one file system: against umoci where it is installed, and against what was put in by hand."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from builders.container_image import PACKERS, Entry, Image, as_folder, as_tar, digest, docker_files, layer, oci_files
from conftest import SAMPLES, Run

import fatpatch
from fatpatch.base.limits import Limits
from fatpatch.model.tree import Node
from fatpatch.scan.coverage import all_diagnostics

LIBRARY = (SAMPLES / "libkernels.so").read_bytes()
CUBIN = (SAMPLES / "kernels.sm_61.cubin").read_bytes()
OLD, NEW = CUBIN + b"old", CUBIN + b"newer"


def four_layers() -> list[bytes]:
    """Deleted, overwritten and hard-linked libraries, links and changes of type, over four layers."""
    return [
        layer([
            Entry("d", "opt/"), Entry("d", "opt/lib/"), Entry("f", "opt/lib/libold.cubin", OLD), Entry("f", "opt/lib/libk.so", LIBRARY),
            Entry("d", "usr/"), Entry("d", "usr/lib/"), Entry("f", "usr/lib/a.cubin", CUBIN + b"a"), Entry("l", "lib", "usr/lib"),
            Entry("d", "gone/"), Entry("f", "gone/b.cubin", CUBIN + b"b"), Entry("f", "full/c.cubin", CUBIN + b"c"),
            Entry("f", "full/deep/d.cubin", CUBIN + b"d"), Entry("f", "type/x", CUBIN + b"x"), Entry("f", "abs", CUBIN + b"abs"),
        ]),
        layer([
            Entry("f", "opt/lib/libold.cubin", NEW), Entry("h", "opt/lib/hard.cubin", "opt/lib/libold.cubin"),
            Entry("h", "opt/lib/libk2.so", "opt/lib/libk.so"), Entry("f", "lib/e.cubin", CUBIN + b"through a link"),
            Entry("f", ".wh.gone", b""), Entry("f", "full/f.cubin", CUBIN + b"f"), Entry("f", "full/.wh..wh..opq", b""),
        ]),
        layer([
            Entry("f", "opt/lib/.wh.libk.so", b""), Entry("f", "nothing/.wh.there", b""), Entry("d", "type/x"),
            Entry("f", "type/x/y.cubin", CUBIN + b"y"), Entry("h", "hardlink-to-lower.cubin", "usr/lib/a.cubin"),
            Entry("d", "gone"), Entry("f", "gone/again.cubin", CUBIN + b"again"), Entry("f", "../../escape.cubin", CUBIN + b"esc"),
        ]),
        layer([
            Entry("f", "usr/lib/a.cubin", CUBIN + b"a, anew"), Entry("f", "abs", CUBIN + b"abs2"), Entry("l", "out", "/../../usr"),
            Entry("f", "out/lib/g.cubin", CUBIN + b"g"), Entry("f", ".wh.hardlink-that-is-not", b""),
            Entry("f", "./opt/./lib/./h.cubin", CUBIN + b"h"), Entry("p", "full/f.cubin"),
        ], tarfile.GNU_FORMAT),
    ]  # fmt: skip


def seen(node: Node) -> dict[str, str]:
    """What a container sees, as fatpatch has it: each path with the digest of the bytes."""
    found = {}
    for member in node.members:
        assert member.source is not None
        assert member.origin is not None
        value = hashlib.sha256(b"".join(member.source.chunks())).hexdigest()
        found |= dict.fromkeys((member.path, *member.origin.also), value)
    return found


def unpacked(folder: Path) -> dict[str, str]:
    """The regular files below a folder that are not of plain text."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in files:
            path = Path(where, name)
            if path.is_symlink() or not path.is_file():
                continue
            if b"\0" in (data := path.read_bytes())[:4096]:
                found["/" + path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def by_umoci(layout: Path, tmp_path: Path, tag: str = "t") -> dict[str, str]:
    if shutil.which("umoci") is None:
        pytest.skip("umoci: apt-get install umoci")
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{layout}:{tag}", tmp_path / "bundle"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return unpacked(tmp_path / "bundle/rootfs")


def errors(node: Node) -> list[str]:
    return [item.message for item in all_diagnostics(node) if item.level != "note"]


EXPECTED = {
    "/opt/lib/libold.cubin": NEW, "/opt/lib/hard.cubin": NEW, "/opt/lib/libk2.so": LIBRARY, "/usr/lib/a.cubin": CUBIN + b"a, anew",
    "/usr/lib/e.cubin": CUBIN + b"through a link", "/type/x/y.cubin": CUBIN + b"y", "/hardlink-to-lower.cubin": CUBIN + b"a",
    "/gone/again.cubin": CUBIN + b"again", "/escape.cubin": CUBIN + b"esc", "/abs": CUBIN + b"abs2", "/usr/lib/g.cubin": CUBIN + b"g",
    "/opt/lib/h.cubin": CUBIN + b"h",
}  # fmt: skip
"""By the rules of the specification, worked out by hand."""


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("form", ["folder", "tar", "docker"])
def test_what_a_container_sees(codec: str, form: str, tmp_path: Path) -> None:
    image = Image(four_layers(), codec)
    if form == "folder":
        path = as_folder(oci_files([image]), tmp_path / "layout")
    elif form == "tar":
        path = as_tar(oci_files([image], nested=True), tmp_path / "a.tar")
    else:
        path = as_tar(docker_files([image]), tmp_path / "a.tar")
    with fatpatch.open(path) as file:
        assert errors(file.node) == []
        assert seen(file.node) == {name: hashlib.sha256(data).hexdigest() for name, data in EXPECTED.items()}
        assert file.node.image is not None
        assert [each.codec for each in file.node.image.layers] == [codec] * 4
        assert [each.created_by for each in file.node.image.layers] == [f"step {index}" for index in range(4)]


def test_it_is_what_umoci_unpacks(tmp_path: Path) -> None:
    layout = as_folder(oci_files([Image(four_layers())], names=["t"]), tmp_path / "layout")
    with fatpatch.open(layout) as file:
        assert seen(file.node) == by_umoci(layout, tmp_path)


def test_each_library_says_its_layer_and_what_dead_copies_cost(tmp_path: Path) -> None:
    with fatpatch.open(as_tar(docker_files([Image(four_layers(), "none")]), tmp_path / "a.tar")) as file:
        origins = {member.path: member.origin for member in file.node.members}
        facts = file.node.image
    new = origins["/opt/lib/hard.cubin"]  # the shorter of two names
    assert new is not None
    assert (new.layer, new.also, new.dead_copies, new.dead_bytes) == (2, ("/opt/lib/libold.cubin",), 1, len(OLD))
    library = origins["/opt/lib/libk2.so"]
    assert library is not None
    assert (library.layer, library.dead_copies) == (1, 0)
    assert facts is not None
    # b in gone, c and d in full, x that became a folder, f that became a pipe
    assert (facts.deleted, facts.deleted_bytes) == (5, 5 * (len(CUBIN) + 1))


def random_layers(seed: int) -> list[bytes]:
    """Layers that umoci takes: names from a few folders, so that whiteouts, links and files meet."""
    chance = random.Random(seed)
    folders = ["a", "a/b", "c", "d/e/f", "link/b", "c/link2"]
    live: list[str] = []
    layers = []
    for number in range(5):
        entries = []
        here: set[str] = set()
        for index in range(chance.randrange(3, 12)):
            folder = chance.choice(folders)
            name = f"{folder}/{chance.choice('xyz')}.cubin"
            word = chance.choice(["f", "f", "f", "f", "white", "opaque", "d", "hard", "link"])
            if word == "f":
                entries.append(Entry("f", name, CUBIN + bytes([number, index])))
                here.add(name)
            elif word == "white":
                entries.append(Entry("f", f"{folder}/.wh.{chance.choice(['x.cubin', 'y.cubin', 'b', 'e', 'link2'])}", b""))
            elif word == "opaque":
                entries.append(Entry("f", f"{folder}/.wh..wh..opq", b""))
            elif word == "d":
                entries.append(Entry("d", chance.choice([folder, name])))
            elif word == "hard" and here:
                entries.append(Entry("h", f"hard/{number}-{index}.cubin", chance.choice(sorted(here))))
            elif word == "link" and number:
                entries.append(Entry("l", chance.choice(["link", "c/link2", "a/x.cubin"]), chance.choice(["a", "/c", "../a/b", "nowhere"])))
        layers.append(layer(entries))
        live += sorted(here)
    return layers


def test_random_layers_are_what_umoci_unpacks(tmp_path: Path) -> None:
    """As far as umoci takes them: some hard links lead nowhere by the time they are met."""
    if shutil.which("umoci") is None:
        pytest.skip("umoci: apt-get install umoci")
    compared = 0
    for seed in range(40):
        here = tmp_path / str(seed)
        layout = as_folder(oci_files([Image(random_layers(seed), "none")], names=["t"]), here / "layout")
        command = ["umoci", "unpack", "--rootless", "--image", f"{layout}:t", here / "bundle"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with fatpatch.open(layout) as file:
            assert bool(errors(file.node)) == bool(done.returncode), (seed, done.stderr, errors(file.node))
            if not done.returncode:
                assert seen(file.node) == unpacked(here / "bundle/rootfs"), seed
                compared += 1
    assert compared > 15


def test_platforms(tmp_path: Path) -> None:
    images = [Image([layer([Entry("f", f"{arch}.cubin", CUBIN)])], architecture=arch) for arch in ("amd64", "arm64")]
    path = as_tar(oci_files(images, nested=True), tmp_path / "a.tar")
    with fatpatch.open(path) as file:
        assert [(each.path, [inner.path for inner in each.members]) for each in file.node.members] == [
            ("linux/amd64", ["/amd64.cubin"]), ("linux/arm64", ["/arm64.cubin"]),
        ]  # fmt: skip
    for wanted in ("linux/arm64", "arm64"):
        with fatpatch.open(path, limits=Limits(platform=wanted)) as file:
            assert [each.path for each in file.node.members] == ["/arm64.cubin"]
    with fatpatch.open(path, limits=Limits(platform="linux/s390x")) as file:
        assert errors(file.node) == ["no image for linux/s390x; there is linux/amd64, linux/arm64: choose with --platform"]


# Hostile


def messages(files: dict[str, bytes], tmp_path: Path, *command: str) -> list[str]:
    """What is complained about an image of these files; nothing but diagnostics may come of it."""
    with fatpatch.open(as_folder(files, tmp_path / "layout")) as file:
        return errors(file.node)


def index_of(*digests: str, media_type: str = "application/vnd.oci.image.index.v1+json") -> bytes:
    rows = [{"mediaType": media_type, "digest": each, "size": 1} for each in digests]
    return json.dumps({"schemaVersion": 2, "manifests": rows}).encode()


def test_an_index_that_names_itself(tmp_path: Path) -> None:
    """Its digest cannot be right, which is said; and the walk ends."""
    name = "sha256:" + "0" * 64
    files = {"oci-layout": b"{}", "index.json": index_of(name), f"blobs/sha256/{'0' * 64}": index_of(name)}
    found = messages(files, tmp_path)
    assert any("names itself" in each for each in found)
    assert any("its bytes have the digest" in each for each in found)


def test_indexes_nested_without_end(tmp_path: Path) -> None:
    files = {"oci-layout": b"{}", "index.json": index_of("sha256:" + f"{0:064x}")}
    files |= {f"blobs/sha256/{number:064x}": index_of(f"sha256:{number + 1:064x}") for number in range(50)}
    assert any("nested too deep" in each for each in messages(files, tmp_path))


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_digests_that_lie(codec: str, tmp_path: Path, run: Run) -> None:
    """The layer is another one than the manifest names. It is read, and the command fails."""
    image = Image([layer([Entry("f", "a.cubin", CUBIN)])], codec)
    files = oci_files([image])
    files[f"blobs/{digest(image.layers[0]).replace(':', '/')}"] = PACKERS[codec](layer([Entry("f", "b.cubin", CUBIN)]))
    folder = as_folder(files, tmp_path / "layout")
    with fatpatch.open(folder) as file:
        assert [member.path for member in file.node.members] == ["/b.cubin"]
    done = run("verify", folder)
    assert done.returncode == 1
    assert "its bytes have the digest" in done.stdout
    assert (run("inspect", folder).returncode == 4) == (codec != "none")  # plain layers are not read whole


def test_layers_out_of_order(tmp_path: Path) -> None:
    """The configuration has them in another order than the manifest: one of both lies."""
    image = Image(four_layers()[:2])
    document = json.loads(image.blobs[image.manifest["digest"]])
    document["layers"].reverse()
    image.manifest = image.add(document)
    found = messages(oci_files([image]), tmp_path)
    assert sum("unpacked it has the digest" in each for each in found) == 2


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_blobs_that_are_not_there(what: str, tmp_path: Path) -> None:
    image = Image(four_layers()[:1])
    files = oci_files([image])
    gone = {"manifest": image.manifest["digest"], "config": digest(image.config), "layer": digest(image.layers[0])}[what]
    del files[f"blobs/{gone.replace(':', '/')}"]
    assert any("is not there" in each for each in messages(files, tmp_path))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"nul", b"[" * 100_000, b'{"manifests": 3}', b'{"manifests": [3, {"digest": 4}]}'])
@pytest.mark.parametrize("name", ["index.json", "manifest"])
def test_documents_of_any_shape(name: str, document: bytes, tmp_path: Path) -> None:
    image = Image(four_layers()[:1])
    files = oci_files([image])
    files[name if name == "index.json" else f"blobs/{image.manifest['digest'].replace(':', '/')}"] = document
    messages(files, tmp_path)


def test_links_in_circles_and_entries_that_cannot_be(tmp_path: Path) -> None:
    hostile = [
        Entry("l", "a", "b"), Entry("l", "b", "a"), Entry("f", "a/x.cubin", CUBIN), Entry("h", "self", "self"), Entry("h", "none", "nowhere/c"),
        Entry("f", "file", CUBIN), Entry("f", "file/below.cubin", CUBIN), Entry("f", ".wh..", b""), Entry("f", ".wh.", b""),
        Entry("h", "../../../etc/hard", "../../file"), Entry("l", "up", "../../../.."), Entry("f", "up/up/y.cubin", CUBIN),
        Entry("f", "/abs/z.cubin", CUBIN), Entry("f", "", b""), Entry("f", "/", b""), Entry("f", "d" * 200 + "/" + "e" * 90, CUBIN),
    ]  # fmt: skip
    with fatpatch.open(as_tar(docker_files([Image([layer(hostile)])]), tmp_path / "a.tar")) as file:
        found = errors(file.node)
        paths = set(seen(file.node))
    assert {"/file", "/etc/hard", "/y.cubin", "/abs/z.cubin"} <= paths
    assert any("circle" in each for each in found)
    assert any("a hard link to itself" in each for each in found)
    assert any("a hard link to nothing" in each for each in found)
    assert any("is not a folder" in each for each in found)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb(codec: str, tmp_path: Path) -> None:
    image = Image([layer([Entry("f", "zeros", bytes(100 << 20))])], codec)
    found = messages(oci_files([image]), tmp_path)
    assert any("bomb" in each for each in found)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_layers_cut_off_or_damaged(codec: str, tmp_path: Path) -> None:
    """At any place: what came before it is shown, and the rest is a diagnostic."""
    archive = layer([Entry("f", "a.cubin", CUBIN), Entry("f", "b.so", LIBRARY)])
    whole = PACKERS[codec](archive)
    chance = random.Random(7)
    for number in range(30):
        at = chance.randrange(len(whole) - (1200 if codec == "none" else 0))
        data = whole[:at] if number % 2 else whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        image = Image([archive], codec)
        files = oci_files([image])
        files[f"blobs/{digest(image.layers[0]).replace(':', '/')}"] = data
        with fatpatch.open(as_folder(files, tmp_path / str(number)), limits=Limits()) as file:
            assert codec == "none" or errors(file.node)


def test_an_archive_with_a_manifest_that_is_none(tmp_path: Path) -> None:
    """As many programs have one: it is a tar, and its layers are nothing special."""
    path = as_tar({"manifest.json": b'{"name": "extension"}', "a.cubin": CUBIN}, tmp_path / "a.tar")
    with fatpatch.open(path) as file:
        assert (file.node.container, [each.path for each in file.node.members]) == ("tar", ["a.cubin"])


def test_links_out_of_a_layout_lead_nowhere(tmp_path: Path) -> None:
    image = Image([layer([Entry("f", "a.cubin", CUBIN)])])
    folder = as_folder(oci_files([image]), tmp_path / "layout")
    blob = folder / "blobs" / digest(image.layers[0]).replace(":", "/")
    blob.rename(tmp_path / "secret")
    blob.symlink_to(tmp_path / "secret")
    with fatpatch.open(folder) as file:
        assert any("is not there" in each for each in errors(file.node))
