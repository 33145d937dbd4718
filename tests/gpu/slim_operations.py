"""What ``slim.py`` computes before and after: operations of PyTorch, CuPy and JAX, on inputs made on the CPU from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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
    yield from layouts(torch, made)
    yield from channels_last(torch, made)
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


def layouts(torch: Any, made: Made) -> Iterator[Operation]:
    """cuBLASLt by its heuristics: every type in every layout, with and without a bias, alone and in batches."""
    names = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
    for name in names:
        dtype = getattr(torch, name)
        for left in "nt":
            for right in "nt":
                yield f"cublasLt {name} {left}{right}", lambda d=dtype, x=left, y=right: _product(torch, made, d, x, y)
    for name in names[:4]:
        dtype = getattr(torch, name)
        yield f"cublasLt {name} gelu", lambda d=dtype: _lt(torch, lambda: _activation(torch, made, d))
        yield (
            f"cublasLt {name} strided",
            lambda d=dtype: _lt(torch, lambda: made(200, 300, dtype=d)[:, ::2] @ made(400, 96, dtype=d, seed=2)[:150]),
        )
    for m, k, n in ((32, 64, 64), (17, 32, 96), (256, 512, 128)):
        yield (
            f"cublasLt int8 {m}x{k}x{n}",
            lambda m=m, k=k, n=n: torch._int_mm((made(m, k) * 20).to(torch.int8), (made(n, k, seed=2) * 20).to(torch.int8).T),
        )


def _product(torch: Any, made: Made, dtype: Any, left: str, right: str) -> Any:
    def operand(rows: int, columns: int, layout: str, seed: int) -> Any:
        if dtype.is_complex:
            parts = torch.float32 if dtype == torch.complex64 else torch.float64
            shape = (rows, columns) if layout == "n" else (columns, rows)
            data = torch.complex(made(*shape, dtype=parts, seed=seed), made(*shape, dtype=parts, seed=seed + 10))
        else:
            data = made(*((rows, columns) if layout == "n" else (columns, rows)), dtype=dtype, seed=seed)
        return data if layout == "n" else data.T

    return _lt(
        torch, lambda: [operand(m, k, left, 1) @ operand(k, n, right, 2) for m, k, n in ((128, 256, 192), (40, 72, 56), (1, 128, 8))]
    )


def _activation(torch: Any, made: Made, dtype: Any) -> Any:
    inputs = made(512, dtype=dtype, seed=3), made(128, 256, dtype=dtype), made(256, 512, dtype=dtype, seed=2)
    return torch._addmm_activation(*inputs, use_gelu=True)


def _lt(torch: Any, function: Callable[[], Any]) -> Any:
    before = torch.backends.cuda.preferred_blas_library()
    torch.backends.cuda.preferred_blas_library("cublaslt")
    try:
        return function()
    finally:
        torch.backends.cuda.preferred_blas_library(before)


def channels_last(torch: Any, made: Made) -> Iterator[Operation]:
    """Convolutions by cuDNN's graph API, most of them on its precompiled engines: layouts, strides, dilations, groups, gradients."""
    functional = torch.nn.functional
    for name in ("float16", "bfloat16", "float32"):
        dtype = getattr(torch, name)
        for kernel, stride, dilation, groups in ((1, 1, 1, 1), (3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 1), (7, 2, 1, 1), (3, 1, 1, 32)):
            options = {"padding": dilation * (kernel // 2), "stride": stride, "dilation": dilation, "groups": groups}
            yield (
                f"conv2d channels last {name} {kernel} stride {stride} dilation {dilation} groups {groups}",
                lambda d=dtype, k=kernel, o=options: _backward(
                    torch,
                    lambda x, w: functional.conv2d(x, w, **o),
                    made(4, 32, 28, 28, dtype=d).to(memory_format=torch.channels_last),
                    made(64, 32 // o["groups"], k, k, dtype=d, seed=2).to(memory_format=torch.channels_last),
                ),
            )
        yield (
            f"conv3d channels last {name}",
            lambda d=dtype: functional.conv3d(
                made(2, 16, 8, 12, 12, dtype=d).to(memory_format=torch.channels_last_3d),
                made(16, 16, 3, 3, 3, dtype=d, seed=2).to(memory_format=torch.channels_last_3d),
            ),
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
    for size in (13, 96, 2187, 3125, 16384, 1 << 20):
        yield f"fft float64 {size}", lambda s=size: torch.fft.rfft(made(2, s, dtype=torch.float64))
        yield f"ifft complex128 {size}", lambda s=size: torch.fft.ifft(torch.complex(made(s).double(), made(s, seed=2).double()))
    yield "fft along the first axis", lambda: torch.fft.fft(made(300, 7), dim=0)
    yield "hfft", lambda: torch.fft.hfft(torch.complex(made(4, 129), made(4, 129, seed=2)))
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


def nccl_operations(torch: Any, rank: int, world: int) -> Iterator[Operation]:
    """Collectives of all processes of a group that is set up already."""
    import torch.distributed as dist

    made = maker(torch)

    def gathered(data: Any) -> list[Any]:
        parts = [torch.empty_like(data) for _ in range(world)]
        dist.all_gather(parts, data)
        return parts

    def collective(function: Callable[[Any], Any], data: Any) -> Any:
        function(data)
        return data

    for name in ("float16", "bfloat16", "float32", "float64"):
        dtype = getattr(torch, name)
        data = lambda d=dtype, size=100_003: made(size, dtype=d, seed=rank + 1)  # noqa: E731
        yield f"all_reduce {name}", lambda data=data: collective(dist.all_reduce, data())
        yield f"all_reduce max {name}", lambda data=data: collective(lambda each: dist.all_reduce(each, dist.ReduceOp.MAX), data())
        yield f"all_gather {name}", lambda data=data: gathered(data())
        yield f"broadcast {name}", lambda data=data: collective(lambda each: dist.broadcast(each, 0), data())
        yield f"reduce_scatter {name}", lambda d=dtype: _scattered(torch, made(world * 4096, dtype=d, seed=rank + 1), world)


def _scattered(torch: Any, data: Any, world: int) -> Any:
    import torch.distributed as dist

    part = torch.empty(data.numel() // world, dtype=data.dtype, device=data.device)
    dist.reduce_scatter_tensor(part, data)
    return part


def cupy_operations(cupy: Any) -> Iterator[Operation]:
    """CuPy: its own kernels, NVRTC, and NVIDIA's libraries."""

    def made(*shape: int, dtype: str = "float32", seed: int = 1) -> Any:
        import numpy

        return cupy.asarray(numpy.random.default_rng(seed).standard_normal(shape).astype(dtype))

    for dtype in ("float16", "float32", "float64"):
        yield f"cupy matmul {dtype}", lambda d=dtype: made(130, 70, dtype=d) @ made(70, 90, dtype=d, seed=2)
        yield f"cupy sort, cumsum {dtype}", lambda d=dtype: cupy.cumsum(cupy.sort(made(5000, dtype=d)))
    for dtype in ("float32", "float64"):
        yield f"cupy elementwise {dtype}", lambda d=dtype: cupy.sin(made(1000, dtype=d)) * cupy.exp(made(1000, dtype=d, seed=2))
        yield f"cupy fft {dtype}", lambda d=dtype: cupy.fft.fft(made(8, 1000, dtype=d))
        yield f"cupy rfft2 {dtype}", lambda d=dtype: cupy.fft.rfft2(made(64, 60, dtype=d))
        yield f"cupy svd {dtype}", lambda d=dtype: cupy.linalg.svd(made(64, 48, dtype=d), compute_uv=False)
        yield f"cupy solve {dtype}", lambda d=dtype: cupy.linalg.solve(made(64, 64, dtype=d), made(64, 3, dtype=d, seed=2))
        yield f"cupy cholesky {dtype}", lambda d=dtype: cupy.linalg.cholesky(made(48, 48, dtype=d) + 96 * cupy.eye(48, dtype=d))
        yield f"cupy random {dtype}", lambda d=dtype: cupy.random.RandomState(3).standard_normal(1000, dtype=d)
    yield "cupy raw kernel", lambda: _raw_kernel(cupy)
    yield "cupy sparse", lambda: _cupy_sparse(cupy, made)


def _raw_kernel(cupy: Any) -> Any:
    code = 'extern "C" __global__ void twice(float *x) { x[blockIdx.x * blockDim.x + threadIdx.x] *= 2.5f; }'
    data = cupy.arange(1024, dtype=cupy.float32)
    cupy.RawKernel(code, "twice")((8,), (128,), (data,))
    return data


def _cupy_sparse(cupy: Any, made: Callable[..., Any]) -> Any:
    from cupyx.scipy import sparse

    data = made(200, 200)
    return sparse.csr_matrix(data * (data > 1)) @ made(200, 20, seed=2)


def jax_operations(jax: Any) -> Iterator[Operation]:
    """JAX: what XLA compiles, and NVIDIA's libraries that it calls."""
    import numpy

    jnp = jax.numpy

    def made(*shape: int, dtype: str = "float32", seed: int = 1) -> Any:
        return jnp.asarray(numpy.random.default_rng(seed).standard_normal(shape).astype("float32")).astype(dtype)

    for dtype in ("float16", "bfloat16", "float32"):
        yield f"jax matmul {dtype}", lambda d=dtype: made(130, 70, dtype=d) @ made(70, 90, dtype=d, seed=2)
        yield (
            f"jax convolution {dtype}",
            lambda d=dtype: jax.lax.conv(made(4, 16, 28, 28, dtype=d), made(8, 16, 3, 3, dtype=d, seed=2), (1, 1), "SAME"),
        )
    yield "jax fused", lambda: jax.jit(lambda x: jnp.sum(jnp.sin(x) * jnp.exp(-x * x), axis=-1))(made(64, 1024))
    yield "jax sort", lambda: jnp.sort(made(5000))
    yield "jax fft", lambda: jnp.fft.fft(made(8, 1000))
    yield "jax rfft2", lambda: jnp.fft.rfft2(made(64, 60))
    yield "jax random", lambda: jax.random.normal(jax.random.key(3), (1000,))
    yield "jax cholesky", lambda: jnp.linalg.cholesky(made(48, 48) @ made(48, 48).T + 96 * jnp.eye(48))
    yield "jax solve", lambda: jnp.linalg.solve(made(64, 64), made(64, 3, seed=2))
    yield "jax svd", lambda: jnp.linalg.svd(made(64, 48), compute_uv=False)
    yield "jax qr", lambda: jnp.linalg.qr(made(64, 48))
    yield "jax gradient", lambda: jax.grad(lambda x: jnp.tanh(x @ x.T).sum())(made(32, 32))
