"""The index: one SQLite file. Contents are kept once, under a key that is made of them; a location says which contents it has.

Tables (version 1):

- location: path, size, mtime_ns, tag (ETag), image_limit (what an image might unpack to), tool_version, artifact (null when it could
  not be read), error
- artifact: id, container
- payload: artifact, inside (locator below the file), holder (locator of its file or member, empty for the file), vendor, kind, section,
  offset, size
- entry: artifact, payload (``inside``), ordinal, target, compression, stored_size, image (null when it cannot be unpacked)
- image: sha256 (of the unpacked bytes), kind, size, code_version, producer
- kernel: image, name, registers, shared_bytes, local_bytes, code_size, body (real, stub, null)
- finding: artifact, rule, level, inside, message
- verdict: artifact, holder, gpu (target), outcome, works (0, 1)
- release (made when ``fatpatch releases`` first keeps something): address, state, tool_version, headers (``HeaderRecord.text``), modules,
  sampled (how many of them were read, null for all), fetched
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from fatpatch import __version__
from fatpatch.base.errors import FormatError, InputError, LimitError, UnsupportedError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.index.record import Examined, FileRows, KeptRelease, KnownState

VERSION: Final = 1
TABLES: Final = {
    "location": ("path", "size", "mtime_ns", "tag", "image_limit", "tool_version", "artifact", "error"),
    "artifact": ("id", "container"),
    "payload": ("artifact", "inside", "holder", "vendor", "kind", "section", "offset", "size"),
    "entry": ("artifact", "payload", "ordinal", "target", "compression", "stored_size", "image"),
    "image": ("sha256", "kind", "size", "code_version", "producer"),
    "kernel": ("image", "name", "registers", "shared_bytes", "local_bytes", "code_size", "body"),
    "finding": ("artifact", "rule", "level", "inside", "message"),
    "verdict": ("artifact", "holder", "gpu", "outcome", "works"),
}
"""Table -> columns."""

RELEASE: Final = ("address", "state", "tool_version", "headers", "modules", "sampled", "fetched")
"""Columns of the table of releases, which an index has once releases were kept in it."""

_KEYS: Final = {
    "location": 1, "artifact": 1, "payload": 2, "entry": 3, "image": 1, "kernel": 2, "finding": 5, "verdict": 3,
}  # fmt: skip
"""How many columns, from the first on, are the key of a table."""

_OF_ARTIFACT: Final = ("payload", "entry", "finding", "verdict")
_OF_QUESTION: Final = lazy_pattern(r"syntax|no such|incomplete|unrecognized|not authorized|prohibited|one statement|ambiguous|misuse")
_APPLICATION: Final = 0x46505431  # "FPT1"


_READING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_PATIENCE: Final = 60.0
_STEPS: Final = 100_000
_HEAP: Final = 512 << 20


class Database:
    """An open index. Every ``store`` is one transaction: a run that is killed leaves the index as after its last file."""

    def __init__(self, path: str, *, create: bool) -> None:
        self.path = path
        if path in ("", ":memory:"):
            raise InputError(f"{path!r} is not a file name", hint="give the name of the index, such as index.sqlite")
        if not create and not os.path.isfile(path):
            raise InputError("is not a fatpatch index", locator=path, hint=f"'fatpatch audit FILE... --db {path}' makes one")
        with self._told():
            if create:
                self._connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
                self._prepare()
            else:
                self._connection = _read_only(path)
            # Between so many steps Python looks for signals: a question without end can be ended.
            self._connection.set_progress_handler(lambda: 0, _STEPS)
            self._check()
            if not create:
                self._connection.execute(f"PRAGMA hard_heap_limit = {_HEAP}")
                self._connection.execute("PRAGMA temp_store = MEMORY")  # so that temporary tables count, too
                self._connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY)

    @contextmanager
    def _told(self, path: str = "") -> Iterator[None]:
        """What SQLite complains of as an error of ours."""
        try:
            yield
        except sqlite3.Error as error:
            if str(error) == "interrupted":
                raise KeyboardInterrupt from error
            raise _wrong(path or self.path, error) from error

    def _prepare(self) -> None:
        """Make the tables where there are none; another process may be doing the same."""
        began = time.monotonic()
        while self._one("PRAGMA journal_mode") != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() - began > _PATIENCE:
                    raise
                time.sleep(0.05)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("BEGIN IMMEDIATE")
        if self._one("PRAGMA user_version") == 0 and not self._one("SELECT count(*) FROM sqlite_master"):
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
        self._connection.execute("COMMIT")

    def _check(self) -> None:
        """Errors for what is not an index, or has more in it than one: views and triggers would do work of their own."""
        if self._one("PRAGMA application_id") != _APPLICATION:
            raise FormatError("is a database, but no index of fatpatch", locator=self.path)
        version = self._one("PRAGMA user_version")
        if version != VERSION:
            message = f"is an index of version {version}, this fatpatch knows {VERSION}"
            raise UnsupportedError(message, locator=self.path, hint="use the fatpatch that made it, or make it anew")
        found = {text for (text,) in self._connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        if found not in (set(_SCHEMA), {*_SCHEMA, _RELEASE}):
            hint = "make it anew with 'fatpatch audit'"
            raise FormatError("has other tables, views or triggers than an index of fatpatch", locator=self.path, hint=hint)

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Table -> columns, of those that are there."""
        with self._told():
            some = self._one("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'release'")
        return {**TABLES, "release": RELEASE} if some else TABLES

    def release(self, address: str, state: str) -> KeptRelease | None:
        """What was kept of a release by this version; None for one that is not known, or was in another state then."""
        if "release" not in self.tables:
            return None
        question = f"SELECT {', '.join(RELEASE)} FROM release WHERE address = ?"
        with self._told():
            row = self._connection.execute(question, (_text(address),)).fetchone()
        found = None if row is None else KeptRelease(*row)
        return found if found is not None and (found.state, found.tool_version) == (state, __version__) else None

    def keep_release(self, found: KeptRelease) -> None:
        """Keep the headers of a release, in place of what was known of it."""
        with self._told():
            if "release" not in self.tables:
                self._connection.execute(_RELEASE)
            marks = ", ".join("?" for _ in RELEASE)
            self._connection.execute(f"INSERT OR REPLACE INTO release VALUES ({marks})", found._replace(address=_text(found.address)))

    def has(self, location: str) -> bool:
        """Whether there is a row for the location."""
        with self._told():
            return bool(self._one("SELECT count(*) FROM location WHERE path = ?", _text(location)))

    def knows(self, location: str, state: KnownState) -> bool:
        """Whether the file was read as it is now, by this version. Without any state it was not, nor where reading it failed."""
        question = "SELECT size, mtime_ns, tag, image_limit, tool_version FROM location WHERE path = ? AND error IS NULL"
        with self._told():
            row = self._connection.execute(question, (_text(location),)).fetchone()
        return row is not None and row == (*state, __version__) and (state.mtime_ns is not None or state.tag is not None)

    def forget(self) -> None:
        """Know no state of any file any more: all are read again."""
        with self._told():
            self._connection.execute("UPDATE location SET tool_version = NULL")

    def store(self, found: Examined) -> None:
        """Put one file in, in place of what was known of it."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            artifact = None
            if found.contents is not None:
                artifact = found.contents.key
                if not self._one("SELECT count(*) FROM artifact WHERE id = ?", artifact):
                    self._put(artifact, found.contents)
            self._insert("location", [(_text(found.location), *found.state, __version__, artifact, found.error)], replace=True)
            self._connection.execute("COMMIT")

    def _put(self, artifact: str, contents: FileRows) -> None:
        self._insert("artifact", [(artifact, contents.container)])
        for table, rows in zip(_OF_ARTIFACT, (contents.payloads, contents.entries, contents.findings, contents.verdicts), strict=True):
            self._insert(table, [(artifact, *row) for row in rows])
        self._insert("image", contents.images)
        self._insert("kernel", contents.kernels)

    def _insert(self, table: str, rows: Sequence[Sequence[Any]], *, replace: bool = False) -> None:
        marks = ", ".join("?" for _ in TABLES[table])
        clean = (tuple(_text(value) if isinstance(value, str) else value for value in row) for row in rows)
        self._connection.executemany(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO {table} VALUES ({marks})", clean)

    def tidy(self) -> None:
        """Remove contents that no location has any more."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM artifact WHERE id NOT IN (SELECT artifact FROM location WHERE artifact IS NOT NULL)")
            for table in _OF_ARTIFACT:
                self._connection.execute(f"DELETE FROM {table} WHERE artifact NOT IN (SELECT id FROM artifact)")
            self._connection.execute("DELETE FROM image WHERE sha256 NOT IN (SELECT image FROM entry WHERE image IS NOT NULL)")
            self._connection.execute("DELETE FROM kernel WHERE image NOT IN (SELECT sha256 FROM image)")
            self._connection.execute("COMMIT")

    def merge(self, other: str) -> None:
        """Put all of another index in; of a location that both have, this one's row stays."""
        Database(other, create=False).close()  # what is wrong with it is said first
        if os.path.samefile(other, self.path):
            raise InputError("is the index that it would be merged into", locator=other)
        with self._told(other):
            self._connection.execute("ATTACH ? AS other", (other,))
            self._connection.execute("BEGIN IMMEDIATE")
            theirs = {name for (name,) in self._connection.execute("SELECT name FROM other.sqlite_master WHERE type = 'table'")}
            if "release" in theirs and "release" not in self.tables:
                self._connection.execute(_RELEASE)
            for table in (*TABLES, *(["release"] if "release" in theirs else [])):
                self._connection.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
            self._connection.execute("COMMIT")
            self._connection.execute("DETACH other")
        self.tidy()

    def rows(
        self, question: str, values: Sequence[Any] = (), bounds: Bounds | None = None
    ) -> tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]:
        """(column names, rows) of a question in SQL that changes nothing; LimitError when it takes more than ``bounds`` allow."""
        clock = None if bounds is None else _Clock(bounds)
        if clock is not None:
            self._connection.set_progress_handler(clock.over, _STEPS)
        with self._told(), _watched(clock):
            cursor = self._connection.execute(_text(question), tuple(values))
        return tuple(column[0] for column in cursor.description or ()), self._stepped(cursor, clock)

    def _stepped(self, cursor: sqlite3.Cursor, clock: _Clock | None = None) -> Iterator[tuple[Any, ...]]:
        with self._told(), _watched(clock):
            for number, row in enumerate(cursor):
                if clock is not None and number >= clock.bounds.rows:
                    raise LimitError(f"more than {clock.bounds.rows:,} rows", hint="ask for less, with LIMIT, or --export the tables")
                yield row

    def dump(self) -> Iterator[tuple[Any, ...]]:
        """Every row with its table, in an order that hangs on the rows alone."""
        for table, columns in self.tables.items():
            _, rows = self.rows(f"SELECT * FROM {table} ORDER BY {', '.join(columns)}")
            yield from ((table, *row) for row in rows)

    def close(self) -> None:
        """Write everything into the one file."""
        self._connection.close()

    def _one(self, question: str, *values: Any) -> Any:
        return self._connection.execute(question, values).fetchone()[0]


class Bounds(NamedTuple):
    """What a question of a user may take: seconds and rows. No question takes more memory than ``_HEAP``."""

    seconds: float = 60.0
    rows: int = 1_000_000


class _Clock:
    """Tells SQLite to stop when the time is over, or when the user has interrupted."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.end = time.monotonic() + bounds.seconds
        self.expired = self.interrupted = False

    def over(self) -> bool:
        """Whether to stop; a signal is seen here, since SQLite calls back between its steps."""
        try:
            self.expired = time.monotonic() > self.end
        except KeyboardInterrupt:
            self.interrupted = True
        return self.expired or self.interrupted


@contextmanager
def _watched(clock: _Clock | None) -> Iterator[None]:
    """Say why a question was stopped."""
    try:
        yield
    except MemoryError as error:
        raise LimitError("takes more memory than a question may", hint="ask for less at once") from error
    except sqlite3.OperationalError as error:
        if clock is not None and clock.interrupted:
            raise KeyboardInterrupt from error
        if clock is not None and clock.expired:
            raise LimitError(f"takes longer than {clock.bounds.seconds:g} seconds", hint="ask for less, or --export the tables") from error
        if clock is not None and str(error) == "interrupted":
            raise KeyboardInterrupt from error
        raise


def _text(value: str) -> str:
    """Text that SQLite takes: bytes of names that are no UTF-8 are written as escapes."""
    return value.encode("utf-8", "backslashreplace").decode()


_SCHEMA: Final = (
    *(
        f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(columns[: _KEYS[table]])})) WITHOUT ROWID"
        for table, columns in TABLES.items()
    ),
    "CREATE INDEX entry_image ON entry (image)",
    "CREATE INDEX location_artifact ON location (artifact)",
)
"""The statements that make an index, as SQLite keeps them."""


_RELEASE: Final = f"CREATE TABLE release ({', '.join(RELEASE)}, PRIMARY KEY (address)) WITHOUT ROWID"


def _read_only(path: str) -> sqlite3.Connection:
    """A connection that changes nothing. In a folder that may not be written to, SQLite must be told that nobody else writes."""
    address = f"file:{quote(os.fsencode(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, isolation_level=None, timeout=_PATIENCE, uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError:
        log = f"{path}-wal"
        if os.path.exists(log) and os.path.getsize(log):
            raise
        return sqlite3.connect(f"{address}&immutable=1", isolation_level=None, uri=True)


def _wrong(path: str, error: sqlite3.Error) -> InputError:
    hint = "look at the question" if _OF_QUESTION.search(str(error)) else "look whether the file is an index, whole, and writable"
    return InputError(f"the index cannot be used: {error}", locator=path, hint=hint)
