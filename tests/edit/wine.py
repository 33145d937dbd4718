"""Load a DLL under Wine and read back, from memory, what its fatbin wrappers lead to.

Headless, in a prefix of its own that is removed at the end of the process. ``entries_on_disk`` says the same of the file, as
the library reads it, so that both can be compared with ``==``.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from fatpatch.scan.walk import inspected

COMPILER = "x86_64-w64-mingw32-gcc"
_SOURCE = Path(__file__).with_name("pe_loader.c")
_LINE = re.compile(r"(\w+)=(\w+)")
_TIMEOUT = 120
_USAGE = 2


class Entry(NamedTuple):
    """One entry of a fatbin that wrapper number ``wrapper`` leads to; ``byte_sum`` is over the stored bytes, 32 bits."""

    wrapper: int
    kind: int
    arch: int
    flags: int
    stored_size: int
    byte_sum: int


class Fatbin(NamedTuple):
    """What a wrapper names; ``good`` when a container header of version 1 is there."""

    wrapper: int
    version: int
    good: bool
    payload_size: int


class Loaded(NamedTuple):
    """A DLL in memory; not ``resolved``: an import is missing, so it was loaded without its imports."""

    preferred: int
    base: int
    size: int
    resolved: bool
    fatbins: tuple[Fatbin, ...]
    entries: tuple[Entry, ...]


class WineError(Exception):
    """The loader refused the DLL, or what its wrappers lead to is damaged."""


@functools.cache
def _wine() -> str | None:
    return shutil.which("wine64") or shutil.which("wine")


def _environment(prefix: Path, *, lean: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY") and not key.startswith("WINE")}
    overrides = "mscoree,mshtml=;winemenubuilder.exe=d"  # no offer to download Mono and Gecko, no menu entries
    ours = {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "WINEARCH": "win64", "WINEDLLOVERRIDES": overrides}
    return kept | ours | ({"WINEBOOTSTRAPMODE": "1"} if lean else {})


def _call(environment: dict[str, str], *command: str) -> tuple[int, str, str]:
    """Run a Windows program. Into files, not pipes: Wine's services outlive it and would hold a pipe open."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [_wine() or "wine", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            timeout=_TIMEOUT,
            check=False,
        )
        output.seek(0)
        errors.seek(0)
        return done.returncode, output.read(), errors.read()


def _clean(prefix: Path, environment: dict[str, str]) -> None:
    """End the server of this prefix (it would end by itself seconds later) and remove the prefix."""
    server = shutil.which("wineserver") or shutil.which("wineserver", path="/usr/lib/wine")
    if server is not None:
        subprocess.run([server, "-k"], env=environment, capture_output=True, timeout=_TIMEOUT, check=False)
        subprocess.run([server, "-w"], env=environment, capture_output=True, timeout=_TIMEOUT, check=False)
    shutil.rmtree(prefix, ignore_errors=True)


@functools.cache
def _working() -> dict[str, str] | None:
    """The environment of a prefix that runs 64-bit programs; None where there is none.

    A full prefix takes 8 seconds and 700 MB, for copies of Wine's own DLLs. In its bootstrap mode Wine takes them from where
    they are installed; the loader is the same. A Wine that cannot do that gets the full prefix.
    """
    if _wine() is None or shutil.which(COMPILER) is None:
        return None
    for lean in (True, False):
        prefix = Path(tempfile.mkdtemp(prefix="fatpatch-wine-"))
        environment = _environment(prefix, lean=lean)
        atexit.register(_clean, prefix, environment)
        if lean:
            (prefix / ".update-timestamp").write_text("disable\n")
        try:
            probe = build_loader(prefix)
            if _call(environment, str(probe))[0] == _USAGE:
                return environment
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def wine_available() -> bool:
    """Whether a 64-bit Windows program can be compiled and run here."""
    return _working() is not None


def build_loader(folder: Path) -> Path:
    """Compile ``pe_loader.c`` into ``folder``."""
    loader = folder / "pe_loader.exe"
    command = [COMPILER, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-municode", "-o", str(loader), str(_SOURCE)]
    subprocess.run(command, check=True, timeout=_TIMEOUT)
    return loader


def load(loader: Path, dll: Path, *, moved: bool = False) -> Loaded:
    """Load ``dll``; with ``moved``, its preferred addresses are taken, so that Wine must relocate it."""
    environment = _working()
    if environment is None:
        raise WineError("no working Wine")
    windows_path = "Z:" + str(dll.resolve()).replace("/", "\\")
    status, output, errors = _call(environment, str(loader), windows_path, *(["moved"] if moved else []))
    if status:
        raise WineError(f"{dll.name}: status {status}: {errors.strip()}")
    rows = [(line.split()[0], {key: int(value, 0) for key, value in _LINE.findall(line)}) for line in output.splitlines()]
    images = [row for word, row in rows if word == "image"]
    if len(images) != 1:
        raise WineError(f"{dll.name}: unexpected output: {output!r}")
    head = images[0]
    if moved and head["base"] == head["preferred"]:
        raise WineError(f"{dll.name}: loaded at its preferred base although that was taken")
    fatbins = [Fatbin(row["index"], row["version"], row["magic"] == 1, row["payload"]) for word, row in rows if word == "wrapper"]
    entries = [
        Entry(row["wrapper"], row["kind"], row["arch"], row["flags"], row["stored"], row["sum"]) for word, row in rows if word == "entry"
    ]
    return Loaded(head["preferred"], head["base"], head["size"], head["resolved"] == 1, tuple(fatbins), tuple(entries))


def listed(loader: Path, dll: Path, *, moved: bool = False) -> list[Entry]:
    """The entries that the wrappers of the loaded DLL lead to, in wrapper order."""
    return list(load(loader, dll, moved=moved).entries)


def entries_on_disk(path: Path) -> list[Entry]:
    """The entries that the wrappers in the file lead to, as the library reads them; fatbins without a wrapper are left out."""
    data = path.read_bytes()
    with inspected(str(path)) as node:
        payloads = [(payload.wrapper.offset, payload) for payload in node.payloads if payload.wrapper is not None]
    entries = []
    for number, (_, payload) in enumerate(sorted(payloads, key=lambda pair: pair[0])):
        for image in payload.images:
            if image.stored_size is None or image.kind_code is None or image.flags is None:
                raise ValueError(f"{image.locator}: shares a concatenated entry, which the loader lists as one")
            stored = data[image.data_offset : image.data_offset + image.stored_size]
            arch = re.search(r"\d+", image.target)
            assert arch is not None
            entries.append(Entry(number, image.kind_code, int(arch[0]), image.flags, image.stored_size, sum(stored) & 0xFFFFFFFF))
    return entries
