"""The ELF64 little-endian records that host files, cubins and code objects share, as precompiled structs.

Their offsets are those of formats/elf.py; a test derives one from the other.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SEGMENT = struct.Struct("<IIQQQQQQ")
SYMBOL = struct.Struct("<IBBHQQ")
