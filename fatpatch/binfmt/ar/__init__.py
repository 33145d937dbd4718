"""Ar archives."""
