"""What helps, what does not, and why: each remedy that people try, judged for this file on this GPU (reference: llamafile, section 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fatpatch.coverage import payloads_below
from fatpatch.gpus.amd import override_for
from fatpatch.gpus.drivers import drivers_for_arch, first_driver_for_ptx, first_zstd_driver
from fatpatch.gpus.generations import generation
from fatpatch.gpus.tables import table, version_key
from fatpatch.gpus.toolkits import expansion, is_newest, newest_toolkit_for, toolkits_for
from fatpatch.hosts import llamafile
from fatpatch.hosts.family import PER_TYPE
from fatpatch.images.signature import without_hashes
from fatpatch.model import Node
from fatpatch.verdicts.doctor import DRIVER_TOO_OLD, GOOD, NO_DEVICE, Doctor, FileVerdict, Judged
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader
from fatpatch.verdicts.fate import INVALID_IMAGE, NO_IMAGE, UNSUPPORTED_PTX
from fatpatch.verdicts.module import FAILS, STUB
from fatpatch.verdicts.quants import MATRIX, VECTOR, role_of

_NAMES_TO_COMPARE: Final = 400


class Remedy(NamedTuple):
    """``works``: True, False, or None when that hangs on what is not known here. ``command`` is None when there is none to type."""

    title: str
    command: str | None
    works: bool | None
    why: str


class Candidate(NamedTuple):
    """Another file that may be used instead, or as a donor: as the user named it, its tree, and its verdict on the same GPU."""

    shown: str
    node: Node
    verdict: FileVerdict


def remedies(doctor: Doctor, found: FileVerdict, shown: str, candidates: Sequence[Candidate]) -> tuple[Remedy, ...]:
    """All remedies that are worth a word, the best first: those that work, those that may, those that do not."""
    if found.environment.device.vendor == "amd":
        rows = list(_amd(found))
    else:
        rows = list(_nvidia(doctor, found, shown, candidates))
    order = {True: 0, None: 1, False: 2}
    return tuple(sorted(rows, key=lambda remedy: order[remedy.works]))


def _nvidia(doctor: Doctor, found: FileVerdict, shown: str, candidates: Sequence[Candidate]) -> Iterator[Remedy]:
    broken = [module for module in found.modules if module.verdict.verdict in (FAILS, STUB)]
    yield from _drivers(found)
    if found.trouble is not None or not (broken or found.mismatch):
        return
    affected = broken or list(found.mismatch)
    yield from _grafts(doctor.reader, found, affected, shown, candidates)
    yield from _rebuild(found, affected)
    yield from _archs(found, affected)
    yield from _force_jit(doctor, found)
    yield from _ggml(found)
    yield from _releases(found)
    yield from _copies(found)


def _drivers(found: FileVerdict) -> Iterator[Remedy]:
    environment = found.environment
    arch = environment.device.arch
    assert arch is not None
    if found.trouble is not None and found.trouble[0] == NO_DEVICE:
        first, last = drivers_for_arch(arch) or ("", None)
        if last is not None and environment.driver is not None and environment.driver.oldest_arch > arch:
            yield Remedy("an older driver", None, True, f"branch {last} is the last that drives {generation(arch)}")
        elif first:
            yield Remedy("a newer driver", None, True, f"{first} is the first known to drive {generation(arch)}")
        return
    if found.trouble is not None and found.trouble[0] == DRIVER_TOO_OLD:
        toolkit = next((need for need in found.needs if need.why.startswith("runs programs")), None)
        if toolkit is not None:
            yield Remedy("a newer driver", None, True, f"{toolkit.linux} on Linux or {toolkit.windows} on Windows {toolkit.why}")
        return
    yield from _newer_for_images(found)


def _newer_for_images(found: FileVerdict) -> Iterator[Remedy]:
    """A driver that knows the PTX version, or zstd."""
    isas = {
        module.verdict.image.code_version
        for module in found.modules
        if module.verdict.cuda_error == UNSUPPORTED_PTX and module.verdict.image is not None and module.verdict.image.code_version
    }
    if isas:
        isa = max(isas, key=version_key)
        first = first_driver_for_ptx(isa)
        what = f"{first[0]} on Linux or {first[1]} on Windows compiles PTX {isa}" if first else f"no driver known here compiles PTX {isa}"
        yield Remedy("a newer driver", None, True if first else None, what)
    packed = [
        module
        for module in found.modules
        if module.verdict.cuda_error == INVALID_IMAGE and module.verdict.image is not None and module.verdict.image.compression == "zstd"
    ]
    if packed and found.environment.driver is not None and found.environment.driver.zstd is False:
        linux, windows = first_zstd_driver()
        yield Remedy("a newer driver", None, True, f"{linux} on Linux or {windows} on Windows reads zstd-compressed code")
    if any(module.verdict.cuda_error == NO_IMAGE and any(i.within for i in module.payload.images) for module in found.modules):
        yield Remedy(
            "a newer driver", None, None, "drivers up to 580 ignore concatenated entries; whether a newer one reads them was not tried"
        )


def _grafts(
    reader: FactsReader, found: FileVerdict, affected: Sequence[Judged], shown: str, candidates: Sequence[Candidate]
) -> Iterator[Remedy]:
    """Code for this very GPU out of another build, or another build as it is."""
    target = found.environment.device.target
    for candidate in candidates:
        if candidate.verdict.good and not candidate.verdict.mismatch:
            yield Remedy(f"{candidate.shown} instead", None, True, f"it is {candidate.verdict.verdict} on this GPU")
        fitting = _fitting(reader, affected, candidate.node, target)
        if fitting:
            command = f"fatpatch graft {shown} --from {candidate.shown} --target {target} -o fixed-{_last(shown)}"
            whole = fitting == len(affected)
            why = f"its {target} code has the kernels of {fitting} of {len(affected)} modules that need it"
            yield Remedy(f"graft {target} from {candidate.shown}", command, True if whole else None, why)
        elif not _holds(candidate.node, target):
            yield Remedy(f"graft {target} from {candidate.shown}", None, False, f"it holds no {target} code")
        else:
            yield Remedy(f"graft {target} from {candidate.shown}", None, False, f"its {target} code is of other kernels")
    if not candidates:
        command = f"fatpatch graft {shown} --from OTHER --target {target} -o fixed-{_last(shown)}"
        yield Remedy(f"graft {target} from another build", command, None, f"OTHER: a build of the same source that has {target} code")


def _fitting(reader: FactsReader, affected: Sequence[Judged], donor: Node, target: str) -> int:
    """How many of the modules have all their kernels in one image of the donor for the target."""
    offers = []
    for node, payload in payloads_below(donor):
        for image in payload.images:
            if image.target == target and image.kind == "sass" and image.readable and node.source is not None:
                offers.append(frozenset(map(without_hashes, reader.names(node.source, image))))
            if len(offers) >= _NAMES_TO_COMPARE:
                break
    wanted = []
    for module in affected:
        names = {kernel.name for kernel in module.verdict.kernels}
        if not names and module.node.source is not None:
            best = min(
                (image for image in module.payload.images if image.kind in ("sass", "ptx") and image.readable),
                key=lambda image: (image.kind != "sass", image.size or 0),
                default=None,
            )
            names = set() if best is None else set(reader.names(module.node.source, best))
        wanted.append(frozenset(map(without_hashes, names)))
    return sum(bool(names) and any(names <= offer for offer in offers) for names in wanted)


def _holds(node: Node, target: str) -> bool:
    return any(image.target == target for _, payload in payloads_below(node) for image in payload.images)


def _last(shown: str) -> str:
    return shown.replace("\\", "/").rsplit("/", 1)[-1]


def _is_ggml(found: FileVerdict) -> bool:
    return any(module.host.family is not None for module in found.modules)


def _rebuild(found: FileVerdict, affected: Sequence[Judged]) -> Iterator[Remedy]:
    device = found.environment.device
    arch = device.arch
    newest = newest_toolkit_for(device.target)
    if newest is None or arch is None:
        yield Remedy("rebuild", None, None, f"no CUDA toolkit known here compiles {device.target}")
        return
    flag = f"-gencode arch=compute_{arch},code=sm_{arch}"
    last = "" if is_newest(newest) else f"; CUDA {newest} is the last toolkit that can"
    command = f"cmake -B build -DCMAKE_CUDA_ARCHITECTURES={arch}-real ..." if _is_ggml(found) else f"nvcc ... {flag}"
    extra = f", which is nvcc {flag}" if _is_ggml(found) else ""
    yield Remedy("rebuild from source", command, True, f"compiles code for {device.target} itself{extra}{last}")
    if llamafile.is_llamafile(found.node) and any(module.host.family and module.host.family.era == PER_TYPE for module in affected):
        up_to = "" if is_newest(newest) else f" up to {newest}"
        why = f"llamafile 0.4 to 0.9.3 compile their own source with -arch=native, if a CUDA toolkit{up_to} is installed"
        yield Remedy("let it recompile", f"./{_last(found.node.path)} --recompile", True, why)


def _archs(found: FileVerdict, affected: Sequence[Judged]) -> Iterator[Remedy]:
    """-arch=native, all and all-major: what they really compile."""
    device = found.environment.device
    newest = newest_toolkit_for(device.target)
    if newest is None or device.arch is None:
        return
    span = toolkits_for(device.target)
    assert span is not None
    limit = "" if is_newest(newest) else f", with CUDA {newest} or older"
    yield Remedy("rebuild with -arch=native", None, True, f"on the machine with this GPU it compiles {device.target}{limit}")
    lower_fails = any(module.verdict.verdict == STUB or module in found.mismatch for module in affected)
    for option, toolkit in (("all", newest), ("all-major", newest)):
        compiled = expansion("all" if option == "all" else "all-major", toolkit)
        if compiled is None:
            continue
        works, why = _covered(compiled, device.arch, lower_fails=lower_fails)
        listed = f"compiles {', '.join(compiled)}" if option == "all-major" else "compiles every target that it knows"
        yield Remedy(f"rebuild with -arch={option}", None, works, f"CUDA {toolkit} then {listed}: {why}")


def _covered(compiled: Sequence[str], arch: int, *, lower_fails: bool) -> tuple[bool, str]:
    numbers = [int(target[3:]) for target in compiled if target.startswith("sm_")]
    best = max((number for number in numbers if number // 10 == arch // 10 and number <= arch), default=None)
    if best == arch:
        return True, f"sm_{arch} is among them"
    if best is not None:
        if lower_fails:
            return False, f"this GPU gets sm_{best}, and what fails now fails again"
        return True, f"this GPU gets sm_{best}"
    ptx = [int(target[8:]) for target in compiled if target.startswith("compute_")]
    if any(number <= arch for number in ptx):
        return True, "this GPU compiles the PTX at the first start"
    return False, "nothing of that is for this GPU"


def _force_jit(doctor: Doctor, found: FileVerdict) -> Iterator[Remedy]:
    environment = found.environment
    if environment.force_ptx:
        return
    title, command = "CUDA_FORCE_PTX_JIT=1", "CUDA_FORCE_PTX_JIT=1 PROGRAM"
    if not any(image.kind == "ptx" for module in found.modules for image in module.payload.images):
        yield Remedy(title, None, False, "there is no PTX in the file")
        return
    forced = doctor.judge(environment._replace(force_ptx=True))
    if forced.good and not forced.mismatch:
        yield Remedy(title, command, True, "the PTX in the file has what the machine code lacks; every start without a cache compiles it")
    else:
        words = {STUB: "kernels are dead in the same way", FAILS: "it fails as well"}.get(forced.verdict or "", "it is no better")
        yield Remedy(title, None, False, f"with the PTX in the file {words}")


def _ggml(found: FileVerdict) -> Iterator[Remedy]:
    if not _is_ggml(found):
        return
    roles = {role.role for module in found.modules for kernel in module.verdict.defects if (role := role_of(kernel.name)) is not None}
    if VECTOR in roles:
        why = "it only keeps the matrix kernels off the tensor cores: every token still takes mul_mat_vec_q, whose bodies are traps here"
        yield Remedy("rebuild with GGML_CUDA_FORCE_MMQ", None, False, why)
    elif MATRIX in roles:
        yield Remedy(
            "rebuild with GGML_CUDA_FORCE_MMQ", None, False, "it takes the mul_mat_q kernels more often, and they are the traps here"
        )
    yield Remedy(
        "HSA_OVERRIDE_GFX_VERSION", None, False, "does nothing here: only AMD's runtime on Linux reads it, and this is an NVIDIA GPU"
    )
    good = [quant.quant for quant in found.quants if not quant.broken]
    bad = [quant.quant for quant in found.quants if quant.broken]
    if bad:
        runs = ", ".join(["F16", "F32", *good])
        yield Remedy("a model of another quantisation", None, True, f"those in {runs} run on this GPU, those in {', '.join(bad)} do not")


def _releases(found: FileVerdict) -> Iterator[Remedy]:
    """Releases of llamafile that were built with code that serves this GPU, by their build scripts."""
    arch = found.environment.device.arch
    if arch is None or not llamafile.is_llamafile(found.node):
        return
    exact = any(module.verdict.verdict == STUB for module in found.modules)
    spans = []
    for row in table("ggml_builds"):
        if row["project"] == "llamafile" and _built_for(row["sass"], arch, exact=exact):
            last = row["last"]
            spans.append(row["first"] + ("" if row["first"] == last else f" to {last}" if last else " on"))
    if spans:
        why = f"by their build scripts, llamafile {', '.join(dict.fromkeys(spans))} have code for it; ask doctor about the file"
        yield Remedy("another release", None, None, why)


def _built_for(sass: str, arch: int, *, exact: bool) -> bool:
    """Whether a list of targets serves a device: with its own target, or with a lower minor version where that will do."""
    if sass in ("all", "all-major"):
        return (sass == "all" or not exact) and 50 <= arch <= 90
    numbers = [int(word.rstrip("af")) for word in sass.split()]
    return arch in numbers or (not exact and any(number // 10 == arch // 10 and number < arch for number in numbers))


def _copies(found: FileVerdict) -> Iterator[Remedy]:
    """The copy of its library that a llamafile has extracted once, and goes on using."""
    if not llamafile.is_llamafile(found.node):
        return
    version = llamafile.version_of(found.node)
    library = next((module.node.path for module in found.modules), "ggml-cuda.dll")
    advice = llamafile.copy_of(_last(library), version).advice
    yield Remedy("delete the extracted copy", None, None, f"needed once after any repair: {advice}")


def _amd(found: FileVerdict) -> Iterator[Remedy]:
    device = found.environment.device
    targets = [image.target for module in found.modules for image in module.payload.images if image.target.startswith("gfx")]
    if not found.modules:
        yield Remedy("another build", None, None, f"one that holds AMD code for {device.target}")
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", None, False, "there is no AMD code in the file that it could lead to")
        return
    if found.verdict in GOOD:
        return
    advice = override_for(device.target, targets)
    if advice is None:
        why = f"no object in the file has the same instructions as {device.target}"
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", None, False, why)
    else:
        why = f"on Linux the runtime then loads {advice.target}: {advice.caution}. On Windows it does nothing"
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", f"HSA_OVERRIDE_GFX_VERSION={advice.value} PROGRAM", None, why)
    yield Remedy("rebuild from source", f"hipcc --offload-arch={device.target} ...", True, f"compiles code for {device.target} itself")


def candidate(shown: str, node: Node, environment: Environment, limit: int) -> Candidate:
    """Judge another file as a possible donor or replacement."""
    return Candidate(shown, node, Doctor(node, limit=limit).judge(environment))
