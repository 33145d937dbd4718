"""GGUF model headers."""

from __future__ import annotations

from construct import Const, Int32ul, Int64ul, PaddedString, Struct, this

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

STRING = Struct("size" / Int64ul * "bytes", "text" / PaddedString(this.size, "utf8") * "no NUL")

HEADER = Struct(
    "magic" / Const(n.GGUF_MAGIC) * "GGUF",
    "version" / Int32ul * "2 or 3",
    "tensors" / Int64ul * "tensor records behind the keys",
    "keys" / Int64ul * "key-value pairs that follow",
)

TENSOR = Struct(
    "name" / STRING * "as blk.0.attn_q.weight",
    "n_dims" / Int32ul * "dimensions",
    "dims" / Int64ul[this.n_dims] * "elements in each",
    "type" / Int32ul * "ggml type: 0 F32, 1 F16, 8 Q8_0, 12 Q4_K, ...",
    "offset" / Int64ul * "from the start of the data",
)

DOC = FormatDoc(
    name="gguf",
    title="GGUF model",
    summary="Header only: architecture, file type, tensor types. They decide which kernels a model launches.",
    layouts=(("header", HEADER), ("string", STRING), ("tensor", TENSOR)),
    notes=("In a llamafile the model is a stored zip member and is read there by offset.",),
    references=("ggml, gguf.md",),
    limitations=("version 1 (32-bit counts) is not read",),
)
