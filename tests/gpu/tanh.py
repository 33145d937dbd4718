#!/usr/bin/env python3
"""Compare the rewrite of tanh.approx.f32 with the instruction itself and with tanh, on a GPU.

usage: tanh.py prepare OUTDIR     (two cubins for sm_90: needs fatpatch and ptxas)
       tanh.py run OUTDIR         (on the GPU machine, Python 3 alone)
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from pathlib import Path

BODY = b"\ttanh.approx.f32 %f2, %f1;\n"
TEXT = b"""
.version 8.0
.target sm_90
.address_size 64
.visible .entry tanh_all(.param .u64 in, .param .u64 out, .param .u32 count)
{
	.reg .f32 %f<3>;
	.reg .b32 %r<6>;
	.reg .b64 %d<6>;
	.reg .pred %p;
	ld.param.u64 %d1, [in];
	ld.param.u64 %d2, [out];
	ld.param.u32 %r1, [count];
	mov.u32 %r2, %ctaid.x;
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %tid.x;
	mad.lo.u32 %r5, %r2, %r3, %r4;
	setp.ge.u32 %p, %r5, %r1;
	@%p ret;
	mul.wide.u32 %d3, %r5, 4;
	add.u64 %d4, %d1, %d3;
	add.u64 %d5, %d2, %d3;
	ld.global.f32 %f1, [%d4];
BODY	st.global.f32 [%d5], %f2;
	ret;
}
"""
LIMIT = 2.0**-10.987  # the greatest relative error of tanh.approx.f32 (PTX ISA)


def prepare(folder: Path) -> None:
    """Assemble both."""
    from fatpatch.retargeting.ptxas import find_ptxas
    from fatpatch.retargeting.rewrites import rewritten

    folder.mkdir(parents=True, exist_ok=True)
    body, used = rewritten(BODY, 61)
    assert used
    for name, code in (("plain", BODY), ("rewritten", body)):
        answer = find_ptxas().assemble(TEXT.replace(b"BODY", code), "sm_90")
        assert answer.cubin is not None, answer.complaints
        (folder / f"tanh-{name}.cubin").write_bytes(answer.cubin)


def values() -> list[float]:
    """Numbers of every size, of both signs, and the special ones."""
    found = [0.0, -0.0, math.inf, -math.inf, math.nan]
    bits = 0x00800000
    while bits < 0x43000000:
        (value,) = struct.unpack("<f", struct.pack("<I", bits))
        found += [value, -value]
        bits += 4999
    return found


def check(code: int) -> None:
    """End when CUDA complains."""
    if code:
        raise SystemExit(f"CUDA error {code}")


def run(folder: Path) -> int:
    """The greatest relative error of both."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, device = ctypes.c_void_p(), ctypes.c_int()
    check(cuda.cuInit(0))
    check(cuda.cuDeviceGet(ctypes.byref(device), 0))
    check(cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device))
    given = values()
    data = struct.pack(f"<{len(given)}f", *given)
    source, target = ctypes.c_uint64(), ctypes.c_uint64()
    for pointer in (source, target):
        check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(len(data))))
    check(cuda.cuMemcpyHtoD_v2(source, data, ctypes.c_size_t(len(data))))
    wrong = 0
    for name in ("plain", "rewritten"):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        check(cuda.cuModuleLoadData(ctypes.byref(module), (folder / f"tanh-{name}.cubin").read_bytes()))
        check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"tanh_all"))
        count = ctypes.c_uint32(len(given))
        arguments = (ctypes.c_void_p * 3)(*(ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in (source, target, count)))
        check(cuda.cuLaunchKernel(function, len(given) // 256 + 1, 1, 1, 256, 1, 1, 0, None, arguments, None))
        check(cuda.cuCtxSynchronize())
        result = ctypes.create_string_buffer(len(data))
        check(cuda.cuMemcpyDtoH_v2(result, target, ctypes.c_size_t(len(data))))
        worst, at = 0.0, 0.0
        for value, got in zip(given, struct.unpack(f"<{len(given)}f", result.raw), strict=True):
            if math.isnan(value):
                wrong += not math.isnan(got)
                continue
            wanted = math.tanh(value)
            error = abs(got - wanted) / abs(wanted) if wanted else abs(got)
            if error > worst:
                worst, at = error, value
        wrong += worst > LIMIT
        print(f"{name}: greatest relative error {worst:.3e} at {at!r}, of {len(given)} values; the instruction may be off by {LIMIT:.3e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("prepare", "run"):
        raise SystemExit(__doc__)
    folder = Path(sys.argv[2]).resolve()
    sys.exit(prepare(folder) if sys.argv[1] == "prepare" else run(folder))
