"""How much of their quotas sandboxes use: one in full, or all of a cluster, together by owner or project."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model import labels
from sandbox.model.durations import from_rfc3339, short_duration
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.pod_resources import Amounts, amount, amounts
from sandbox.model.quota import Circumstances, asked_by
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision.contents import newest_record
from sandbox.provision.inspect import list_sandboxes

By = Literal["owner", "project"]
_AT_ONCE: Final = 16


@dataclass(frozen=True)
class ResourceUse:
    """One resource of a quota.

    Attributes:
        used: as the API server counts it now.
        requested: by what was deployed last, at first; None where nobody knows.
    """

    resource: str
    used: Decimal
    hard: Decimal
    requested: Decimal | None = None

    @property
    def share(self) -> float:
        """0 to 1, or more where the quota was lowered later; 0 for a quota of nothing."""
        return float(self.used / self.hard) if self.hard else 0.0


@dataclass(frozen=True)
class Volume:
    """A claim; ``storage`` is what it has, or asks for where it is not bound yet (bytes)."""

    name: str
    storage: Decimal
    storage_class: str
    phase: str


@dataclass(frozen=True)
class SandboxUse:
    """What one sandbox uses.

    Attributes:
        resources: empty where there is no quota, or none that we may see.
        idle: why it seems to be of no use now; empty: it does not.
        volumes: None where they were not looked at.
    """

    sandbox: Sandbox
    resources: tuple[ResourceUse, ...]
    idle: str = ""
    last_deployed: datetime | None = None
    volumes: tuple[Volume, ...] | None = None

    @property
    def fullest(self) -> ResourceUse | None:
        """The resource of which the largest share is used."""
        return max(self.resources, key=lambda use: use.share, default=None)


@dataclass(frozen=True)
class GroupUse:
    """What the sandboxes of one owner or project use together."""

    name: str
    sandboxes: int
    idle: int
    resources: tuple[ResourceUse, ...]


async def of_sandbox(cluster: Cluster, sandbox: Sandbox, *, idle_after: timedelta) -> SandboxUse:
    """What one sandbox uses, with what its deployment asks for and its volumes.

    Raises:
        Refused: no permission to look into it.
    """
    async with asyncio.TaskGroup() as group:
        quota = group.create_task(objects.get(cluster, _quota_of(sandbox)))
        limits = group.create_task(_limits(cluster, sandbox))
        record = group.create_task(newest_record(cluster, sandbox.namespace))
        volumes = group.create_task(_volumes(cluster, sandbox))
        now = group.create_task(cluster.server_time())
    hard = ((quota.result() or {}).get("spec") or {}).get("hard") or {}
    latest, _ = record.result()
    requested: Amounts | None = None
    if latest is not None:
        given = Circumstances.of(hard, limits.result())
        asked = [
            item
            for name, service in latest.services.items()
            for manifest in service.manifests
            for item in asked_by(name, manifest, given)
        ]
        requested = defaultdict(Decimal)
        for item in asked:
            requested[item.resource] += item.amount
    last = latest.at if latest else sandbox.created_at
    return SandboxUse(
        sandbox,
        _uses(quota.result(), requested),
        idle=idleness(sandbox, last, now.result(), idle_after),
        last_deployed=last,
        volumes=tuple(volumes.result()),
    )


async def of_all(cluster: Cluster, *, idle_after: timedelta) -> list[SandboxUse]:
    """What all sandboxes that one may see use, by name: three page-wise lists, however many there are.

    Raises:
        Refused: no permission to list namespaces.
    """
    sandboxes = [s for s in await list_sandboxes(cluster) if s.phase is not Phase.TERMINATING]
    now = await cluster.server_time()
    quotas = await _named(cluster, "ResourceQuota", labels.QUOTA_NAME, sandboxes)
    records = await _named(cluster, "ConfigMap", labels.RECORD_NAME, sandboxes)
    found = []
    for sandbox in sandboxes:
        last = _written(records.get(sandbox.namespace)) or sandbox.created_at
        idle = idleness(sandbox, last, now, idle_after)
        found.append(SandboxUse(sandbox, _uses(quotas.get(sandbox.namespace)), idle, last))
    return found


def grouped(uses: Iterable[SandboxUse], by: By) -> list[GroupUse]:
    """The same together by owner or project, by name."""
    groups: dict[str, list[SandboxUse]] = defaultdict(list)
    for use in uses:
        groups[getattr(use.sandbox, by)].append(use)
    return [
        GroupUse(name, len(found), sum(1 for use in found if use.idle), _together(found))
        for name, found in sorted(groups.items())
    ]


def idleness(sandbox: Sandbox, last: datetime | None, now: datetime, idle_after: timedelta) -> str:
    """Why a sandbox seems to be of no use now; empty: it does not."""
    if sandbox.phase is Phase.SLEEPING:
        return "asleep"
    if last is not None and now - last >= idle_after:
        return f"no deployment for {short_duration(now - last)}"
    return ""


def _together(uses: Sequence[SandboxUse]) -> tuple[ResourceUse, ...]:
    used: Amounts = defaultdict(Decimal)
    hard: Amounts = defaultdict(Decimal)
    for use in uses:
        for resource in use.resources:
            used[resource.resource] += resource.used
            hard[resource.resource] += resource.hard
    return tuple(ResourceUse(name, used[name], hard[name]) for name in hard)


def _uses(quota: Manifest | None, requested: Mapping[str, Decimal] | None = None) -> tuple[ResourceUse, ...]:
    status = (quota or {}).get("status") or {}
    hard, used = amounts(status.get("hard")), amounts(status.get("used"))
    return tuple(
        ResourceUse(
            name,
            used.get(name, Decimal(0)),
            hard[name],
            None if requested is None else requested.get(name, Decimal(0)),
        )
        for name in sorted(hard)
    )


def _quota_of(sandbox: Sandbox) -> ObjectRef:
    return ObjectRef("", "v1", "ResourceQuota", labels.QUOTA_NAME, sandbox.namespace)


async def _limits(cluster: Cluster, sandbox: Sandbox) -> list[dict[str, Any]]:
    ref = ObjectRef("", "v1", "LimitRange", labels.LIMIT_RANGE_NAME, sandbox.namespace)
    found = await objects.get(cluster, ref)
    return list(((found or {}).get("spec") or {}).get("limits") or ())


async def _volumes(cluster: Cluster, sandbox: Sandbox) -> list[Volume]:
    found = []
    async for claim in objects.list_(cluster, "v1", "PersistentVolumeClaim", sandbox.namespace):
        spec, status = claim.get("spec") or {}, claim.get("status") or {}
        has = (status.get("capacity") or {}).get("storage")
        asks = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        about = str(spec.get("storageClassName") or ""), str(status.get("phase", ""))
        found.append(Volume(claim["metadata"]["name"], amount(has or asks), *about))
    return found


async def _named(cluster: Cluster, kind: str, name: str, sandboxes: Sequence[Sandbox]) -> dict[str, Manifest]:
    """Namespace → our object of a kind there: one list where we may, else each sandbox for itself."""
    metadata_only = kind == "ConfigMap"
    try:
        listed = objects.list_(cluster, "v1", kind, field_selector=f"metadata.name={name}", metadata_only=metadata_only)
        return {item["metadata"]["namespace"]: item async for item in listed}
    except Forbidden:
        return {item["metadata"]["namespace"]: item async for item in _each(cluster, kind, name, sandboxes)}


async def _each(cluster: Cluster, kind: str, name: str, sandboxes: Sequence[Sandbox]) -> AsyncIterator[Manifest]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(sandbox: Sandbox) -> Manifest | None:
        async with at_once:
            try:
                return await objects.get(cluster, ObjectRef("", "v1", kind, name, sandbox.namespace))
            except Refused:
                # Somebody else's: it is listed, and what it uses stays unknown.
                return None

    for found in await asyncio.gather(*(one(sandbox) for sandbox in sandboxes)):
        if found is not None:
            yield found


def _written(summary: Manifest | None) -> datetime | None:
    """When a deployment wrote its summary: the server's word, which nobody can set."""
    times = []
    for entry in ((summary or {}).get("metadata") or {}).get("managedFields") or ():
        try:
            times.append(from_rfc3339(str(entry.get("time", ""))))
        except InvalidInput:
            continue
    return max(times, default=None)
