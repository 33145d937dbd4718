"""The nouns: what a file holds, as frozen records."""
