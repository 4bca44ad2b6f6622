"""Clusters that somebody else made: any context of the user's kubeconfig. They are used, never made or removed."""

from __future__ import annotations

import asyncio
import socket
from typing import NoReturn
from urllib.parse import urlsplit

from sandbox.cluster import kubeconfig
from sandbox.cluster.providers.model import RUNNING, UNKNOWN, ClusterInfo, Progress
from sandbox.model.errors import Refused, SandboxError

_CONNECT_BOUND = 2.0  # seconds
# Contexts of these belong to the other providers, which list them.
_OWNED = ("sandbox-", "kind-sandbox-")


class ExistingProvider:
    """The contexts of the user's kubeconfig."""

    name = "existing"

    def available(self) -> str | None:
        """Why the current context cannot be used, or None when its API server answers."""
        try:
            access = kubeconfig.find(None, None)
        except SandboxError as error:
            return str(error)
        if access.proxy or reachable(access.server):
            return None  # what is behind a proxy is for the proxy to say
        return f"context {access.context}: {access.server} does not answer within {_CONNECT_BOUND:.0f} s"

    async def create(
        self, name: str, *, control_plane_only: bool = False, install_packages: bool = False, progress: Progress
    ) -> ClusterInfo:
        """Refuse: clusters of a kubeconfig are made by others."""
        del control_plane_only, install_packages, progress
        self._refuse(f"cluster {name} cannot be created", "provider existing only uses clusters that are there")

    async def list(self) -> list[ClusterInfo]:
        """Every context of the kubeconfig that no other provider made."""
        config = kubeconfig.read(kubeconfig.locations(None))
        names = sorted(name for name in config.contexts if not name.startswith(_OWNED))
        return list(await asyncio.gather(*(asyncio.to_thread(self._info, config, name) for name in names)))

    async def delete(self, name: str, progress: Progress) -> bool:
        """Refuse: what was not made here is not removed here."""
        del progress
        self._refuse(f"cluster {name} is not deleted", "it was not made by this tool")

    async def load_image(self, name: str, image: str, progress: Progress) -> str:
        """Refuse: images reach such a cluster through the registry that it pulls from."""
        del progress
        raise Refused(
            f"{image} is not loaded into {name}",
            why="the cluster pulls its images from a registry of its own",
            hint="set images.registry in sandbox.yaml; builds are pushed there",
        )

    def _info(self, config: kubeconfig.Kubeconfig, name: str) -> ClusterInfo:
        state = UNKNOWN
        try:
            access = kubeconfig.access(config, name)
            if not access.proxy and reachable(access.server):
                state = RUNNING
        except SandboxError:
            pass  # a context that names what is not there stays in the list, as unknown
        file = config.origin["contexts", name]
        return ClusterInfo(name, self.name, name, file, registry=None, state=state, version=None)

    def _refuse(self, what: str, why: str) -> NoReturn:
        raise Refused(what, why=why, hint="use --provider kind or embedded, or the tool that made the cluster")


def reachable(server: str) -> bool:
    """Whether something accepts connections at a server's address."""
    parts = urlsplit(server)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_BOUND):
            return True
    except OSError:
        return False
