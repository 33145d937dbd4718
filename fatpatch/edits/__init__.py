"""Edits: planned as a pure description, written to a temporary file, verified by reading that again, then named.

Reading never writes and writing never parses what it has just written: what ``plan`` makes is an ``Overlay`` (old bytes, what
replaces some of them, what follows), and everything below works on that.
"""
