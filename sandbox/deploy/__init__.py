"""Deployments into shared environments: captured and rolled back when they fail."""
