"""The packages that are installed in a container image: Python distributions by RECORD, conda packages by conda-meta."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.container_image import PackageFiles
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.slim_mark import SlimMark
from fatpatch.model.tree import Node
from fatpatch.scan.kernel_folders import folder_of, is_kernel_file, kernel_folders
from fatpatch.scan.ledgers import conda_package, cuda_of_torch, name_and_version, record_libraries
from fatpatch.scan.slim_marks import MARK, mark_in

_TEXT = lazy_pattern(r"(?:\A|/)(?:[^/]+\.dist-info/(?:RECORD|METADATA|fatpatch-slim\.json)|conda-meta/[^/]+\.json|torch/version\.py)\Z")
_MAX_TEXT = 64 << 20
_MAX_METADATA = 64 << 10
_MAX_FILES = 500_000
_OTHERS = "other files"


class ImagePart(NamedTuple):
    """A package of an image with its libraries as the members of ``node``, or the files that no package owns.

    ``cuda``: the release of the PyTorch that is installed beside it; ``names``: of all libraries in the image.
    """

    shown: str
    node: Node
    cuda: str | None
    names: frozenset[str]


def is_package_text(path: str) -> bool:
    """Whether a file says what is installed, by its name."""
    return _TEXT.search(path) is not None


class PackageTexts:
    """Collects what the texts of an image say; of a long one only the libraries that it names are kept."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._conda: list[PackageFiles] = []
        self._by_conda: set[str] = set()
        self._cuda: dict[str, str] = {}
        self._left = _MAX_FILES
        self._marks: dict[str, tuple[int, SlimMark]] = {}

    def marked(self, node: Node, path: str) -> Node:
        """The node of the file at ``path`` with the mark of a slimmed distribution that names it with its size."""
        size, mark = self._marks.get(path, (-1, None))
        return node._replace(slimmed=mark) if mark is not None and size == node.size else node

    def takes(self, paths: Sequence[str]) -> bool:
        """Whether a file is such a text by any of its names."""
        return any(map(is_package_text, paths))

    def add(self, paths: Sequence[str], chunks: Iterable[bytes]) -> None:
        """Read one text, under each of its names that says what it is."""
        pieces, size = [], 0
        for chunk in chunks:
            size += len(chunk)
            if size > _MAX_TEXT:
                return
            pieces.append(chunk)
        text = b"".join(pieces).decode("utf-8", "replace")
        for path in filter(is_package_text, paths):
            self._add(path, text)

    def packages(self) -> tuple[tuple[PackageFiles, ...], tuple[tuple[str, str], ...]]:
        """(the packages, by name; by root, the CUDA release of the PyTorch there). Each file is of the first that names it."""
        found, owned = [], set[str]()
        # what conda installed is in conda-meta too
        python = [self._python(info, files) for info, files in sorted(self._files.items()) if info not in self._by_conda]
        for each in (*sorted(self._conda), *python):
            files = tuple(path for path in each.files if path not in owned)
            owned.update(files)
            found.append(each._replace(files=files))
        return tuple(sorted(found, key=lambda each: (each.name.lower(), each.root))), tuple(sorted(self._cuda.items()))

    def _python(self, info: str, files: tuple[str, ...]) -> PackageFiles:
        root, folder = posixpath.split(info)
        return PackageFiles(*(self._names.get(info) or name_and_version(folder, "")), root, files)

    def _add(self, path: str, text: str) -> None:
        folder, name = posixpath.split(path)
        root = posixpath.dirname(folder)
        if name == "RECORD":
            self._files[folder] = self._taken(root, record_libraries(text))
        elif name == "METADATA":
            self._names[folder] = name_and_version(posixpath.basename(folder), text[:_MAX_METADATA])
        elif name == MARK:
            mark = mark_in(text)
            if mark is not None:
                sizes = mark.files[: self._left]
                self._left -= len(sizes)
                self._marks.update({posixpath.normpath(posixpath.join(root, inner)): (size, mark) for inner, size in sizes})
        elif name == "version.py":
            cuda = cuda_of_torch(text)
            if cuda is not None:
                self._cuda[root] = cuda
        elif (package := conda_package(text)) is not None:
            title, version, files, infos = package
            self._conda.append(PackageFiles(title, version, root, self._taken(root, files)))
            self._by_conda.update(posixpath.join(root, info) for info in infos)

    def _taken(self, root: str, paths: Iterable[str]) -> tuple[str, ...]:
        files = tuple(posixpath.normpath(posixpath.join(root, path)) for path in paths)[: self._left]
        self._left -= len(files)
        return files


def image_parts(node: Node) -> list[ImagePart]:
    """The packages of a container image, or of each image of several, and what none owns; nothing for any other file.

    Nothing, too, for an image without packages and kernel libraries: it is judged as one file.
    """
    if node.image is not None:
        parts = list(_parts(node, ""))
        return parts if node.image.packages or len(parts) > 1 else []
    return [part for member in node.members if member.image is not None for part in _parts(member, f"{member.path}: ")]


def _parts(node: Node, prefix: str) -> Iterator[ImagePart]:
    image = node.image
    assert image is not None
    by_path = {path: member for member in node.members for path in (member.path, *(member.origin.also if member.origin else ()))}
    counts = Counter(each.name.lower() for each in image.packages)
    cuda = dict(image.cuda)
    owned: set[str] = set()
    for each in image.packages:
        mine = {by_path[path].locator: by_path[path] for path in each.files if path in by_path}
        members = [member for where, member in mine.items() if where not in owned]
        owned.update(mine)
        where = f" ({each.root})" if counts[each.name.lower()] > 1 else ""
        shown = f"{prefix}{each.name} {each.version}".strip() + where
        release = next((cuda[root] for root in cuda if root == each.root or root.startswith(f"{each.root}/")), None)
        yield ImagePart(shown, _folder(node, shown, members), release, image.names)
    rest = [member for member in node.members if member.locator not in owned]
    kernels = kernel_folders(member.path for member in rest)
    for kernel in kernels:
        own = [member for member in rest if is_kernel_file(member.path) and folder_of(member.path) == kernel.folder]
        taken = set(map(id, own))
        rest = [member for member in rest if id(member) not in taken]
        shown = f"{prefix}{kernel.library} kernels in {kernel.folder}"
        yield ImagePart(shown, _folder(node, shown, own), None, image.names)
    if rest or node.diagnostics:
        shown = f"{prefix}{_OTHERS if image.packages or kernels else 'files'}"
        part = _folder(node, shown, rest)._replace(diagnostics=node.diagnostics)
        yield ImagePart(shown, part, next(iter(cuda.values()), None) if len(cuda) == 1 else None, image.names)


def _folder(node: Node, shown: str, members: Sequence[Node]) -> Node:
    """A folder with some of the files of an image."""
    return Node(
        locator=node.locator,
        path=shown,
        size=sum(member.size for member in members),
        container=ContainerKind.FOLDER,
        detail="",
        members=tuple(members),
        payloads=(),
        diagnostics=(),
        member_count=len(members),
        kernel_files=_beside(node.kernel_files, members),
    )


def _beside(kernel_files: Sequence[str], members: Sequence[Node]) -> tuple[str, ...]:
    """Of the files of kernel libraries those that lie in one folder with a member."""
    folders = {folder_of(member.path) for member in members if is_kernel_file(member.path)}
    return tuple(path for path in kernel_files if folder_of(path) in folders)
