"""Two releases side by side: what was gained and lost."""
