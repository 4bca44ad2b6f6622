"""Captures: what ran in a namespace at a moment, as a bundle in a store. See ``docs/captures.md``."""
