"""Image readers: what one cubin, PTX or code object says of itself and of its kernels."""
