"""Images of a container registry: a real one where it is installed, and one of this file that wants tokens and lies."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from binfmt.test_container_image import CUBIN, four_layers, seen
from builders.container_image import Entry, Image, as_tar, digest, docker_files, layer
from conftest import Run, required

import fatpatch
from fatpatch.base.errors import InputError
from fatpatch.base.limits import Limits, Remote
from fatpatch.remote.registry import ImageName, image_name


class Registry(ThreadingHTTPServer):
    """Blobs and manifests by digest, and ``tags``. ``secret``: the user and password that a token costs; None for no tokens."""

    daemon_threads = True

    def __init__(self, images: list[Image], secret: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs = {key: value for image in images for key, value in image.blobs.items()}
        manifests = [image.manifest for image in images]
        index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}).encode()
        self.blobs[digest(index)] = index
        self.tags = {"latest": digest(index), "one": manifests[0]["digest"]}
        self.secret = secret
        self.seen: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.seen.append(path)
        given = self.headers.get("Authorization", "")
        if path == "/token":
            wanted = f"Basic {base64.b64encode((self.server.secret or '').encode()).decode()}"
            scope = parse_qs(urlsplit(self.path).query)["scope"][0]
            assert scope == "repository:team/app:pull"
            self.answer(200, b'{"token": "good"}') if given == wanted or self.server.secret == "" else self.answer(401, b"")
        elif self.server.secret is not None and given != "Bearer good":
            realm = f'Bearer realm="http://{self.server.host}/token",service="s",scope="repository:team/app:pull"'
            self.answer(401, b"", {"WWW-Authenticate": realm})
        else:
            kind, _, reference = path.removeprefix("/v2/team/app/").partition("/")
            data = self.server.blobs.get(self.server.tags.get(reference, reference))
            assert kind in ("blobs", "manifests")
            if kind == "manifests":
                assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self.answer(404, b"") if data is None else self.part(data)

    def part(self, data: bytes) -> None:
        span = self.headers.get("Range", "").removeprefix("bytes=").split("-")
        start, end = int(span[0]), min(int(span[1]) + 1, len(data))
        self.answer(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def registry(images: list[Image], secret: str | None = None) -> Iterator[Registry]:
    server = Registry(images, secret)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("oci:registry.example/a/b:1.0", ImageName("registry.example", "a/b", "1.0")),
        ("oci:localhost/app", ImageName("localhost", "app", "latest")),
        ("oci:host:5000/app:x@sha256:" + "0" * 64, ImageName("host:5000", "app", "sha256:" + "0" * 64)),
        ("oci:[::1]:5000/app", ImageName("[::1]:5000", "app", "latest")),
    ],
)
def test_names(text: str, name: ImageName) -> None:
    assert image_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["oci:app", "oci:team/app:1", "oci:registry.example/", "oci:registry.example/APP", "oci:h.e/a:b:c", "oci:h.e/../a", "oci:h.e/a@sha256:0",
     "oci:h.e/a?b", "oci:u:p@h.e/a", "oci:h.e:1/a:\n"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    """No registry is guessed, and nothing of a name is taken for another part of a URL."""
    with pytest.raises(InputError):
        image_name(text)


def test_the_same_as_the_archive(tmp_path: Path) -> None:
    image = Image(four_layers())
    with registry([image]) as server, fatpatch.open(f"oci:{server.host}/team/app:one") as far:
        with fatpatch.open(as_tar(docker_files([image]), tmp_path / "a.tar")) as near:
            assert seen(far.node) == seen(near.node)
            assert far.diagnostics == near.diagnostics == ()
        assert far.node.size == sum(map(len, image.layers))


def test_one_platform_is_read_and_the_others_are_named() -> None:
    images = [Image([layer([Entry("f", f"{arch}.cubin", CUBIN)])], architecture=arch) for arch in ("amd64", "arm64", "s390x")]
    with registry(images) as server:
        with fatpatch.open(f"oci:{server.host}/team/app", limits=Limits(platform="linux/s390x")) as file:
            assert [each.path for each in file.node.members] == ["/s390x.cubin"]
        assert not any(image.manifest["digest"] in path for image in images[:2] for path in server.seen)
        with fatpatch.open(f"oci:{server.host}/team/app") as file:
            (note,) = file.diagnostics
            assert "linux/s390x too: choose with --platform" in note.message
        with fatpatch.open(f"oci:{server.host}/team/app", limits=Limits(platform="linux/ppc64le")) as file:
            (note,) = file.diagnostics
            assert "no image for linux/ppc64le; there is linux/amd64, linux/arm64, linux/s390x" in note.message
            assert file.node.size == 0  # of nothing that was read


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is asked for when the registry wants it; where it costs a password, that which ``docker login`` wrote down."""
    image = Image(four_layers()[:1])
    with registry([image], secret="") as server, fatpatch.open(f"oci:{server.host}/team/app:one") as file:
        assert file.node.members
        assert server.seen.count("/token") == 2  # the server gives no parts of it, so it is asked again for the whole
    with registry([image], secret="me:pass") as server:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        with pytest.raises(InputError, match="401"):
            fatpatch.open(f"oci:{server.host}/team/app:one")
        auth = base64.b64encode(b"me:pass").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}, "other": {"auth": "x"}}}))
        with fatpatch.open(f"oci:{server.host}/team/app:one") as file:
            assert file.node.members


def test_a_token_that_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once, not for ever."""
    with registry([Image(four_layers()[:1])], secret="") as server:
        monkeypatch.setattr(
            Handler, "part", lambda self, data: self.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})
        )
        with pytest.raises(InputError, match="does not let this user"):
            fatpatch.open(f"oci:{server.host}/team/app:one")
        assert server.seen.count("/token") == 2


def test_a_registry_that_lies(run: Run) -> None:
    """Other bytes than the digest says are an error; so is a layer that is not there; and a tag that is not there ends the command."""
    image = Image(four_layers()[:2])
    with registry([image]) as server:
        server.blobs[digest(image.layers[0])] = Image([layer([Entry("f", "other.cubin", CUBIN)])]).layers[0]
        del server.blobs[digest(image.layers[1])]
        done = run("inspect", f"oci:{server.host}/team/app:one")
        assert done.returncode == 4
        assert "its bytes have the digest" in done.stderr
        assert "is not there" in done.stderr
        assert run("inspect", f"oci:{server.host}/team/app:none").returncode == 3
        pinned = f"oci:{server.host}/team/app@{digest(b'nothing')}"
        server.tags[digest(b"nothing")] = server.tags["one"]
        assert "its bytes have the digest" in run("inspect", pinned).stderr


def test_other_machines_by_https_only() -> None:
    """Nothing is sent in the clear unless that is asked for."""
    with registry([Image(four_layers()[:1])]) as server:
        port = server.server_address[1]
        name = socket.gethostname()
        options = Remote(attempts=1)
        with pytest.raises(InputError):
            fatpatch.open(f"oci:{name}.invalid:{port}/team/app", limits=Limits(remote=options))
        assert server.seen == []


def test_a_real_registry(tmp_path: Path, run: Run) -> None:
    """Debian's docker-registry, filled by skopeo; the command line reads from it, in fewer bytes than the image has."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        required("docker-registry and skopeo: apt-get install docker-registry skopeo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\nhttp: {{addr: '{host}'}}\n")
    archive = as_tar(docker_files([Image(four_layers())]), tmp_path / "a.tar")
    server = subprocess.Popen([str(program), "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        copy = [
            "skopeo",
            "copy",
            "--insecure-policy",
            "--dest-tls-verify=false",
            f"docker-archive:{archive}",
            f"docker://{host}/team/app:1",
        ]
        for _ in range(50):
            done = subprocess.run(copy, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            time.sleep(0.1)
        assert done.returncode == 0, done.stderr
        with fatpatch.open(archive) as near, fatpatch.open(f"oci:{host}/team/app:1") as far:
            assert seen(near.node) == seen(far.node)
        done = run("diff", archive, f"oci:{host}/team/app:1")
        assert done.returncode == 0
        assert "the same GPU code" in done.stdout
        done = run("doctor", f"oci:{host}/team/app:1", "--gpu", "sm_61", "--driver", "535")
        assert done.stdout.startswith("WILL RUN")
        assert run("check", f"oci:{host}/team/app:1", "--require", "sm_61").returncode == 0
        assert run("verify", f"oci:{host}/team/app:1").returncode == 0
    finally:
        server.terminate()
        server.wait()
