"""Payload readers: where GPU code sits in a container, and how its images are delimited."""
