"""The text of a verdict."""
