"""The work on one file: pure, so that it can be done in any process and on any machine."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import SEPARATOR, file_name
from fatpatch.base.records import NamedTuple
from fatpatch.index.record import EntryRow, Examined, FileRows, FindingRow, ImageRow, KernelRow, KnownState, PayloadRow, VerdictRow
from fatpatch.model.tree import Diagnostic, Node
from fatpatch.remote.opening import state_of
from fatpatch.scan.coverage import all_diagnostics, holders, stored_share
from fatpatch.scan.survey import complaint_of, survey
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.all_gpus import answers
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.library_facts import body_classes


class Task(NamedTuple):
    """A file to examine: where it is, what the index calls it, and its state where that is known beforehand."""

    path: str
    location: str
    state: KnownState | None


def current(path: str, limits: Limits, attempts: int) -> KnownState | None:
    """The state of a file as it is now; None when it cannot be told: reading the file says why."""
    try:
        return KnownState(*state_of(path, limits.remote._replace(attempts=attempts)), limits.image)
    except FatpatchError:
        return None


def examine(task: Task, limits: Limits) -> Examined:
    """Read one file whole. What is wrong with it is part of the answer, never an exception."""
    if task.state is None:
        task = task._replace(state=current(task.path, limits, attempts=1))
    try:
        with inspected(task.path, name=file_name(task.location) or "file", limits=limits) as root:
            return Examined(task.location, task.state or _unknown(limits), _contents(root, limits), None)
    except FatpatchError as error:
        return failed(task, limits, error.message)
    except Exception as error:  # a bug of ours, or memory that ran out: one file must not end the audit of all
        return failed(task, limits, f"internal error, please report it: {type(error).__name__}: {error!s:.200}")


def failed(task: Task, limits: Limits, why: str) -> Examined:
    """The answer for a file that could not be read."""
    return Examined(task.location, task.state or _unknown(limits), None, why)


def _unknown(limits: Limits) -> KnownState:
    return KnownState(None, None, None, limits.image)


def _contents(root: Node, limits: Limits) -> FileRows:
    doctor = Doctor(root, limit=limits.image)
    payloads: list[PayloadRow] = []
    entries: list[EntryRow] = []
    images: dict[str, ImageRow] = {}
    kernels: dict[tuple[str, str], KernelRow] = {}
    findings = [_finding(item) for item in all_diagnostics(root) if item.level != "note"]
    for node in holders(root):
        found = survey([node._replace(members=())], limit=limits.image, digest=True, jobs=1)
        for payload in node.payloads:
            inside = _inside(payload.locator)
            payloads.append(
                PayloadRow(inside, _inside(node.locator), payload.vendor, payload.kind, payload.section, payload.offset, payload.size)
            )
            for ordinal, image in enumerate(payload.images):
                _, reading = next(found)
                entries.append(EntryRow(inside, ordinal, image.target, image.compression, stored_share(image), reading.sha256))
                if (complaint := complaint_of(image, reading)) is not None:
                    findings.append(_finding(complaint))
                if reading.sha256 is None or reading.sha256 in images:
                    continue
                version, producer = reading.code_version or image.code_version, reading.producer or image.producer
                images[reading.sha256] = ImageRow(reading.sha256, image.kind, image.size, version, producer)
                bodies = body_classes(node, image, doctor.reader) if reading.rows else {}
                for each in reading.rows or ():
                    sizes = each.registers, each.shared_bytes, each.local_bytes, each.code_size
                    row = KernelRow(reading.sha256, each.name, *sizes, bodies.get(each.name))
                    kernels.setdefault((reading.sha256, each.name), row)
    return FileRows(
        container=root.container,
        payloads=tuple(payloads),
        entries=tuple(entries),
        images=tuple(images.values()),
        kernels=tuple(kernels.values()),
        findings=tuple(dict.fromkeys(findings)),
        verdicts=tuple(_verdicts(doctor)),
    )


def _verdicts(doctor: Doctor) -> Iterator[VerdictRow]:
    try:
        for locator, by_target in answers(doctor).items():
            for target, answer in by_target.items():
                yield VerdictRow(_inside(locator), target, answer.outcome, answer.works)
    except FatpatchError:  # the images of the file unpack to more than is sensible: its findings say so, and nothing is judged
        return


def _finding(item: Diagnostic) -> FindingRow:
    return FindingRow("FP002" if item.level == "error" else "FP003", item.level, _inside(item.locator), item.message)


def _inside(locator: str) -> str:
    """A locator without its first step, the name of the file."""
    return locator.partition(SEPARATOR)[2]
