"""Independent builders: struct.pack and literal numbers only, never fatpatch.formats, so that a wrong constant fails a test."""
