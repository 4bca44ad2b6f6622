"""Whether what was deployed still runs: the quick look before nothing is done."""

from __future__ import annotations

import asyncio

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.readiness import status
from sandbox.cluster.sleeping import remembers
from sandbox.model.objects import ObjectRef
from sandbox.provision.plan import Plan

_LOOKED_AT = {("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("", "PersistentVolumeClaim")}


async def not_running(cluster: Cluster, plan: Plan) -> set[str]:
    """The services of the newest record that have a workload which is not there, or not ready."""
    refs = [
        (name, item.ref)
        for name, service in plan.applied.items()
        if name in plan.services
        for item in service.inventory
        if (item.group, item.kind) in _LOOKED_AT
    ]
    if not refs:
        return set()

    async def runs(ref: ObjectRef) -> bool:
        placed = ObjectRef(ref.group, ref.version, ref.kind, ref.name, plan.identity.namespace)
        found = await objects.get(cluster, placed)
        return found is not None and status(found).state == "ready" and not remembers(found)

    running = await asyncio.gather(*(runs(ref) for _, ref in refs))
    return {name for (name, _), runs_well in zip(refs, running, strict=True) if not runs_well}
