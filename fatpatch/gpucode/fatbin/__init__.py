"""CUDA fatbins: the containers, their entries, and the wrappers that name them."""
