"""What a provider of clusters is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.model.errors import InvalidInput

Progress = Callable[[str], None]

RUNNING = "running"
STOPPED = "stopped"
BROKEN = "broken"
UNKNOWN = "unknown"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class ClusterInfo:
    """One cluster.

    Attributes:
        provider: `embedded`, `kind` or `existing`.
        context: its context in the user's kubeconfig.
        kubeconfig: the file that holds the context.
        registry: `host:port` of its local registry, the same name for builders and nodes.
        state: `running`, `stopped`, `broken` (half-made, or its API does not answer) or `unknown`.
        version: of Kubernetes, such as `v1.36.3`, where it is known.
    """

    name: str
    provider: str
    context: str
    kubeconfig: Path
    registry: str | None
    state: str
    version: str | None


class Provider(Protocol):
    """Where clusters come from. Every method can be interrupted and called again."""

    @property
    def name(self) -> str:
        """`embedded`, `kind` or `existing`."""
        ...

    def available(self) -> str | None:
        """Why this provider cannot be used here, or None when it can."""
        ...

    async def create(
        self, name: str, *, control_plane_only: bool = False, install_packages: bool = False, progress: Progress
    ) -> ClusterInfo:
        """Create a cluster, or mend or find the one of this name, and wait until it is ready."""
        ...

    async def list(self) -> list[ClusterInfo]:
        """The clusters that there are, in the order of their names."""
        ...

    async def delete(self, name: str, progress: Progress) -> bool:
        """Delete a cluster and all that belongs to it; False when there was none."""
        ...

    async def load_image(self, name: str, image: str, progress: Progress) -> str:
        """Put an image into the cluster's registry.

        Args:
            image: a reference in the storage of docker or buildah, or the path of a docker or OCI archive.

        Returns:
            The image's reference by digest, as pods name it.
        """
        ...


def is_name(name: str) -> bool:
    """Whether a cluster can have this name."""
    return _NAME.fullmatch(name) is not None


def require_name(name: str) -> str:
    """A cluster's name: it becomes part of file, context and host names.

    Raises:
        InvalidInput: it is not lower-case letters, digits and dashes, at most 32.
    """
    if not is_name(name):
        raise InvalidInput(
            f"{name!r} cannot be a cluster's name",
            why="1 to 32 lower-case letters, digits and dashes, beginning and ending with a letter or digit",
        )
    return name
