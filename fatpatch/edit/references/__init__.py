"""Every way in which a linked program can reach a payload, apart from the wrapper that the CUDA or HIP runtime follows.

``search`` asks all of them: exported symbols, relocations, pointers and offsets in data, instructions. One piece of code serves ELF and PE.
"""
