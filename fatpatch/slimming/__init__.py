"""``slim``: an environment, a wheel or a library for the GPUs that it will meet."""
