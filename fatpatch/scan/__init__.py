"""The walk over a file, and what is counted over the tree that it gives."""
