"""What a user may name: files, folders, addresses, installed packages, packages of an index, processes. Resolved here and nowhere else."""
