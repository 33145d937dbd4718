#!/usr/bin/env python3
"""Slim a real image of three layers: the system's libraries and a Python, a virtual environment with PyTorch, a program.

usage: real_image.py VENV SCRATCH [GPU]      VENV: made by the Python of which sys.base_prefix goes into the first layer

Needs tar, skopeo, umoci and bubblewrap, and room for five times the environment. The program computes with PyTorch on the CPU and loads
every library of the environment that the slimmed one changed; its output must be the same before and after. Prints one line a step.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import ctypes, glob, hashlib, sys, torch, torchvision
torch.manual_seed(3)
data = torch.randn(64, 64) @ torch.randn(64, 64)
boxes = torch.rand(20, 4).cumsum(1)
kept = torchvision.ops.nms(boxes, torch.rand(20), 0.5)
loaded = 0
for path in sorted(glob.glob(sys.prefix + "/lib/python3*/site-packages/nvidia/**/*.so*", recursive=True)):
    try:
        ctypes.CDLL(path)
        loaded += 1
    except OSError as error:
        if "libcuda.so" not in str(error) and "libnvidia" not in str(error) and "cannot open shared object" not in str(error):
            raise
print(hashlib.sha256(data.numpy().tobytes() + kept.numpy().tobytes()).hexdigest(), loaded, "libraries loaded", torch.__version__)
"""

SYSTEM = (
    *(
        "libc",
        "libm",
        "libdl",
        "librt",
        "libpthread",
        "libutil",
        "libgcc_s",
        "libstdc++",
        "libz",
        "libffi",
        "libssl",
        "libcrypto",
        "libbz2",
    ),
    *(
        "liblzma",
        "libexpat",
        "libuuid",
        "libnsl",
        "libtirpc",
        "libsqlite3",
        "libreadline",
        "libtinfo*",
        "libncurses*",
        "libgomp",
        "libnuma",
    ),
)


def run(*command: object, cwd: Path | None = None) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:200]}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build(venv: Path, folder: Path) -> None:
    """An OCI layout with plain layers."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    base = run(venv / "bin/python", "-c", "import sys; print(sys.base_prefix)").strip()
    program = folder.parent / "main.py"
    program.write_text(PROGRAM)
    names = [str(path) for name in SYSTEM for path in sorted(Path("/lib/x86_64-linux-gnu").glob(f"{name}.so*"))]
    names += ["/lib64/ld-linux-x86-64.so.2", base]
    layers = [folder.parent / f"layer{number}.tar" for number in (1, 2, 3)]
    run("tar", "-chf", layers[0], "--hard-dereference", "--exclude=*/test", "--exclude=*.a", "-P", "--transform", "s,^/,,", *names)
    run("tar", "-cf", layers[1], "-C", venv.parent, "--transform", f"s,^{venv.name},opt/venv,S", venv.name)
    run("tar", "-cf", layers[2], "-C", folder.parent, "--transform", "s,^,app/,", "main.py")
    entries = []
    for each in layers:
        name = digest(each)
        each.rename(blobs / name)
        entries.append(
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{name}", "size": (blobs / name).stat().st_size}
        )

    def add(document: dict[str, object], media_type: str) -> dict[str, object]:
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    config = add(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/opt/venv/bin/python", "/app/main.py"]},
            "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in entries]},
        },
        "application/vnd.oci.image.config.v1+json",
    )
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": entries}
    entry = add(manifest, "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "app"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def answer(image: Path, bundle: Path) -> str:
    """What the program prints in the unpacked image."""
    if not bundle.exists():
        run("umoci", "unpack", "--rootless", "--image", f"{image}:app", bundle)
    for name in ("dev", "proc", "tmp"):
        (bundle / "rootfs" / name).mkdir(exist_ok=True)
    command = (
        "bwrap",
        "--ro-bind",
        bundle / "rootfs",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--tmpfs",
        "/tmp",
        "--unshare-all",
        "--chdir",
        "/",
    )
    return run(*command, "--setenv", "LOGNAME", "root", "/opt/venv/bin/python", "/app/main.py").strip().splitlines()[-1]


def size_of(folder: Path) -> float:
    """GB of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def main() -> int:
    venv, scratch, gpu = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "H200"
    image, slim = scratch / "image", scratch / "slim"
    build(venv, image)
    print(f"image of three layers: {size_of(image):.2f} GB", flush=True)
    start = time.monotonic()
    told = run(sys.executable, "-m", "fatpatch", "slim", image, "--for", gpu, "-o", slim)
    print(f"slimmed: {size_of(slim):.2f} GB, {time.monotonic() - start:.0f} s", flush=True)
    print(told.strip().splitlines()[-3], flush=True)
    labels = json.loads(run("skopeo", "inspect", f"oci:{slim}:app"))["Labels"]
    print(f"skopeo inspect: {labels}", flush=True)
    answers = [answer(each, scratch / f"bundle-{each.name}") for each in (image, slim)]
    print(f"the program before and after: {answers[0]} / {answers[1]}: {'the same' if answers[0] == answers[1] else 'DIFFERS'}", flush=True)
    roots = [scratch / f"bundle-{each.name}/rootfs" for each in (image, slim)]
    done = subprocess.run(["diff", "-rq", "--no-dereference", *roots], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    odd = [line for line in lines if not (".so" in line or "RECORD" in line or "fatpatch-slim.json" in line or "__pycache__" in line)]
    print(f"diff -r of both: {len(lines)} files differ, {len(odd)} of them neither libraries, RECORD nor marks", flush=True)
    print("\n".join(odd[:10]))
    return int(answers[0] != answers[1] or bool(odd))


if __name__ == "__main__":
    sys.exit(main())
