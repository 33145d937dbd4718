"""What host code registers, compares and loads."""
