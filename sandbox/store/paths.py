"""Names inside a store: relative, without tricks, the same in a folder and in an object store."""

from __future__ import annotations

import re

from sandbox.model.errors import InvalidInput

_LONGEST = 512
# One part of a path. No leading dot: those are the store's own temporary files (and `.`, `..`).
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@:-]{0,199}", re.ASCII)


def checked(path: str) -> str:
    """A path inside a store, as it is.

    Raises:
        InvalidInput: absolute, with ``..`` or empty parts, or with characters that some store does not take.
    """
    if len(path) <= _LONGEST and all(_PART.fullmatch(part) for part in path.split("/")):
        return path
    raise InvalidInput(
        f"{path[:100]!r} is no path in a store",
        why="paths are relative: letters, digits and _ . + = @ : - between slashes, no part begins with a dot",
    )


def checked_prefix(prefix: str) -> str:
    """The beginning of a path: empty, or a path that may end with a slash.

    Raises:
        InvalidInput: as :func:`checked`.
    """
    if prefix:
        checked(prefix.removesuffix("/"))
    return prefix
