"""New contents of fatbins and bundles."""
