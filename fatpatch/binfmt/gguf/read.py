"""GGUF models: header only, read in place by offset (reference: ggml, gguf.md, version 1 to 3).

Tensor data is never touched; tokenizer arrays are hopped over in a buffer.
"""

from __future__ import annotations

import struct

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, ModelFacts

KIND = ContainerKind.GGUF
_BUFFER = 1 << 18
_MAX_HEADER = 256 << 20
_MAX_TENSORS = 1_000_000
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_WANTED = {"general.architecture", "general.file_type", "general.name"}
TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S",
    22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS",
    31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


def probe(source: Source) -> bool:
    """Whether the source starts with ``GGUF``."""
    return source.peek(0, 4) == n.GGUF_MAGIC


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """Architecture, file type and the histogram of tensor types; what is readable of a damaged header."""
    reader = _GgufReader(source)
    try:
        facts = _facts(reader)
    except FormatError as error:
        diagnostics.error(locator, error.offset if error.offset is not None else reader.at, error.message, field=error.field)
        facts = None
    return Container(kind=KIND, detail="" if facts is None else f"version {facts.version}", facts=facts)


def _facts(reader: _GgufReader) -> ModelFacts:
    reader.take(4)
    version = reader.number(4)
    if version not in (2, 3):
        raise FormatError(f"expected version 2 or 3, got {version}", offset=4, field="version")
    tensors, pairs = reader.number(8), reader.number(8)
    if tensors > _MAX_TENSORS or pairs > _MAX_TENSORS:
        raise LimitError(f"{tensors} tensors and {pairs} keys announced, limit {_MAX_TENSORS}", offset=8, field="tensor count")
    values: dict[str, str | int] = {}
    for _ in range(pairs):
        key = reader.text()
        value = reader.value(reader.number(4))
        if key in _WANTED and value is not None:
            values[key] = value
    histogram: dict[str, int] = {}
    for _ in range(tensors):
        reader.text()
        dimensions = reader.number(4)
        if dimensions > 8:
            raise FormatError(f"expected at most 8 dimensions, got {dimensions}", offset=reader.at - 4, field="n_dims")
        reader.take(8 * dimensions)
        code = reader.number(4)
        name = TENSOR_TYPES.get(code, f"type {code}")
        histogram[name] = histogram.get(name, 0) + 1
        reader.take(8)
    file_type = values.get("general.file_type")
    return ModelFacts(
        version=version,
        architecture=_string(values.get("general.architecture")),
        file_type=FILE_TYPES.get(file_type, f"type {file_type}") if isinstance(file_type, int) else None,
        name=_string(values.get("general.name")),
        tensors=tensors,
        tensor_types=tuple(sorted(histogram.items(), key=lambda item: (-item[1], item[0]))),
    )


def _string(value: str | int | None) -> str | None:
    return value if isinstance(value, str) else None


class _GgufReader:
    """A forward cursor over a source with one read-ahead buffer."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0
        self._start = 0
        self._data = b""

    def take(self, size: int) -> bytes:
        begin = self.at - self._start
        if begin < 0 or begin + size > len(self._data):
            if self.at + size > min(self.source.size, _MAX_HEADER):
                raise FormatError(f"the header needs {size:#x} bytes more than there are", offset=self.at, field="header")
            self._start, begin = self.at, 0
            self._data = self.source.peek(self.at, max(size, _BUFFER))
            if len(self._data) < size:
                raise FormatError(f"the header needs {size:#x} bytes more than there are", offset=self.at, field="header")
        self.at += size
        return self._data[begin : begin + size]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def skip(self, size: int) -> None:
        if self.at + size > min(self.source.size, _MAX_HEADER):
            raise FormatError(f"the header needs {size:#x} bytes more than there are", offset=self.at, field="header")
        self.at += size

    def text(self) -> str:
        size = self.number(8)
        if size > 1 << 16:
            raise LimitError(f"a name of {size:#x} bytes", offset=self.at - 8, field="string length")
        return self.take(size).decode("utf-8", "backslashreplace")

    def value(self, kind: int, depth: int = 0) -> str | int | None:
        """A string or a number; arrays and floats are hopped over and None."""
        if kind == _STRING:
            size = self.number(8)
            if size > 1 << 16:
                self.skip(size)
                return None
            return self.take(size).decode("utf-8", "backslashreplace")
        if kind == _ARRAY:
            self._skip_array(depth)
            return None
        if kind not in _SIZES:
            raise FormatError(f"expected a value type from 0 to 12, got {kind}", offset=self.at - 4, field="value type")
        raw = self.take(_SIZES[kind])
        return None if kind in (6, 12) else int.from_bytes(raw, "little", signed=kind in (1, 3, 5, 11))

    def _skip_array(self, depth: int) -> None:
        kind, count = self.number(4), self.number(8)
        if kind in _SIZES:
            self.skip(_SIZES[kind] * count)
        elif kind == _STRING:
            unpack = struct.Struct("<Q").unpack
            for _ in range(count):
                self.skip(unpack(self.take(8))[0])
        elif kind == _ARRAY and depth < 4:
            for _ in range(count):
                self._skip_array(depth + 1)
        else:
            raise FormatError(f"expected a value type from 0 to 12, got {kind}", offset=self.at - 12, field="value type")
