"""Host code readers: what the x86-64 code around the GPU images registers, compares with, and was built from."""
