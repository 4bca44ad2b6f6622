"""Plain data and pure functions: the words of the product. Nothing here does I/O."""
