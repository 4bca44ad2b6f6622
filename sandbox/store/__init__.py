"""Where captures are kept: bytes under paths, in a folder or in an object store. See ``docs/architecture.md``."""
