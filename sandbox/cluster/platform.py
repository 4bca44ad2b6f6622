"""Where the platform configuration lies in a cluster."""

from __future__ import annotations

from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model.objects import ObjectRef

# Fixed: everybody finds it without being told, and RBAC can name it.
NAMESPACE: Final = "sandbox-system"
CONFIG_MAP: Final = "sandbox-config"
KEY: Final = "platform.yaml"

REFERENCE: Final = ObjectRef("", "v1", "ConfigMap", CONFIG_MAP, NAMESPACE)


async def find_platform(cluster: Cluster) -> str | None:
    """The text of the platform configuration; None where the chart is not installed.

    Raises:
        Forbidden: we may not look.
    """
    found = await objects.get(cluster, REFERENCE)
    text = ((found or {}).get("data") or {}).get(KEY)
    return text if isinstance(text, str) else None


async def read_platform(cluster: Cluster) -> str | None:
    """As :func:`find_platform`; None, too, for those who may not look.

    The chart lets all authenticated users read it, so where that is forbidden the chart is not installed
    (or somebody took the right away, which `doctor` says).
    """
    try:
        return await find_platform(cluster)
    except Forbidden:
        return None
