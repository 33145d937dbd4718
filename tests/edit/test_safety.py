"""Whatever happens while a file is edited, it holds its old bytes or its new ones, and the old ones can be had back."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES, Run
from edit.zips import APE_MAGIC, Entry, build, in_process, sparse, wheel

from fatpatch.base.errors import FatpatchError
from fatpatch.commands import run as run_command
from fatpatch.edit.transaction import append as append_module
from fatpatch.edit.transaction import commit as commit_module
from fatpatch.edit.transaction import write as write_module
from fatpatch.edit.transaction.undo import undo
from fatpatch.scan.walk import inspected

DLL, SO, GGUF = "ggml-cuda.dll", "ggml-cuda.so", "demo.Q8_0.gguf"
DONORS = {
    "lib.so": ("--from", str(SAMPLES / "donor.so"), "--target", "sm_61"),
    "demo.llamafile": ("--from", str(SAMPLES / "donor.dll"), "--target", "sm_61"),
}
NAMES = tuple(DONORS)
SUFFIX = ".fatpatch-undo"
OLD_TIME = 1_000_000_000_000_000_000
KILLS = 40


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return in_process(monkeypatch)


@pytest.fixture(scope="module")
def old() -> dict[str, bytes]:
    demo = SAMPLES / "demo.llamafile"
    return {"lib.so": zipfile.ZipFile(demo).read(SO), "demo.llamafile": demo.read_bytes()}


@pytest.fixture(scope="module")
def new(old: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, result = tmp_path_factory.mktemp("new"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, data in old.items():
            (folder / name).write_bytes(data)
            ok(in_process(patch)("graft", folder / name, *DONORS[name], "-o", folder / "out"))
            result[name] = (folder / "out").read_bytes()
            (folder / "out").unlink()
    return result


def ok(done: subprocess.CompletedProcess[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return done


def fresh(path: Path, data: bytes) -> Path:
    """A new file with old times."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)
    os.utime(path, ns=(OLD_TIME, OLD_TIME))
    return path


def beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def leftovers(folder: Path, *known: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path not in known)


def readable(path: Path, member: str, contents: tuple[bytes, bytes], *, unzip: bool = False) -> None:
    """zipfile, the library and Info-ZIP open the archive, and the member has its old bytes or its new ones."""
    with zipfile.ZipFile(path) as archive:
        assert archive.read(member) in contents
    with inspected(str(path)) as node:
        assert any(child.path == member and child.size in map(len, contents) for child in node.members)
    if unzip and shutil.which("unzip"):
        done = subprocess.run(["unzip", "-tqq", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# --- kill -9


def forked(*args: object, errors: int = -1, user: int | None = None) -> int:
    """``fatpatch ARGS`` in a child of this process: its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(errors if descriptor == 2 and errors >= 0 else null, descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        sys.argv = ["fatpatch", *map(str, args)]
        code = run_command()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(path: Path, limit: float) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end and not path.exists():
        time.sleep(0.0002)


@pytest.mark.parametrize(
    ("name", "mode"), [("lib.so", "-o"), ("lib.so", "--in-place"), ("demo.llamafile", "--in-place")], ids=lambda value: value.lstrip("-")
)
def test_killed(name: str, mode: str, old: dict[str, bytes], new: dict[str, bytes], tmp_path: Path) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    result = out if mode == "-o" else path
    where = ("-o", out) if mode == "-o" else (mode,)
    took = []
    for _ in range(3):
        fresh(path, old[name])
        started = time.monotonic()
        assert ended(forked("graft", path, *DONORS[name], *where)) == 0
        took.append(time.monotonic() - started)
        assert result.read_bytes() == new[name]
        for each in {result, beside(result)}:
            each.unlink()
    chance, members = random.Random(name + mode), None
    if name == "demo.llamafile":
        for folder in ("old", "new"):
            (tmp_path / folder).mkdir()
        (tmp_path / "old/a").write_bytes(old[name])
        (tmp_path / "new/a").write_bytes(new[name])
        members = tuple(zipfile.ZipFile(tmp_path / folder / "a").read(DLL) for folder in ("old", "new"))
    seen = {"old": 0, "new": 0, "between": 0}
    for index in range(KILLS):
        fresh(path, old[name])
        child = forked("graft", path, *DONORS[name], *where)
        if index % 2:  # the writing is the shorter part of a run: half of the kills wait for it
            wait_for(beside(result), 2 * max(took))
            time.sleep(chance.uniform(0, max(took) / 3))
        else:
            time.sleep(chance.uniform(0, max(took) * 1.1))
        os.kill(child, signal.SIGKILL)
        assert ended(child) in (-signal.SIGKILL, 0)
        if mode == "-o":
            assert path.read_bytes() == old[name]
            if out.exists():
                assert out.read_bytes() == new[name]
                assert undo(str(out)).size == len(old[name])
                assert out.read_bytes() == old[name]
                out.unlink()
                seen["new"] += 1
            else:
                seen["old"] += 1
        else:
            data = path.read_bytes()
            kind = {old[name]: "old", new[name]: "new"}.get(data, "between")
            seen[kind] += 1
            assert members is not None or kind != "between"
            if members is not None:
                assert data.startswith(old[name])
                readable(path, DLL, members, unzip=index % 4 < 2)
            if kind == "old" and beside(path).exists():  # recorded, and not begun
                assert undo(str(path)).edits == 0
                assert not beside(path).exists()
            elif kind == "old":
                with pytest.raises(FatpatchError, match="no undo record"):
                    undo(str(path))
            else:
                undo(str(path))
            assert path.read_bytes() == old[name]
    assert seen["new"], seen
    assert seen["old"], seen
    strays = leftovers(tmp_path, path, result, beside(result), tmp_path / "old", tmp_path / "new")
    assert all(each.startswith(".fatpatch-") and each.endswith(".tmp") for each in strays)
    fresh(path, old[name])
    assert ended(forked("graft", path, *DONORS[name], *where)) == 0
    assert result.read_bytes() == new[name]
    assert ended(forked("undo", result)) == 0
    assert result.read_bytes() == old[name]


def test_cut_off_append_is_told_and_taken_back(
    old: dict[str, bytes], new: dict[str, bytes], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when an edit before it was whole: --last takes back the unfinished one, undo both."""
    name = "demo.llamafile"
    path, saved = tmp_path / name, tmp_path / "saved"
    so = DONORS["lib.so"]

    def stopped(count: int, *args: object) -> None:
        with monkeypatch.context() as patch:
            plain, calls = append_module._write, []

            def write(descriptor: int, at: int, data: bytes) -> None:
                calls.append(at)
                if len(calls) > count:
                    os._exit(9)
                plain(descriptor, at, data)

            patch.setattr(append_module, "_write", write)
            assert ended(forked(*args)) == 9

    for count in (1, 2, 5):
        fresh(path, old[name])
        stopped(count, "graft", path, *DONORS[name], "--in-place")
        assert len(old[name]) < path.stat().st_size < len(new[name])
        shown = run("graft", path, *DONORS[name], "--in-place")
        if shown.returncode:  # a second run may go on, or say what to do first
            ok(shown, 6)
            assert "undo" in shown.stderr
            ok(run("undo", path))
            assert path.read_bytes() == old[name]
            assert path.stat().st_mtime_ns == OLD_TIME
            ok(run("graft", path, *DONORS[name], "--in-place"))
            assert path.read_bytes() == new[name]
        else:
            readable(path, DLL, (zipfile.ZipFile(path).read(DLL),) * 2, unzip=True)
        ok(run("undo", path))
        assert path.read_bytes() == old[name]
    ok(run("graft", path, *DONORS[name], "--in-place"))
    first = path.read_bytes()
    stopped(2, "graft", path, *so, "--in-place")
    shutil.copy2(path, saved)
    shutil.copy2(beside(path), beside(saved))
    ok(run("undo", path, "--last"))
    assert path.read_bytes() == first
    ok(run("verify", path))
    ok(run("undo", saved))
    assert saved.read_bytes() == old[name]
    assert not beside(saved).exists()


def archives(old: dict[str, bytes]) -> dict[str, tuple[str, bytes, tuple[str, ...]]]:
    """Archives whose directory can travel: the member, the bytes, the donor."""
    so, donor = old["lib.so"], DONORS["lib.so"]
    many = [Entry(f"folder/some-file-{index:04}.txt", b"%d" % index) for index in range(230)]
    library = Entry("lib.so", so, align=0x1000)
    nested = wheel(so, method=zipfile.ZIP_STORED)
    return {
        "llamafile": (DLL, old["demo.llamafile"], DONORS["demo.llamafile"]),
        "small": ("lib.so", build([library]), donor),
        "230 members": ("lib.so", build([*many, library]), donor),
        "zip64": ("lib.so", build([library, Entry("x", b"x")], zip64=True, prefix=APE_MAGIC), donor),
        "short comment": ("lib.so", build([library], comment=b"c" * 900), donor),
        "long comment": ("lib.so", build([library], comment=b"c" * 20_000), donor),
        "longest comment": ("lib.so", build([library], comment=b"c" * 65_535), donor),
        "bytes behind the end": ("lib.so", build([library], junk=b"signature" * 2000), donor),
        "nested zip": ("inner.whl", build([Entry("inner.whl", nested), Entry("z", b"z")]), donor),
    }


@pytest.mark.parametrize("step", [4096, 997])
@pytest.mark.parametrize("case", archives({"lib.so": b"", "demo.llamafile": b""}))
def test_readable_after_every_piece_of_every_write(
    case: str, step: int, old: dict[str, bytes], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write may stop at any page. (At any byte, too, but for the end records: those lie in one page.)"""
    member, data, donor = archives(old)[case]
    path, out, copy = fresh(tmp_path / "a.zip", data), tmp_path / "out.zip", tmp_path / "copy.zip"
    ok(run("graft", path, *donor, "-o", out))
    contents = (zipfile.ZipFile(path).read(member), zipfile.ZipFile(out).read(member))
    plain, states = append_module._write, []

    def check() -> None:
        states.append(path.stat().st_size)
        assert path.read_bytes()[: len(data)] == data
        readable(path, member, contents, unzip=step == 4096 and len(states) % 8 == 0)
        if len(states) % 16 == 0:
            shutil.copy2(path, copy)
            shutil.copy2(beside(path), beside(copy))
            undo(str(copy))
            assert copy.read_bytes() == data

    def write(descriptor: int, at: int, piece: bytes) -> None:
        done = 0
        while done < len(piece):
            size = 4096 - (at + done) % 4096 if step == 4096 else step
            if step != 4096 and len(piece) - done - size < 2000:
                size = len(piece) - done
            plain(descriptor, at + done, piece[done : done + size])
            done += size
            check()

    monkeypatch.setattr(append_module, "_write", write)
    inode = path.stat().st_ino
    ok(run("graft", path, *donor, "--in-place"))
    assert path.read_bytes() == out.read_bytes()
    assert bool(states) == (path.stat().st_ino == inode)
    if case in ("llamafile", "small", "230 members", "zip64", "short comment"):
        assert len(states) > 20, "this archive was to be appended to"
    ok(run("undo", path))
    assert path.read_bytes() == data


# --- no room


def limited(limit: int, *args: object, **more: str) -> subprocess.CompletedProcess[str]:
    """``fatpatch ARGS`` where no file can grow past ``limit`` bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1", **more}
    return subprocess.run(
        [sys.executable, "-m", "fatpatch", *map(str, args)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["-o", "--in-place"])
@pytest.mark.parametrize(("name", "limit"), [("lib.so", 60_000), ("demo.llamafile", 1_000_000), ("demo.llamafile", 1_181_900)])
def test_file_that_cannot_grow(name: str, limit: int, mode: str, old: dict[str, bytes], tmp_path: Path) -> None:
    path = fresh(tmp_path / name, old[name])
    before = path.stat()
    done = ok(limited(limit, "graft", path, *DONORS[name], *(("-o", tmp_path / "out") if mode == "-o" else (mode,))), 3)
    assert "File too large" in done.stderr
    assert "nothing was changed" in done.stderr or "as it was" in done.stderr
    assert path.read_bytes() == old[name]
    assert (path.stat().st_mode, path.stat().st_ino) == (before.st_mode, before.st_ino)
    assert leftovers(tmp_path, path) == []


def test_temporary_folder_without_room_to_unpack(old: dict[str, bytes], tmp_path: Path) -> None:
    path = fresh(tmp_path / "a.whl", wheel(old["lib.so"]))
    done = limited(20_000, "graft", path, *DONORS["lib.so"], "-o", tmp_path / "out.whl")
    assert done.returncode in (3, 6)
    assert "temporary file" in done.stderr, "the reason is not told"
    assert leftovers(tmp_path, path) == []


def test_temporary_folder_without_room_to_pack(old: dict[str, bytes], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fatpatch.binfmt.zip.write.TemporaryFile", full)
    path = fresh(tmp_path / "a.whl", wheel(old["lib.so"]))
    for where in (("-o", tmp_path / "out.whl"), ("--in-place",)):
        done = ok(run("graft", path, *DONORS["lib.so"], *where), 3)
        assert "TMPDIR" in done.stderr
        assert leftovers(tmp_path, path) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a file system in memory; skips where one may not."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = []

    def mount(options: str) -> Path:
        remount = ["-o", f"remount,{options}"] if done else ["-t", "tmpfs", "-o", options, "none"]
        answer = subprocess.run(["mount", *remount, folder], capture_output=True, text=True, check=False) if shutil.which("mount") else None
        if answer is None or answer.returncode:
            pytest.skip("needs the right to mount a tmpfs")
        done.append(True)
        return folder

    yield mount
    if done:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("mode", ["-o", "--in-place"])
@pytest.mark.parametrize(("name", "size"), [("lib.so", "160k"), ("demo.llamafile", "1000k"), ("demo.llamafile", "932k")])
def test_full_disk(
    name: str, size: str, mode: str, old: dict[str, bytes], run: Run, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    folder = mounted(f"size={size}")
    path = fresh(folder / name, old[name])
    where = ("-o", folder / "out") if mode == "-o" else (mode,)
    done = ok(run("graft", path, *DONORS[name], *where), 3)
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert path.read_bytes() == old[name]
    assert leftovers(folder, path) == []
    mounted("size=4m")
    ok(run("graft", path, *DONORS[name], *where))
    result = folder / "out" if mode == "-o" else path
    ok(run("undo", result))
    assert result.read_bytes() == old[name]


# --- no right to write


@pytest.mark.parametrize("mode", ["-o", "--in-place"])
@pytest.mark.parametrize("name", NAMES)
def test_read_only_file_system(
    name: str, mode: str, old: dict[str, bytes], run: Run, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    path = fresh(mounted("size=4m") / name, old[name])
    folder = mounted("ro")
    done = ok(run("graft", path, *DONORS[name], *(("-o", folder / "out") if mode == "-o" else (mode,))), 3)
    assert os.strerror(errno.EROFS) in done.stderr
    assert "hint:" in done.stderr
    assert leftovers(folder, path) == []
    out = tmp_path / "out"
    ok(run("graft", path, *DONORS[name], "-o", out))
    ok(run("undo", out))
    assert out.read_bytes() == old[name]


@pytest.fixture
def plain_user(run: Run) -> Iterator[tuple[Path, Run]]:
    """A folder of an ordinary user, and fatpatch run by that user: in a fork, which needs no Python that this user may start."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as errors:
        folder = Path(name)
        (folder / "warm").mkdir()
        for each in NAMES:  # what is imported late is imported now
            shutil.copy(SAMPLES / "demo.llamafile", folder / "warm" / each)
            ok(run("graft", folder / "warm" / each, *DONORS["demo.llamafile"], "--in-place"))
            ok(run("undo", folder / "warm" / each))
        shutil.rmtree(folder / "warm")

        def call(*args: object) -> subprocess.CompletedProcess[str]:
            errors.seek(0)
            errors.truncate()
            given = [str(folder / Path(each).name) if str(each).endswith(("donor.so", "donor.dll")) else str(each) for each in args]
            child = forked(*given, errors=errors.fileno(), user=65534 if root else None)
            code = ended(child)
            errors.seek(0)
            return subprocess.CompletedProcess(given, code, "", errors.read())

        if root:
            os.chown(folder, 65534, 65534)
        folder.chmod(0o755)
        yield folder, call
        folder.chmod(0o755)


def donor_in(folder: Path, name: str) -> Path:
    """A copy of the donor that the ordinary user can read."""
    return Path(shutil.copy(DONORS[name][1], folder))


def given_to_nobody(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)


@pytest.mark.parametrize("mode", ["-o", "--in-place"])
@pytest.mark.parametrize("name", NAMES)
def test_read_only_folder(name: str, mode: str, old: dict[str, bytes], plain_user: tuple[Path, Run]) -> None:
    folder, run = plain_user
    path, donor = fresh(folder / name, old[name]), donor_in(folder, name)
    given_to_nobody(path)
    folder.chmod(0o555)
    done = ok(run("graft", path, *DONORS[name], *(("-o", folder / "out") if mode == "-o" else (mode,))), 3)
    assert "cannot write" in done.stderr
    assert "hint:" in done.stderr
    assert path.read_bytes() == old[name]
    assert leftovers(folder, path, donor) == []


@pytest.mark.parametrize("name", NAMES)
def test_read_only_file(name: str, old: dict[str, bytes], new: dict[str, bytes], plain_user: tuple[Path, Run]) -> None:
    """A file that is replaced need not be writable, its folder must; one that is appended to is refused."""
    folder, run = plain_user
    path, donor = fresh(folder / name, old[name]), donor_in(folder, name)
    path.chmod(0o555)
    given_to_nobody(path)
    done = run("graft", path, *DONORS[name], "--in-place")
    if done.returncode:
        ok(done, 3)
        assert "hint:" in done.stderr
        assert path.read_bytes() == old[name]
        assert leftovers(folder, path, donor) == []
    else:
        assert path.read_bytes() == new[name]
        assert stat.S_IMODE(path.stat().st_mode) == 0o555


# --- changed by others


def _grown(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"what another program wrote" * 40)


def _rewritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes(reversed(data)))


def _renamed(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.replace(path)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


CHANGES = {"grown": _grown, "rewritten": _rewritten, "renamed": _renamed, "cut": _cut}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "mode"), [("lib.so", "-o"), ("lib.so", "--in-place"), ("demo.llamafile", "--in-place")])
def test_changed_while_it_is_read(
    name: str, mode: str, change: str, old: dict[str, bytes], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fresh(tmp_path / name, old[name])
    plain_dress, plain_append, theirs = write_module._dress, commit_module.append, []

    def dress(*args: object) -> None:
        CHANGES[change](path)
        theirs.append(path.read_bytes())
        plain_dress(*args)

    def append(*args: object, **more: object) -> None:
        CHANGES[change](path)
        theirs.append(path.read_bytes())
        plain_append(*args, **more)

    monkeypatch.setattr(write_module, "_dress", dress)
    monkeypatch.setattr(commit_module, "append", append)
    done = ok(run("graft", path, *DONORS[name], *(("-o", tmp_path / "out") if mode == "-o" else (mode,))), 6)
    assert "changed" in done.stderr
    assert [path.read_bytes()] == theirs, "the other program's bytes were touched"
    assert leftovers(tmp_path, path) == []


@pytest.mark.parametrize("command", ["graft", "undo"])
@pytest.mark.parametrize("name", NAMES)
def test_locked_by_another_run(name: str, command: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    """Another fatpatch is at the file: what it has written so far stays, and so does its record."""
    import fcntl

    path = fresh(tmp_path / name, old[name])
    with path.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        beside(path).write_text("the record of the other run")
        words = ("graft", path, *DONORS[name], "--in-place") if command == "graft" else ("undo", path)
        done = ok(run(*words), 6)
        assert "edited by another process" in done.stderr
    assert path.read_bytes() == old[name]
    assert beside(path).read_text() == "the record of the other run"


def test_a_stranger_in_the_place_of_the_record(old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    """The record of OUT would lie where another file is: that one stays."""
    path, out = fresh(tmp_path / "lib.so", old["lib.so"]), tmp_path / "out"
    beside(out).write_bytes(old["lib.so"])
    done = ok(run("graft", path, *DONORS["lib.so"], "-o", out), 6)
    assert "is not a fatpatch undo record" in done.stderr
    assert beside(out).read_bytes() == old["lib.so"]
    assert not out.exists()


def test_many_runs_at_once(old: dict[str, bytes], new: dict[str, bytes], tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        for _ in range(4):
            fresh(path, old[name])
            codes = [ended(child) for child in [forked("graft", path, *DONORS[name], "--in-place") for _ in range(4)]]
            assert 0 in codes
            assert set(codes) <= {0, 6}
            assert path.read_bytes() == new[name]
            assert ended(forked("undo", path)) == 0
            assert path.read_bytes() == old[name]
            assert leftovers(tmp_path, *(tmp_path / each for each in NAMES)) == []


# --- names, modes, times


@pytest.mark.parametrize("name", NAMES)
def test_symbolic_link(name: str, old: dict[str, bytes], new: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path, link = fresh(tmp_path / "real" / name, old[name]), tmp_path / "link"
    link.symlink_to(Path("real") / name)
    done = ok(run("graft", link, *DONORS[name], "--in-place"))
    assert "is a link" in done.stdout
    assert os.readlink(link) == f"real/{name}"
    assert path.read_bytes() == new[name]
    assert beside(path).is_file()
    assert leftovers(tmp_path) == ["link", "real"]
    ok(run("undo", link))
    assert os.readlink(link) == f"real/{name}"
    assert path.read_bytes() == old[name]
    assert leftovers(tmp_path / "real") == [name]


@pytest.mark.parametrize("name", NAMES)
def test_hard_link(name: str, old: dict[str, bytes], new: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    path, other = fresh(tmp_path / name, old[name]), tmp_path / "other"
    os.link(path, other)
    done = ok(run("graft", path, *DONORS[name], "--in-place"))
    copied = name == "lib.so"
    assert ("the others still hold the old bytes" in done.stdout) == copied
    assert path.read_bytes() == new[name]
    assert other.read_bytes() == (old if copied else new)[name]
    ok(run("undo", path))
    assert path.read_bytes() == other.read_bytes() == old[name]


@pytest.mark.parametrize("mode", ["-o", "--in-place"])
@pytest.mark.parametrize("name", NAMES)
def test_mode_owner_times_and_attributes(name: str, mode: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    path = fresh(tmp_path / name, old[name])
    if os.geteuid() == 0:
        os.chown(path, 65534, 65533)
    path.chmod(0o754)
    attributes = True
    try:
        os.setxattr(path, "user.fatpatch", b"kept")
    except OSError:
        attributes = False
    result = tmp_path / "out" if mode == "-o" else path
    before, started = path.stat(), time.time_ns()
    ok(run("graft", path, *DONORS[name], *(("-o", result) if mode == "-o" else (mode,))))

    def dressed() -> int:
        now = result.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        assert not attributes or os.getxattr(result, "user.fatpatch") == b"kept"
        return now.st_mtime_ns

    assert dressed() >= started - 50_000_000  # the clock of the file system ticks in steps
    ok(run("undo", result))
    assert dressed() == OLD_TIME
    assert path.stat().st_mtime_ns == OLD_TIME


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_give_the_same_bytes(name: str, old: dict[str, bytes], new: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = fresh(folder / f"{index}-{name}", old[name])
        os.utime(path, ns=(OLD_TIME + index, OLD_TIME + index))
        ok(run("graft", path, *DONORS[name], "-o", folder / "out"))
        assert (folder / "out").read_bytes() == new[name]


@pytest.mark.parametrize("name", NAMES)
def test_second_graft_changes_nothing(name: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    path = fresh(tmp_path / name, old[name])
    ok(run("graft", path, *DONORS[name], "--in-place"))
    os.utime(path, ns=(OLD_TIME, OLD_TIME))
    before, record = path.stat(), beside(path).read_bytes()
    for where in (("--in-place",), ("--dry-run",), ("-o", tmp_path / "out")):
        done = ok(run("graft", path, *DONORS[name], *where))
        assert "there already" in done.stdout
        assert "nothing was written" in done.stdout
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
    assert beside(path).read_bytes() == record
    assert leftovers(tmp_path, path, beside(path)) == []


def test_output_that_exists(old: dict[str, bytes], new: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    path, out = fresh(tmp_path / "lib.so", old["lib.so"]), tmp_path / "out"
    out.write_bytes(b"mine")
    ok(run("graft", path, *DONORS["lib.so"], "-o", out), 6)
    for same in (path, f"{tmp_path}/./lib.so", os.path.relpath(path)):
        done = ok(run("graft", path, *DONORS["lib.so"], "-o", same), 2)
        assert "--in-place" in done.stderr
        assert path.read_bytes() == old["lib.so"]
    assert out.read_bytes() == b"mine"
    assert leftovers(tmp_path, path, out) == []
    ok(run("graft", path, *DONORS["lib.so"], "-o", out, "--overwrite"))
    assert out.read_bytes() == new["lib.so"]
    ok(run("undo", out))
    assert out.read_bytes() == old["lib.so"]


# --- 6 GB of holes

_MEASURED = """
import sys
from fatpatch.commands import run
code = run()
sys.stdout.flush()
print(next(line.split()[1] for line in open("/proc/self/io") if line.startswith("rchar")), file=sys.stderr)
sys.exit(code)
"""


def measured(*args: object) -> tuple[int, float]:
    """Bytes read by ``fatpatch ARGS``, and its seconds."""
    started = time.monotonic()
    command = [sys.executable, "-c", _MEASURED, *map(str, args)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stderr.split()[-1]), time.monotonic() - started


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io")
@pytest.mark.parametrize("mode", ["-o", "--in-place"])
def test_sparse_archive_of_6_gb(mode: str, old: dict[str, bytes], tmp_path: Path) -> None:
    path, out = tmp_path / "big.zip", tmp_path / "out.zip"
    sparse(path, Entry("lib.so", old["lib.so"]), 6 << 30, zipfile.ZipFile(SAMPLES / "demo.llamafile").read(GGUF))
    size, tail = path.stat().st_size, _tail(path)
    if path.stat().st_blocks * 512 > 64 << 20:
        pytest.skip("this file system keeps no holes")
    result = out if mode == "-o" else path
    for args in (("graft", path, *DONORS["lib.so"], *(("-o", out) if mode == "-o" else (mode,))), ("undo", result)):
        characters, seconds = measured(*args)
        assert characters < 64 << 20
        assert seconds < 20
        assert result.stat().st_blocks * 512 < 16 << 20
        if args[0] == "graft":
            assert result.stat().st_size > size
            with zipfile.ZipFile(result) as archive:
                assert len(archive.read("lib.so")) > len(old["lib.so"])
                assert archive.getinfo("big.gguf").header_offset == 0
    assert result.stat().st_size == size
    assert _tail(result) == tail


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-(1 << 20), os.SEEK_END)
        return stream.read()


# --- records that are not what they should be

_BROKEN = (
    b"", b"{", b"null", b"[]", b"{}", b"5", b'"x"', b"\xff\xfe\0", b"PK\5\6" + bytes(30), b"[" * 100_000,
    b'{"schema": "fatpatch.undo/1"}', b'{"schema": "fatpatch.undo/2", "edits": []}', b'{"schema": "fatpatch.undo/1", "edits": 5}',
    b'{"schema": "fatpatch.undo/1", "edits": [5]}', b'{"schema": "fatpatch.undo/1", "edits": [{}]}', b'{"schema": ["x"], "edits": []}',
)  # fmt: skip
_VALUES = (None, -1, 0, 1, 1 << 40, 1 << 70, -(1 << 70), "x", "", [], {}, [[1, 2]], [[-5, -5, 0]], [[0, 1 << 70, 0]], [5], 1.5, float("inf"), float("nan"), True)  # fmt: skip


def _places(item: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    if at:
        yield at
    for key, value in item.items() if isinstance(item, dict) else enumerate(item[:2]) if isinstance(item, list) else ():
        yield from _places(value, (*at, key))


def _with(document: object, place: tuple[object, ...], value: object) -> bytes:
    changed = json.loads(json.dumps(document))
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return json.dumps(changed).encode()


@pytest.mark.parametrize("name", NAMES)
def test_broken_records(name: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    """Undo refuses in words, or gives the old bytes all the same; never a traceback, never other bytes."""
    path = fresh(tmp_path / name, old[name])
    ok(run("graft", path, *DONORS[name], "--in-place"))
    edited, record = path.read_bytes(), beside(path).read_bytes()
    document = json.loads(record)
    broken = [*_BROKEN, *(record[:size] for size in range(0, len(record) - 2, max(len(record) // 20, 1)))]
    broken += [_with(document, place, value) for place in _places(document) for value in _VALUES]
    wrong = []
    for number, data in enumerate(broken):
        beside(path).write_bytes(data)
        if path.stat().st_size != len(edited) or path.read_bytes() != edited:
            path.write_bytes(edited)
        done = run("undo", path)
        allowed = (0, 6) if data == b'{"schema": "fatpatch.undo/1", "edits": []}' else (0, 4, 6, 7)
        bytes_now = old[name] if done.returncode == 0 else edited
        if done.returncode not in allowed or path.read_bytes() != bytes_now or "Traceback" in done.stderr:
            wrong.append(
                (number, data[-300:] if number < len(_BROKEN) else _difference(document, data), done.returncode, done.stderr[:200])
            )
    assert wrong == []


def _difference(document: object, data: bytes) -> object:
    try:
        changed = json.loads(data)
    except ValueError:
        return data[-40:]
    for place in _places(document):
        inside: object = changed
        try:
            for key in place:
                inside = inside[key]
            was: object = document
            for key in place:
                was = was[key]
        except (KeyError, IndexError, TypeError):
            return place
        if type(inside) is not type(was) or (not isinstance(was, dict | list) and inside != was):
            return place, inside
    return "lists"


@pytest.mark.parametrize("name", NAMES)
def test_record_of_another_file(name: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    (other,) = set(NAMES) - {name}
    path, stranger = fresh(tmp_path / name, old[name]), fresh(tmp_path / other, old[other])
    ok(run("graft", stranger, *DONORS[other], "--in-place"))
    shutil.copy(beside(stranger), beside(path))
    for command in (("undo", path), ("undo", path, "--last"), ("graft", path, *DONORS[name], "--in-place")):
        done = ok(run(*command), 6)
        assert "record" in done.stderr
        assert "hint:" in done.stderr
        assert path.read_bytes() == old[name]
    beside(path).write_bytes(b"{")
    for command in (("undo", path), ("graft", path, *DONORS[name], "--in-place")):
        ok(run(*command), 4)
        assert path.read_bytes() == old[name]
    assert ok(run("verify", path), 1).stdout.endswith("NOT sound\n")


@pytest.mark.parametrize("name", NAMES)
def test_file_edited_by_others_after_a_graft(name: str, old: dict[str, bytes], run: Run, tmp_path: Path) -> None:
    path = fresh(tmp_path / name, old[name])
    ok(run("graft", path, *DONORS[name], "--in-place"))
    _grown(path)
    theirs = path.read_bytes()
    ok(run("undo", path), 6)
    ok(run("graft", path, "--from", SAMPLES / "donor.so", "--target", "sm_61", "--in-place"), 6 if name == "demo.llamafile" else 0)
    assert path.read_bytes() == theirs
