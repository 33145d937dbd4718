"""Compiling for the GPU: the flags, the last toolkit that can, and what nvcc's -arch options really compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.gpus.selection import promised
from fatpatch.gpus.toolkits import compiles, expansion, is_newest, newest_toolkit_for, releases
from fatpatch.hostcode import llamafile
from fatpatch.hostcode.family import PER_TYPE
from fatpatch.model.target import PTX, Target
from fatpatch.verdicts.dispatch import DIFFERS
from fatpatch.verdicts.module import STUB
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.requirements import too_old
from fatpatch.verdicts.results import FileVerdict, Judged


def is_ggml(found: FileVerdict) -> bool:
    """Whether the host code is of the ggml family."""
    return any(module.host.family is not None for module in found.modules)


def toolkit_for(found: FileVerdict) -> str | None:
    """The newest CUDA release that compiles for the device and whose programs the driver that was named runs; None for none."""
    device, named = found.environment.device, found.environment.driver
    if named is None or found.trouble is not None:
        return newest_toolkit_for(device.target)
    able = [each.cuda for each in releases() if compiles(each, device.target) and not too_old(named, each.cuda)]
    return able[-1] if able else None


def limit_of(found: FileVerdict, newest: str) -> str:
    """``; CUDA 12.9 is the last toolkit that can``; where a driver was named, the last whose programs it runs."""
    if newest == newest_toolkit_for(found.environment.device.target):
        return "" if is_newest(newest) else f"; CUDA {newest} is the last toolkit that can"
    driver = found.environment.driver
    return f"; CUDA {newest} is the last toolkit whose programs driver {driver.version if driver else ''} runs"


def rebuilds(found: FileVerdict, affected: Sequence[Judged]) -> Iterator[Remedy]:
    """Compile for the GPU itself; let a llamafile do so."""
    device = found.environment.device
    arch = device.arch
    newest = toolkit_for(found)
    if newest is None or arch is None:
        able = newest_toolkit_for(device.target) is not None
        words = f"that compiles {device.target} makes programs for this driver" if able else f"known here compiles {device.target}"
        yield Remedy("rebuild", None, None, f"no CUDA toolkit {words}")
        return
    flag = f"-gencode arch=compute_{arch},code=sm_{arch}"
    last = limit_of(found, newest)
    command = f"cmake -B build -DCMAKE_CUDA_ARCHITECTURES={arch}-real ..." if is_ggml(found) else f"nvcc ... {flag}"
    extra = f", which is nvcc {flag}" if is_ggml(found) else ""
    yield Remedy("rebuild from source", command, True, f"compiles code for {device.target} itself{extra}{last}")
    if llamafile.is_llamafile(found.node) and any(module.host.family and module.host.family.era == PER_TYPE for module in affected):
        up_to = "" if is_newest(newest) else f" up to {newest}"
        why = f"llamafile 0.4 to 0.9.3 compile their own source with -arch=native, if a CUDA toolkit{up_to} is installed"
        yield Remedy("let it recompile", "LLAMAFILE --recompile", True, why)


def archs(found: FileVerdict, affected: Sequence[Judged]) -> Iterator[Remedy]:
    """-arch=native, all and all-major: what they really compile."""
    device = found.environment.device
    newest = toolkit_for(found)
    if newest is None or device.arch is None:
        return
    limit = "" if is_newest(newest) else f", with CUDA {newest} or older"
    yield Remedy("rebuild with -arch=native", None, True, f"on the machine with this GPU it compiles {device.target}{limit}")
    for option in ("all", "all-major"):
        compiled = expansion(option, newest)
        if compiled is None:
            continue
        works, why = _covered(compiled, device.arch, found, affected)
        listed = f"compiles {', '.join(compiled)}" if option == "all-major" else "compiles every target that it knows"
        yield Remedy(f"rebuild with -arch={option}", None, works, f"CUDA {newest} then {listed}: {why}")


def lower_fails(found: FileVerdict, affected: Sequence[Judged], arch: int, lower: int) -> bool:
    """Whether code for a lower minor version will not do: it fails now, or the host decides as for more than that."""
    if any(module.verdict.verdict == STUB or module in found.mismatch for module in affected):
        return True
    return any(module.host.agrees(arch, lower) == DIFFERS for module in affected)


def _covered(compiled: Sequence[str], arch: int, found: FileVerdict, affected: Sequence[Judged]) -> tuple[bool | None, str]:
    numbers = [number for target in compiled if (number := Target(target).sm) is not None]
    best = max((number for number in numbers if number // 10 == arch // 10 and number <= arch), default=None)
    if best == arch:
        return True, f"sm_{arch} is among them"
    if best is not None:
        if lower_fails(found, affected, arch, best):
            return False, f"this GPU gets sm_{best}, whose kernels are not those that the host launches on it"
        if not promised(best, arch):
            return None, f"this GPU gets sm_{best}, which NVIDIA does not guarantee to run on it"
        return True, f"this GPU gets sm_{best}"
    ptx = [Target(target).arch or 0 for target in compiled if Target(target).form == PTX]
    if any(number <= arch for number in ptx):
        return True, "this GPU compiles the PTX at the first start"
    return False, "nothing of that is for this GPU"
