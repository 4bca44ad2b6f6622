"""Collectors: each looks at one part of a namespace, and says of everything how that went."""
