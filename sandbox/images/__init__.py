"""Images: built from a commit or found in a registry, always ending in a digest."""
