"""``sandbox down``: a sandbox and everything that its record names, gone."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.ending import what_holds
from sandbox.cluster.errors import NotFound
from sandbox.cluster.helm import Helm
from sandbox.model.deletion import check_ours
from sandbox.model.errors import Refused, SandboxError
from sandbox.model.owner import Owner
from sandbox.model.record import Record
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision import equivalents, records
from sandbox.provision import namespace as ns
from sandbox.provision.inspect import find_sandbox
from sandbox.provision.locks import write_lock
from sandbox.provision.reporter import Reporter
from sandbox.provision.services import is_ours
from sandbox.provision.target import Target
from sandbox.store.locks import RETENTION, forget_locks, keep_lock
from sandbox.store.store import Store

_AT_ONCE = 8


@dataclass(frozen=True)
class DownResult:
    """What became of one sandbox.

    Attributes:
        deleted: the namespace is gone (or would be, in a dry run); False where there was none.
        ended: whether the deletion was waited for.
        objects: what the record named, as kubectl writes it.
        stuck: why it is still there, in the control plane's words.
        lock: where its lock is kept now; ``restore``: the command that brings it back.
    """

    name: str
    deleted: bool
    ended: bool = True
    objects: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    lock: str = ""
    restore: str = ""


async def down(
    target: Target,
    names: Sequence[str],
    *,
    reporter: Reporter,
    store: Store | None = None,
    dry_run: bool = False,
    wait: bool = True,
    timeout: float = 120.0,
) -> list[DownResult]:
    """Delete sandboxes. One that is not there is no error.

    Args:
        store: where their locks are kept; None: nowhere.

    Raises:
        Refused: a namespace is not one that we may delete.
    """
    async with Cluster.connect(target.context, target.kubeconfig) as cluster:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> DownResult:
            async with at_once:
                return await _down_one(cluster, name, reporter, store, dry_run=dry_run, wait=wait, timeout=timeout)

        outcomes = await asyncio.gather(*(one(name) for name in dict.fromkeys(names)), return_exceptions=True)
        if store is not None and store.is_local:
            # Nobody else looks after the user's own; others are the clean-up's.
            with suppress(SandboxError):
                await forget_locks(store, RETENTION, await cluster.server_time())
    # One that may not be deleted stops none of the others; it is told when they are done.
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise errors[0]
    return [outcome for outcome in outcomes if isinstance(outcome, DownResult)]


async def _down_one(
    cluster: Cluster,
    name: str,
    reporter: Reporter,
    store: Store | None,
    *,
    dry_run: bool,
    wait: bool,
    timeout: float,
) -> DownResult:
    try:
        sandbox = await find_sandbox(cluster, name)
    except NotFound as error:
        # No failure, for deleting twice is none; but it may be a typing error.
        reporter.warn(f"{error.what}; {error.hint}" if error.hint else error.what)
        return DownResult(name, deleted=False)
    namespace = await ns.find(cluster, sandbox.namespace)
    if namespace is None:
        return DownResult(name, deleted=False)
    newest = await _newest_record(cluster, sandbox, reporter)
    check_ours(namespace, newest.namespace_uid if newest else None)
    named = [str(item.ref) for s in newest.services.values() for item in s.inventory] if newest else []
    if dry_run:
        return DownResult(sandbox.name, deleted=True, objects=named)
    lock = await _keep_lock(sandbox, Owner.of(namespace), newest, store, reporter)
    restore = f"sandbox up --lock {shlex.quote(lock)} --name {sandbox.name}" if lock else ""
    with reporter.step(f"Delete {sandbox.name}") as step:
        if sandbox.phase != Phase.TERMINATING:
            step.detail("uninstall releases")
            await _uninstall(cluster, sandbox, newest, reporter)
            await _delete_cluster_scoped(cluster, sandbox, newest)
            reporter.command(equivalents.delete_namespace(cluster.context, sandbox.namespace))
            await objects.delete(cluster, ns.reference(sandbox.namespace), uid=sandbox.uid)
        if not wait:
            return DownResult(sandbox.name, deleted=True, ended=False, objects=named, lock=lock, restore=restore)
        step.detail("wait for the namespace to end")
        stuck = await _wait_gone(cluster, sandbox, timeout)
    return DownResult(sandbox.name, deleted=not stuck, objects=named, stuck=stuck, lock=lock, restore=restore)


async def _keep_lock(
    sandbox: Sandbox, owner: Owner, newest: Record | None, store: Store | None, reporter: Reporter
) -> str:
    """Save the lock of what is deleted; where. Empty where there is none that could be deployed, or no place for it."""
    if store is None or newest is None or sandbox.phase == Phase.TERMINATING:
        return ""
    if any(service.dirty or not service.declared_commit for service in newest.lock.services.values()):
        return ""
    try:
        return await keep_lock(store, sandbox.namespace, sandbox.uid, write_lock(newest.lock), owner)
    except SandboxError as error:
        reporter.warn(f"the lock of {sandbox.name} is not kept: {error}")
        return ""


async def _newest_record(cluster: Cluster, sandbox: Sandbox, reporter: Reporter) -> Record | None:
    try:
        return await records.latest(cluster, sandbox.namespace)
    except Refused as error:
        reporter.warn(f"{error.what}: {error.why}")
        raise


async def _uninstall(cluster: Cluster, sandbox: Sandbox, newest: Record | None, reporter: Reporter) -> None:
    """Releases first: their delete hooks and finalizers want a namespace that still works."""
    charts = [s.lock.chart.release for s in newest.services.values() if s.lock.chart] if newest else []
    if not charts:
        return
    helm = Helm(cluster.kubeconfig_path, cluster.context, cluster=cluster)
    outcomes = await asyncio.gather(
        *(helm.uninstall(release, sandbox.namespace) for release in charts), return_exceptions=True
    )
    for release in charts:
        reporter.command(equivalents.uninstall(cluster.context, sandbox.namespace, release))
    for release, outcome in zip(charts, outcomes, strict=True):
        if isinstance(outcome, SandboxError):
            reporter.warn(f"the release {release} was not uninstalled cleanly: {outcome}")
        elif isinstance(outcome, BaseException):
            raise outcome


async def _delete_cluster_scoped(cluster: Cluster, sandbox: Sandbox, newest: Record | None) -> None:
    """What we applied outside of the namespace does not end with it; a chart's objects are Helm's."""
    for name, service in newest.services.items() if newest else ():
        for item in reversed(service.inventory if service.lock.chart is None else ()):
            if not item.namespace and await is_ours(cluster, item.ref, sandbox.namespace, name):
                await objects.delete(cluster, item.ref)


async def _wait_gone(cluster: Cluster, sandbox: Sandbox, timeout: float) -> list[str]:
    """Wait until the namespace is gone; else what holds it."""
    retrying = AsyncRetrying(
        stop=stop_after_delay(timeout),
        wait=wait_fixed(0.3),
        retry=retry_if_result(lambda found: found is not None and found["metadata"]["uid"] == sandbox.uid),
    )
    try:
        # Rights given inside of it go before the namespace itself does.
        await retrying(ns.find, cluster, sandbox.namespace)
    except RetryError as error:
        return await what_holds(cluster, error.last_attempt.result())
    return []
