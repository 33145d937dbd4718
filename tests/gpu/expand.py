#!/usr/bin/env python3
"""Load a fatbin of concatenated entries as nvFatbin 13 wrote it, and what `fatpatch expand` made of it, and run a kernel of it.

usage: expand.py FATBIN...     (on the GPU machine, Python 3 alone: samples/concatenated.fatbin, and the expanded one)
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_float, c_int, c_uint64, c_void_p, cast
from pathlib import Path

COUNT, FACTOR = 256, 3.0
SASS_VERSION = 6  # CU_FUNC_ATTRIBUTE_BINARY_VERSION


def answer(cuda: ctypes.CDLL, data: bytes) -> str:
    """What loading says, and whether the kernel ``scale`` gives the right numbers."""
    module, function, memory, version = c_void_p(), c_void_p(), c_uint64(), c_int()
    code = cuda.cuModuleLoadData(byref(module), ctypes.create_string_buffer(data, len(data)))
    if code:
        return f"error {code}"
    values = (c_float * COUNT)(*range(COUNT))
    factor, count = c_float(FACTOR), c_int(COUNT)
    arguments = (c_void_p * 3)(*(cast(byref(each), c_void_p) for each in (memory, factor, count)))
    codes = [
        cuda.cuModuleGetFunction(byref(function), module, b"scale"),
        cuda.cuFuncGetAttribute(byref(version), SASS_VERSION, function),
        cuda.cuMemAlloc_v2(byref(memory), ctypes.sizeof(values)),
        cuda.cuMemcpyHtoD_v2(memory, values, ctypes.sizeof(values)),
        cuda.cuLaunchKernel(function, 1, 1, 1, COUNT, 1, 1, 0, None, cast(arguments, POINTER(c_void_p)), None),
        cuda.cuCtxSynchronize(),
        cuda.cuMemcpyDtoH_v2(values, memory, ctypes.sizeof(values)),
    ]
    right = list(values) == [FACTOR * each for each in range(COUNT)]
    return f"codes {codes}, machine code {version.value}, {'right' if right else 'WRONG'} numbers"


def main(paths: list[str]) -> None:
    """Print a line for each file."""
    if not paths:
        sys.exit(__doc__)
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context = c_int(), c_void_p()
    for code in (cuda.cuInit(0), cuda.cuDeviceGet(byref(device), 0), cuda.cuDevicePrimaryCtxRetain(byref(context), device)):
        if code:
            sys.exit(f"no GPU: error {code}")
    cuda.cuCtxSetCurrent(context)
    for path in paths:
        print(f"{path}: {answer(cuda, Path(path).read_bytes())}")


if __name__ == "__main__":
    main(sys.argv[1:])
