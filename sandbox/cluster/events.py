"""Events of Kubernetes, written: what `kubectl get events` and exporters of events show."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists
from sandbox.model.durations import to_rfc3339
from sandbox.model.labels import FIELD_MANAGER
from sandbox.model.objects import Manifest

# What the API server allows (core/v1 Event, `message`).
_LONGEST = 1024


async def on_namespace(
    cluster: Cluster,
    namespace: Manifest,
    *,
    name: str,
    reason: str,
    message: str,
    now: datetime,
    kind: Literal["Normal", "Warning"] = "Normal",
    dry_run: bool = False,
) -> bool:
    """Write an event about a namespace into it (in a dry run, see whether it would be); False where one of this name
    is there already.

    Args:
        name: the same for the same occasion, so that it is told once, whoever tells it.
        reason: CamelCase, as Kubernetes' own.
    """
    metadata = namespace["metadata"]
    event: Manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["name"]},
        # An event lies in the namespace that its object names, also where the object lies in none.
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "name": metadata["name"],
            "namespace": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": kind,
        "reason": reason,
        "message": message[:_LONGEST],
        "firstTimestamp": to_rfc3339(now),
        "lastTimestamp": to_rfc3339(now),
        "count": 1,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": f"sandbox.dev/{FIELD_MANAGER}",
    }
    try:
        await objects.create(cluster, event, dry_run=dry_run)
    except AlreadyExists:
        return False
    return True
