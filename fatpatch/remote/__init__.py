"""Files on servers, read by ranges: only what a command looks at is fetched."""
