"""Which CUDA release brought which PTX version, and the first driver that compiles it (source: CUDA release notes)."""

from __future__ import annotations

_RELEASES = (  # CUDA, PTX ISA, first driver on Linux, on Windows; a bare branch number where NVIDIA names no build
    ("8.0", "5.0", "367.48", "369.30"),
    ("9.0", "6.0", "384.81", "385.54"),
    ("9.1", "6.1", "387.26", "388.19"),
    ("9.2", "6.2", "396.26", "397.44"),
    ("10.0", "6.3", "410.48", "411.31"),
    ("10.1", "6.4", "418.39", "418.96"),
    ("10.2", "6.5", "440.33", "441.22"),
    ("11.0", "7.0", "450.51.05", "451.48"),
    ("11.1", "7.1", "455.23", "456.38"),
    ("11.2", "7.2", "460.27.03", "460.82"),
    ("11.3", "7.3", "465.19.01", "465.89"),
    ("11.4", "7.4", "470.42.01", "471.11"),
    ("11.5", "7.5", "495.29.05", "496.04"),
    ("11.6", "7.6", "510.39.01", "511.23"),
    ("11.7", "7.7", "515.43.04", "516.01"),
    ("11.8", "7.8", "520.61.05", "520.06"),
    ("12.0", "8.0", "525.60.13", "527.41"),
    ("12.1", "8.1", "530.30.02", "531.14"),
    ("12.2", "8.2", "535.54.03", "536.25"),
    ("12.3", "8.3", "545.23.06", "545.84"),
    ("12.4", "8.4", "550.54.14", "551.61"),
    ("12.5", "8.5", "555.42.02", "555.85"),
    ("12.6", "8.5", "560.28.03", "560.76"),
    ("12.7", "8.6", "565.57.01", "565"),  # a driver, never a toolkit
    ("12.8", "8.7", "570.26", "570.65"),
    ("12.9", "8.8", "575.51.03", "576.02"),
    ("13.0", "9.0", "580.65.06", "580"),
    ("13.1", "9.1", "590.44.01", "590"),
    ("13.2", "9.2", "595.45.04", "595"),
    ("13.3", "9.3", "610", "610"),
    ("13.4", "9.4", "615", "615"),
    ("13.5", "9.5", "", ""),  # its driver is not known
)


def cuda_of_ptx(isa: str) -> str | None:
    """The first CUDA release that knows a PTX version: "8.4" is 12.4. None for a version that is not in the table."""
    return next((cuda for cuda, ptx, _, _ in _RELEASES if ptx == isa), None)


def driver_for_cuda(cuda: str) -> tuple[str, str] | None:
    """The lowest driver, on Linux and on Windows, that compiles the PTX of a CUDA release. None when it is not known."""
    return next(((linux, windows) for name, _, linux, windows in _RELEASES if name == cuda and linux), None)


def ptx_of_driver(version: str) -> str | None:
    """The highest PTX version that a driver compiles: "535.154" is 8.2. None before 367, or when it is no version.

    Its first number decides, as a branch keeps its CUDA version; Windows counts a few numbers up within a branch.
    """
    branch = version.strip().split(".")[0]
    if not (branch.isascii() and branch.isdigit()):
        return None
    return next((ptx for _, ptx, linux, _ in reversed(_RELEASES) if linux and int(linux.split(".")[0]) <= int(branch)), None)
