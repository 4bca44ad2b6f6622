"""StatefulSets that were changed back: their controller waits for ever for a pod of the revision that was broken.

https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.pods import is_ready
from sandbox.model.errors import SandboxError
from sandbox.model.objects import Manifest, ObjectRef

_SEEN_S = 15.0
_ASK_EVERY_S = 0.2


async def replace_stuck_pods(cluster: Cluster, namespace: str, manifests: Sequence[Manifest]) -> None:
    """Delete pods of StatefulSets that are not ready and of another revision than the one that is wanted now.

    Their claims stay. Those that are replaced by hand only (``OnDelete``) are left alone.

    Args:
        manifests: as they were applied; what is no StatefulSet is passed over.
    """
    names = [m["metadata"]["name"] for m in manifests if (m["apiVersion"], m["kind"]) == ("apps/v1", "StatefulSet")]
    for name in names:
        found = await _seen(cluster, ObjectRef("apps", "v1", "StatefulSet", name, namespace))
        if found is None or (found["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
            continue
        newest = (found.get("status") or {}).get("updateRevision")
        async for pod in objects.list_(cluster, "v1", "Pod", namespace):
            if newest and _is_stuck(pod, found["metadata"]["uid"], newest):
                ref = ObjectRef("", "v1", "Pod", pod["metadata"]["name"], namespace)
                # Where it may not be deleted, or is another one by now, waiting says what stands.
                with suppress(SandboxError):
                    await objects.delete(cluster, ref, uid=pod["metadata"]["uid"])


async def _seen(cluster: Cluster, ref: ObjectRef) -> Manifest | None:
    """A StatefulSet whose controller has seen the last change; None where it is not there, or does not in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SEEN_S):
            while (found := await objects.get(cluster, ref)) is not None:
                if int((found.get("status") or {}).get("observedGeneration") or 0) >= found["metadata"]["generation"]:
                    return found
                await asyncio.sleep(_ASK_EVERY_S)
    return None


def _is_stuck(pod: Manifest, owner: str, newest: str) -> bool:
    metadata = pod["metadata"]
    mine = any(one.get("uid") == owner for one in metadata.get("ownerReferences") or ())
    revision = (metadata.get("labels") or {}).get("controller-revision-hash")
    return mine and revision != newest and not is_ready(pod) and not metadata.get("deletionTimestamp")
