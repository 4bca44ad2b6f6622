"""Whether what was deployed still runs: the quick look before nothing is done."""

from __future__ import annotations

import asyncio

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.readiness import status
from sandbox.model.objects import ObjectRef
from sandbox.provision.plan import Plan

_LOOKED_AT = {("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("", "PersistentVolumeClaim")}


async def is_running(cluster: Cluster, plan: Plan) -> bool:
    """Whether each workload of the newest record is there and ready."""
    refs = [
        item.ref
        for service in plan.applied.values()
        for item in service.inventory
        if (item.group, item.kind) in _LOOKED_AT
    ]
    now = await cluster.server_time()

    async def runs(ref: ObjectRef) -> bool:
        placed = ObjectRef(ref.group, ref.version, ref.kind, ref.name, plan.identity.namespace)
        found = await objects.get(cluster, placed)
        return found is not None and status(found, now).state == "ready"

    return all(await asyncio.gather(*(runs(ref) for ref in refs)))
