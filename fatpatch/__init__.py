"""Read, judge and repair the GPU code inside shipped binaries."""

__version__ = "0.1.0"
