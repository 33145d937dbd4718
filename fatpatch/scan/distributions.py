"""What is installed in a folder: Python distributions, conda packages, node packages, and the libraries that none of them owns."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.folders import folders_below
from fatpatch.base.limits import Limits
from fatpatch.base.locator import escape, join
from fatpatch.base.records import NamedTuple
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node
from fatpatch.scan.coverage import members_below
from fatpatch.scan.environments import CONDA, site_packages
from fatpatch.scan.kernel_folders import folder_of, is_kernel_file, kernel_folders
from fatpatch.scan.ledgers import ARCHIVE, INFO, LIBRARY, MAX_FILES, cuda_of_torch, of_conda, of_node, of_record, text_of
from fatpatch.scan.walk import Progress, inspected

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fatpatch.scan.walk import Kept

_MAX_METADATA: Final = 64 << 10
_COMMON: Final = (".py", ".pyc", ".pyi", ".h", ".hpp", ".txt", ".json")
"""How most names end in an environment: neither those of libraries nor of archives."""


class Distribution(NamedTuple):
    """Something installed, or with an empty version the files that nothing owns.

    ``files``: paths below ``root`` that may hold GPU code. ``kind``: python, conda, node, kernels, process, or files.
    ``info``: its ledger, below ``root``. ``moved``: (path, where its bytes are now); ``unread``: (path, why it is not read).
    """

    name: str
    version: str
    root: str
    files: tuple[str, ...]
    info: str = ""
    kind: str = "files"
    moved: tuple[tuple[str, str], ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """``torch 2.11.0``."""
        return f"{self.name} {self.version}".strip()


class Installed(NamedTuple):
    """A folder of installed packages, in which each library has one owner. ``cuda``: the release that its PyTorch was built with.

    ``names``: in small letters, of all files in it that may be loaded. ``recorded``: the Python distributions with all that their
    RECORD names, and what is in none, as editing needs them.
    """

    shown: str
    distributions: tuple[Distribution, ...]
    cuda: str | None
    names: frozenset[str]
    recorded: tuple[Distribution, ...] = ()


class FileAhead(NamedTuple):
    """A file of ``places``: its path below the root, and to read. ``node``: None when it is still to be read."""

    path: str
    real: str
    node: Node | None = None


class _FolderContents(NamedTuple):
    """What a walk met: libraries, and the ledgers of packages, all by their paths below the root."""

    files: list[str]
    archives: list[str]
    infos: list[tuple[str, str]]
    condas: list[str]
    nodes: list[str]


def installed(folder: str, shown: str) -> Installed:
    """What is installed in a folder: an environment, a site-packages folder, or any folder with libraries. InputError when it is none."""
    if not os.path.isdir(folder):
        raise InputError("is not a folder", locator=shown)
    found: list[Distribution] = []
    recorded: list[Distribution] = []
    names: set[str] = set()
    cuda = None
    for root in [folder] if os.path.isdir(os.path.join(folder, CONDA)) else site_packages(folder):
        met = _walk(root)
        names.update(os.path.basename(path).lower() for path in met.files)
        python = [_python(root, *each) for each in met.infos]
        owned = {_below(root, each, path) for each in python for path in each.files}
        recorded += [*python, *_rest(root, [path for path in met.files if path not in owned], some=bool(python))]
        groups = list(_owners(root, met, python))
        owned = {_below(root, each, path) for each in groups for path in each.files}
        found += [*groups, *_rest(root, [path for path in met.files if path not in owned], some=bool(groups))]
        if not groups:  # a folder of releases
            found += [Distribution(path, "", root, (path,)) for path in met.archives]
        places = dict.fromkeys([root, *(os.path.join(root, place) for place, _ in met.infos)])
        cuda = cuda or next(filter(None, map(_cuda_of_torch, places)), None)
    return Installed(shown, tuple(found), cuda, frozenset(names), tuple(recorded))


def named(name: str, where: Installed) -> Distribution:
    """The distribution of NAME or NAME==VERSION, spelled in any way that pip takes. InputError, with near names, when there is none."""
    wanted, _, version = name.partition("==")
    plain = plain_name(wanted)
    found = [each for each in where.distributions if plain_name(each.name) == plain and each.version]
    match = next((each for each in found if version in ("", each.version)), None)
    if match is not None:
        return match
    if found:
        hint = f"pypi:{name} names the wheel on an index"
        raise InputError(f"{found[0].shown} is installed in {where.shown}, not {version}", locator=name, hint=hint)
    import difflib

    close = difflib.get_close_matches(plain, [plain_name(each.name) for each in where.distributions if each.version], 3, 0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else "give a file, a folder, a URL, the name of an installed distribution, "
    hint += "" if close else "pypi:NAME, npm:NAME or pid:NUMBER"
    raise InputError(f"no file of that name, and no such distribution in {where.shown}", locator=name, hint=hint)


@contextmanager
def opened(
    distribution: Distribution,
    limits: Limits,
    progress: Progress | None = None,
    ahead: Sequence[FileAhead] | None = None,
    **kept: Unpack[Kept],
) -> Iterator[Node]:
    """The files of a distribution as the members of one node; what cannot be read is a diagnostic. Links out of the folder are left out.

    ``ahead``: its files, some of which are read already.
    """
    members, diagnostics = [], Diagnostics()
    label = distribution.name
    for path, why in distribution.unread:
        diagnostics.not_read(join(escape(label), path), 0, why)
    with ExitStack() as stack:
        for path, real, known in itertools.starmap(FileAhead, places(distribution)) if ahead is None else ahead:
            locator = join(escape(label), path)
            if known is not None:
                stack.callback(known.content.close)
                members.append(known)
                continue
            try:
                node = stack.enter_context(inspected(real, name=path, inside=escape(label), limits=limits, progress=progress, **kept))
            except FatpatchError as error:
                diagnostics.error(locator, None, error.message)
                continue
            for each in (*members_below(node), node):
                if each.source is not None:
                    each.source.idle()
            members.append(node._replace(path=path))
        yield Node(
            locator=escape(label),
            path=distribution.shown,
            size=sum(node.size for node in members),
            container=ContainerKind.FOLDER,
            detail=label.partition(" in ")[0] if distribution.kind == "kernels" else "",
            members=tuple(members),
            payloads=(),
            diagnostics=diagnostics.finish(),
            member_count=len(members),
            kernel_files=tuple(_kernel_files(distribution)),
        )


def _kernel_files(distribution: Distribution) -> Iterator[str]:
    """All files of the folders of kernel libraries that its objects lie in: indexes have no GPU code, and matter."""
    root = distribution.root
    for folder in sorted({path.rpartition("/")[0] for path in distribution.files if is_kernel_file(f"{root}/{path}")}):
        with suppress(OSError):
            yield from (f"{folder}/{name}".lstrip("/") for name in sorted(os.listdir(os.path.join(root, folder)))[:MAX_FILES])


def places(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """(path below the root, path to read) of its files that are there; without links out of the root, and without what is empty."""
    moved = dict(distribution.moved)
    process = distribution.kind == "process"  # its root may be that of a container, in which links lead elsewhere
    root = distribution.root if process else os.path.realpath(distribution.root)
    seen: set[str] = set()
    folders: dict[str, str] = {}
    for path in distribution.files:
        full = moved.get(path) or os.path.join(root, path)
        real = full if process else _real(full, folders)
        if real in seen or not (process or os.path.commonpath([root, real]) == root) or not _has_bytes(real):
            continue
        seen.add(real)
        yield path, real


def _real(path: str, folders: dict[str, str]) -> str:
    """``os.path.realpath``, which asks for every folder once; ``folders``: those that it was asked for."""
    folder, name = os.path.split(path)
    if os.path.islink(path) or name in ("", ".", ".."):
        return os.path.realpath(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def _has_bytes(path: str) -> bool:
    """Whether it is a file that is not empty; one that cannot be opened is reported by whoever reads it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def plain_name(name: str) -> str:
    """The normalized name (PyPA, name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _walk(root: str) -> _FolderContents:
    """The libraries and ledgers below a folder, sorted; links to folders are not followed. InputError when there are too many."""
    found = _FolderContents([], [], [], [], [])
    for below, folder, folders, files in folders_below(root):
        found.infos.extend((below.rstrip("/"), name) for name in folders if name.endswith(INFO))
        if CONDA in folders:
            metas = os.path.join(folder, CONDA)
            found.condas.extend(f"{below}{CONDA}/{name}" for name in sorted(os.listdir(metas)) if name.endswith(".json"))
        if "package.json" in files and _in_node_modules(below):
            found.nodes.append(below.rstrip("/"))
        for name in sorted(name for name in files if not name.endswith(_COMMON)):
            if LIBRARY.search(name):
                if len(found.files) >= MAX_FILES:
                    raise InputError(f"holds more than {MAX_FILES} libraries", locator=root, hint="name a folder in it")
                found.files.append(below + name)
            elif ARCHIVE.search(name) and len(found.archives) < MAX_FILES:
                found.archives.append(below + name)
    return found


def _in_node_modules(below: str) -> bool:
    """Whether a folder is that of a package in node_modules, or of its scope."""
    parts = below.rstrip("/").split("/")
    return "node_modules" in (parts[-2:-1] or [""]) or (len(parts) > 2 and parts[-3] == "node_modules" and parts[-2].startswith("@"))


def _python(root: str, place: str, info: str) -> Distribution:
    folder = os.path.join(root, place) if place else root
    name, version, files = of_record(folder, info)
    return Distribution(name, version, folder, tuple(files), info, "python")


def _owners(root: str, met: _FolderContents, python: Sequence[Distribution]) -> Iterator[Distribution]:
    """Each library with the first that names it: conda, then the Python distributions that conda did not install, then node packages."""
    taken: set[str] = set()
    infos: set[str] = set()
    for path in met.condas:
        read = of_conda(os.path.join(root, path))
        if read is None:
            continue
        name, version, files, owns = read
        place = path.rpartition(f"{CONDA}/")[0].rstrip("/")
        folder = os.path.join(root, place) if place else root
        infos.update(os.path.realpath(os.path.join(folder, each)) for each in owns)
        yield _taking(Distribution(name, version, folder, tuple(files), f"{CONDA}/{path.rpartition('/')[2]}", "conda"), root, taken)
    for each in python:
        if os.path.realpath(os.path.join(each.root, each.info)) not in infos:
            yield _taking(each, root, taken)
    yield from _node_packages(root, met, taken)


def _node_packages(root: str, met: _FolderContents, taken: set[str]) -> Iterator[Distribution]:
    """Node packages with the libraries of which theirs is the nearest package.json above."""
    files: dict[str, list[str]] = {place: [] for place in met.nodes}
    for path in met.files:
        place = path.rpartition("/")[0]
        while place and place not in files:
            place = place.rpartition("/")[0]
        if place and path not in taken:
            files[place].append(path[len(place) + 1 :])
    for place, mine in files.items():
        if (package := of_node(os.path.join(root, place, "package.json"))) is not None:
            whole = Distribution(*package, os.path.join(root, place), tuple(mine), "package.json", "node")
            yield _taking(whole, root, taken)


def _taking(each: Distribution, root: str, taken: set[str]) -> Distribution:
    """The distribution with those of its files that nothing else has."""
    left = tuple(path for path in each.files if _below(root, each, path) not in taken)
    taken.update(_below(root, each, path) for path in left)
    return each._replace(files=left)


def _below(root: str, each: Distribution, path: str) -> str:
    """The path of a distribution's file below the root of the walk."""
    if each.root == root:
        return path
    return os.path.relpath(os.path.join(each.root, path), root).replace(os.sep, "/")


def _rest(root: str, files: Sequence[str], *, some: bool) -> Iterator[Distribution]:
    """What none owns: each folder of kernel libraries, and the other files as one."""
    folders = kernel_folders(files, root)
    places = {each.folder for each in folders}
    for each in folders:
        own = tuple(path for path in files if is_kernel_file(f"{root}/{path}") and folder_of(path) == each.folder)
        where = each.folder or os.path.basename(os.path.realpath(root))
        yield Distribution(f"{each.library} kernels in {where}", "", root, own, kind="kernels")
    left = tuple(path for path in files if not (is_kernel_file(f"{root}/{path}") and folder_of(path) in places))
    if left:
        yield Distribution("other files" if some or folders else os.path.basename(os.path.realpath(root)), "", root, left)


def _cuda_of_torch(root: str) -> str | None:
    return cuda_of_torch(text_of(os.path.join(root, "torch", "version.py"), _MAX_METADATA))
