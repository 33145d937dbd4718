"""ELF64 little-endian: the parts that lead to device code."""

from __future__ import annotations

from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from fatpatch.formats._types import FormatDoc

HEADER = Struct(
    "ident" / Bytes(16) * "7f 45 4c 46, class 2, data 1, version 1, OSABI, ABI version",
    "type" / Int16ul * "1 REL, 2 EXEC, 3 DYN",
    "machine" / Int16ul * "62 x86-64, 183 aarch64, 190 CUDA, 224 AMDGPU",
    "version" / Int32ul * "1; in old cubins the toolkit times ten",
    "entry" / Int64ul * "entry point",
    "phoff" / Int64ul * "offset of the program headers",
    "shoff" / Int64ul * "offset of the section headers; 0: none",
    "flags" / Int32ul * "meaning by machine",
    "ehsize" / Int16ul * "64",
    "phentsize" / Int16ul * "56",
    "phnum" / Int16ul * "program headers",
    "shentsize" / Int16ul * "64",
    "shnum" / Int16ul * "section headers; 0 with shoff set: see section 0",
    "shstrndx" / Int16ul * "section that holds the section names",
)

SECTION = Struct(
    "name" / Int32ul * "offset in the section names",
    "type" / Int32ul * "2 SYMTAB, 3 STRTAB, 8 NOBITS",
    "flags" / Int64ul * "1 W, 2 A, 4 X",
    "address" / Int64ul * "load address",
    "offset" / Int64ul * "in the file",
    "size" / Int64ul * "bytes",
    "link" / Int32ul * "by type",
    "info" / Int32ul * "by type; .text of an old cubin: registers in the high byte",
    "alignment" / Int64ul * "bytes",
    "entry_size" / Int64ul * "bytes of one record",
)

SEGMENT = Struct(
    "type" / Int32ul * "1 LOAD",
    "flags" / Int32ul * "1 X, 2 W, 4 R",
    "offset" / Int64ul * "in the file",
    "address" / Int64ul * "load address",
    "physical" / Int64ul * "unused",
    "file_size" / Int64ul * "bytes in the file",
    "memory_size" / Int64ul * "bytes in memory",
    "alignment" / Int64ul * "bytes",
)

SYMBOL = Struct(
    "name" / Int32ul * "offset in the string table",
    "info" / Int8ul * "low 4 bits: 2 FUNC",
    "other" / Int8ul * "cubin: bit 0x10 marks an entry function",
    "section" / Int16ul * "section index",
    "value" / Int64ul * "offset",
    "size" / Int64ul * "bytes",
)

DOC = FormatDoc(
    name="elf",
    title="ELF",
    summary="Host executables, shared objects and object files; cubins and AMD code objects are ELF too.",
    layouts=(("header", HEADER), ("section header", SECTION), ("program header", SEGMENT), ("symbol", SYMBOL)),
    notes=("Fatbins sit in .nv_fatbin and __nv_relfatbin, but also in .rodata, .ldata and .cask_resource.",),
    references=("System V ABI, chapter 4",),
    limitations=("sections of 32-bit and big-endian files are not read: they are searched by magic",),
)
