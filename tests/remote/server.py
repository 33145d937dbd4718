"""A server for tests that gives parts of files, and that can misbehave in every way that is asked for."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Misbehave = Callable[["Handler", int], bool]
"""Called with the handler and the number of the request; True when it has answered by itself."""


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path. ``seen`` are the requests: (path, headers)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes, misbehave: Misbehave | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.misbehave = misbehave
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.sent = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side going away is what is tested."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        if self.server.misbehave is not None and self.server.misbehave(self, len(self.server.seen)):
            return
        self.give()

    def do_HEAD(self) -> None:
        self.head(200, len(self.server.content), {"Accept-Ranges": "bytes"})

    def span(self) -> tuple[int, int]:
        """The [start, end) that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        assert found is not None
        return int(found[1]), min(int(found[2]) + 1, len(self.server.content))

    def give(self, *, etag: str = '"one"', cut: int | None = None) -> None:
        """The part that is asked for; ``cut``: hang up after so many bytes."""
        if "Range" not in self.headers:
            self.head(200, len(self.server.content), {"ETag": etag})
            self.wfile.write(self.server.content)
            return
        start, end = self.span()
        if start >= len(self.server.content):
            self.head(416, 0)
            return
        self.head(206, end - start, {"Content-Range": f"bytes {start}-{end - 1}/{len(self.server.content)}", "ETag": etag})
        body = self.server.content[start:end]
        self.server.sent += len(body)
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.hang_up()

    def head(self, status: int, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def hang_up(self) -> None:
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def drip(self, data: bytes, pause: float) -> None:
        """A byte at a time."""
        with suppress(OSError):
            for index in range(len(data)):
                self.wfile.write(data[index : index + 1])
                self.wfile.flush()
                time.sleep(pause)


@contextmanager
def serving(content: bytes, misbehave: Misbehave | None = None) -> Iterator[Server]:
    server = Server(content, misbehave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
