"""What helps, what does not, and why: each remedy that people try, judged for this file on this GPU (reference: llamafile, section 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.locator import file_name
from fatpatch.base.shell_word import shell_word
from fatpatch.gpus.drivers import cuda_of_ptx
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.gpus.generations import generation
from fatpatch.gpus.selection import choose
from fatpatch.gpus.tables import table, version_key
from fatpatch.gpus.toolkits import toolkits_for
from fatpatch.hostcode import llamafile
from fatpatch.model.kinds import Codec, ImageKind, Vendor
from fatpatch.model.target import target_key
from fatpatch.verdicts.donors import grafts, replacements
from fatpatch.verdicts.facts import is_dead
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.load_result import INVALID_IMAGE, JIT_DISABLED, NO_IMAGE, UNSUPPORTED_PTX
from fatpatch.verdicts.module import FAILS, STUB
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.quants import MATRIX, VECTOR, role_of
from fatpatch.verdicts.rebuilds import archs, is_ggml, lower_fails, rebuilds
from fatpatch.verdicts.remedies_amd import amd
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.requirements import out_of_reach
from fatpatch.verdicts.results import FileVerdict, Judged
from fatpatch.verdicts.shippers import by_shipper, shipper

_OLDEST, _NEWEST_THEN = 50, 90  # what -arch=all of a toolkit of 2023 or 2024 compiles; PTX of the newest comes with it


def remedies(doctor: Doctor, found: FileVerdict, shown: str, candidates: Sequence[Candidate]) -> tuple[Remedy, ...]:
    """All remedies that are worth a word, the best first: those that work, those that may, those that do not."""
    if found.environment.device.vendor == Vendor.AMD:
        rows = list(amd(doctor, found, shown, candidates))
    else:
        rows = list(_nvidia(doctor, found, shown, candidates))
    order = {True: 0, None: 1, False: 2}  # the sort is stable: the rows come in the order of their use
    return tuple(sorted(rows, key=lambda remedy: order[remedy.works]))


def _nvidia(doctor: Doctor, found: FileVerdict, shown: str, candidates: Sequence[Candidate]) -> Iterator[Remedy]:
    if found.libraries and works(found):
        return
    counted = found.judged_by
    broken = [module for module in counted if module.verdict.verdict in (FAILS, STUB)]
    yield from _drivers(doctor, found)
    yield from _edits(found, shown)
    yield from _retarget(doctor, found, shown)
    if found.trouble is not None:
        yield from replacements(doctor, found, found.modules, candidates)
    if found.trouble is not None and found.hidden:  # a driver alone does not help
        yield from _builds(found, broken)
    if found.trouble is not None or not (broken or found.mismatch):
        return
    affected = broken or list(found.mismatch)
    yield from _allow_jit(doctor, found)
    closed = (shipped := shipper(affected)) is not None and shipped.command is None
    if closed:
        yield from by_shipper(shipped, found)
    if candidates or not closed:  # of a closed library nobody else has a build
        yield from grafts(doctor, found, affected, shown, candidates)
    yield from _force_jit(doctor, found)
    yield from _ggml(found)
    if not closed:
        yield from _builds(found, affected)
    yield from _copies(found)
    yield from _releases(found)


def _builds(found: FileVerdict, affected: Sequence[Judged]) -> Iterator[Remedy]:
    """To build it anew, as those do who ship it."""
    shipped = shipper(affected)
    yield from by_shipper(shipped, found)
    if shipped is None or shipped.rebuilds:
        yield from rebuilds(found, affected)
        yield from archs(found, affected)


def _drivers(doctor: Doctor, found: FileVerdict) -> Iterator[Remedy]:
    """Another driver: at least what every part needs, at most what still drives the GPU."""
    environment = found.environment
    if environment.driver is None or environment.device.arch is None:
        return
    errors = {module.verdict.cuda_error for module in found.here}
    packed = any(module.verdict.image is not None and module.verdict.image.compression == Codec.ZSTD for module in found.here)
    if found.trouble is not None or UNSUPPORTED_PTX in errors or (INVALID_IMAGE in errors and packed and environment.driver.zstd is False):
        least, last = found.needs[0] if found.needs else None, found.last_driver
        title = (
            "an older driver"
            if found.trouble is not None and environment.driver.oldest_arch > environment.device.arch
            else "a newer driver"
        )
        if least is None:
            yield Remedy("another driver", None, None, "no driver known here drives this GPU")
        elif out_of_reach(found.needs, last):
            drives = f"{last} is the last branch that drives {generation(environment.device.arch)}"
            yield Remedy("another driver", None, False, f"none does both: it needs {least.linux} ({least.why}), and {drives}")
        else:
            windows = f" or {least.windows} on Windows" if least.windows else ""
            cap = f", up to branch {last}" if last is not None else ""
            fine = works(doctor.judge(environment._replace(driver=driver_of(least.linux))))
            rest = "" if fine else "; other incompatibilities remain"
            yield Remedy(title, None, fine or None, f"{least.linux} on Linux{windows}{cap}: {least.why}{rest}")
    if any(module.verdict.cuda_error == NO_IMAGE and any(image.within for image in module.payload.images) for module in found.modules):
        why = "drivers up to 580 ignore concatenated entries; whether a newer one reads them was not tried"
        yield Remedy("a newer driver", None, None, why)


def _edits(found: FileVerdict, shown: str) -> Iterator[Remedy]:
    """What fatpatch itself can do to the file: entries written plainly, another codec, code made of its own PTX."""
    name, driver, arch = shell_word(shown), found.environment.driver, found.environment.device.arch
    lacking = [module for module in found.here if module.verdict.cuda_error == NO_IMAGE]
    nothing = [module for module in found.here if module.verdict.image is None]
    if any(image.within is not None for module in nothing for image in module.payload.images):
        yield _expanded(found, nothing, f"fatpatch expand {name} -o OUT")
    chosen = [module.verdict.image for module in found.modules if module.verdict.cuda_error == INVALID_IMAGE]
    if driver is not None and driver.zstd is False and any(image is not None and image.compression == Codec.ZSTD for image in chosen):
        command = f"fatpatch recompress {name} --codec lz4 -o OUT"
        yield Remedy("recompress by LZ4", command, None, f"driver {driver.version} reads that, and not zstd; then ask doctor again")
    texts = {image.target for module in lacking for image in module.payload.images if image.kind == ImageKind.PTX}
    if texts and arch is not None and toolkits_for(f"sm_{arch}") is not None:
        command = f"fatpatch retarget {name} --to sm_{arch}"
        levels = ", ".join(sorted(texts, key=target_key))
        why = f"of that for {levels}, written for other GPUs: the report says of each kernel how sure it is"
        yield Remedy("make code of its own PTX", command, None, why)


def _retarget(doctor: Doctor, found: FileVerdict, shown: str) -> Iterator[Remedy]:
    """PTX that is too new for the driver: ptxas of its toolkit compiles it here, for machine code that the driver loads."""
    arch = found.environment.device.arch
    modules = [module for module in found.here if module.verdict.cuda_error == UNSUPPORTED_PTX and module.node.source is not None]
    if not modules or arch is None or toolkits_for(f"sm_{arch}") is None:
        return
    kernels, real = 0, 0
    for module in modules:
        assert module.verdict.image is not None
        bodies = doctor.reader.facts(module.node.content, module.verdict.image).bodies
        kernels += len(bodies)
        real += sum(not is_dead(body) for body in bodies.values())
    if not kernels:
        return
    isas = {module.verdict.image.code_version for module in modules if module.verdict.image is not None}
    newest = max((isa for isa in isas if isa), key=version_key, default="")
    why = (
        f"ptxas compiles the PTX for this GPU as the driver would: {real} of {kernels} kernels of {_modules(len(modules))}, sure "
        f"(class 1); it takes ptxas of CUDA {cuda_of_ptx(newest) or 'unknown'} or newer"
    )
    fine = real == kernels and len(modules) == len([each for each in found.here if each.verdict.verdict == FAILS])
    yield Remedy("compile its PTX now", f"fatpatch graft {shell_word(shown)} --retarget sm_{arch} -o OUT", fine or None, why)


def _modules(count: int) -> str:
    """``1 module``, ``2 modules``."""
    return f"{count} module{'' if count == 1 else 's'}"


def _expanded(found: FileVerdict, lacking: Sequence[Judged], command: str) -> Remedy:
    """Whether each module that finds nothing would, were its concatenated entries plain ones."""
    title, environment = "write concatenated entries as plain ones", found.environment
    if environment.device.arch is None:
        return Remedy(title, command, None, "every driver reads those; then ask doctor again")
    images = []
    for module in lacking:
        plain = [image._replace(within=None) for image in module.payload.images]
        chosen = choose(plain, environment.device.arch, force_ptx=environment.force_ptx, disable_ptx=environment.disable_ptx)
        if chosen.image is None:
            why = f"every driver reads those, but {file_name(module.payload.locator)} holds nothing for this GPU"
            return Remedy(title, None, False, why)
        images.append(chosen.image)
    targets = ", ".join(sorted({image.target for image in images}, key=target_key))
    sure = all(image.kind == ImageKind.SASS for image in images)
    return Remedy(title, command, sure or None, f"every driver reads those, and this GPU then loads {targets}; ask doctor again")


def _allow_jit(doctor: Doctor, found: FileVerdict) -> Iterator[Remedy]:
    environment = found.environment
    if environment.disable_ptx and any(module.verdict.cuda_error == JIT_DISABLED for module in found.modules):
        fine = works(doctor.judge(environment._replace(disable_ptx=False)))
        yield Remedy("without CUDA_DISABLE_PTX_JIT", None, fine or None, "unset it: the driver then compiles the PTX in the file")


def _force_jit(doctor: Doctor, found: FileVerdict) -> Iterator[Remedy]:
    environment = found.environment
    if environment.force_ptx:
        return
    title = "CUDA_FORCE_PTX_JIT=1"
    if not any(image.kind == ImageKind.PTX for module in found.modules for image in module.payload.images):
        yield Remedy(title, None, False, "there is no PTX in the file")
        return
    forced = doctor.judge(environment._replace(force_ptx=True))
    if works(forced):
        why = "set in the environment: the PTX in the file has what the SASS lacks; every start without a cache compiles it"
        yield Remedy(title, None, True, why)
    else:
        words = {STUB: "kernels are dead in the same way", FAILS: "it fails as well"}.get(forced.verdict or "", "it is no better")
        yield Remedy(title, None, False, f"with the PTX in the file {words}")


def _ggml(found: FileVerdict) -> Iterator[Remedy]:
    if not is_ggml(found):
        return
    roles = {role.role for module in found.modules for kernel in module.verdict.defects if (role := role_of(kernel.name)) is not None}
    if VECTOR in roles:
        why = "it only keeps the matrix kernels off the tensor cores: every token still takes mul_mat_vec_q, whose bodies are traps here"
        yield Remedy("rebuild with GGML_CUDA_FORCE_MMQ", None, False, why)
    elif MATRIX in roles:
        yield Remedy(
            "rebuild with GGML_CUDA_FORCE_MMQ", None, False, "it takes the mul_mat_q kernels more often, and they are the traps here"
        )
    if llamafile.is_llamafile(found.node):
        why = "does nothing here: only AMD's runtime on Linux reads it, and this is an NVIDIA GPU"
        yield Remedy("HSA_OVERRIDE_GFX_VERSION", None, False, why)
    bad = [quant.quant for quant in found.quants if quant.broken]
    good = [quant.quant for quant in found.quants if not quant.broken]
    if bad and good:
        why = f"{', '.join(good)} run; matrices in {', '.join(bad)} do not, and most files hold some of these: ask with --model"
        yield Remedy("a model of another quantisation", None, True, why)


def _releases(found: FileVerdict) -> Iterator[Remedy]:
    """Releases of llamafile that were built with code that serves this GPU, by their build scripts."""
    arch = found.environment.device.arch
    if arch is None or not llamafile.is_llamafile(found.node):
        return
    exact = lower_fails(found, found.modules, arch, arch // 10 * 10)
    spans = []
    for row in table("llamafile_builds"):
        if _built_for(row, arch, exact=exact and row["lower_minor"] != "yes"):
            last = row["last"]
            spans.append(row["first"] + ("" if row["first"] == last else f" to {last}" if last else " on"))
    if spans:
        why = f"by their build scripts, llamafile {', '.join(dict.fromkeys(spans))} have code for it; ask doctor about the file"
        yield Remedy("another release", None, None, why)


def _built_for(row: dict[str, str], arch: int, *, exact: bool) -> bool:
    """Whether a release has code for a device: its own target, or where that will do a lower minor version or lower PTX."""
    sass, ptx = row["sass"], row["ptx"]
    if sass in ("all", "all-major"):
        return arch >= _OLDEST and (arch <= _NEWEST_THEN if exact and sass == "all" else not exact)
    numbers = [int(word.rstrip("af")) for word in sass.split()]
    if exact or arch in numbers:
        return arch in numbers
    lower = any(number // 10 == arch // 10 and number < arch for number in numbers)
    return lower or any(int(word) <= arch for word in ptx.split() if word.isdigit())


def _copies(found: FileVerdict) -> Iterator[Remedy]:
    """The copy of its library that a llamafile has extracted once, and goes on using."""
    if llamafile.is_llamafile(found.node):
        library = next((module.node.path for module in found.modules), "ggml-cuda.dll")
        advice = llamafile.copy_of(file_name(library), llamafile.version_of(found.node)).advice
        yield Remedy("then delete the extracted copy", None, True, f"once, after any repair (on Windows ~ is %USERPROFILE%): {advice}")
