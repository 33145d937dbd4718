"""What the driver's compiler makes of PTX text: its head is checked as the driver does; instructions are not (reference: load rules, B).

PTX that passes can still be refused for an instruction: only an assembler tells.
"""

from __future__ import annotations

import functools
import re

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.ptx.bodies import body_words, called_functions, callers_of
from fatpatch.gpucode.ptx.read import FUNC, looks_like_ptx, ptx_kernels, without_comments
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.gpus.ptxas_options import refusal, target_of
from fatpatch.gpus.selection import DEVICES
from fatpatch.gpus.toolkits import releases
from fatpatch.verdicts.cubin_result import DRIVERS_OWN
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.load_result import INVALID_IMAGE, INVALID_PTX, NOT_FOUND, UNSUPPORTED_PTX, LoadResult

TO_BE_LINKED = "--compile-only"
"""The option in entries of relocatable PTX."""

_HEAD = 1 << 16
_BLANK = b" \t\n\r\v\f\0"
_VERSION = lazy_pattern(rb"^[ \t]*\.version\s+(\d{1,4})\.(\d{1,4})", re.MULTILINE)
_TARGET = lazy_pattern(rb"^[ \t]*\.target\s+([^\n/]+)", re.MULTILINE)
_ADDRESS_SIZE = lazy_pattern(rb"^[ \t]*\.address_size\s+(\d{1,4})", re.MULTILINE)
_DIRECTIVE = lazy_pattern(rb"^[ \t]*\.(?:version|target|address_size)\s[^\n]*", re.MULTILINE)
_NAME = lazy_pattern(r"(?:sm|compute)_(\d{1,4})([af]?)\Z")
_EXTERN, _BEFORE = b".extern", 256
_NAMED = lazy_pattern(rb"[ \t]*(?:\([^)\n]{0,4000}\)\s{0,80})?([\w$%]+)")
_VARIABLE = lazy_pattern(
    rb"(?<![\w$%.])((?:\.(?:extern|visible|weak|common)\s*)*)\.(?:global|const)\s*(?:\.[a-z]\w*(?:\s+\d+(?=\s))?\s*)+\s([A-Za-z_$%][\w$]*)"
)
_ADDRESS_SIZE_SINCE = (2, 3)
_ONLY_64_BIT_FROM = 90
_OLDEST_VERSION = (1, 0)
_OLD_TARGETS = frozenset({10, 11, 12, 13, 20, 21, 30, 32, 35, 37})
_FIRST_ACCELERATED, _FIRST_FAMILY = 90, 100


def is_ptx(data: bytes) -> bool:
    """Whether bytes start as PTX text does."""
    return looks_like_ptx(data[:_HEAD].split(b"\0", 1)[0])


def entries(data: bytes) -> set[str]:
    """The names of the kernels that a text defines."""
    return {row.name for row in ptx_kernels(data.split(b"\0", 1)[0])}


class PtxOutline(NamedTuple):
    """What the driver's compiler looks at in a text, whatever the device: read once for all.

    ``broken``: why it is refused everywhere; ``target`` the highest of ``.target`` or why that is refused; ``narrow``: 32-bit addresses;
    ``missing``: the first of the functions, by name, that it calls and another module must bring.
    """

    ended: bool
    broken: LoadResult | None
    version: tuple[int, int] | None = None
    target: LoadResult | tuple[int, str] = LoadResult()
    address: LoadResult | None = None
    narrow: bool = False
    syntax: LoadResult | None = None
    missing: bytes | None = None


def outline(ptx: PtxText) -> PtxOutline:
    """Read a text as the driver's compiler does, so far as fatpatch can. LimitError for one with entries without end."""
    text = ptx.text
    if not text[:_HEAD].strip(_BLANK) and not text.strip(_BLANK):
        return PtxOutline(ptx.ended, LoadResult(INVALID_PTX, None, "the text is empty"))
    if not is_ptx(text):
        return PtxOutline(ptx.ended, LoadResult(INVALID_PTX, None, "it is not PTX text"))
    head = text[: min(max(text.find(b"{"), 0) or _HEAD, _HEAD, ptx.size)]
    found, size = _VERSION.search(head), _ADDRESS_SIZE.search(head)
    version = None if found is None else (int(found[1]), int(found[2]))
    known = size is None or version is None or version >= _ADDRESS_SIZE_SINCE
    missing = _missing(ptx)
    return PtxOutline(
        ended=ptx.ended,
        broken=None,
        version=version,
        target=_target(head),
        address=None if known else LoadResult(INVALID_PTX, None, ".address_size is not known before PTX 2.3"),
        narrow=size is not None and size[1] == b"32",
        syntax=_syntax(head, ptx),
        missing=min(missing & called_functions(text), default=None) if missing else None,
    )


def compiled(text: PtxOutline, options: str, environment: Environment, *, following: bytes = b"") -> LoadResult:
    """The result of loading PTX on a device; ``following`` is what lies behind a text without a NUL, to which the driver reads on."""
    arch = environment.device.arch
    assert arch is not None
    if not text.ended and following not in (b"", b"\0"):
        return LoadResult(INVALID_PTX, None, "the text has no NUL at its end, and the driver reads on into what follows")
    return (
        text.broken
        or _version(text.version, environment)
        or _refused(options)
        or _too_high(text.target, arch, options)
        or text.address
        or _too_narrow(text, arch)
        or text.syntax
        or _externs(text.missing, options, eager=environment.eager)
        or LoadResult()
    )


def _refused(options: str) -> LoadResult | None:
    """What the options of the entry are refused for; the driver looks at the version first (measured)."""
    why = refusal(options)
    return None if why is None else LoadResult(INVALID_PTX, None, f"the compiler refuses the options of the entry: {why}")


def _version(version: tuple[int, int] | None, environment: Environment) -> LoadResult | None:
    newest = None if environment.driver is None else environment.driver.ptx
    return _of_version(version, newest, environment.driver_name)


@functools.lru_cache(maxsize=256)
def _of_version(version: tuple[int, int] | None, newest: str | None, driver_name: str) -> LoadResult | None:
    if version is None:
        return LoadResult(INVALID_PTX, None, "it has no .version")
    isa = f"{version[0]}.{version[1]}"
    known = {release.ptx for release in releases() if release.ptx}
    if newest is not None and version > _pair(newest):
        return LoadResult(UNSUPPORTED_PTX, None, f"PTX {isa} is newer than {newest}, the newest that driver {driver_name} compiles")
    lowest = min(map(_pair, known))
    if version < _OLDEST_VERSION or (isa not in known and lowest < version):
        return LoadResult(UNSUPPORTED_PTX, None, f"there is no PTX {isa}")
    return None


def _pair(isa: str) -> tuple[int, int]:
    major, minor = isa.split(".")
    return int(major), int(minor)


def _target(head: bytes) -> LoadResult | tuple[int, str]:
    """Number and suffix of the highest target, or what the directive is refused for on every device."""
    found = _TARGET.search(head)
    if found is None:
        return LoadResult(INVALID_PTX, None, "it has no .target")
    words = [word.strip() for word in found[1].decode("ascii", "backslashreplace").split(",")]
    if "debug" in words and b".section" not in head:
        return LoadResult(INVALID_PTX, None, "its .target says debug, but it has no debug information")
    named = [_NAME.match(word) for word in words if word.startswith(("sm_", "compute_"))]
    if not named or None in named:
        return LoadResult(INVALID_PTX, None, f"its .target names no architecture: {' '.join(words)[:80]}")
    number, suffix = max((int(match[1]), match[2]) for match in named if match is not None)
    target = f"{number}{suffix}"
    if number not in _OLD_TARGETS and number not in DEVICES and number <= max(DEVICES):
        return LoadResult(INVALID_PTX, None, f"there is no target sm_{target}")
    if (suffix == "a" and number < _FIRST_ACCELERATED) or (suffix == "f" and number < _FIRST_FAMILY):
        return LoadResult(INVALID_PTX, None, f"there is no target sm_{target}")
    return number, suffix


def _too_high(found: LoadResult | tuple[int, str], arch: int, options: str) -> LoadResult | None:
    if isinstance(found, LoadResult):
        return found
    number, suffix = found
    target = f"{number}{suffix}"
    forced = target_of(options)
    device = arch if forced is None else forced[0]
    if number > device:
        return LoadResult(INVALID_PTX, None, f"its .target sm_{target} is above what it is compiled for, sm_{device}")
    if suffix == "a" and number != device:
        return LoadResult(
            INVALID_PTX, None, f"its .target sm_{target} is for {number // 10}.{number % 10} alone, and it is compiled for sm_{device}"
        )
    if suffix == "f" and number // 10 != device // 10:
        return LoadResult(
            INVALID_PTX, None, f"its .target sm_{target} is for the family of {number // 10}.x, and it is compiled for sm_{device}"
        )
    return None


def _too_narrow(text: PtxOutline, arch: int) -> LoadResult | None:
    if text.narrow and arch >= _ONLY_64_BIT_FROM:
        return LoadResult(INVALID_PTX, None, "32-bit addresses are not supported from compute capability 9.0 on")
    return None


def _syntax(head: bytes, ptx: PtxText) -> LoadResult | None:
    """Only that what follows the three directives is a directive, too, and that the braces are even: a text that is cut has them odd."""
    rest = _DIRECTIVE.sub(b"", without_comments(head)).strip()
    if rest and not rest.startswith(b"."):
        return LoadResult(INVALID_PTX, None, f"a directive was expected, got {rest[:20].decode('ascii', 'backslashreplace')!r}")
    if not ptx.balanced():
        whole = without_comments(ptx.text)
        if whole.count(b"{") != whole.count(b"}"):
            return LoadResult(INVALID_PTX, None, "its braces do not match: the text is cut or damaged")
    return None


def _externs(missing: bytes | None, options: str, *, eager: bool) -> LoadResult | None:
    """Functions that another module must bring: code that is compiled to be linked may have them until it is loaded whole."""
    to_be_linked = TO_BE_LINKED in options
    if missing is None or (to_be_linked and not eager):
        return None
    reason = f"it calls {missing.decode('ascii', 'backslashreplace')!r}, which no module brings"
    return LoadResult(NOT_FOUND if to_be_linked else INVALID_PTX, None, reason)


def unlinked(text: bytes) -> dict[str, int]:
    """Kernel -> the CUresult of its first use, for those of PTX compiled to be linked that fail alone (measured).

    500 for what calls a function or names a variable that the text only declares, 200 for what names a variable of the text itself.
    """
    missing = _missing(PtxText(text))
    found = dict.fromkeys(callers_of(text, missing), NOT_FOUND) if missing else {}
    variables = _variables(text)
    if variables:
        kernels = frozenset(row.name for row in ptx_kernels(text))
        for kernel, words in body_words(text, kernels):
            codes = [variables[word] for word in words if word in variables]
            if codes:
                found.setdefault(kernel, NOT_FOUND if NOT_FOUND in codes else codes[0])
    return found


def _variables(text: bytes) -> dict[bytes, int]:
    """Variables in global and constant memory at module scope -> the error of a kernel that uses one unlinked."""
    found = {}
    for lead, name in _VARIABLE.findall(without_comments(text) if b"/" in text else text):
        found[name] = NOT_FOUND if b".extern" in lead else INVALID_IMAGE
    return found


def _missing(ptx: PtxText) -> frozenset[bytes]:
    """The functions that a text declares as those of another module."""
    text = ptx.text
    found = {named[1] for at in ptx.functions() if _is_extern(text, at) and (named := _NAMED.match(text, at + len(FUNC)))}
    return frozenset(name for name in found if name not in DRIVERS_OWN and not name.startswith(b"cuda"))


def _is_extern(text: bytes, at: int) -> bool:
    """Whether ``.extern`` stands before ``at``, and nothing else on its line."""
    before = text[max(at - _BEFORE, 0) : at]
    word = before.rstrip(b" \t")
    if len(word) == len(before) or not word.endswith(_EXTERN):
        return False
    line = word[: -len(_EXTERN)].rstrip(b" \t")
    return line.endswith(b"\n") or (not line and at <= _BEFORE)
