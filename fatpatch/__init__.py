"""Read, judge and repair the GPU code inside shipped binaries.

As a library::

    from fatpatch.survey import kernels
    from fatpatch.walk import inspected

    with inspected("libcublas.so.12") as node:
        for image, found in kernels(node):
            print(image.locator, [kernel.name for kernel in found])
"""

__version__ = "0.1.0"
