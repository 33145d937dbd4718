#!/usr/bin/env python3
"""Load cubins whose ABI version, byte 8 of the ELF header, is set to one value after another, and print what the driver says.

usage: abi_version.py CUBIN...     (on the GPU machine, Python 3 alone)
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_int, c_void_p
from pathlib import Path

VERSIONS = range(13)
OS_ABI, ABI_VERSION = 7, 8


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    context, device, version = c_void_p(), c_int(), c_int()
    for code in (cuda.cuInit(0), cuda.cuDeviceGet(byref(device), 0), cuda.cuDevicePrimaryCtxRetain(byref(context), device)):
        if code:
            raise SystemExit(f"error {code}")
    cuda.cuCtxSetCurrent(context)
    cuda.cuDriverGetVersion(byref(version))
    print(f"driver of CUDA {version.value // 1000}.{version.value % 1000 // 10}")
    for path in map(Path, sys.argv[1:]):
        data = bytearray(path.read_bytes())
        own = data[OS_ABI], data[ABI_VERSION]
        answers = []
        for value in VERSIONS:
            data[ABI_VERSION] = value
            module = c_void_p()
            answers.append(f"{value}: {cuda.cuModuleLoadData(byref(module), bytes(data))}")
        print(f"{path.name} (OS ABI {own[0]:#x}, ABI version {own[1]}): {', '.join(answers)}")


if __name__ == "__main__":
    main()
