"""PersistentVolumes that a namespace leaves behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden


async def retained(cluster: Cluster, namespaces: Container[str] | None = None) -> dict[str, list[str]]:
    """The volumes that stay, with their data, when namespaces go, by namespace: ``pv-7 (of shop-main/data)``.

    Their claims go; the reclaim policy Retain says that somebody is to look after them. None for those who may not
    see volumes.

    Args:
        namespaces: None: all.

    Raises:
        SandboxError: the cluster does not say.
    """
    found: dict[str, list[str]] = defaultdict(list)
    try:
        async for volume in objects.list_(cluster, "v1", "PersistentVolume"):
            spec = volume.get("spec") or {}
            claim = spec.get("claimRef") or {}
            namespace = claim.get("namespace", "")
            bound = (volume.get("status") or {}).get("phase") == "Bound"
            stays = bound and spec.get("persistentVolumeReclaimPolicy") == "Retain"
            if stays and (namespaces is None or namespace in namespaces):
                found[namespace].append(f"{volume['metadata']['name']} (of {namespace}/{claim.get('name', '')})")
    except Forbidden:
        return {}
    return dict(found)
