"""Container images: OCI layouts, docker archives, registries; their layers as one file system."""
