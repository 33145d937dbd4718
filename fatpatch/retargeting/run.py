"""One module retargeted: the PTX to take, what ptxas says of it, a verdict on each kernel, and the image that comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from fatpatch.base.errors import EditError, FatpatchError, FormatError, ToolError
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode import flow
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.cubin.bodies import cubin_bodies
from fatpatch.gpucode.cubin.launch_bounds import launch_bounds
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.ptx.bodies import ptx_bodies
from fatpatch.gpus.selection import choose
from fatpatch.gpus.toolkits import toolkits_for
from fatpatch.model.kinds import ImageKind, ModuleKind
from fatpatch.model.target import Target, target_key
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.retargeting.kernels import Evidence, Level, RetargetVerdict, Used, Wanted, trapped, verdicts
from fatpatch.retargeting.ptxas import Ptxas, PtxasAnswer
from fatpatch.retargeting.rewrites import Rewrite, rewritten
from fatpatch.retargeting.text import Text, for_target
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned

_PASSES = 8


class RetargetRequest(NamedTuple):
    """The target (``sm_61``), the level to take instead of the lowest that will do (``compute_70``), and what may go in."""

    target: str
    source: str | None = None
    wanted: Wanted = Wanted()
    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    as_ptx: bool = False
    rewrite: bool = True
    limit: int = 128 << 20


class Retargeted(NamedTuple):
    """One module: where its code comes from, the verdicts, the new image; ``lost``: kernels that work today and would be traps.

    ``passes``: how often ptxas was run. ``problem`` says why there is no image.
    """

    payload: Payload
    source: str | None
    verdicts: tuple[RetargetVerdict, ...]
    image: bytes | None
    lost: tuple[str, ...]
    passes: int
    problem: str
    options: str | None = None


def retargeted(node: Node, request: RetargetRequest, ptxas: Ptxas) -> Iterator[Retargeted]:
    """Each module of a file in turn. EditError when the target is none, or when no module has any PTX."""
    arch, _ = _target(request.target)
    if toolkits_for(request.target) is None:
        raise EditError(f"no ptxas known here compiles {request.target}", hint="such as sm_61, sm_75, sm_90a")
    everything = [(holder, payload) for holder, payload in payloads_below(node) if payload.kind in (ModuleKind.FATBIN, ModuleKind.PTX)]
    if not any(image.kind == ImageKind.PTX for _, payload in everything for image in payload.images):
        message = "has no PTX: there is nothing that code for another GPU could be made of"
        raise EditError(message, locator=node.locator, hint=f"compile the source for it: nvcc -gencode arch=compute_{arch},code=sm_{arch}")
    modules = pinned(everything, request.modules, request.members)
    _refuse_unknown_level(modules, request.source)
    pool = ThreadPoolExecutor(os.cpu_count())  # ptxas is a process of its own
    try:
        yield from pool.map(lambda module: _Module(module[0], module[1], request, ptxas).run(), modules)
    except BaseException:
        ptxas.end()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _refuse_unknown_level(modules: Sequence[tuple[Node, Payload]], source: str | None) -> None:
    levels = {image.target for _, payload in modules for image in payload.images if image.kind == ImageKind.PTX}
    if source is not None and source not in levels:
        raise EditError(f"has no PTX for {source}", hint=f"there is PTX for {', '.join(sorted(levels, key=target_key))}")


def _target(text: str) -> tuple[int, str]:
    try:
        if Target(text).sm is None:
            raise ValueError(text)
        return Target(text).level
    except ValueError as error:
        raise EditError(f"expected a SASS target, got {text[:40]!r}", hint="such as sm_61") from error


class _Module:
    """The work on one module."""

    def __init__(self, holder: Node, payload: Payload, request: RetargetRequest, ptxas: Ptxas) -> None:
        self.payload, self.request, self.ptxas = payload, request, ptxas
        self.reader = ImageReader(holder.content, request.limit)
        self.arch, _ = Target(request.target).level
        self.passes = 0

    def run(self) -> Retargeted:
        """Try one level after the other until one is taken."""
        problem = "has no PTX"
        for image in self._sources():
            try:
                found = self._from(image)
            except ToolError:
                raise
            except FatpatchError as error:
                problem = f"{image.target}: {error.message}"
                continue
            if found.image is not None or not found.problem:
                return found
            problem = f"{image.target}: {found.problem}"
        return Retargeted(self.payload, None, (), None, (), self.passes, problem)

    def _sources(self) -> list[ImageEntry]:
        """The PTX of the module, the lowest level not below the GPU first; without such a one the highest below it."""
        texts = [image for image in self.payload.images if image.kind == ImageKind.PTX and image.readable]
        if self.request.source is not None:
            return [image for image in texts if image.target == self.request.source]
        levels = [(Target(image.target).level, image) for image in texts]
        usable = [(arch, image) for (arch, suffix), image in levels if not suffix or arch == self.arch]
        high = sorted(((arch, image) for arch, image in usable if arch >= self.arch), key=lambda pair: pair[0])
        low = sorted(((arch, image) for arch, image in usable if arch < self.arch), key=lambda pair: -pair[0])
        return [image for _, image in (high or low)]

    def _from(self, image: ImageEntry) -> Retargeted:
        text = Text(self.reader.read(image).rstrip(b"\0"))
        source, _ = Target(image.target).level
        data, rewrites = self._rewritten(text)
        answer, lowered, rejected, functions = self._accepted(Text(data), image.options or "")
        if answer.cubin is None:
            return Retargeted(self.payload, image.target, (), None, (), self.passes, answer.complaints[0].words)
        rows = {row.name: row for row in read_image("sass", answer.cubin).kernels}
        if rows.keys() != text.entries.keys():
            raise FormatError("ptxas finds other kernels in it than were found here", field=".entry")
        used = self._used()
        levels = [Level(Target(each.target).level[0], Text(self._read(each))) for each in self.payload.images if self._other(each, image)]
        evidence = Evidence(
            text, source, self.arch, ptx_bodies(text.data), rejected, rows, launch_bounds(answer.cubin), rewrites, levels, used
        )
        found = tuple(verdicts(evidence, self.request.wanted))
        result = lowered.without(trapped(found), functions)
        lost = self._lost(found)
        if not any(verdict.taken for verdict in found):
            return Retargeted(self.payload, image.target, found, None, lost, self.passes, "", image.options)
        if not self.request.as_ptx:
            self.passes += 1
            final = self.ptxas.assemble(result, self.request.target, image.options or "", limit=self.request.limit)
            if final.cubin is None:
                return Retargeted(self.payload, image.target, found, None, lost, self.passes, final.complaints[0].words)
            result = final.cubin
        return Retargeted(self.payload, image.target, found, result, lost, self.passes, "", image.options)

    def _other(self, image: ImageEntry, source: ImageEntry) -> bool:
        return image.kind == ImageKind.PTX and image is not source and image.readable and image.target != source.target

    def _read(self, image: ImageEntry) -> bytes:
        try:
            return self.reader.read(image).rstrip(b"\0")
        except FatpatchError:
            return b""  # a level that cannot be read proves nothing

    def _rewritten(self, text: Text) -> tuple[bytes, dict[str, tuple[Rewrite, ...]]]:
        """The text with the rewrites of the list, and which kernels they are in."""
        if not self.request.rewrite:
            return text.data, {}
        bodies, used = {}, {}
        for kernel, each in text.entries.items():
            body, rewrites = rewritten(text.data[each.start : each.end], self.arch)
            if rewrites:
                bodies[kernel], used[kernel] = body, rewrites
        return text.without((), bodies=bodies), used

    def _accepted(self, text: Text, options: str) -> tuple[PtxasAnswer, Text, dict[str, str], set[bytes]]:
        """The text as ptxas takes it: version lowered, traps for what it refuses; each refused kernel with ptxas' words."""
        lowered = Text(for_target(text.data, self.request.target))
        rejected: dict[str, str] = {}
        functions: set[bytes] = set()
        answer = PtxasAnswer(None, ())
        for _ in range(_PASSES):
            self.passes += 1
            current = Text(lowered.without(rejected, functions))
            answer = self.ptxas.assemble(current.data, self.request.target, options, quick=True, limit=self.request.limit)
            if answer.cubin is not None:
                break
            if answer.newest is not None:
                lowered = Text(for_target(text.data, self.request.target, answer.newest))
                continue
            if not self._blame(current, answer, rejected, functions):
                break
        return answer, lowered, rejected, functions

    def _blame(self, text: Text, answer: PtxasAnswer, rejected: dict[str, str], functions: set[bytes]) -> bool:
        """Give each complaint to its kernel; whether that was possible for one that was not blamed before."""
        places = text.at_lines(each.line for each in answer.complaints if each.line is not None)
        before = len(rejected) + len(functions)
        for complaint in answer.complaints:
            place = places.get(complaint.line) if complaint.line is not None else None
            name = complaint.function if place is None else place.name.decode("ascii", "backslashreplace")
            if place is not None and not place.entry:
                functions.add(place.name)
                for caller in text.callers({place.name}):
                    rejected.setdefault(caller, f"calls {name}: {complaint.words}")
            elif name in text.entries:
                rejected.setdefault(name, complaint.words)
        return len(rejected) + len(functions) > before

    def _used(self) -> Used | None:
        """The image that the GPU loads today, or the nearest machine code that can be read."""
        chosen = choose(self.payload.images, self.arch).image
        near = sorted(
            (image for image in self.payload.images if image.kind == ImageKind.SASS and image is not chosen),
            key=lambda image: abs(Target(image.target).level[0] - self.arch),
        )
        for image in ([chosen] if chosen is not None and chosen.kind == ImageKind.SASS else []) + near:
            try:
                data = self.reader.read(image)
                rows = {row.name: row for row in read_image("sass", data).kernels}
                return Used(image.target, Target(image.target).level[0], image is chosen, rows, cubin_bodies(data), launch_bounds(data))
            except FatpatchError:
                continue
        return None

    def _lost(self, found: Sequence[RetargetVerdict]) -> tuple[str, ...]:
        """Kernels that work on the GPU today, and are traps in the new image, which would be loaded instead."""
        chosen = choose(self.payload.images, self.arch).image
        if chosen is None or chosen.target == self.request.target:
            return ()
        try:
            data = self.reader.read(chosen)
            bodies = ptx_bodies(data.rstrip(b"\0")) if chosen.kind == ImageKind.PTX else cubin_bodies(data)
        except FatpatchError:
            return ()
        works = {name for name, body in bodies.items() if body not in flow.STUBS}
        return tuple(verdict.kernel for verdict in found if not verdict.taken and verdict.kernel in works)
