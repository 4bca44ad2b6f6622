"""Captures: what an environment was at a moment."""
