"""Folders of kernel libraries as ROCm installs them: code objects and indexes by GPU, with the names that rocBLAS and others use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builders.bundle import code_object

MACHS = {"gfx900": 0x2C, "gfx906": 0x2F, "gfx90a": 0x3F, "gfx942": 0x4C, "gfx1030": 0x36, "gfx1036": 0x45, "gfx1100": 0x41, "gfx1101": 0x46}
DAT = b"\x82\xa9solutions\x90\xa7library\x80" + bytes(200)
TYPES = ("Type_HH_Contraction_l_Ailk_Bjlk_Cijk_Dijk", "Type_SS_Contraction_l_Alik_Bljk_Cijk_Dijk")


def object_for(gfx: str, *kernels: str) -> bytes:
    return code_object(MACHS[gfx], kernels or (f"Cijk_{gfx}",), target=gfx)


def rocblas(folder: Path, targets: Sequence[str], *, without: Sequence[str] = ()) -> Path:
    """rocBLAS 6: lazy indexes; fallback objects have one index for all. ``without``: names that are left out."""
    files: dict[str, bytes] = {}
    for gfx in targets:
        files[f"TensileLibrary_lazy_{gfx}.dat"] = DAT
        files[f"Kernels.so-000-{gfx}.hsaco"] = object_for(gfx)
        for kind in TYPES:
            files[f"TensileLibrary_{kind}_{gfx}.dat"] = DAT
            files[f"TensileLibrary_{kind}_{gfx}.co"] = object_for(gfx)
            files[f"TensileLibrary_{kind}_fallback_{gfx}.hsaco"] = object_for(gfx)
            files[f"TensileLibrary_{kind}_fallback.dat"] = DAT
    return _written(folder / "lib/rocblas/library", files, without)


def hipblaslt(folder: Path, targets: Sequence[str], *, without: Sequence[str] = (), nested: bool = False) -> Path:
    """hipBLASLt 6 and 7; ``nested``: with a folder for each GPU, as newer releases have it."""
    files: dict[str, bytes] = {}
    for gfx in targets:
        below = f"{gfx}/" if nested else ""
        files[f"{below}TensileLibrary_lazy_{gfx}.dat"] = DAT
        files[f"{below}Kernels.so-000-{gfx}.hsaco"] = object_for(gfx)
        files[f"{below}hipblasltTransform_{gfx}.hsaco"] = object_for(gfx)
        files[f"{below}extop_{gfx}.co"] = object_for(gfx)
    return _written(folder / "lib/hipblaslt/library", files, without)


def miopen(folder: Path, targets: Sequence[str]) -> Path:
    """MIOpen's databases: kernels that were compiled beforehand, and tuning."""
    files = {f"{gfx}.kdb": b"SQLite format 3\0" + bytes(400) for gfx in targets}
    files |= {f"{gfx}_36.HIP.fdb.txt": b"1-2-3=x" for gfx in targets}
    return _written(folder / "share/miopen/db", files, ())


def _written(folder: Path, files: dict[str, bytes], without: Sequence[str]) -> Path:
    for name, data in files.items():
        if name.rpartition("/")[2] not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return folder
