"""Actually Portable Executables."""
