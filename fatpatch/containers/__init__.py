"""Container readers: one file, one format. Each has KIND, ``probe(source) -> bool`` and ``read(source, ...) -> Container``."""
