"""Read, judge and repair the GPU code inside shipped binaries.

Every name in ``__all__`` is promised to stay::

    import fatpatch

    with fatpatch.open("libcublas.so.12") as file:
        print(file.targets)
        for kernel in file.kernels(target="sm_90"):
            print(kernel.demangled, kernel.registers)

    if not (verdict := fatpatch.doctor("app.whl", "GTX 1060")):
        print(verdict.reason)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fatpatch.api.editing import Plan, Soundness, expand, graft, prune, recompress, undo, verify
    from fatpatch.api.file import File, Image, Kernel, Module
    from fatpatch.api.file import open_file as open
    from fatpatch.api.judging import Check, Difference, check, diff, doctor
    from fatpatch.api.verdict import Verdict
    from fatpatch.base.errors import EditError, FatpatchError, FormatError, InputError, LimitError, UnsupportedError, VerifyError
    from fatpatch.base.limits import Limits

__version__ = "0.1.0"

__all__ = [
    "Check",
    "Difference",
    "EditError",
    "FatpatchError",
    "File",
    "FormatError",
    "Image",
    "InputError",
    "Kernel",
    "LimitError",
    "Limits",
    "Module",
    "Plan",
    "Soundness",
    "UnsupportedError",
    "Verdict",
    "VerifyError",
    "check",
    "diff",
    "doctor",
    "expand",
    "graft",
    "open",
    "prune",
    "recompress",
    "undo",
    "verify",
]

_PLACES = {
    "fatpatch.api.editing": ("Plan", "Soundness", "expand", "graft", "prune", "recompress", "undo", "verify"),
    "fatpatch.api.file": ("File", "Image", "Kernel", "Module"),
    "fatpatch.api.judging": ("Check", "Difference", "check", "diff", "doctor"),
    "fatpatch.api.verdict": ("Verdict",),
    "fatpatch.base.errors": ("EditError", "FatpatchError", "FormatError", "InputError", "LimitError", "UnsupportedError", "VerifyError"),
    "fatpatch.base.limits": ("Limits",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that ``import fatpatch`` costs nothing."""
    from importlib import import_module

    if name == "open":
        return import_module("fatpatch.api.file").open_file
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(place), name)
    raise AttributeError(f"module 'fatpatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
