"""What graphics processors and their drivers do with images: which one is loaded, which PTX they compile."""
