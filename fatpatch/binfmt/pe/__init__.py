"""PE and COFF files."""
