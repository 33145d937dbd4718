"""One file on an HTTP server, read by ranges (RFC 9110, section 14): retried, checked to stay the same, bounded in time and bytes."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import SplitResult, urljoin, urlunsplit

from fatpatch import __version__
from fatpatch.base.errors import InputError, LimitError, UnauthorizedError, UnsupportedError
from fatpatch.base.limits import Remote
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.remote.address import parts_of, shown_address
from fatpatch.remote.connections import ViaProxy, connect

_BACKOFF: Final = 0.25
_MOST_WAIT: Final = 10.0
_REDIRECTS: Final = 5
_HEAD: Final = 4  # blocks
_UNANNOUNCED: Final = 1 << 30  # of a body without parts whose length is not told
_PIECE: Final = 64 << 10
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_STALE: Final = frozenset({401, 403, 404, 410})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = lazy_pattern(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_EMPTY = "bytes */0"
_REASONS: Final = {401: "401 Unauthorized", 403: "403 Forbidden", 404: "404 Not Found", 410: "410 Gone"}


class _TroubleError(Exception):
    """Something that may go better the next time; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.wait = wait


_Place = tuple[str, str]


class RemoteIdentity(NamedTuple):
    """What must stay the same while a file is read."""

    size: int | None
    tag: str | None
    modified: str | None


class HttpFile:
    """A file at an address. ``size`` is None where the server does not say it; ``ranges``: whether it gives parts.

    ``head`` are the first bytes, which came with the answer to the first question. Safe to be used by several threads.
    """

    def __init__(self, url: str, options: Remote) -> None:
        self.options = options
        self.requests = 0
        self.fetched = 0
        self._shown = shown_address(url)
        self._target, given = parts_of(url, self._shown)
        self._authorization = options.authorization or given
        self._origin = self._target
        self._free: list[tuple[_Place, http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        self._identity: RemoteIdentity | None = None
        self.ranges, self.head = False, b""
        self.size: int | None = None
        self._first()

    @property
    def tag(self) -> str | None:
        """What the server calls this state of the file: its ETag, or when it was modified."""
        return None if self._identity is None else self._identity.tag or self._identity.modified

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end); what broke off is asked for again from there."""
        got = b""
        for attempt in self._attempts():
            with attempt, self._answer((start + len(got), end)) as answer:
                if answer.status != 206:
                    raise self._error(f"it gave parts before, and now the status {answer.status}")
                self._check_range(answer, start + len(got), end)
                for piece in self._body(answer, end - start - len(got)):
                    got += piece
                if len(got) < end - start:
                    raise _TroubleError(f"the connection ended after {len(got):#x} of {end - start:#x} bytes")
                return got
        raise AssertionError("the last attempt raises")

    def whole(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of the whole file, from a server that gives no parts; after a break from the start again."""
        for attempt in self._attempts():
            with attempt, self._answer(None) as answer:
                if answer.status != 200:
                    raise self._error(f"it answers with the status {answer.status}")
                at, announced = 0, self._announced(answer)
                most = self.options.most if self.size is not None else min(self.options.most, _UNANNOUNCED)
                for piece in self._body(answer, most + 1):
                    yield at, piece
                    at += len(piece)
                    if at > most:
                        raise self._too_large(most)
                if announced is not None and at != announced:
                    raise _TroubleError(f"{at:#x} bytes came, {announced:#x} were announced")
                if not at and announced is None and not answer.chunked:
                    raise _TroubleError("nothing came, and no length was announced")  # as when it hangs up in the head of its answer
                return

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for _, connection in self._free:
                connection.close()
            self._free.clear()

    def _first(self) -> None:
        """Ask for the first bytes: the answer tells how long the file is, and whether the server gives parts."""
        most = _HEAD * self.options.block
        for attempt in self._attempts():
            with attempt, self._answer((0, most)) as answer:
                if answer.status == 416:
                    if answer.headers.get("Content-Range") == _EMPTY:
                        self._remember(RemoteIdentity(0, None, None))
                        self.size = 0
                    return  # else it is asked for without a range: the answer to that tells
                self.size = size = self._announced(answer)
                if size is not None and size > self.options.most:
                    raise self._too_large(self.options.most)
                self._remember(RemoteIdentity(size, answer.headers.get("ETag"), answer.headers.get("Last-Modified")))
                if answer.status != 206:
                    return
                if size is None:
                    raise UnsupportedError("the server does not say how long the file is", locator=self._shown)
                self._check_range(answer, 0, min(most, size))
                head = b"".join(self._body(answer, min(most, size)))
                if len(head) < min(most, size):
                    raise _TroubleError("the connection ended too early")
                self.ranges, self.head = True, head
                return

    def _announced(self, answer: http.client.HTTPResponse) -> int | None:
        if answer.status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            return int(found[3]) if found else None
        length = answer.headers.get("Content-Length")
        if length is None or answer.chunked:
            return None
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise self._error(f"it announces {length[:30]!r} bytes")
        return int(length)

    def _check_range(self, answer: http.client.HTTPResponse, start: int, end: int) -> None:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (start, end - 1):
            got = answer.headers.get("Content-Range", "nothing")[:80]
            raise self._error(f"asked for the bytes {start}-{end - 1}, it says that it sends {got!r}")

    def _remember(self, identity: RemoteIdentity) -> None:
        """Keep what the first answer says; another answer must say the same."""
        if self._identity is None:
            self._identity = identity
        elif identity.size != self._identity.size or _told_apart(self._identity, identity):
            raise InputError("the file on the server changed while it was read", locator=self._shown, hint="run again")

    def _body(self, answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
        """At most ``most`` bytes of a body; an error when they come too slowly or are more than announced."""
        began, total = time.monotonic(), 0
        while total < most:
            piece = answer.read1(min(_PIECE, most - total))
            if not piece:
                return
            total += len(piece)
            self.fetched += len(piece)
            yield piece
            spent = time.monotonic() - began
            if spent > self.options.patience and total < spent * self.options.slowest:
                raise self._error(f"it sends too slowly: {total} bytes in {spent:.0f} s")
        if answer.status == 206 and answer.read1(1):
            raise self._error(f"it sends more than the {most} bytes asked for")

    def _attempts(self) -> Iterator[_Attempt]:
        wait = _BACKOFF
        for number in range(self.options.attempts):
            attempt = _Attempt(last=number == self.options.attempts - 1, shown=self._shown)
            yield attempt
            if attempt.trouble is None:
                return
            time.sleep(min(max(wait, attempt.trouble.wait), _MOST_WAIT))
            wait *= 2

    @contextmanager
    def _answer(self, span: tuple[int, int] | None) -> Iterator[http.client.HTTPResponse]:
        """The answer to one question, redirects followed; the connection is kept when its answer was read to the end."""
        target, moved = self._target, False
        for _ in range(_REDIRECTS + 1):
            connection = self._connection(target)
            try:
                answer = self._ask(connection, target, span)
                if answer.status in _MOVED:
                    target, moved = self._follow(target, answer), True
                    connection.close()
                    continue
                if answer.status in _STALE and target != self._origin and not moved:
                    self._target = target = self._origin  # where it led to has expired
                    connection.close()
                    continue
                self._judge(answer)
                self._target = target
                yield answer
                self._keep(connection, answer, target)
                return
            except UnicodeError as error:  # a name that no host can have
                connection.close()
                raise self._error(f"{shown_address(target.netloc)[:80]!r} is not a host name") from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise _TroubleError(_words(error)) from error
            except BaseException:
                connection.close()
                raise
        raise self._error(f"it redirects more than {_REDIRECTS} times")

    def _ask(self, connection: http.client.HTTPConnection, target: SplitResult, span: tuple[int, int] | None) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"fatpatch/{__version__}", "Accept-Encoding": "identity", "Host": target.netloc}
        if self.options.accept is not None:
            headers["Accept"] = self.options.accept
        if self._authorization and _server(target) == _server(self._origin):
            headers["Authorization"] = self._authorization
        if isinstance(connection, ViaProxy) and connection.authorization:
            headers["Proxy-Authorization"] = connection.authorization
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        self.requests += 1
        with self._deadline(connection):
            asked = target if isinstance(connection, ViaProxy) else target._replace(scheme="", netloc="")
            connection.request("GET", urlunsplit(asked._replace(path=target.path or "/")), headers=headers)
            return connection.getresponse()

    @contextmanager
    def _deadline(self, connection: http.client.HTTPConnection) -> Iterator[None]:
        """However slowly the head of an answer drips in, it does not take longer than this."""

        late = threading.Event()

        def cut() -> None:
            late.set()
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.options.patience, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if late.is_set():  # a head that was cut looks like one that ended
            raise _TroubleError(f"it did not answer within {self.options.patience:.0f} s")

    def _judge(self, answer: http.client.HTTPResponse) -> None:
        """Errors for answers without the file; what may be over soon is worth another try."""
        if answer.status in _TRY_AGAIN:
            wait = answer.headers.get("Retry-After", "")
            raise _TroubleError(
                f"it answers with the status {answer.status}", float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0
            )
        if answer.status == 401:
            unauthorized = UnauthorizedError(_REASONS[401], locator=self._shown, hint="look at the address, or download the file first")
            unauthorized.challenge = answer.headers.get("WWW-Authenticate", "")[:4000]
            raise unauthorized
        if answer.status not in (200, 206, 416):
            raise self._error(_REASONS.get(answer.status, f"it answers with the status {answer.status}"))
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise self._error("it packs what it sends, although it was asked not to")
        if self._identity is not None and answer.status != 416:
            size = self._announced(answer) if answer.status == 206 or not self.ranges else self._identity.size
            self._remember(RemoteIdentity(size, answer.headers.get("ETag"), answer.headers.get("Last-Modified")))

    def _follow(self, target: SplitResult, answer: http.client.HTTPResponse) -> SplitResult:
        where = answer.headers.get("Location", "")
        try:
            return parts_of(urljoin(urlunsplit(target), where), self._shown)[0]
        except (InputError, ValueError) as error:
            raise self._error(f"it redirects to {shown_address(where)[:200]!r}, which is not followed") from error

    def _connection(self, target: SplitResult) -> http.client.HTTPConnection:
        with self._lock:
            for index, (place, connection) in enumerate(self._free):
                if place == _place(target):
                    del self._free[index]
                    return connection
        return connect(target, self.options, self._shown)

    def _keep(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, target: SplitResult) -> None:
        """For the next question, when the answer was read to its end."""
        if answer.length == 0:
            answer.read()
        if answer.will_close or not answer.isclosed():
            connection.close()
            return
        with self._lock:
            self._free.append((_place(target), connection))

    def _too_large(self, most: int) -> LimitError:
        message = f"is larger than the {most:#x} bytes that may be fetched"
        return LimitError(message, locator=self._shown, hint="raise it with --max-download if you trust the server")

    def _error(self, words: str) -> InputError:
        return InputError(words, locator=self._shown, hint="look at the address, or download the file first")


class _Attempt:
    """One try: trouble is swallowed unless it is the last."""

    def __init__(self, *, last: bool, shown: str) -> None:
        self.last = last
        self.shown = shown
        self.trouble: _TroubleError | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, stack: object) -> bool:
        if not isinstance(error, _TroubleError):
            return False
        self.trouble = error
        if self.last:
            raise InputError(f"cannot be fetched: {error}", locator=self.shown, hint="look at the address and the network") from error
        return True


def _told_apart(first: RemoteIdentity, second: RemoteIdentity) -> bool:
    """Whether two answers are of different states of a file: by the tag where both have one, else by the date.

    An answer that says neither, where the first one did, is of something else.
    """
    if first.tag and second.tag:
        return first.tag != second.tag
    if first.modified and second.modified:
        return first.modified != second.modified
    return bool(first.tag or first.modified) and not (second.tag or second.modified)


def _words(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason)[:200]


def _server(target: SplitResult) -> tuple[str, str | None, int]:
    """Who gets a password: the same host and port, by the same protocol."""
    return target.scheme, target.hostname, target.port or {"https": 443}.get(target.scheme, 80)


def _place(target: SplitResult) -> _Place:
    return target.scheme, target.netloc
