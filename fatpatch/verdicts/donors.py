"""Other builds: to be used as they are, or to give their code for this GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fatpatch.base.locator import file_name
from fatpatch.base.shell_word import shell_word
from fatpatch.gpucode.signature import without_hashes
from fatpatch.model.kinds import ImageKind
from fatpatch.scan.coverage import payloads_below
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.results import FileVerdict, Judged

_OFFERS: Final = 400
_PLACEHOLDER: Final = "OTHER"
_MAX_MEMBERS: Final = 3


def grafts(doctor: Doctor, found: FileVerdict, affected: Sequence[Judged], shown: str, candidates: Sequence[Candidate]) -> Iterator[Remedy]:
    """What each candidate is good for; without one, what to look for."""
    target = found.environment.device.target
    wanted = [_names_of(doctor, module) for module in affected]
    for candidate in candidates:
        offers = _offers(candidate, target)
        fitting = sum(bool(names) and any(names <= offer for offer in offers) for names in wanted)
        title = f"graft {target} from {candidate.shown}"
        yield from _instead(candidate, found, wanted)
        if fitting:
            why = f"its {target} code has the kernels of {fitting} of {len(affected)} modules that need it"
            yield Remedy(
                title, _command(found, affected, shown, candidate.shown), True if fitting == len(affected) else None, why, asked=True
            )
        elif not _holds(candidate, target):
            yield Remedy(title, None, False, f"it holds no {target} code", asked=True)
        elif all(wanted) and offers:
            yield Remedy(title, None, False, f"its {target} code is of other kernels", asked=True)
        else:
            yield Remedy(title, None, None, "their kernels cannot be compared: an image cannot be read", asked=True)
    if not candidates:
        why = f"{_PLACEHOLDER}: a build of the same source that has {target} code"
        yield Remedy(f"graft {target} from another build", _command(found, affected, shown, _PLACEHOLDER), None, why)


def replacements(doctor: Doctor, found: FileVerdict, affected: Sequence[Judged], candidates: Sequence[Candidate]) -> Iterator[Remedy]:
    """Candidates that can be used as they are."""
    wanted = [names for module in affected if (names := _names_of(doctor, module))]
    for candidate in candidates:
        yield from _instead(candidate, found, wanted)


def _instead(candidate: Candidate, found: FileVerdict, wanted: Sequence[frozenset[str]]) -> Iterator[Remedy]:
    if wanted and _replaces(candidate, found, wanted):
        why = f"it has the same kernels, and is {candidate.verdict.verdict} on this GPU"
        yield Remedy(f"{candidate.shown} instead", None, True, why, asked=True)


def _command(found: FileVerdict, affected: Sequence[Judged], shown: str, donor: str) -> str:
    """The graft; where modules of several members need it, each is named, since a donor goes to its own kind of file by itself."""
    members = list(dict.fromkeys(module.node.path for module in affected if module.node.locator != found.node.locator))
    options = [word for member in members if 1 < len(members) <= _MAX_MEMBERS for word in ("--member", member)]
    target, out = found.environment.device.target, f"fixed-{file_name(shown)}"
    out = f"grafted-{file_name(shown)}" if out == file_name(donor) else out
    words = [
        "fatpatch",
        "graft",
        f"./{shown}" if shown.startswith("-") else shown,
        "--from",
        donor,
        "--target",
        target,
        *options,
        *(["--replace"] if any(image.target == target for module in affected for image in module.payload.images) else []),
        *(["--in-place"] if shown.endswith(".whl") else ["-o", out]),  # an installer reads a wheel's name
    ]
    return " ".join(map(shell_word, words))


def _offers(candidate: Candidate, target: str) -> list[frozenset[str]]:
    """The kernels of each image for the target, without build-folder ids."""
    offers: list[frozenset[str]] = []
    for node, payload in payloads_below(candidate.doctor.node):
        for image in payload.images:
            if image.target != target or image.kind not in (ImageKind.SASS, ImageKind.HSACO) or not image.readable or node.source is None:
                continue
            names = candidate.doctor.reader.names(node.source, image)
            if names is not None and len(offers) < _OFFERS:
                offers.append(frozenset(map(without_hashes, names)))
    return offers


def _names_of(doctor: Doctor, module: Judged) -> frozenset[str]:
    """The kernels of a module, without build-folder ids: of what is loaded, else of some image; none when none can be read."""
    names = frozenset(kernel.name for kernel in module.verdict.kernels) or doctor.names(module.node, module.payload)
    return frozenset(map(without_hashes, names))


def _holds(candidate: Candidate, target: str) -> bool:
    return any(image.target == target for _, payload in payloads_below(candidate.doctor.node) for image in payload.images)


def _replaces(candidate: Candidate, found: FileVerdict, wanted: Sequence[frozenset[str]]) -> bool:
    """Whether a file of the same kind runs and has every kernel that is needed."""
    there = frozenset(without_hashes(kernel.name) for module in candidate.verdict.modules for kernel in module.verdict.kernels)
    return (
        candidate.doctor.node.container == found.node.container
        and works(candidate.verdict)
        and all(names and names <= there for names in wanted)
    )
