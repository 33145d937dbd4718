"""ELF64 files: executables, shared objects, object files."""
