"""Records of .nv.info, .nv.info.<kernel> and .nv.compat sections."""

from __future__ import annotations

from construct import Byte, Bytes, GreedyBytes, Int8ul, Int16ul, Int32ul, Prefixed, Struct, Switch, this

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

RECORD = Struct(
    "form" / Int8ul * "1 no value, 2 byte, 3 half word, 4 sized",
    "attribute" / Int8ul * "EIATTR number",
    "value"
    / Switch(
        this.form,
        {
            n.EIFMT_NVAL: Bytes(2),
            n.EIFMT_BVAL: Struct("value" / Byte, "padding" / Byte),
            n.EIFMT_HVAL: Int16ul,
            n.EIFMT_SVAL: Prefixed(Int16ul, GreedyBytes),
        },
    )
    * "2 bytes, or a 16-bit length and that many bytes",
)

SYMBOL_VALUE = Struct("symbol" / Int32ul * "symbol index of the function", "value" / Int32ul * "registers, or stack bytes")

PARAMETER = Struct(
    "index" / Int32ul * "0",
    "ordinal" / Int16ul * "number of the parameter",
    "offset" / Int16ul * "in the parameter block",
    "packed" / Int32ul * "bits 18-31: size in bytes; lower bits: pointee alignment, space, bank",
)

PARAMETER_V2 = Struct(
    "index" / Int32ul * "0",
    "ordinal" / Int16ul * "number of the parameter",
    "offset" / Int16ul * "in the parameter block",
    "size" / Int16ul * "bytes",
    "reserved" / Int16ul * "0",
)

DIMENSIONS = Struct("x" / Int32ul, "y" / Int32ul, "z" / Int32ul)

ATTRIBUTES = (
    ("0x05", "MAX_THREADS: x, y, z"),
    ("0x10", "REQNTID: x, y, z"),
    ("0x12", "MIN_STACK_SIZE: symbol, bytes (the STACK of cuobjdump; 0xffffffff unknown)"),
    ("0x17", "KPARAM_INFO, 12 bytes"),
    ("0x2f", "REGCOUNT: symbol, registers"),
    ("0x45", "KPARAM_INFO_V2, 12 bytes, for big parameters"),
)

DOC = FormatDoc(
    name="nvinfo",
    title=".nv.info records",
    summary="Attributes of a module and of its kernels, without padding between records.",
    layouts=(("record", RECORD), ("symbol and value", SYMBOL_VALUE), ("KPARAM_INFO", PARAMETER), ("KPARAM_INFO_V2", PARAMETER_V2)),
    values=(("attributes that fatpatch reads", ATTRIBUTES),),
    references=("names taken from cuobjdump 13.5",),
    limitations=("other attributes are hopped over",),
)
