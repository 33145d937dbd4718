#!/usr/bin/env python3
"""Compare what a slimmed environment computes with what the original computes, bit by bit, on a machine with a GPU.

usage: slim.py compare BEFORE AFTER      BEFORE and AFTER are environments or site-packages folders with PyTorch
       slim.py run [ENV] [--scratch DIR] copies ENV (the one of this Python), slims the copy with fatpatch for this GPU, and compares

Needs Python and PyTorch; ``run`` also needs fatpatch. Every operation runs on inputs made on the CPU from fixed seeds, and the SHA-256 of its
result is compared: lazy and eager loading, the original twice, so that what is not repeatable is known. Writes a table for RESULTS.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODES = ("LAZY", "EAGER")
SECONDS = 300
Operation = tuple[str, Callable[[], Any]]


Made = Callable[..., Any]


def maker(torch: Any) -> Made:
    """What makes inputs on the CPU from a seed, and puts them on the GPU."""

    def made(*shape: int, dtype: Any = None, seed: int = 1) -> Any:
        generator = torch.Generator().manual_seed(seed)
        data = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return data.to(dtype or torch.float32).cuda()

    return made


def operations(torch: Any) -> Iterator[Operation]:
    """(name, what computes it) of every operation."""
    made = maker(torch)
    yield from by_type(torch, made)
    yield from others(torch, made)
    yield from algebra(torch, made)


def by_type(torch: Any, made: Made) -> Iterator[Operation]:
    """Products, convolutions and the like in four types."""
    functional = torch.nn.functional

    types = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
    for name, dtype in types.items():
        for m, k, n in ((64, 64, 64), (1, 512, 512), (333, 77, 129), (1024, 1024, 1024), (2048, 64, 2048), (16, 4096, 64)):
            yield f"matmul {name} {m}x{k}x{n}", lambda d=dtype, m=m, k=k, n=n: made(m, k, dtype=d) @ made(k, n, dtype=d, seed=2)
        yield f"matmul {name} transposed", lambda d=dtype: made(512, 256, dtype=d).T @ made(512, 384, dtype=d, seed=2)
        yield f"bmm {name}", lambda d=dtype: torch.bmm(made(16, 96, 64, dtype=d), made(16, 64, 80, dtype=d, seed=2))
        yield (
            f"linear {name}",
            lambda d=dtype: functional.linear(made(256, 512, dtype=d), made(1024, 512, dtype=d, seed=2), made(1024, dtype=d, seed=3)),
        )
        yield (
            f"linear relu {name}",
            lambda d=dtype: torch._addmm_activation(made(1024, dtype=d, seed=3), made(256, 512, dtype=d), made(512, 1024, dtype=d, seed=2)),
        )
        yield f"conv1d {name}", lambda d=dtype: functional.conv1d(made(4, 16, 256, dtype=d), made(32, 16, 5, dtype=d, seed=2))
        for kernel, groups in ((1, 1), (3, 1), (5, 1), (3, 8)):
            yield (
                f"conv2d {name} {kernel} groups {groups}",
                lambda d=dtype, k=kernel, g=groups: _backward(
                    torch,
                    lambda x, w: functional.conv2d(x, w, padding=k // 2, groups=g),
                    made(4, 16, 32, 32, dtype=d),
                    made(32, 16 // g, k, k, dtype=d, seed=2),
                ),
            )
        yield f"conv3d {name}", lambda d=dtype: functional.conv3d(made(2, 8, 12, 12, 12, dtype=d), made(16, 8, 3, 3, 3, dtype=d, seed=2))
        yield (
            f"conv transposed {name}",
            lambda d=dtype: functional.conv_transpose2d(made(2, 16, 16, 16, dtype=d), made(16, 8, 4, 4, dtype=d, seed=2), stride=2),
        )
        yield (
            f"softmax, layer norm, gelu {name}",
            lambda d=dtype: functional.gelu(functional.layer_norm(made(64, 512, dtype=d).softmax(-1), (512,))),
        )
        yield (
            f"sort, cumsum, topk {name}",
            lambda d=dtype: (made(64, 4096, dtype=d).sort().values.cumsum(-1), made(64, 4096, dtype=d).topk(17).indices),
        )


def others(torch: Any, made: Made) -> Iterator[Operation]:
    """Transforms, recurrent layers, attention, sparse matrices, quantised products."""
    functional = torch.nn.functional
    types = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
    yield "tf32 matmul", lambda: _tf32(torch, lambda: made(512, 512) @ made(512, 512, seed=2))
    yield (
        "complex matmul",
        lambda: torch.complex(made(128, 128), made(128, 128, seed=2)) @ torch.complex(made(128, 96, seed=3), made(128, 96, seed=4)),
    )
    yield "int8 matmul", lambda: torch._int_mm((made(64, 128) * 20).to(torch.int8), (made(128, 64, seed=2) * 20).to(torch.int8))
    for left in ("float8_e4m3fn", "float8_e5m2"):
        yield f"scaled matmul {left}", lambda kind=left: _scaled(torch, made, kind)
    for size in (64, 100, 127, 243, 1000, 1024, 4096, 5000, 7 * 11 * 13, 65536, 65537):
        yield f"fft {size}", lambda s=size: torch.fft.fft(torch.complex(made(8, s), made(8, s, seed=2)))
        yield f"rfft, irfft {size}", lambda s=size: torch.fft.irfft(torch.fft.rfft(made(8, s)), n=s)
    for size in (32, 60, 128):
        yield f"fft2 float64 {size}", lambda s=size: torch.fft.fft2(made(4, s, s, dtype=torch.float64))
        yield f"fftn 3d {size}", lambda s=size: torch.fft.fftn(made(s, 16, s))
    for size in (64, 256, 1024):
        yield f"fft half {size}", lambda s=size: torch.fft.rfft(made(8, s, dtype=torch.float16))
    for kind in ("RNN", "LSTM", "GRU"):
        for dtype_name in ("float32", "float16"):
            yield f"{kind} {dtype_name}", lambda k=kind, d=dtype_name: _recurrent(torch, made, k, types[d])
    for backend in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        yield f"attention {backend}", lambda b=backend: _attention(torch, made, b)
    yield "batch norm training", lambda: functional.batch_norm(made(8, 16, 32, 32), None, None, training=True)
    yield (
        "ctc loss",
        lambda: functional.ctc_loss(
            made(50, 8, 20).log_softmax(2), torch.ones(8, 10, dtype=torch.int32, device="cuda"), [50] * 8, [10] * 8
        ),
    )
    yield "semi-structured sparse", lambda: _semi_structured(torch, made)
    yield "sparse matrix times matrix", lambda: _sparse(torch, made) @ made(256, 64, seed=2)
    yield "sparse times sparse", lambda: (_sparse(torch, made) @ _sparse(torch, made)).to_dense()


def algebra(torch: Any, made: Made) -> Iterator[Operation]:
    """Linear algebra, random numbers, indexing, training, NCCL, Triton, torchvision."""
    functional = torch.nn.functional
    types = {name: getattr(torch, name) for name in ("float32", "float64")}
    square = lambda d=torch.float32: made(96, 96, dtype=d) + 96 * torch.eye(96, device="cuda", dtype=d)  # noqa: E731
    for dtype_name in ("float32", "float64"):
        dtype = types[dtype_name]
        yield f"inverse {dtype_name}", lambda d=dtype: torch.linalg.inv(square(d))
        yield f"solve {dtype_name}", lambda d=dtype: torch.linalg.solve(square(d), made(96, 5, dtype=d, seed=2))
        yield f"cholesky {dtype_name}", lambda d=dtype: torch.linalg.cholesky(square(d) @ square(d).T)
        yield f"qr {dtype_name}", lambda d=dtype: torch.linalg.qr(square(d))
        yield f"svd {dtype_name}", lambda d=dtype: torch.linalg.svdvals(square(d))
        yield f"eigh {dtype_name}", lambda d=dtype: torch.linalg.eigvalsh(square(d) + square(d).T)
        yield f"lu {dtype_name}", lambda d=dtype: torch.linalg.lu_factor(square(d))
        yield f"random {dtype_name}", lambda d=dtype: (torch.manual_seed(3), torch.randn(1000, device="cuda", dtype=d))[1]
    yield "random integers, permutation", lambda: (torch.manual_seed(3), torch.randperm(5000, device="cuda"))[1]
    yield "embedding, index, gather", lambda: functional.embedding((made(64, 64).abs() * 30).long() % 50, made(50, 16))
    yield "unique", lambda: torch.unique((made(5000) * 10).long())
    yield "interpolate", lambda: functional.interpolate(made(2, 3, 32, 32), scale_factor=2.5, mode="bicubic")
    yield "grid sample", lambda: functional.grid_sample(made(2, 3, 16, 16), made(2, 8, 8, 2).tanh(), align_corners=True)
    yield "training", lambda: _training(torch, made)
    yield "NCCL in one process", lambda: _nccl(torch, made)
    yield "triton", lambda: torch.compile(lambda x: (x.sin() * x.cos()).sum(-1))(made(64, 1024))
    yield "torchvision", lambda: _vision(torch, made)


def _backward(torch: Any, function: Callable[[Any, Any], Any], *inputs: Any) -> Any:
    inputs = tuple(each.requires_grad_() for each in inputs)
    result = function(*inputs)
    return result, *torch.autograd.grad(result.sum(), inputs)


def _tf32(torch: Any, function: Callable[[], Any]) -> Any:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return function()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def _scaled(torch: Any, made: Any, kind: str) -> Any:
    one = torch.ones((), device="cuda")
    left, right = made(128, 256).to(getattr(torch, kind)), made(64, 256, seed=2).to(torch.float8_e4m3fn).T
    return torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _recurrent(torch: Any, made: Any, kind: str, dtype: Any) -> Any:
    torch.manual_seed(5)
    layer = getattr(torch.nn, kind)(32, 64, num_layers=2, bidirectional=True).to(dtype).cuda()
    return layer(made(20, 4, 32, dtype=dtype))[0]


def _attention(torch: Any, made: Any, backend: str) -> Any:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    inputs = [made(2, 8, 128, 64, dtype=torch.float16, seed=seed) for seed in (1, 2, 3)]
    with sdpa_kernel(getattr(SDPBackend, backend)):
        return torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)


def _semi_structured(torch: Any, made: Any) -> Any:
    from torch.sparse import to_sparse_semi_structured

    mask = torch.tensor([0, 0, 1, 1], device="cuda").tile((128, 32)).bool()
    dense = made(128, 128, dtype=torch.float16) * mask
    return to_sparse_semi_structured(dense) @ made(128, 64, dtype=torch.float16, seed=2)


def _sparse(torch: Any, made: Any) -> Any:
    data = made(256, 256)
    return (data * (data > 1.5)).to_sparse_csr()


def _training(torch: Any, made: Any) -> Any:
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 30 * 30, 10)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for step in range(5):
        loss = torch.nn.functional.cross_entropy(model(made(16, 3, 32, 32, seed=step)), torch.arange(16, device="cuda") % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tuple(model.parameters())


def _nccl(torch: Any, made: Any) -> Any:
    import tempfile

    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("nccl", init_method=f"file://{tempfile.mkdtemp()}/store", rank=0, world_size=1)
    data = made(4096)
    dist.all_reduce(data)
    return data


def _vision(torch: Any, made: Any) -> Any:
    import torchvision

    boxes = made(64, 4).abs() * 20
    boxes[:, 2:] += boxes[:, :2]
    pooled = torchvision.ops.roi_align(made(1, 8, 32, 32), [boxes], 7)
    return torchvision.ops.nms(boxes, made(64, seed=3), 0.5), pooled


def digest(torch: Any, value: Any) -> str:
    """SHA-256 of all tensors in a result."""
    found = hashlib.sha256()
    for each in value if isinstance(value, tuple | list) else (value,):
        data = torch.view_as_real(each) if each.is_complex() else each
        found.update(data.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def compute() -> None:
    """Run every operation in this process; one line of JSON on standard output."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    results = {}
    for name, function in operations(torch):
        try:
            results[name] = digest(torch, function())
        except Exception as error:
            results[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "results": results}))


def python_of(folder: Path) -> tuple[list[str], dict[str, str]]:
    """How to start Python with the packages of a folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    sites = sorted(folder.glob("lib/python3*/site-packages"))
    environment["PYTHONPATH"] = str(sites[0] if sites else folder)
    return [sys.executable], environment


def results_of(folder: Path, mode: str) -> dict[str, Any]:
    """What the operations give with the packages of a folder."""
    command, environment = python_of(folder)
    environment |= {"CUDA_MODULE_LOADING": mode, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run([*command, __file__, "compute"], capture_output=True, text=True, check=False, timeout=SECONDS, env=environment)
    if done.returncode:
        raise SystemExit(f"{folder}, {mode}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(before: Path, after: Path) -> int:
    """Compare both, print a table; the number of differences."""
    differing = 0
    for mode in MODES:
        start = time.monotonic()
        first, again, slimmed = (results_of(folder, mode) for folder in (before, before, after))
        stable = {name for name, value in first["results"].items() if again["results"][name] == value}
        failing = {name for name in stable if ":" in first["results"][name]}
        bad = [name for name in stable if slimmed["results"].get(name) != first["results"][name]]
        differing += len(bad)
        print(
            f"{mode}: {first['gpu']}, torch {first['torch']}: {len(stable) - len(failing) - len(set(bad) - failing)} of {len(stable) - len(failing)} "
            f"operations bit-identical; {len(first['results']) - len(stable)} not repeatable; {len(failing)} fail in both; {time.monotonic() - start:.0f} s"
        )
        for name in sorted(set(first["results"]) - stable):
            print(f"  not repeatable: {name}")
        for name in sorted(failing):
            print(f"  fails in both: {name}: {first['results'][name]}")
        for name in bad:
            print(f"  DIFFERS: {name}: {first['results'][name]} / {slimmed['results'].get(name)}")
    return differing


def disk_of(folder: Path) -> int:
    """Bytes on disk of everything below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_symlink())


def run(env: Path, scratch: Path) -> int:
    """Copy, slim, compare."""
    site = next(iter(sorted(env.glob("lib/python3*/site-packages"))), env)
    copy = scratch / "slimmed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(site, copy, symlinks=True)
    before = disk_of(copy)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "fatpatch", "slim", str(copy), "--for", "auto", "--in-place", "--no-undo"], check=False)
    print(
        f"slim: exit {done.returncode}, {time.monotonic() - start:.0f} s, the folder {before / 1e6:,.0f} -> {disk_of(copy) / 1e6:,.0f} MB on disk"
    )
    return done.returncode or compare(site, copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["compute", "compare", "run"])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"))
    given = parser.parse_args()
    if given.action == "compute":
        compute()
        return 0
    if given.action == "compare":
        return min(compare(*given.folders), 1)
    return min(run(given.folders[0] if given.folders else Path(sys.prefix), given.scratch), 1)


if __name__ == "__main__":
    sys.exit(main())
