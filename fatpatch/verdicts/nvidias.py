"""NVIDIA's own libraries, by the names of their files and folders; they come compiled, and pick their modules by GPU."""

from __future__ import annotations

import re
from typing import Final

from fatpatch.base.patterns import lazy_pattern

NAMES: Final = lazy_pattern(
    r"(?:^|/)(?:nvidia/|cutensor/"
    r"|lib(?:cutensor|cusparseLt|cudss|nvcomp|nvjpeg2k|nvtiff|cublas|cudnn|cufft|cusparse|cusolver|curand|npp|nvjpeg|nccl|nvrtc|cudart|cupti"
    r"|nvshmem)\w*\.)"
    r"|(?:^|/)(?:cublas|cudnn|cufft|cusparse|cusolver|curand|npp|nvjpeg|nccl|cutensor)\w*64_",
    re.IGNORECASE,
)


def is_nvidias(path: str) -> bool:
    """Whether the path is that of one of them."""
    return NAMES.search(path.replace("\\", "/")) is not None
