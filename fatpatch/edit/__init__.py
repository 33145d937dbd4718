"""Edits: planned as a pure description, written to a temporary file, verified by reading that again, then named."""
