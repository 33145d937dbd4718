"""The formats by module name. They are named here, not imported: construct is loaded only by whoever asks for a layout."""

from __future__ import annotations

FORMATS: tuple[str, ...] = (
    "fatbin", "wrapper", "cubin", "nvinfo", "ptx", "offload_bundle", "offload_binary", "kpack", "code_object", "elf", "pe", "ape", "zip",
    "ar", "tar", "gguf",
)  # fmt: skip
