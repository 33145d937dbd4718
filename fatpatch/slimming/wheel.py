"""A wheel packed anew with slimmed libraries: its build tag says so, RECORD has the new hashes, and a mark says what was kept.

Source: PyPA specification "Binary distribution format" (file name, build number, RECORD).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Final

from fatpatch.base.errors import EditError, FormatError, InputError, VerifyError
from fatpatch.base.leftovers import folder_prefix, remove_folders
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.workers import in_order
from fatpatch.base.writing import give_name, sync_folder
from fatpatch.scan.slim_marks import MARK, mark_bytes
from fatpatch.slimming.environment import Report
from fatpatch.slimming.ledger import FileFacts, facts_of, record_lines
from fatpatch.slimming.library import slim_library
from fatpatch.slimming.mark import mark_of
from fatpatch.slimming.request import SLIMMED, LibraryResult, LibraryTask, SlimRequest, by_length

_LIBRARY: Final = lazy_pattern(r"\.(?:so(?:\.[0-9.]+)?|dll|pyd|exe|cubin|fatbin|hsaco|co)\Z", re.IGNORECASE)
_BUILD: Final = lazy_pattern(r"(\d*)")
_MAX_MEMBERS: Final = 200_000
_MAX_TEXT: Final = 64 << 20
_LONGEST: Final = 40
_CHUNK: Final = 1 << 20


class Wheel(NamedTuple):
    """A wheel by its file name. ``build``: its build tag, "" for none."""

    path: str
    name: str
    version: str
    build: str
    tags: str

    @property
    def shown(self) -> str:
        """``torch 2.11.0``."""
        return f"{self.name} {self.version}"


def wheel_of(path: str) -> Wheel:
    """Read the file name. InputError when it is not that of a wheel."""
    parts = os.path.basename(path).removesuffix(".whl").split("-")
    if not path.endswith(".whl") or len(parts) not in (5, 6) or not zipfile.is_zipfile(path):
        raise InputError("is not a wheel, or is not named as one", locator=path, hint="NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    build = parts[2] if len(parts) == 6 else ""
    return Wheel(path, parts[0], parts[1], build, "-".join(parts[-3:]))


def slim_wheel(
    wheel: Wheel, folder: str | None, request: SlimRequest, *, jobs: int, report: Report, today: str
) -> tuple[list[LibraryResult], str]:
    """Slim the libraries of a wheel, and write it anew into ``folder``; None: only plan. The results, and the name of the new file.

    A wheel in which nothing changes is copied under its own name. EditError when the new name is taken.
    """
    home = folder or tempfile.gettempdir()
    remove_folders(home)
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), dir=home) as scratch, zipfile.ZipFile(wheel.path) as archive:
        members = _members(archive, wheel)
        libraries = [each for each in members if _LIBRARY.search(each.filename)]
        _refuse_too_large(sum(each.file_size for each in libraries), scratch, wheel)
        tasks = [
            LibraryTask(path, f"{wheel.name}/{each.filename}", None if folder is None else path, request._replace(record=False))
            for each, path in _unpacked(archive, libraries, scratch)
        ]
        results = []
        for result in in_order(slim_library, tasks, jobs):
            report(result)
            results.append(by_length(result))
        changed = {
            each.filename: task.path for each, task, result in zip(libraries, tasks, results, strict=True) if result.status == SLIMMED
        }
        name = _new_name(wheel, request) if changed else os.path.basename(wheel.path)
        if folder is not None:
            _write(archive, members, wheel, os.path.join(folder, name), changed, request, today)
    return results, name


def _members(archive: zipfile.ZipFile, wheel: Wheel) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS or len({each.filename for each in members}) != len(members):
        raise FormatError("has too many members, or two of one name", locator=wheel.path)
    for each in members:
        if each.filename.startswith("/") or ".." in each.filename.split("/") or each.flag_bits & 1:
            raise FormatError(f"has a member that no wheel has: {each.filename[:200]!r}", locator=wheel.path)
    return members


def _refuse_too_large(size: int, scratch: str, wheel: Wheel) -> None:
    if size > shutil.disk_usage(scratch).free:
        raise EditError(f"its libraries take {size:,} bytes, more than there is room for", locator=wheel.path, hint="set TMPDIR, or -o")


def _unpacked(archive: zipfile.ZipFile, libraries: list[zipfile.ZipInfo], scratch: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Each library as a file of its own, under a name that its number gives: names of members lead nowhere."""
    for number, each in enumerate(libraries):
        path = os.path.join(scratch, f"{number}-{re.sub(r'[^A-Za-z0-9._-]', '_', os.path.basename(each.filename))[-100:]}")
        with archive.open(each) as source, open(path, "xb") as sink:
            left = each.file_size
            while data := source.read(min(_CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    raise FormatError("a member is longer than the directory says", locator=f"{each.filename}")
                sink.write(data)
        yield each, path


def _new_name(wheel: Wheel, request: SlimRequest) -> str:
    return f"{wheel.name}-{wheel.version}-{_build_tag(wheel, request)}-{wheel.tags}.whl"


def _build_tag(wheel: Wheel, request: SlimRequest) -> str:
    """``0slim.sm_90``: pip prefers it to the same version without one, and nobody takes it for the original."""
    number = _BUILD.match(wheel.build)
    targets = sorted({re.sub(r"[^a-z0-9_]", "_", device.target) for device in request.devices}) or ["part"]
    words = ".".join(targets)
    return f"{(number[1] if number else '') or '0'}slim.{words if len(words) <= _LONGEST else f'{len(targets)}_targets'}"


def _write(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    wheel: Wheel,
    path: str,
    changed: Mapping[str, str],
    request: SlimRequest,
    today: str,
) -> None:
    """The new wheel, verified before it gets its name."""
    if os.path.lexists(path):
        raise EditError("exists already", locator=path, hint="give another folder")
    descriptor, temporary = tempfile.mkstemp(prefix=".fatpatch-", suffix=".tmp", dir=os.path.dirname(path) or ".")
    os.close(descriptor)
    try:
        if changed:
            _pack(archive, members, wheel, temporary, changed, request, today)
            _verify(temporary, wheel)
        else:
            shutil.copyfile(wheel.path, temporary)
        shutil.copymode(wheel.path, temporary)
        with open(temporary, "r+b") as stream:  # Windows syncs what may be written
            os.fsync(stream.fileno())
        give_name(temporary, path, replace=False)
        sync_folder(os.path.dirname(path) or ".")
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _pack(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    wheel: Wheel,
    temporary: str,
    changed: Mapping[str, str],
    request: SlimRequest,
    today: str,
) -> None:
    record = next((each.filename for each in members if re.fullmatch(r"[^/]+\.dist-info/RECORD", each.filename)), None)
    if record is None:
        raise FormatError("has no RECORD", locator=wheel.path)
    info = os.path.dirname(record)
    facts = {name: facts_of(path) for name, path in changed.items()}
    texts = {f"{info}/WHEEL": _with_build(_text(archive, f"{info}/WHEEL"), _build_tag(wheel, request))}
    mark = mark_bytes(mark_of(request, {name: each.size for name, each in facts.items()}, today))
    facts |= {name: _facts(data) for name, data in texts.items()}
    texts[record] = record_lines(_text(archive, record), facts, (), wheel.path)
    texts[record] += f"{info}/{MARK},{_hashed(mark)},{len(mark)}\n".encode()
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as out:
        for each in sorted(members, key=lambda member: member.filename == record):
            if each.filename == record:
                out.writestr(_like(each, f"{info}/{MARK}"), mark)
            head = _like(each, each.filename)
            if each.filename in texts:
                out.writestr(head, texts[each.filename])
            elif each.is_dir():
                out.writestr(head, b"")
            else:
                path = changed.get(each.filename)
                with (
                    open(path, "rb") if path else archive.open(each) as source,
                    out.open(head, "w", force_zip64=each.file_size > 1 << 30) as sink,
                ):
                    shutil.copyfileobj(source, sink, _CHUNK)


def _like(each: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    head = zipfile.ZipInfo(name, each.date_time)
    head.external_attr, head.create_system = each.external_attr, each.create_system
    head.compress_type = zipfile.ZIP_DEFLATED if each.compress_type not in (zipfile.ZIP_STORED,) else zipfile.ZIP_STORED
    return head


def _text(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise FormatError(f"has no {name}", locator=str(archive.filename)) from error
    if member.file_size > _MAX_TEXT:
        raise FormatError(f"{name} has {member.file_size:#x} bytes", locator=str(archive.filename))
    return archive.read(member)


def _with_build(text: bytes, tag: str) -> bytes:
    """WHEEL with this build tag."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lower().startswith(b"build:")]
    return b"\n".join([*lines, f"Build: {tag}".encode(), b""])


def _facts(data: bytes) -> FileFacts:
    import hashlib

    return FileFacts(hashlib.sha256(data).digest(), len(data))


def _hashed(data: bytes) -> str:
    import base64

    return "sha256=" + base64.urlsafe_b64encode(_facts(data).sha256).rstrip(b"=").decode()


def _verify(path: str, wheel: Wheel) -> None:
    """Read the new wheel from scratch: every member unpacks, and is what RECORD says."""
    import base64
    import csv
    import hashlib

    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        rows = {row[0]: row for row in csv.reader(archive.read(record).decode().splitlines()) if len(row) == 3}
        for each in archive.infolist():
            found, size = hashlib.sha256(), 0
            with archive.open(each) as source:
                while data := source.read(_CHUNK):
                    found.update(data)
                    size += len(data)
            said = rows.get(each.filename)
            if said is None or not said[1].startswith("sha256="):
                continue
            hashed = base64.urlsafe_b64encode(found.digest()).rstrip(b"=").decode()
            if said[1] != f"sha256={hashed}" or said[2] not in ("", str(size)):
                raise VerifyError(f"{each.filename} is not what RECORD says: nothing was written", locator=wheel.path)
