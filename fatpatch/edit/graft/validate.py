"""What a graft would break at run time, found before a byte is written.

Each problem says what the driver or the host program would do; for CUDA the words are what an H100 did (reference: graft, section D),
for AMD what follows from the runtime's sources.
"""

from __future__ import annotations

from fatpatch.base.locator import escape
from fatpatch.base.records import NamedTuple
from fatpatch.edit.payload.hashes import renames_between
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.gpucode.signature import ImageSignature, same_parameters
from fatpatch.model.kinds import Vendor

_SHOWN = 3
_RECOMPILE = "compile the very source of the binary, for the same system"


class _Effects(NamedTuple):
    """What a wrong image does."""

    missing: str
    longer: str
    shorter: str
    variable: str
    variable_size: str


_EFFECTS: dict[str, _Effects] = {
    Vendor.NVIDIA: _Effects(
        "launching one gives error 500, never a fallback to another image",
        "the launch crashes the host process",
        "the kernel runs on wrong arguments, silently",
        "copying to or from one on the host gives error 500",
        "the host's copy fails (error 1) or the numbers are wrong, silently",
    ),
    Vendor.AMD: _Effects(
        "launching one fails: the runtime finds no function of that name, and takes no other object",
        "the runtime reads arguments that the program did not give, and may crash it",
        "the kernel runs on wrong arguments, silently",
        "copying to or from one on the host fails: the runtime finds no such symbol",
        "the host's copy fails or the numbers are wrong, silently",
    ),
}


class Problem(NamedTuple):
    """``message`` is what is wrong, ``effect`` what it would do; only a ``survivable`` one can be forced."""

    code: str
    message: str
    effect: str
    survivable: bool
    hint: str = ""


def problems_of(new_image: ImageToAdd, module: ImageSignature, relocatable: bool) -> list[Problem]:
    """Everything wrong with giving ``new_image`` to a module whose own image promises ``module``."""
    given = new_image.signature
    problems = []
    if given.relocatable not in (None, relocatable):
        problems.append(_link_problem(relocatable=not relocatable))
    renames = renames_between(given.kernels, module.kernels)
    if renames:
        words = ", ".join(f"{old} for {new}" for old, new in renames.items())
        problems.append(Problem(
            "hash", f"its kernels carry another build folder's id ({words})",
            "the host asks for its own name and gets error 500 at the launch",
            survivable=False, hint="--rename-hash rewrites the id in the image (same length)",
        ))  # fmt: skip
        return problems
    problems += _kernel_problems(given, module, _EFFECTS[new_image.vendor])
    problems += _variable_problems(given, module, _EFFECTS[new_image.vendor])
    return problems


def _link_problem(*, relocatable: bool) -> Problem:
    if relocatable:
        message, effect = "is relocatable (-rdc=true), the module is linked", "its kernels fail with error 200 or 500"
        return Problem("link", message, effect, survivable=False, hint="link it first: nvcc -dlink -cubin")
    message, effect = "is linked, the module is relocatable", "the runtime's link step at load time fails"
    return Problem("link", message, effect, survivable=False, hint="compile with: nvcc -rdc=true -cubin")


def _kernel_problems(given: ImageSignature, module: ImageSignature, effects: _Effects) -> list[Problem]:
    problems = []
    missing = sorted(set(module.kernels) - set(given.kernels))
    if missing:
        problems.append(Problem(
            "kernels", f"lacks {len(missing)} of {len(module.kernels)} kernels: {_some(missing)}",
            effects.missing, survivable=len(missing) < len(module.kernels),
        ))  # fmt: skip
    for name, theirs in module.kernels.items():
        ours = given.kernels.get(name)
        if theirs is None or ours is None or same_parameters(ours, theirs):
            continue
        bytes_given, bytes_wanted = _end(ours), _end(theirs)
        effect = effects.longer if bytes_given > bytes_wanted else effects.shorter
        message = f"{escape(name)} takes {len(ours)} parameters in {bytes_given} bytes, the module's {len(theirs)} in {bytes_wanted}"
        if len(ours) == len(theirs) and bytes_given == bytes_wanted:
            message = f"{escape(name)} has its {len(ours)} parameters at other offsets than the module's"
        problems.append(
            Problem("parameters", message, effect, survivable=False, hint="compile the very source of the binary, for the same system")
        )
    return problems


def _variable_problems(given: ImageSignature, module: ImageSignature, effects: _Effects) -> list[Problem]:
    problems = []
    missing = sorted(set(module.variables) - set(given.variables))
    if missing:
        problems.append(Problem(
            "variables", f"lacks {len(missing)} of {len(module.variables)} variables: {_some(missing)}",
            effects.variable, survivable=True,
        ))  # fmt: skip
    for name, size in module.variables.items():
        if given.variables.get(name, size) != size:
            problems.append(Problem(
                "variable size", f"{escape(name)} has {given.variables[name]} bytes, the module's {size}",
                effects.variable_size, survivable=False,
                hint=_RECOMPILE,
            ))  # fmt: skip
    return problems


def _end(parameters: tuple[tuple[int, int], ...]) -> int:
    return max((offset + size for offset, size in parameters), default=0)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(escape(name) for name in names[:_SHOWN]) + more
