"""Offload bundles and offload binaries of clang."""
