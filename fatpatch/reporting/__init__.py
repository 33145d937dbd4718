"""What a page shows of files: read once, for people to look at."""
