"""GPU code: where it lies in a container, and what each image holds. One folder a format."""
