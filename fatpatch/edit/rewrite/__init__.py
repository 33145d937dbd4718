"""Fatbins and bundles written anew from their own images: pruned, recompressed, expanded."""
