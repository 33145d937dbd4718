"""Containers by format, one folder each: how it is read and, where fatpatch writes it, how it is written."""
