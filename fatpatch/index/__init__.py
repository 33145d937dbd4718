"""Many files, one index: what each holds and whom it serves, in a database that is asked instead of the files."""
