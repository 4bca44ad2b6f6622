"""How an image that somebody names is called in a cluster's own registry. Pure functions."""

from __future__ import annotations

import re
from pathlib import Path


def is_path(image: str) -> bool:
    """Whether a name means a file rather than a reference."""
    return image.startswith(("/", "./", "../", "~")) or image.endswith((".tar", ".tar.gz", ".tgz"))


def repository_of(image: str) -> tuple[str, str]:
    """Repository and tag under which an image goes into a local registry.

    The source's registry is left out: `docker.io/library/redis:7` becomes `library/redis`, `7`. An
    archive is named after its file.
    """
    if is_path(image):
        stem = re.sub(r"(\.(tar|tgz|gz|oci))+$", "", Path(image).name.lower())
        return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "image", "latest"
    name, _, _ = image.partition("@")
    head, slash, tail = name.rpartition("/")
    tail, _, tag = tail.partition(":")
    parts = (head + slash + tail).split("/")
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        parts = parts[1:]
    return "/".join(parts).lower(), tag or "latest"
