"""What host code relies on in an image: its kernels with their parameters, its variables, and how it is linked.

The images of one module agree in this between architectures and toolkits (measured: reference, graft, section D).
"""

from __future__ import annotations

from fatpatch.base.errors import LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import name_budget
from fatpatch.formats import numbers as n
from fatpatch.gpucode.code_object.read import CodeObject, read_code_object
from fatpatch.gpucode.cubin.kernels import cubin_kernels
from fatpatch.gpucode.cubin.tables import SHT_CUDA_COMPAT, Tables
from fatpatch.gpucode.ptx.read import elements, parameter_start, ptx_kernels, ptx_target, ptx_version, without_comments
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.model.kinds import ImageKind

_OBJECT = 1
_ALIGNMENTS = (1, 2, 4, 8, 16, 32, 64, 128)
_VARIABLE_SECTIONS = (b".nv.global", b".nv.constant3")
_GENERATED = lazy_pattern(r"\$|__unnamed|\.|__cuda_|_nv_|__nv_")
_PTX_VARIABLE = lazy_pattern(
    rb"(?<![\w$%.])\.(?:global|const)((?:\s*\.(?:attribute\s*\([^)]{0,80}\)|align\s+\w{1,18}|v[24]|[a-z]+\d{1,3}(?:x2)?))+)"
    rb"\s+([A-Za-z_$%][\w$]*)((?:\s*\[\s*\w{0,18}\s*\])*)"
)
_VARIABLE_TYPE = lazy_pattern(rb"\.(?!v[24]\b)[a-z]+(\d{1,3})(x2)?(?!\w)")
_VECTOR = lazy_pattern(rb"\.v([24])\b")
_ADDRESS_SIZE = lazy_pattern(rb"\.address_size\s+(\d{1,4})")
_HASH = lazy_pattern(r"(_INTERNAL_|_GLOBAL__N__|__nv_static_\d{1,4}__)([0-9a-f]{8})")


class ImageSignature(NamedTuple):
    """``kernels``: (offset, size) of each parameter by kernel name, None where not read; ``variables``: bytes by name.

    ``relocatable``: made by -rdc=true, to be linked at load time; None for PTX, whose text does not tell. ``compat``: the cubin's
    .nv.compat section.
    """

    kernels: dict[str, tuple[tuple[int, int], ...] | None]
    variables: dict[str, int]
    relocatable: bool | None
    target: str | None
    version: tuple[int, int] | None
    address_bits: int = 64
    compat: bytes = b""


def signature_of(kind: str, data: bytes, *, options: str | None = None, detail: bool = True) -> ImageSignature:
    """The signature of a cubin (kind ``sass``), of PTX text or of an AMD code object (``hsaco``); without ``detail`` names only.

    FormatError when it is damaged. Arguments that AMD's runtime fills in do not count: it takes them from the object itself.
    """
    if kind == ImageKind.HSACO:
        found = read_code_object(data, detail=detail)
        kernels = {row.name: row.parameters if detail else None for row in found.kernels}
        version = (found.identity.version or 0, 0)
        return ImageSignature(kernels, _hip_variables(found) if detail else {}, False, found.identity.target, version)
    if kind == ImageKind.SASS:
        tables = Tables(data)
        if detail:
            tables.refuse_cut()
        kernels = _by_name(cubin_kernels(tables, detail=detail))
        variables = _cubin_variables(tables) if detail else {}
        compat = tables.content(tables.find(SHT_CUDA_COMPAT, b".nv.compat"))
        version = (1, data[8])
        return ImageSignature(kernels, variables, tables.identity.relocatable, tables.target(), version, compat=compat)
    text = data.rstrip(b"\0")
    isa = ptx_version(text)
    bits = _ADDRESS_SIZE.search(text, 0, 1 << 20)
    return ImageSignature(
        _by_name(ptx_kernels(text)),
        _ptx_variables(text) if detail else {},
        kind == ImageKind.RELOCATABLE_PTX or (None if options is None else "--compile-only" in options),
        ptx_target(text),
        None if isa is None else (int(isa.split(".")[0]), int(isa.split(".")[1])),
        int(bits[1]) if bits else 64,
    )


def _hip_variables(found: CodeObject) -> dict[str, int]:
    """Those of the program; not the ids by which a compiler tells translation units apart."""
    return {name: size for name, size in found.variables.items() if not name.startswith("__hip_cuid_")}


def _by_name(rows: list[KernelFacts]) -> dict[str, tuple[tuple[int, int], ...] | None]:
    return {row.name: row.parameters for row in rows}


def _cubin_variables(tables: Tables) -> dict[str, int]:
    """Bytes by name of what lies in .nv.global*, .nv.constant3: local symbols too, for static variables are local."""
    sections = {id(row) for name, row in tables.by_name().items() if name.startswith(_VARIABLE_SECTIONS) and b"." not in name[12:]}
    symbols, strings = tables.symbols()
    budget = name_budget(len(strings))
    variables: dict[str, int] = {}
    for name_at, info, _, section, _, size in symbols:
        if info & 0xF != _OBJECT or section >= len(tables.rows) or id(tables.rows[section]) not in sections:
            continue
        name = strings[name_at : strings.find(b"\0", name_at)].decode("utf-8", "backslashreplace")
        budget -= len(name)
        if budget < 0:
            raise LimitError("the symbol names overlap without end", field="st_name")
        if name and not _GENERATED.match(name):
            variables[name] = size
    return variables


def _ptx_variables(text: bytes) -> dict[str, int]:
    variables: dict[str, int] = {}
    for attributes, raw, dimensions in _PTX_VARIABLE.findall(without_comments(text) if b"//" in text or b"/*" in text else text):
        name, typed, vector = raw.decode("ascii", "backslashreplace"), _VARIABLE_TYPE.search(attributes), _VECTOR.search(attributes)
        if typed is not None and not _GENERATED.match(name):
            width = max(int(typed[1]) // 8, 1) * (2 if typed[2] else 1) * (int(vector[1]) if vector else 1)
            variables[name] = width * elements(dimensions)
    return variables


def same_parameters(some: tuple[tuple[int, int], ...], others: tuple[tuple[int, int], ...]) -> bool:
    """Whether two lists of (offset, size) can be those of one declaration, for different architectures.

    ptxas aligns a parameter's address in the constant bank, so that one of 32 bytes' alignment or more has another offset on sm_90.
    """
    if some == others:
        return True
    if [size for _, size in some] != [size for _, size in others]:
        return False
    starts = {parameter_start(f"compute_{arch}") for arch in (50, 70, 90, 100)}
    return any(_one_declaration(some, others, first, second) for first in starts for second in starts)


def _one_declaration(some: tuple[tuple[int, int], ...], others: tuple[tuple[int, int], ...], first: int, second: int) -> bool:
    end = other_end = 0
    for (offset, size), (other, _) in zip(some, others, strict=True):
        if not any(
            -(-(first + end) // a) * a - first == offset and -(-(second + other_end) // a) * a - second == other for a in _ALIGNMENTS
        ):
            return False
        end, other_end = offset + size, other + size
    return True


def without_hashes(name: str) -> str:
    """A mangled name with the module ids that nvcc derives from the source's folder blanked out."""
    return _HASH.sub(r"\1________", name)


def hashes_of(name: str) -> list[str]:
    """The module ids in a mangled name, each with its marker: ``_INTERNAL_07a10a41``."""
    return [found[0] for found in _HASH.finditer(name)]


SUFFIX_FLAGS = {"a": n.FLAG_ARCH_SPECIFIC, "f": n.FLAG_FAMILY_SPECIFIC, "": 0}
