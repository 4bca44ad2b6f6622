"""Bringing environments up and down: an ordered list of steps over one context."""
