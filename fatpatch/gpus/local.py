"""The GPUs and the driver of this machine, for ``--gpu auto``.

NVIDIA's driver library is called in a process of its own: a broken driver ends that one only. AMD's kernel driver tells its GPUs in
files (Linux, amdkfd topology).
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.gpus.cuda_errors import error_text
from fatpatch.gpus.devices import Device, device_of
from fatpatch.gpus.products import Product, products, with_pci_id, words

_SECONDS: Final = 10
_MOST = 64  # GPUs
_LONGEST = 1 << 16  # characters of an answer
_KFD = "/sys/class/kfd/kfd/topology/nodes"
_VERSION_FILE = "/proc/driver/nvidia/version"

_ASK = """
import ctypes, sys
def call(name, *arguments):
    code = getattr(library, name)(*arguments)
    if code:
        print("error", code)
        sys.exit(0)
try:
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
except OSError:
    print("absent")
    sys.exit(0)
call("cuInit", 0)
count, value, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
call("cuDeviceGetCount", ctypes.byref(count))
for index in range(min(count.value, 64)):
    device, numbers = ctypes.c_int(), []
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetName", name, 256, device)
    for attribute in (75, 76):
        call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    print("gpu", *numbers, name.value.hex())
"""
_MISSING = "name the GPU instead, such as --gpu 'GTX 1060' or --gpu sm_61"


def local_devices() -> tuple[Device, ...]:
    """The GPUs that the drivers of this machine tell, NVIDIA first. InputError when there are none, with the driver's reason."""
    amd = _amd_devices()
    try:
        return (*_nvidia_devices(), *amd)
    except InputError:
        if amd:
            return amd
        raise


def local_driver() -> str | None:
    """The version of NVIDIA's driver here, such as "535.154.05"; None where there is none or it does not tell."""
    try:
        with open(_VERSION_FILE, encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST)
    except OSError:
        text = ""
    if found := re.search(r"Kernel Module\b.*?\s(\d{3,4}\.\d+(?:\.\d+)?)\s", text):
        return found[1]
    answer = _run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    found = re.match(r"\d{3,4}(?:\.\d+){1,2}(?=\s|\Z)", answer or "")
    return found[0] if found else None


def _nvidia_devices() -> tuple[Device, ...]:
    if not sys.executable:
        raise InputError("this program cannot ask the driver", hint=_MISSING)
    answer = _run([sys.executable, "-I", "-c", _ASK])
    if answer is None:
        raise InputError(f"NVIDIA's driver gives no answer (it failed, or took more than {_SECONDS} s)", hint=_MISSING)
    lines = answer.split("\n")
    if lines[0].strip() == "absent":
        raise InputError("there is no GPU driver here", hint=_MISSING)
    if found := re.search(r"^error (\d{1,9})\s*$", answer, re.MULTILINE):
        error = error_text(int(found[1]))
        raise InputError(f"NVIDIA's driver fails with error {found[1]}: {error.text} ({error.name})", hint=_MISSING)
    devices = [device for line in lines[:_MOST] if (device := _nvidia_device(line)) is not None]
    if not devices:
        raise InputError("NVIDIA's driver knows no GPU here", hint=_MISSING)
    return tuple(devices)


def _nvidia_device(line: str) -> Device | None:
    """A GPU from ``gpu MAJOR MINOR NAME``; what the table knows of it is added when name and capability agree."""
    found = re.fullmatch(r"gpu (\d{1,2}) (\d) ((?:[0-9a-f]{2})*)\s*", line)
    if found is None:
        return None
    name = bytes.fromhex(found[3]).decode("utf-8", "replace").removeprefix("NVIDIA ").strip()
    arch = int(found[1] + found[2])
    row = next((row for row in products() if row.arch == arch and row.words == words(name)), None)
    if row is not None:
        return device_of(row)._replace(name=name, note="")
    note = "the name is not in the tables; the compute capability is what the driver reports"
    return Device("nvidia", name or f"compute capability {arch // 10}.{arch % 10}", f"sm_{arch}", arch, "", None, note)


def _amd_devices() -> tuple[Device, ...]:
    found = []
    for path in sorted(glob.glob(os.path.join(_KFD, "*", "properties")))[:_MOST]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                values = dict(re.findall(r"^(\w+) (\d{1,9})$", file.read(_LONGEST), re.MULTILINE))
        except OSError:
            continue
        if version := int(values.get("gfx_target_version", 0)):  # 0 for a CPU
            found.append(_amd_device(version, int(values.get("device_id", 0))))
    return tuple(found)


def _amd_device(version: int, device_id: int) -> Device:
    """A GPU from 100301 (gfx1031): major, minor and stepping in two decimal digits each."""
    target = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    rows = [row for row in with_pci_id(f"{device_id:04x}", "amd") if row.target == target]
    row: Product | None = rows[0] if rows else None
    if row is None:
        return Device("amd", target, target, None, "", None, "the PCI id is not in the tables; the target is what the driver reports")
    names = {each.name for each in rows}
    note = "" if len(names) == 1 else f"the PCI id is that of {len(names)} names"
    return device_of(row)._replace(note=note)


def _run(command: list[str]) -> str | None:
    """What a program prints; None when it cannot be run, fails, or takes too long."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout[:_LONGEST].decode("utf-8", "replace") if done.returncode == 0 else None
