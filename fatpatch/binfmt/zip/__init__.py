"""Zip archives and wheels."""
