"""FP1xx: what targets a file must hold, and must not. FP2xx: its PTX."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.locator import target_matches
from fatpatch.gpus.drivers import driver, first_driver_for_ptx, first_zstd_driver, ptx_of_driver
from fatpatch.model.kinds import Codec, ImageKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry
from fatpatch.policy.kernel_files import FolderOfHolder, folder_of_holder
from fatpatch.policy.rule import Rule
from fatpatch.policy.subject import Hit, RuleSubject

_SHOWN = 4


def _missing(subject: RuleSubject) -> Iterator[Hit]:
    if (found := folder_of_holder(subject)) is not None:
        yield from _missing_in_folder(subject, found)
        return
    for target in subject.demands.require:
        if subject.concerns(Target(target).vendor) and not subject.holding(target):
            there = ", ".join(subject.targets) or "nothing"
            yield Hit(subject.locator, f"no image for {target}; it holds {there}", f"compile with {_flag(target)}", target)


def _missing_in_folder(subject: RuleSubject, found: FolderOfHolder) -> Iterator[Hit]:
    """Of a folder of kernel libraries, in which each file is for one GPU, what none is for or what is incomplete."""
    there = [each.target for each in found.folder.targets]
    for target in subject.demands.require if found.first else ():
        if Target(target).vendor != Vendor.AMD:
            continue
        fitting = [each for each in found.folder.targets if target_matches(each.target, target) or each.target == target.split(":")[0]]
        where = f"{found.folder.library} in {found.folder.folder or 'this folder'}"
        if not fitting:
            message = f"no files for {target} of {where}; it has {', '.join(there)}"
            yield Hit(subject.locator, message, f"build {found.folder.library} for {target} too", target)
        for each in fitting:
            if each.missing:
                names = ", ".join(each.missing[:_SHOWN])
                yield Hit(subject.locator, f"{where} lacks files for {each.target} that others have: {names}", "", f"{target} incomplete")


def _flag(target: str) -> str:
    """The option of a compiler that makes an image for a target."""
    if target.startswith("gfx"):
        return f"--offload-arch={target}"
    number = target.split("_")[-1]
    return f"-gencode arch=compute_{number},code={target}"


def _uneven(subject: RuleSubject) -> Iterator[Hit]:
    if not subject.demands.every_module:
        return
    for target in subject.demands.require:
        if not subject.holding(target):
            continue
        modules = [payload for payload in subject.payloads if payload.vendor == Target(target).vendor and payload.images]
        lacking = [payload for payload in modules if not any(target_matches(image.target, target) for image in payload.images)]
        if lacking:
            names = ", ".join(payload.locator.rsplit("!", 1)[-1] for payload in lacking[:_SHOWN])
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            message = f"{len(lacking)} of {len(modules)} modules have no image for {target}: {names}{more}"
            yield Hit(lacking[0].locator, message, f"compile those sources with {_flag(target)} too, or set every-module = false", target)


def _forbidden(subject: RuleSubject) -> Iterator[Hit]:
    for pattern in subject.demands.forbid:
        found = subject.holding(pattern)
        by_target: dict[str, list[ImageEntry]] = {}
        for image in found:
            by_target.setdefault(image.target, []).append(image)
        for target, images in by_target.items():
            yield Hit(images[0].locator, f"{len(images)} images for {target}, which is forbidden", f"leave out {_flag(target)}", target)


def _ptx(subject: RuleSubject) -> list[ImageEntry]:
    return [image for image in subject.images if image.kind == ImageKind.PTX]


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _floor(subject: RuleSubject) -> Iterator[Hit]:
    floor = subject.demands.ptx_floor
    if floor is None or not any(payload.vendor == Vendor.NVIDIA for payload in subject.payloads):
        return
    usable = [
        image
        for image in _ptx(subject)
        if (Target(image.target).arch or 0) <= (Target(floor).arch or 0) and not Target(image.target).suffix
    ]
    if not usable:
        there = ", ".join(dict.fromkeys(image.target for image in _ptx(subject))) or "none"
        message = f"no PTX for {floor} or lower (there is {there}): nothing can be compiled for GPUs that are not listed"
        yield Hit(subject.locator, message, f"compile with {_flag(floor)}", floor)


def _isa(subject: RuleSubject) -> Iterator[Hit]:
    limit = subject.demands.ptx_max_isa
    for image in _ptx(subject):
        if limit is not None and image.code_version is not None and _number(image.code_version) > _number(limit):
            message = f"PTX of ISA {image.code_version}, at most {limit} is allowed"
            yield Hit(image.locator, message, "compile with an older toolkit", image.target)


def _old_drivers(subject: RuleSubject) -> Iterator[Hit]:
    oldest = subject.demands.oldest_driver
    if oldest is None:
        return
    limit = ptx_of_driver(oldest)
    for image in _ptx(subject):
        if limit is not None and image.code_version is not None and _number(image.code_version) > _number(limit):
            needed = first_driver_for_ptx(image.code_version)
            least = f", it takes {needed[0]}" if needed else ""
            message = f"driver {oldest} compiles PTX up to ISA {limit}, this is {image.code_version}{least}: error 222 where it is needed"
            yield Hit(image.locator, message, "compile the PTX with an older toolkit", image.target)
    packed = next(
        (image for image in subject.images if image.compression == Codec.ZSTD and image.kind in (ImageKind.SASS, ImageKind.PTX)), None
    )
    if packed is not None and driver(oldest).zstd is False:
        message = f"compressed with zstd, which driver {oldest} does not read (it takes {first_zstd_driver()[0]}): error 200"
        yield Hit(packed.locator, message, "compile with -compress-mode=default or none of a toolkit before 12.8", "zstd")


RULES = (
    Rule(
        "FP101", "target-missing", "error", "a required target is nowhere in the file",
        "The policy requires the target, and no image of the file is for it. A GPU of that kind gets other code or none. "
        "Compile for it, or take the target out of `require`.",
        _missing,
    ),
    Rule(
        "FP102", "target-missing-in-module", "error", "some modules lack a required target that others have",
        "A library has one fatbin or bundle for each source file. One that was compiled without a target fails alone, when its first "
        "kernel is launched (error 209), while the rest of the library works. Libraries that hold modules for single generations on "
        "purpose set `every-module = false`.",
        _uneven,
    ),
    Rule(
        "FP103", "target-forbidden", "error", "a forbidden target is there",
        "The policy forbids the target: a generation that is no longer tested, or the build machine's own that leaked in.",
        _forbidden,
    ),
    Rule(
        "FP104", "file-missing", "error", "a file that the policy names is not there",
        "A `[[files]]` pattern without a star is a requirement that this file exists and has GPU code. It was renamed, or left out of the "
        "release. Where only a part of a release is checked, as before a commit, use `--ignore FP104`.",
    ),
    Rule(
        "FP201", "ptx-floor", "error", "no PTX that GPUs not listed could compile",
        "PTX is what a driver compiles for a GPU that has no SASS in the file, newer ones above all. The floor is the lowest "
        "generation that must be able to do so. PTX with a suffix (a, f) serves its own generation only and does not count.",
        _floor,
    ),
    Rule(
        "FP202", "ptx-too-new", "error", "PTX of a newer ISA than is allowed",
        "A driver compiles PTX up to the ISA of its own CUDA; newer PTX is error 222, without falling back to anything else.",
        _isa,
    ),
    Rule(
        "FP203", "driver-too-old-for-it", "error", "the oldest driver to support cannot read it",
        "The oldest driver of the policy does not know this PTX ISA, or does not unpack zstd (drivers before branch 550): the module "
        "fails on it as if the code were broken.",
        _old_drivers,
    ),
)  # fmt: skip
