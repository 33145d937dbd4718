"""Every edit, and every pair of edits, on hosts of every kind: the program runs as before, finds the images it should, and undo is exact.

Here a sample; the whole is ``pytest -m slow tests/edit/test_factory.py``, its last figures are in tests/RESULTS.md.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edit.elf_builder import BuildError, fatpatch
from edit.factory import Factory, Host, all_hosts, given

Images = tuple[tuple[int, ...], ...]
START: Images = ((61, 70, 75),) * 3


def _added(images: Images) -> Images:
    return images if 60 in images[1] else (images[0], (*images[1], 60), images[2])


def _without(arch: int) -> Callable[[Images], Images]:
    return lambda images: tuple(tuple(each for each in module if each != arch) for module in images)


def _same(images: Images) -> Images:
    return images


EDITS: dict[str, tuple[tuple[str, ...], Callable[[Images], Images]]] = {
    "graft": (("graft", "{file}", "--cubin", "{given}", "--module", "fatbin[1]"), _added),
    "prune": (("prune", "{file}", "--drop", "sm_61", "--force"), _without(61)),
    "prune-compact": (("prune", "{file}", "--drop", "sm_75", "--force", "--compact"), _without(75)),
    "recompress": (("recompress", "{file}", "--codec", "zstd"), _same),
    "recompress-compact": (("recompress", "{file}", "--codec", "lz4", "--compact"), _same),
    "expand": (("expand", "{file}"), _same),
}
SAMPLE = [
    Host("ld", "shared", "plain", ""),
    Host("ld", "pie", "no-build-id", ""),
    Host("ld", "fixed", "noseparate-code", "strip"),
    Host("ld", "static-pie", "plain", ""),
    Host("gold", "shared", "plain", "objcopy"),
    Host("lld", "pie", "relr", ""),
    Host("lld", "shared", "plain", "patchelf"),
    Host("mold", "shared", "plain", ""),
    Host("mold", "pie", "gc-icf", ""),
]


def shown(images: Images) -> str:
    return "".join("".join(f" {arch}" for arch in module) + ";" for module in images).strip()


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    try:
        return Factory(tmp_path_factory.mktemp("factory"))
    except BuildError as error:
        pytest.skip(str(error))


def arguments(name: str, path: Path, folder: Path) -> Iterator[str]:
    yield from (part.format(file=path, given=folder / "given.cubin") for part in EDITS[name][0])


def check(factory: Factory, host: Host, folder: Path, *, pairs: bool) -> list[str]:
    """What is wrong with a host after each edit, or pair, and after undo. A refusal is no fault, but a failed check is one."""
    start = factory.build(host)
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    given(folder)
    try:
        assert factory.run(host, start) == shown(START)
    except ValueError as error:  # mold without GLIBC_ABI_DT_RELR, patchelf on static PIE
        raise BuildError(f"does not run as it was linked: {error}") from error
    faults = []
    for first in EDITS:
        path = folder / "edited"
        done = _edit(first, start, path, folder)
        if done is None:
            continue
        if done:
            faults.append(f"{first}: {done}")
            continue
        images = EDITS[first][1](START)
        faults += _looked_at(factory, host, path, images, first)
        for second in EDITS if pairs else ():
            copy = folder / "twice"
            shutil.copy(path, copy)
            shutil.copy(f"{path}.fatpatch-undo", f"{copy}.fatpatch-undo") if Path(f"{path}.fatpatch-undo").exists() else None
            done = _edit(second, copy, copy, folder)
            if done:
                faults.append(f"{first}, {second}: {done}")
            elif done is not None:
                faults += _looked_at(factory, host, copy, EDITS[second][1](images), f"{first}, {second}")
            if fatpatch("undo", copy).code or hashlib.sha256(copy.read_bytes()).hexdigest() != digest:
                faults.append(f"{first}, {second}: undo")
            _gone(copy)
        if fatpatch("undo", path).code or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            faults.append(f"{first}: undo")
        _gone(path)
    return faults


def _edit(name: str, source: Path, target: Path, folder: Path) -> str | None:
    """Make one edit; "" when it was made, None when it was refused or did nothing, else what went wrong."""
    to = ("--in-place",) if source == target else ("-o", str(target), "--overwrite")
    answer = fatpatch(*arguments(name, source, folder), *to)
    if answer.code in (5, 6) or "nothing to do" in answer.out:
        if source != target:
            _gone(target)
        return None
    return "" if answer.code == 0 else f"exit {answer.code}: {answer.err}"


def _looked_at(factory: Factory, host: Host, path: Path, images: Images, name: str) -> Iterator[str]:
    try:
        found = factory.run(host, path)
        modules = tuple(tuple(sorted(map(int, module.split()))) for module in found.split(";")[:-1])
        if modules != tuple(tuple(sorted(module)) for module in images):
            yield f"{name}: it finds {found}"
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        yield f"{name}: {error}"


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)
    Path(f"{path}.fatpatch-undo").unlink(missing_ok=True)


@pytest.mark.parametrize("host", SAMPLE, ids=lambda host: host.name)
def test_edits_of_a_sample(host: Host, factory: Factory, tmp_path: Path) -> None:
    try:
        assert check(factory, host, tmp_path, pairs=host.linker == "ld") == []
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("host", all_hosts(), ids=lambda host: host.name)
def test_edits_of_every_host(host: Host, factory: Factory, tmp_path: Path) -> None:
    try:
        assert check(factory, host, tmp_path, pairs=True) == []
    except BuildError as error:
        pytest.skip(str(error))
