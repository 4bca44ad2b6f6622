"""The embedded provider: real upstream Kubernetes on this machine, without Docker."""

from __future__ import annotations

import os
import sys

from sandbox.cluster.providers.embedded import build, images, lifecycle
from sandbox.cluster.providers.model import ClusterInfo, Progress


class EmbeddedProvider:
    """Clusters of one node each, in namespaces of their own."""

    name = lifecycle.PROVIDER

    def available(self) -> str | None:
        """Why it cannot be used here; a control plane alone needs no root and is not asked about."""
        if sys.platform != "linux":
            return "it needs Linux"
        if os.geteuid() != 0:
            return "it needs root (a control plane alone does not)"
        if build.sources() is None:
            return "its sources are not in this installation"
        return None

    async def create(
        self, name: str, *, control_plane_only: bool = False, install_packages: bool = False, progress: Progress
    ) -> ClusterInfo:
        """Create, mend or find a cluster; see `lifecycle.create`.

        Args:
            install_packages: install missing Debian packages with apt-get.
        """
        return await lifecycle.create(
            name, control_plane_only=control_plane_only, install_packages=install_packages, progress=progress
        )

    async def list(self) -> list[ClusterInfo]:
        """All clusters, half-made ones too."""
        return [await lifecycle.info(name) for name in await lifecycle.names()]

    async def delete(self, name: str, progress: Progress) -> bool:
        """Delete a cluster; see `lifecycle.delete`."""
        return await lifecycle.delete(name, progress)

    async def load_image(self, name: str, image: str, progress: Progress) -> str:
        """Copy an image into the cluster's registry; see `images.load`."""
        return await images.load(await lifecycle.info(name), image, progress)
