"""A file open for reading, and what is in it: members, modules, images, kernels."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from fatpatch.api.options import PathLike
from fatpatch.base.errors import InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name, target_matches
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import size as size_words
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.demangle import demangle, readable
from fatpatch.gpucode.rows import KernelFacts, own_shared
from fatpatch.model.target import Target, target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload
from fatpatch.scan import document as render
from fatpatch.scan.coverage import all_diagnostics, payloads_below, summarize, target_table
from fatpatch.scan.survey import ImageSurvey, survey
from fatpatch.scan.walk import inspected

"""A path as str or pathlib.Path, or the address of a file on a server (https://..., s3://...)."""


class Kernel(NamedTuple):
    """One kernel of one image. ``name`` is mangled; ``target`` such as sm_90a; sizes are bytes, None where the image does not tell."""

    name: str
    target: str
    image: Image
    facts: KernelFacts

    @property
    def demangled(self) -> str:
        """The name as its source spells it; the mangled one where it is none of C++."""
        return readable(self.name)

    @property
    def registers(self) -> int | None:
        """Registers of a thread (AMD: VGPRs of a lane)."""
        return self.facts.registers

    @property
    def shared_bytes(self) -> int | None:
        """Static shared memory as the driver counts it (AMD: LDS)."""
        return own_shared(self.facts.shared_bytes, Target(self.target).sm)

    @property
    def local_bytes(self) -> int | None:
        """Stack of a thread (AMD: scratch of a work item)."""
        return self.facts.local_bytes

    @property
    def code_size(self) -> int | None:
        """Machine code."""
        return self.facts.code_size

    def to_dict(self) -> dict[str, Any]:
        """One row of ``File.to_arrow``."""
        return {
            "locator": self.image.locator,
            "target": self.target,
            "kernel": self.name,
            "demangled": self.demangled,
            "registers": self.registers,
            "shared_bytes": self.shared_bytes,
            "local_bytes": self.local_bytes,
            "code_size": self.code_size,
        }


class Image:
    """One image of a module: a cubin, PTX text, code object, ... for one target."""

    def __init__(self, file: File, holder: Node, facts: ImageEntry) -> None:
        self._file, self._holder, self.facts = file, holder, facts

    def __repr__(self) -> str:
        return f"<fatpatch.Image {self.locator}>"

    @property
    def locator(self) -> str:
        """Where it is: ``app.whl!libx.so!.nv_fatbin!fatbin[0]!sm_90``; the same in all outputs of the commands."""
        return self.facts.locator

    @property
    def target(self) -> str:
        """``sm_90a``, ``compute_80``, ``gfx1030:xnack+``."""
        return self.facts.target

    @property
    def kind(self) -> str:
        """``sass`` (a cubin), ``ptx``, ``hsaco`` (an AMD code object), ``lto``, ..."""
        return self.facts.kind

    @property
    def codec(self) -> str:
        """How it is stored: ``none``, ``lz4``, ``zstd``, ..."""
        return self.facts.compression

    @property
    def size(self) -> int | None:
        """Bytes once unpacked; None where the header does not say."""
        return self.facts.size

    def read(self) -> bytes:
        """The image, unpacked. FatpatchError when it is damaged or larger than the limit of its file."""
        self._file.require_open()
        return ImageReader(self._holder.content, self._file.limits.image).read(self.facts)


class Module(NamedTuple):
    """One fatbin or bundle that a program registers, or an image that lies bare in its file. ``offset`` is in the file that holds it."""

    locator: str
    vendor: str
    kind: str
    section: str | None
    offset: int
    size: int
    images: tuple[Image, ...]


class File:
    """A file as ``fatpatch.open`` reads it; a context manager. Members, modules and images are those below it, in document order.

    Images can be read until the file is closed; what was listed stays usable.
    """

    def __init__(self, path: PathLike, *, limits: Limits | None = None, kind: str | None = None, verify_members: bool = False) -> None:
        self.limits = limits or Limits()
        self._stack = ExitStack()
        shown = os.fspath(path)
        self.node: Node = self._stack.enter_context(
            inspected(shown, name=file_name(shown), limits=self.limits, kind=kind, keep_bytes=verify_members)
        )
        self._closed = False

    def __enter__(self) -> File:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fatpatch.File {self.node.locator}: {self.container}, {len(self.modules)} modules, {len(self.images)} images>"

    def close(self) -> None:
        """Let go of the file and of temporary copies of its members."""
        self._closed = True
        self._stack.close()

    def require_open(self) -> None:
        """InputError when the file was closed."""
        if self._closed:
            raise InputError("was closed", locator=self.node.locator, hint="read images inside the with block")

    @property
    def path(self) -> str:
        """As it was given."""
        return self.node.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.node.size

    @property
    def container(self) -> str:
        """``elf``, ``pe``, ``ape``, ``zip``, ``tar``, ``fatbin``, ..."""
        return self.node.container

    @property
    def members(self) -> tuple[str, ...]:
        """The locators of all members that were read, of archives in archives too."""

        def below(node: Node) -> Iterator[str]:
            for member in node.members:
                yield member.locator
                yield from below(member)

        return tuple(below(self.node))

    @property
    def modules(self) -> tuple[Module, ...]:
        """Every fatbin, bundle and bare image."""
        return tuple(self._module(holder, payload) for holder, payload in payloads_below(self.node))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of all modules."""
        return tuple(image for module in self.modules for image in module.images)

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target once, machine code before PTX, in the usual order."""
        return tuple(sorted({image.target for image in self.images}, key=target_key))

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is damaged or was not read."""
        return tuple(all_diagnostics(self.node))

    def kernels(self, *, target: str | None = None, name: str | None = None, jobs: int | None = None) -> Iterator[Kernel]:
        """The kernels of all images that can be read; in processes where there is much to read.

        ``target``: only of images for it (sm_90, sm_9*, gfx11*); ``name``: only those whose mangled or demangled name contains it.
        """
        self.require_open()
        holders = {id(image): holder for holder, payload in payloads_below(self.node) for image in payload.images}
        for image, finding in survey([self.node], limit=self.limits.image, jobs=jobs):
            if finding.rows is None or (target is not None and not target_matches(image.target, target)):
                continue
            where = Image(self, holders[id(image)], image)
            for row in finding.rows:
                if name is None or name in row.name or name in readable(row.name):
                    yield Kernel(row.name, image.target, where, row)

    def to_dict(self, *, kernels: bool = False) -> dict[str, Any]:
        """The object that ``fatpatch inspect --format json`` prints for the file (schema fatpatch.inspect/1, "files")."""
        self.require_open()
        found = iter(survey([self.node], limit=self.limits.image)) if kernels else None
        names: set[str] = set()

        def lookup(image: ImageEntry) -> ImageSurvey | None:
            finding = None if found is None else next(found)[1]
            names.update(row.name for row in (finding.rows if finding is not None else None) or ())
            return finding

        pieces = render.file_json(self.node, lookup, demangle, lambda: summarize(self.node, len(names) if kernels else None))
        document: dict[str, Any] = json.loads("".join(pieces))
        return document

    def to_arrow(self) -> Any:
        """A pyarrow.Table with one row a kernel. ImportError without pyarrow: pip install 'fatpatch[arrow]'."""
        import pyarrow

        return pyarrow.Table.from_pylist([kernel.to_dict() for kernel in self.kernels()])

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with one row a kernel. ImportError without pandas."""
        import pandas

        return pandas.DataFrame([kernel.to_dict() for kernel in self.kernels()])

    def _repr_html_(self) -> str:
        """A table of the targets, for notebooks."""
        rows = target_table([payload for _, payload in payloads_below(self.node)])
        body = "".join(f"<tr><td>{html.escape(row.target)}</td><td>{row.images}</td><td>{size_words(row.stored)}</td></tr>" for row in rows)
        head = f"<caption>{html.escape(self.node.locator)}</caption><tr><th>target</th><th>images</th><th>stored</th></tr>"
        return f"<table>{head}{body}</table>"

    def _module(self, holder: Node, payload: Payload) -> Module:
        images = tuple(Image(self, holder, image) for image in payload.images)
        return Module(payload.locator, payload.vendor, payload.kind, payload.section, payload.offset, payload.size, images)


def open_file(path: PathLike, *, limits: Limits | None = None, kind: str | None = None) -> File:
    """Open a file, or the file at an address, and list what GPU code is in it; nothing is unpacked yet.

    ``kind`` reads it as that instead of probing: elf, pe, zip, fatbin, cubin, ptx, ... InputError when it cannot be read at all; damage
    inside is in ``File.diagnostics``.

    >>> with fatpatch.open("samples/libkernels.so") as file:
    ...     [image.target for image in file.images]
    """
    return File(path, limits=limits, kind=kind)


def paths_of(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """One path or several as a list of str."""
    if isinstance(paths, str | os.PathLike):
        return [os.fspath(paths)]
    return [os.fspath(path) for path in paths]
