"""One deployment at a time: a Lease in the namespace (``coordination.k8s.io/v1``), held while it is written to.

The holder renews it; one that stopped renewing for the lease's duration is dead and its lease is taken over,
as Kubernetes' own leader election does. A holder that died on this very machine is recognised at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists, Conflict, NotFound
from sandbox.cluster.holder import has_ended, identity
from sandbox.model import labels
from sandbox.model.durations import format_duration, from_rfc3339, short_duration
from sandbox.model.errors import Busy, OperationFailed, SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef

DURATION = timedelta(seconds=30)
_RENEW_EVERY = DURATION / 3
_ASK_EVERY_S = 1.0


@asynccontextmanager
async def deployment_lease(
    cluster: Cluster,
    namespace: str,
    *,
    wait: timedelta = timedelta(0),
    on_wait: Callable[[str], None] = lambda _text: None,
) -> AsyncIterator[None]:
    """Hold the namespace's lease for the time of the block.

    Args:
        wait: how long to wait for another holder to give it up.
        on_wait: told who holds it, while that is so.

    Raises:
        Busy: somebody else deploys there now.
        OperationFailed: the lease was lost while the block ran (it is cancelled then).
        Unreachable: so was the cluster.
    """
    lease = await _acquire_within(cluster, namespace, wait, on_wait)
    holder = lease["spec"]["holderIdentity"]
    block = asyncio.current_task()
    lost: list[SandboxError] = []

    async def renew() -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY.total_seconds())
            try:
                await _renew(cluster, namespace, holder)
            except SandboxError as error:
                lost.append(error)
                if block is not None:
                    block.cancel("lease lost")
                return

    renewal = asyncio.create_task(renew())
    try:
        yield
    except asyncio.CancelledError:
        if lost and isinstance(lost[0], Unreachable):
            raise lost[0] from None
        if lost:
            raise OperationFailed(
                f"the deployment lease of {namespace} was lost", why=str(lost[0]), hint="run the command again"
            ) from None
        raise
    finally:
        renewal.cancel()
        # Whatever comes now, the lease ends by itself; giving it up early only spares the next one a wait.
        with suppress(SandboxError, asyncio.CancelledError, TimeoutError):
            async with asyncio.timeout(5):
                await _release(cluster, namespace, holder)


async def is_deploying(cluster: Cluster, namespace: str) -> bool:
    """Whether somebody deploys into a namespace now: its lease is held by one who goes on renewing it.

    Whoever may write there can write the lease: it is no reason to wait for ever.
    """
    found = await objects.get(cluster, _ref(namespace))
    spec = (found or {}).get("spec") or {}
    silent = await cluster.server_time() - _renewed(spec)
    return bool(spec.get("holderIdentity")) and -DURATION < silent < DURATION


async def _acquire_within(
    cluster: Cluster, namespace: str, wait: timedelta, on_wait: Callable[[str], None]
) -> Manifest:
    """Acquire it, asking again while another one holds it.

    Raises:
        Busy: it is still held when the time is over.
    """
    until = time.monotonic() + wait.total_seconds()
    while True:
        try:
            return await _acquire(cluster, namespace)
        except Busy as error:
            left = until - time.monotonic()
            if left <= 0:
                if wait:
                    error.hint = f"waited {format_duration(wait)} for it"
                raise
            on_wait(error.why or error.what)
        await asyncio.sleep(min(_ASK_EVERY_S, left))


async def _acquire(cluster: Cluster, namespace: str) -> Manifest:
    holder = identity()
    # The server's clock, not ours: holders on machines whose clocks differ must agree.
    now = await cluster.server_time()
    try:
        return await objects.create(cluster, _lease(namespace, holder, now, transitions=0), namespace=namespace)
    except (AlreadyExists, Conflict):
        pass
    current = await objects.get(cluster, _ref(namespace))
    if current is None:
        return await objects.create(cluster, _lease(namespace, holder, now, transitions=0), namespace=namespace)
    spec = current.get("spec") or {}
    if not _is_free(spec, now):
        raise Busy(
            f"another deployment holds {namespace}",
            why=f"held by {spec.get('holderIdentity')}, renewed {short_duration(now - _renewed(spec))} ago",
            hint=f"try again when it is done; a dead holder's lease ends after {short_duration(DURATION)}",
        )
    renewed = _lease(namespace, holder, now, transitions=int(spec.get("leaseTransitions") or 0) + 1)
    try:
        return await objects.patch_merge(
            cluster,
            _ref(namespace),
            {"spec": renewed["spec"]},
            resource_version=current["metadata"]["resourceVersion"],
        )
    except Conflict:
        raise Busy(f"another deployment has just taken {namespace}", hint="try again when it is done") from None


async def _renew(cluster: Cluster, namespace: str, holder: str) -> None:
    current = await objects.get(cluster, _ref(namespace))
    if current is None:
        raise NotFound(f"the lease of {namespace} was deleted")
    if current["spec"].get("holderIdentity") != holder:
        raise Busy(f"{current['spec'].get('holderIdentity')} took the lease over")
    await objects.patch_merge(
        cluster,
        _ref(namespace),
        {"spec": {"renewTime": _micro_time(await cluster.server_time())}},
        resource_version=current["metadata"]["resourceVersion"],
    )


async def _release(cluster: Cluster, namespace: str, holder: str) -> None:
    current = await objects.get(cluster, _ref(namespace))
    if current is not None and current["spec"].get("holderIdentity") == holder:
        await objects.delete(cluster, _ref(namespace), resource_version=current["metadata"]["resourceVersion"])


def _is_free(spec: dict[str, Any], now: datetime) -> bool:
    holder = str(spec.get("holderIdentity") or "")
    if not holder:
        return True
    if now - _renewed(spec) > timedelta(seconds=int(spec.get("leaseDurationSeconds") or DURATION.total_seconds())):
        return True
    return has_ended(holder)


def _renewed(spec: dict[str, Any]) -> datetime:
    try:
        return from_rfc3339(str(spec.get("renewTime")))
    except SandboxError:
        return datetime.min.replace(tzinfo=UTC)


def _micro_time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ref(namespace: str) -> ObjectRef:
    return ObjectRef("coordination.k8s.io", "v1", "Lease", labels.LEASE_NAME, namespace)


def _lease(namespace: str, holder: str, now: datetime, *, transitions: int) -> Manifest:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": labels.LEASE_NAME, "namespace": namespace},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION.total_seconds()),
            "acquireTime": _micro_time(now),
            "renewTime": _micro_time(now),
            "leaseTransitions": transitions,
        },
    }
