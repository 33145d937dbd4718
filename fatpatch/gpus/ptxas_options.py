"""The options that the driver's PTX compiler takes from a fatbin entry (source: ptxas --help of 11.8 to 13.5; measured: load rules, A)."""

from __future__ import annotations

import re
from typing import Final

from fatpatch.base.patterns import lazy_pattern

_LONG: Final = frozenset(
    {
        "Ofast-compile", "allow-expensive-optimizations", "compile-as-tools-patch", "compile-only", "compiler-annotations",
        "def-load-cache", "def-store-cache", "device-function-maxrregcount", "device-stack-protector",
        "disable-optimizer-constants", "disable-warnings", "dont-merge-basicblocks", "entry", "extensible-whole-program", "fmad",
        "force-load-cache", "force-store-cache", "g-tensor-memory-access-check", "generate-line-info", "gpu-name",
        "input-as-string", "legacy-bar-warp-wide-behavior", "machine", "make-errors-visible-at-exit", "maxntid", "maxrregcount",
        "minnctapersm", "opt-level", "optimize-float-atomics", "override-directive-values", "position-independent-code",
        "preserve-relocs", "register-usage-level", "return-at-end", "sp-bounds-check", "split-compile",
        "suppress-async-bulk-multicast-advisory-warning", "suppress-debug-info", "suppress-double-demote-warning",
        "suppress-stack-size-warning", "verbose", "warn-on-double-precision-use", "warn-on-local-memory-usage", "warn-on-spills",
        "warning-as-error", "cloning", "device-debug", "tool-name",
    }
)  # fmt: skip
_HIDDEN: Final = frozenset(
    {
        "uumn", "ext-desc-file", "ext-desc-string", "regAllocOptLevel", "query-schema", "compile-functions", "warn-lmem-usage",
        "warn-double-usage", "compilerStats", "compiler-stats", "compilerStatsFile", "compiler-stats-file", "timeTraceFile",
        "fdevice-time-trace", "use-trace-pid", "ftracePhaseAfter", "ftrace-phase-after", "no-bb-merge", "ret-end", "cimm",
        "disable-optimizer-consts", "no-fastreg", "disable-smem-reservation", "func-maxrregcount", "regUsageLevel",
        "device-stack-protector-size", "link-info", "Ofc", "fastimul", "fext", "force-externals", "profile-options", "abi-compile",
        "Op", "opt-pointers", "slr", "opt-fp-atomics", "dont-reserve-null-pointer", "set-texmode-raw", "disable-fast-video-emulation",
        "limit-fold-fp", "sanitize", "force-rela", "verbose-tkinfo", "g-tmem-access-check", "annotate", "sw4936628",
        "enable-extended-smem", "cudasw32f3056bbb", "cuda32f3056bbb", "optf", "options-file", "trap-into-debugger", "compiler-warnings",
    }
)  # fmt: skip
"""Options that --help does not list: names in the option table of ptxas 12.9, by its strings. An H200 took uumn and ext-desc-file."""
_SHORT: Final = frozenset(
    {
        "O", "v", "g", "c", "e", "m", "dlcm", "dscm", "flcm", "fscm", "fmad", "arch", "lineinfo", "maxrregcount", "ewp",
        "astoolspatch", "warn-spills", "Werror", "w", "abi", "cloning", "pic",
    }
)  # fmt: skip
_TOOLS_PATCH: Final = frozenset({"astoolspatch", "compile-as-tools-patch"})
_WORD = lazy_pattern(r"--?([A-Za-z][\w-]*)(?:[= ]([^\s-]\S*))?")


def refusal(options: str) -> str | None:
    """Why the compiler refuses an option text before it looks at the PTX; None when it does not.

    A value of its own for the target is refused unless it is left to the driver, and so is code for tools, as it has entries.
    """
    for name, _ in _WORD.findall(options):
        plain = "O" if re.fullmatch(r"O\d?", name) else name
        if plain in _TOOLS_PATCH:
            return "entries are not allowed in code for tools (--compile-as-tools-patch)"
        if plain not in _LONG and plain not in _SHORT and plain not in _HIDDEN:
            return f"unknown option '{name}'"
    return None


def target_of(options: str) -> tuple[int, str] | None:
    """(80, "") of ``-arch=sm_80``: the target that the options force."""
    found = re.search(r"(?:-arch|--gpu-name)[= ](?:sm|compute)_(\d{1,4})([af]?)", options)
    return (int(found[1]), found[2]) if found else None
