"""An image, resolved to a digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ResolvedImage:
    """An image that a service brings.

    Attributes:
        name: what the project calls it: the reference in manifests that is replaced.
        repository: registry, path and name, without tag or digest.
        tag: tag it was pushed or found under.
        digest: ``sha256:…`` of its manifest, as the registry says.
        origin: built now, found in the registry under the key of its content, taken from a lock, record or base,
            or (in a dry run) not built yet: then the digest is empty.
    """

    name: str
    repository: str
    tag: str
    digest: str
    origin: Literal["built", "found", "locked", "planned"]

    @property
    def reference(self) -> str:
        """``repository:tag@digest``: what pods get. The digest decides; the tag is for people."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}@{self.digest}" if self.digest else f"{self.repository}{tag}"
