"""A policy: what a release promises, read from TOML (schema policy-1). An unknown key is an error, so that a slip of the pen is none."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fatpatch.base.errors import InputError
from fatpatch.base.locator import covers
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.policy.finding import LEVELS

FILE: Final = "fatpatch.toml"
PROJECT: Final = "pyproject.toml"
_MAX_SIZE = 1 << 20
_MOST_FOLDERS = 32
_MAX_DEPTH = 100
_TARGET = lazy_pattern(r"[A-Za-z0-9_:+*?.-]{1,60}\Z")
_SIZE = lazy_pattern(r"(\d{1,12}(?:\.\d{1,3})?) ?([kMG]?B)\Z")
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_PTX = lazy_pattern(r"compute_\d{2,3}[af]?\Z")
_ISA = lazy_pattern(r"\d{1,2}\.\d{1,2}\Z")


class MustRun(NamedTuple):
    """GPUs that must run a file, by name, with a driver; ``accept`` are outcomes (``outcome.OUTCOMES``) that will do as well."""

    gpus: tuple[str, ...]
    driver: str | None
    accept: tuple[str, ...]


class Demands(NamedTuple):
    """What one file must fulfil. None, empty or False: not asked for. Sizes are bytes."""

    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    every_module: bool = True
    ptx_floor: str | None = None
    ptx_max_isa: str | None = None
    oldest_driver: str | None = None
    run: tuple[MustRun, ...] = ()
    cover: bool = False
    no_duplicates: bool = False
    file_size: int | None = None
    gpu_size: int | None = None
    target_size: int | None = None
    no_debug_info: bool = False
    no_line_info: bool = False
    one_toolkit: bool = False


class Allowance(NamedTuple):
    """Findings that are known and accepted until a day. ``file`` and ``locator`` are patterns."""

    rule: str
    file: str
    locator: str
    reason: str
    expires: datetime.date


class Policy(NamedTuple):
    """``files``: (pattern, the demands that it changes, by field). ``source`` is the file that it was read from.

    ``fleets``: (name, the names of GPUs).
    """

    demands: Demands = Demands()
    files: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    allow: tuple[Allowance, ...] = ()
    fail_on: str = "error"
    source: str = ""
    fleets: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def demanding(self) -> bool:
        """Whether anything is demanded at all."""
        return self.demands != Demands() or bool(self.files)

    def for_file(self, path: str) -> Demands:
        """The demands on one file or archive member: the general ones, changed by every pattern that fits, in order."""
        demands = self.demands
        for pattern, changes in self.files:
            if fits(path, pattern):
                demands = demands._replace(**changes)
        return demands

    def names(self, path: str) -> bool:
        """Whether some pattern is about this file: then it must fulfil what is required, whatever it holds."""
        return any(fits(path, pattern) for pattern, _ in self.files)


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern (``*``, ``?``) names a path or its last part."""
    path = path.replace(os.sep, "/")
    return covers(pattern, path) or covers(pattern, path.rsplit("/", 1)[-1]) or covers(f"*/{pattern}", path)


def find_policy(folder: str = ".") -> str | None:
    """The nearest policy, in the folder or one above it: fatpatch.toml, else a pyproject.toml with a table tool.fatpatch.

    The search ends at the root of a git repository, and after 32 folders.
    """
    for _ in range(_MOST_FOLDERS):
        path = os.path.join(folder, FILE)
        if os.path.isfile(path):
            return os.path.normpath(path)
        path = os.path.join(folder, PROJECT)
        if os.path.isfile(path) and "fatpatch" in _tools(_toml(path)):
            return os.path.normpath(path)
        above = os.path.join(folder, os.pardir)
        if os.path.lexists(os.path.join(folder, ".git")) or os.path.realpath(above) == os.path.realpath(folder):
            return None
        folder = above
    return None


def read_policy(path: str) -> Policy:
    """The policy in a file; InputError names the key that is wrong and what is expected there."""
    document = _toml(path)
    if os.path.basename(path) != PROJECT:
        return parse_policy(document, path)
    table = _tools(document).get("fatpatch")
    if not isinstance(table, dict):
        raise InputError("has no table tool.fatpatch", locator=path, hint=f"put one there, or give a {FILE}")
    return parse_policy(table, path)


def _tools(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table tool of a pyproject.toml; nothing where it is no table."""
    tools = document.get("tool")
    return tools if isinstance(tools, dict) else {}


def parse_policy(document: Mapping[str, Any], source: str = "") -> Policy:
    """The policy that a document states."""
    reader = _PolicyReader(source)
    rest = {key: value for key, value in document.items() if key not in ("files", "allow", "fail-on", "schema", "fleets")}
    demands = Demands()._replace(**reader.demands(rest, ""))
    files = []
    for index, table in enumerate(reader.tables(document, "files")):
        where = f"files[{index}]"
        pattern = reader.take(table, "pattern", where, _text)
        if pattern is None:
            raise reader.wrong(f"{where}.pattern", 'a pattern such as "*/libx.so"', "nothing")
        changes = reader.demands({key: value for key, value in table.items() if key != "pattern"}, where)
        files.append((pattern, changes))
    allow = tuple(reader.allowance(table, f"allow[{index}]") for index, table in enumerate(reader.tables(document, "allow")))
    fail_on = reader.take(document, "fail-on", "", _one_of(*LEVELS, "never")) or "error"
    return Policy(demands, tuple(files), allow, fail_on, source, reader.fleets(document))


def _toml(path: str) -> dict[str, Any]:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_SIZE + 1)
        if len(data) > _MAX_SIZE:
            raise InputError(f"is larger than {_MAX_SIZE} bytes", locator=path, hint="a policy is a short text")
        _refuse_deep(data, path)
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
        return document
    except OSError as error:
        raise InputError(f"cannot open: {error.strerror}", locator=path, hint="'fatpatch check --init FILE...' writes a policy") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError among them, and numbers of thousands of digits
        raise InputError(f"is not TOML: {error}", locator=path, hint="see the README for an example") from error


_TOKEN = lazy_pattern(
    rb'"""(?:[^"\\]|\\.|"(?!""))*"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[{]|[\]}]|\.|\n', re.DOTALL
)


def _refuse_deep(data: bytes, path: str) -> None:
    """InputError for a text whose keys or tables nest deeper than any policy: reading it would take minutes."""
    depth = dots = 0
    for found in _TOKEN.finditer(data):
        token = found[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth = max(depth - 1, 0)
        elif token == b".":
            dots += 1
        elif token == b"\n":
            dots = 0
        if depth > _MAX_DEPTH or dots > _MAX_DEPTH:
            raise InputError(f"nests deeper than {_MAX_DEPTH} tables", locator=path, hint="a policy is a short text")


Take = Callable[[Any], Any]
"""Takes a value of a document; ValueError says what was expected."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise ValueError("a text, in quotes")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError("a list of texts")
    return tuple(value)


def targets(value: Any) -> tuple[str, ...]:
    """Targets such as sm_86, compute_90, gfx1100; * and ? stand for any."""
    found = _texts(value)
    for each in found:
        if not _TARGET.match(each) or not each.startswith(("sm_", "compute_", "lto_", "gfx", "amdgcn", "spir", "*")):
            raise ValueError("targets such as sm_86, compute_90 or gfx1100")
    return found


def _size(value: Any) -> int:
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a size such as "200 MB"')
    return int(float(found[1]) * _UNITS[found[2]])


def _pattern(form: re.Pattern[str], expected: str) -> Take:
    def take(value: Any) -> str:
        if not isinstance(value, str) or not form.match(value):
            raise ValueError(expected)
        return value

    return take


def _one_of(*words: str) -> Take:
    def take(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(words))
        return str(value)

    return take


def _negated(value: Any) -> bool:
    return not _flag(value)


def _driver(value: Any) -> str:
    from fatpatch.gpus.drivers import driver

    try:
        driver(_text(value))
    except InputError as error:
        raise ValueError("a driver version such as 535.154") from error
    return str(value)


_TOP: Final[dict[str, tuple[str, Take]]] = {
    "require": ("require", targets),
    "forbid": ("forbid", targets),
    "every-module": ("every_module", _flag),
}
_TABLES: Final[dict[str, dict[str, tuple[str, Take]]]] = {
    "ptx": {
        "floor": ("ptx_floor", _pattern(_PTX, "a target such as compute_75")),
        "max-isa": ("ptx_max_isa", _pattern(_ISA, "a version such as 8.4")),
        "oldest-driver": ("oldest_driver", _driver),
    },
    "kernels": {"cover": ("cover", _flag), "duplicates": ("no_duplicates", _negated)},
    "size": {"file": ("file_size", _size), "gpu-code": ("gpu_size", _size), "target": ("target_size", _size)},
    "build": {
        "debug-info": ("no_debug_info", _negated),
        "line-info": ("no_line_info", _negated),
        "one-toolkit": ("one_toolkit", _flag),
    },
}
"""Key of the document -> field of Demands, and how to take it. The schema policy-1 says the same."""


class _PolicyReader:
    """Takes a document apart; ``source`` is named in errors."""

    def __init__(self, source: str) -> None:
        self._source = source

    def wrong(self, key: str, expected: str, got: Any) -> InputError:
        shown = json.dumps(got, default=str, ensure_ascii=False)[:80]
        return InputError(f"{key}: expected {expected}, got {shown}", locator=self._source, hint="the README has an example")

    def take(self, table: Mapping[str, Any], key: str, where: str, take: Take) -> Any:
        """A value, None when it is absent."""
        if key not in table:
            return None
        try:
            return take(table[key])
        except ValueError as error:
            raise self.wrong(f"{where}.{key}".lstrip("."), str(error), table[key]) from error

    def tables(self, document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
        found = document.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self.wrong(key, f"tables, each under [[{key}]]", found)
        return found

    def fleets(self, document: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        table = document.get("fleets", {})
        if not isinstance(table, dict):
            raise self.wrong("fleets", "a table [fleets]", table)
        return tuple((str(name), self.take(table, name, "fleets", _texts)) for name in table)

    def refuse_unknown(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                name = f"{where}.{key}".lstrip(".")
                raise InputError(f"{name}: unknown key", locator=self._source, hint=f"known are {', '.join(known)}")

    def demands(self, document: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The fields of Demands that a table states."""
        self.refuse_unknown(document, (*_TOP, *_TABLES, "run"), where)
        found = self._fields(document, _TOP, where)
        for name, fields in _TABLES.items():
            table = document.get(name, {})
            if not isinstance(table, dict):
                raise self.wrong(f"{where}.{name}".lstrip("."), f"a table [{name}]", table)
            self.refuse_unknown(table, tuple(fields), f"{where}.{name}".lstrip("."))
            found |= self._fields(table, fields, f"{where}.{name}")
        if "run" in document:
            runs = self.tables(document, "run")
            found["run"] = tuple(self._run(table, f"{where}.run[{index}]".lstrip(".")) for index, table in enumerate(runs))
        return found

    def _fields(self, table: Mapping[str, Any], fields: Mapping[str, tuple[str, Take]], where: str) -> dict[str, Any]:
        return {field: self.take(table, key, where, take) for key, (field, take) in fields.items() if key in table}

    def _run(self, table: Mapping[str, Any], where: str) -> MustRun:
        from fatpatch.verdicts.outcome import OUTCOMES

        self.refuse_unknown(table, ("gpus", "driver", "accept"), where)
        gpus = self.take(table, "gpus", where, _texts)
        if not gpus:
            raise self.wrong(f"{where}.gpus", 'a list such as ["GTX 1060", "sm_86"]', table.get("gpus", "nothing"))
        accept = self.take(table, "accept", where, _texts) or ()
        if unknown := [word for word in accept if word not in OUTCOMES]:
            raise self.wrong(f"{where}.accept", "some of " + ", ".join(OUTCOMES), unknown[0])
        return MustRun(gpus, self.take(table, "driver", where, _driver), accept)

    def allowance(self, table: Mapping[str, Any], where: str) -> Allowance:
        """A table of [[allow]]; its reason and its last day must be there."""
        self.refuse_unknown(table, ("rule", "file", "locator", "reason", "expires"), where)
        rule, reason = self.take(table, "rule", where, _text), self.take(table, "reason", where, _text)
        expires = table.get("expires")
        if rule is None:
            raise self.wrong(f"{where}.rule", "the id of a rule, such as FP102", "nothing")
        if reason is None:
            raise self.wrong(f"{where}.reason", "why this is accepted", "nothing")
        if not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime):
            raise self.wrong(f"{where}.expires", "a date such as 2027-01-31", expires if expires is not None else "nothing")
        file, locator = (self.take(table, key, where, _text) or "*" for key in ("file", "locator"))
        return Allowance(rule, file, locator, reason, expires)
