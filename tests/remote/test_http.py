"""Files on servers: the same results as from disk, little fetched, and no server can do more than give a clear error."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SAMPLES
from remote.server import Handler, Misbehave, serving

from fatpatch.base.errors import FatpatchError, InputError, LimitError
from fatpatch.base.limits import Fetched, Remote
from fatpatch.remote import http
from fatpatch.remote.address import scheme_of, shown_address
from fatpatch.remote.opening import open_input

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DEMO = (SAMPLES / "demo.llamafile").read_bytes()
NOISE = bytes(range(256)) * 4096 * 3  # 3 MiB
QUICK = Remote(timeout=1.0, patience=1.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BACKOFF", 0.01)
    monkeypatch.setattr(http, "_MOST_WAIT", 0.05)


def failure(misbehave: Misbehave, content: bytes = NOISE, options: Remote = QUICK, path: str = "/x.bin") -> FatpatchError:
    """The error that reading all of the file ends in; within seconds, whatever the server does."""
    began = time.monotonic()
    with serving(content, misbehave) as server, pytest.raises(FatpatchError) as caught:
        _read_all(server.url + path, options)
    assert time.monotonic() - began < 15
    assert server.url + "/x.bin" in str(caught.value) or caught.value.hint
    return caught.value


def _read_all(url: str, options: Remote) -> None:
    source = open_input(url, options)
    try:
        for _ in source.chunks():
            pass
    finally:
        source.close()


def first_only(rest: Misbehave) -> Misbehave:
    """Behave at the first request."""
    return lambda handler, number: number > 1 and rest(handler, number)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("https://h/x", "https"), ("HTTP://h/x", "http"), ("zip::http://h/x", "zip"), ("s3://b/k", "s3"), ("C:\\x", None), ("a:b", None),
        ("lib.so", None), ("dir/x://y", None),
    ],
)  # fmt: skip
def test_addresses(text: str, scheme: str | None) -> None:
    assert scheme_of(text) == scheme


def test_secrets_are_not_shown() -> None:
    assert shown_address("https://user:secret@host:8/a/b.whl?X-Amz-Signature=secret#f") == "https://host:8/a/b.whl"
    assert shown_address("https://host/a@b") == "https://host/a@b"


def test_all_bytes() -> None:
    with serving(NOISE) as server:
        source = open_input(server.url + "/x.bin")
        assert source.size == len(NOISE)
        assert b"".join(source.chunks()) == NOISE
        assert source.read(1_000_001, 77) == NOISE[1_000_001:1_000_078]
        source.close()
        assert server.sent == len(NOISE)  # each block once


def test_little_is_fetched_and_it_is_told() -> None:
    told: list[Fetched] = []
    with serving(NOISE) as server:
        source = open_input(server.url + "/x.bin?token=secret", Remote(report=told.append))
        assert source.read(len(NOISE) - 100, 100) == NOISE[-100:]
        source.prefetch([(500_000, 500_010), (500_020, 500_030), (2_000_000, 2_000_001)])
        sent = server.sent
        assert source.read(500_000, 10) == NOISE[500_000:500_010]
        assert server.sent == sent
        source.close()
    (fetched,) = told
    assert fetched == Fetched(f"{server.url}/x.bin", sent, len(NOISE), 4)
    assert sent < 150_000


def test_the_temporary_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving(NOISE) as server:
        source = open_input(server.url + "/x.bin")
        source.read(0, 10)
        assert source.path is not None
        kept = Path(source.path)
        assert kept.stat().st_size == len(NOISE)
        if Path("/proc/self/fd").is_dir():
            assert list(tmp_path.iterdir()) == []  # without a name, it cannot be left behind
        source.close()
        source.close()
    assert not kept.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["inspect", "--kernels"], ["inspect"], ["doctor", "--gpu", "1060"], ["check", "--require", "sm_61"]])
def test_commands_say_the_same(run: Run, command: list[str]) -> None:
    with serving(DEMO) as server:
        there = run(*command, server.url + "/demo.llamafile", "--format", "json")
    here = run(*command, "demo.llamafile", "--format", "json")
    assert there.returncode == here.returncode
    expected = re.sub(r',\s*"fingerprint": "[0-9a-f]*"', "", here.stdout)
    assert json.loads(re.sub(r',\s*"fingerprint": "[0-9a-f]*"', "", there.stdout.replace(server.url + "/", ""))) == json.loads(expected)
    assert there.stderr.endswith(f"{server.url}/demo.llamafile\n")
    assert "fetched " in there.stderr


def test_other_commands(run: Run, tmp_path: Path) -> None:
    with serving(DEMO) as server:
        url = server.url + "/demo.llamafile"
        assert run("extract", url, "-d", tmp_path / "out").returncode == 0
        assert {path.name for path in (tmp_path / "out").rglob("*.cubin")}
        assert run("diff", "demo.llamafile", url).returncode == 0
        assert run("verify", url).returncode == 0
        assert run("inspect", "donor.so", url, SAMPLES / "no-such-file").returncode == 3
        assert run("report", url, "-o", tmp_path / "page.html").returncode == 0
        assert run("inspect", url, "--what-if", "drop=sm_60").returncode == 0
        for command in (["graft", url, "--cubin", "kernels.sm_61.cubin", "-o", tmp_path / "x"], ["undo", url]):
            done = run(*command)
            assert done.returncode == 3
            assert "download" in done.stderr
    with serving((SAMPLES / "donor.dll").read_bytes()) as server:
        done = run("graft", "demo.llamafile", "--from", server.url + "/donor.dll", "--target", "sm_61", "-o", tmp_path / "fixed.llamafile")
        assert done.returncode == 0, done.stderr


def test_kernels_in_worker_processes(run: Run) -> None:
    """Workers read the temporary file by its path: what they need is there before they start."""
    data = (SAMPLES / "libkernels.so").read_bytes()
    with serving(data) as server:
        there = run("inspect", server.url + "/libkernels.so", "--kernels", "--sha256", "-j", 2, "--format", "json")
    here = run("inspect", "libkernels.so", "--kernels", "--sha256", "--format", "json")
    assert json.loads(there.stdout.replace(server.url + "/", "")) == json.loads(here.stdout)


def test_without_parts() -> None:
    def whole(handler: Handler, number: int) -> bool:
        handler.head(200, len(NOISE))
        handler.wfile.write(NOISE)
        return True

    with serving(NOISE, whole) as server:
        source = open_input(server.url + "/x.bin")
        assert b"".join(source.chunks()) == NOISE
        source.close()


def test_without_parts_and_length() -> None:
    def whole(handler: Handler, number: int) -> bool:
        handler.head(200, None, {"Connection": "close"})
        handler.wfile.write(NOISE)
        handler.hang_up()
        return True

    with serving(NOISE, whole) as server:
        source = open_input(server.url + "/x.bin")
        assert b"".join(source.chunks()) == NOISE
        source.close()


def test_empty() -> None:
    def untold(handler: Handler, number: int) -> bool:
        """A 416 that does not say how long the file is."""
        handler.head(416 if "Range" in handler.headers else 200, 0)
        return True

    for misbehave in (None, untold):
        with serving(b"", misbehave) as server:
            source = open_input(server.url + "/x.bin")
            assert source.size == 0
            source.close()


def test_a_false_end_is_no_empty_file() -> None:
    """A 416 for a file that is there, a head that breaks off, a length that is none: never "0 bytes, no GPU code"."""

    def refusing(handler: Handler, number: int) -> bool:
        if "Range" in handler.headers:
            handler.head(416, 0)
        else:
            handler.head(200, len(NOISE))
            handler.wfile.write(NOISE)
        return True

    with serving(NOISE, refusing) as server:
        source = open_input(server.url + "/x.bin")
        assert source.size == len(NOISE)
        source.close()

    def cut(handler: Handler, number: int) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Le")
        handler.hang_up()
        return True

    assert "cannot be fetched" in failure(cut).message

    def absurd(handler: Handler, number: int) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc")
        handler.hang_up()
        return True

    assert "announces" in failure(absurd).message

    def digits(handler: Handler, number: int) -> bool:
        handler.head(206, 5, {"Content-Range": f"bytes 0-{'9' * 6000}/{len(NOISE)}"})
        handler.wfile.write(b"abcde")
        return True

    assert failure(digits).exit_code in (3, 5)


def test_names_that_no_host_can_have() -> None:
    for name in ("a" * 70 + ".com", "....", "\u2024\u2024"):
        with pytest.raises(FatpatchError):
            open_input(f"http://{name}/x.bin")


def test_a_password_does_not_go_to_another_protocol() -> None:
    from urllib.parse import urlsplit

    from fatpatch.remote.http import _server

    assert _server(urlsplit("https://host/x")) == _server(urlsplit("https://host:443/y"))
    assert _server(urlsplit("https://host/x")) != _server(urlsplit("http://host/x"))
    assert _server(urlsplit("https://host:8443/x")) != _server(urlsplit("https://host/x"))


def test_passwords_with_slashes_are_not_shown() -> None:
    from fatpatch.remote.address import shown_address

    for text in ("http://u:SEC/RET@host/x", "http://u:SEC#RET@host/x", "http://u:SEC?RET@host/x", "s3://AKIA:SEC/RET@bucket/x"):
        assert "SEC" not in shown_address(text)
        assert "RET" not in shown_address(text)
    assert shown_address("https://host/pkg@1.0/x.whl") == "https://host/pkg@1.0/x.whl"
    assert shown_address("https://host:8080/pkg@1.0/x.whl") == "https://host:8080/pkg@1.0/x.whl"
    assert shown_address("http://[::1]:80/a@b") == "http://[::1]:80/a@b"


def test_addresses_that_stand_for_private_ones() -> None:
    import ipaddress

    from fatpatch.remote.connections import _public

    for text in ("64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "224.0.0.1", "ff02::1", "127.0.0.1", "fe80::1"):
        assert not _public(ipaddress.ip_address(text)), text
    for text in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"):
        assert _public(ipaddress.ip_address(text)), text


def test_what_breaks_off_goes_on() -> None:
    """Every third answer ends after 1000 bytes; every fifth is an error of the moment."""

    def flaky(handler: Handler, number: int) -> bool:
        if number % 5 == 0:
            handler.head(503, 0, {"Retry-After": "1"})
        elif number % 3 == 0:
            handler.give(cut=1000)
        else:
            return False
        return True

    with serving(NOISE, flaky) as server:
        source = open_input(server.url + "/x.bin")
        assert b"".join(source.chunks()) == NOISE
        source.close()


def test_died_for_good() -> None:
    def dead(handler: Handler, number: int) -> bool:
        handler.give(cut=0)
        return True

    assert "ended" in failure(first_only(dead)).message
    assert "cannot be fetched" in failure(dead).message


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418, 500])
def test_statuses(status: int) -> None:
    def refuse(handler: Handler, number: int) -> bool:
        handler.head(status, 0)
        return True

    assert isinstance(failure(refuse), InputError)


def test_wrong_lengths() -> None:
    def more(handler: Handler, number: int) -> bool:
        start, end = handler.span()
        handler.head(206, end - start + 5, {"Content-Range": f"bytes {start}-{end - 1}/{len(NOISE)}"})
        handler.wfile.write(NOISE[start:end] + b"12345")
        return True

    def other(handler: Handler, number: int) -> bool:
        start, end = handler.span()
        handler.head(206, end - start, {"Content-Range": f"bytes {start + 1}-{end}/{len(NOISE)}"})
        handler.wfile.write(NOISE[start:end])
        return True

    def none(handler: Handler, number: int) -> bool:
        handler.head(206, 10)
        handler.wfile.write(b"0123456789")
        return True

    def huge(handler: Handler, number: int) -> bool:
        handler.head(206, 65536, {"Content-Range": f"bytes 0-65535/{10**30}"})
        handler.wfile.write(bytes(65536))
        return True

    assert "more than" in failure(more).message
    assert "it says that it sends" in failure(other).message
    assert failure(none).exit_code == 5
    assert failure(huge).exit_code == 5
    assert failure(first_only(more)).exit_code == 3


def test_infinite_body() -> None:
    def endless(handler: Handler, number: int) -> bool:
        handler.head(200, None, {"Connection": "close"})
        try:
            while True:
                handler.wfile.write(bytes(65536))
        except OSError:
            return True

    error = failure(endless, options=QUICK._replace(most=8 << 20))
    assert isinstance(error, LimitError)
    assert "--max-download" in (error.hint or "")


def test_too_large() -> None:
    assert isinstance(failure(lambda handler, number: False, options=QUICK._replace(most=1 << 20)), LimitError)


def test_slow_body() -> None:
    def slow(handler: Handler, number: int) -> bool:
        start, end = handler.span()
        handler.head(206, end - start, {"Content-Range": f"bytes {start}-{end - 1}/{len(NOISE)}", "ETag": '"one"'})
        handler.drip(NOISE[:500], 0.05)
        return True

    assert "too slowly" in failure(slow).message
    assert "too slowly" in failure(first_only(slow)).message


def test_slow_head() -> None:
    def slow(handler: Handler, number: int) -> bool:
        handler.drip(b"HTTP/1.1 206 Partial Content\r\n" + b"X-A: b\r\n" * 1000, 0.1)
        return True

    assert "cannot be fetched" in failure(slow).message


def test_silence() -> None:
    def silent(handler: Handler, number: int) -> bool:
        time.sleep(5)
        handler.hang_up()
        return True

    assert "cannot be fetched" in failure(silent).message


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//[", "gopher:x", "https://127.0.0.1:99999/x"])
def test_redirects_that_are_not_followed(where: str) -> None:
    def away(handler: Handler, number: int) -> bool:
        handler.head(302, 0, {"Location": where})
        return True

    assert "not followed" in failure(away).message


def test_redirects_without_end() -> None:
    def around(handler: Handler, number: int) -> bool:
        handler.head(302, 0, {"Location": f"/x{number}.bin"})
        return True

    assert "redirects more than" in failure(around).message


def test_redirects_are_remembered_and_renewed() -> None:
    """A signed address expires: then the first one is asked again. The password does not follow to another host."""

    def signed(handler: Handler, number: int) -> bool:
        if handler.path == "/x.bin":
            handler.head(302, 0, {"Location": f"http://localhost:{handler.server.server_address[1]}/real?ticket={number}"})
            return True
        if int(handler.path.rpartition("=")[2]) + 3 < number:
            handler.head(403, 0)
            return True
        return False

    with serving(NOISE, signed) as server:
        source = open_input(server.url.replace("://", "://me:secret@") + "/x.bin")
        assert b"".join(source.chunks()) == NOISE
        source.close()
        asked = [path for path, _ in server.seen]
        assert 2 <= asked.count("/x.bin") < len(asked) / 2
        assert all(("authorization" in headers) == (path == "/x.bin") for path, headers in server.seen)


def test_a_file_that_changes() -> None:
    def changing(handler: Handler, number: int) -> bool:
        handler.give(etag=f'"{number // 2}"')
        return True

    assert "changed while it was read" in failure(changing).message


def test_packed_answers() -> None:
    def packed(handler: Handler, number: int) -> bool:
        start, end = handler.span()
        handler.head(206, end - start, {"Content-Range": f"bytes {start}-{end - 1}/{len(NOISE)}", "Content-Encoding": "gzip"})
        handler.wfile.write(NOISE[start:end])
        return True

    assert "it packs" in failure(packed).message


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n\r\n", b"HTTP/1.1 206\r\n\r\n", b"\0" * 5000, b"HTTP/1.1 206 X\r\n" + b"A: b\r\n" * 500 + b"\r\n", b""]
)
def test_no_http_at_all(answer: bytes) -> None:
    def noise(handler: Handler, number: int) -> bool:
        handler.wfile.write(answer)
        handler.hang_up()
        return True

    assert failure(noise).exit_code in (3, 5)


def test_public_only(run: Run) -> None:
    with serving(DEMO) as server:
        done = run("inspect", server.url + "/x.llamafile", "--public-only")
        assert done.returncode == 3
        assert "resolves to a private address" in done.stderr
        assert server.seen == []


def test_a_proxy_is_asked_for_whole_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(NOISE) as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
        source = open_input("http://me:secret@far.invalid/x.bin?y=1")
        assert source.read(0, 5) == NOISE[:5]
        source.close()
        path, headers = server.seen[0]
        assert (path, headers["host"]) == ("http://far.invalid/x.bin?y=1", "far.invalid")
        assert headers["authorization"].startswith("Basic ")


def test_secrets_stay_inside(run: Run) -> None:
    with serving(DEMO) as server:
        url = server.url.replace("://", "://me:s3cret@") + "/demo.llamafile?sig=s3cret"
        for command in (["inspect", "-v"], ["inspect", "--format", "json"], ["doctor", "--gpu", "1060"], ["check", "--require", "sm_99"]):
            done = run(command[0], url, *command[1:])
            assert "s3cret" not in done.stdout + done.stderr
        assert all(headers["authorization"].startswith("Basic ") for _, headers in server.seen)
    done = run("inspect", url.replace("127.0.0.1", "no-such-host.invalid"))
    assert done.returncode == 3
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "http://", "http://h:99999/x", "http://h/a b", "https://[::1/x"])
def test_bad_addresses(run: Run, url: str) -> None:
    done = run("inspect", url)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "URL" in done.stderr


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_errors_leave_nothing_behind(lost: Path) -> None:
    test_infinite_body()
    test_wrong_lengths()
