"""Container images with slimmed libraries: layers rewritten, digests and documents after them."""
