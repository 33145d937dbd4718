"""Cubins: NVIDIA's machine code."""
