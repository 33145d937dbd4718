"""Code for a GPU that a file left out, made of the PTX that it has for others (reference: stubs, sections B and C)."""
