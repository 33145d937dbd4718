"""New contents of fatbins and bundles put into their host files, by format, and what must hold of the result."""
