"""``sandbox down``: a sandbox and everything that its record names, gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.ending import what_holds
from sandbox.cluster.errors import NotFound
from sandbox.cluster.helm import Helm
from sandbox.cluster.volumes import retained
from sandbox.model.deletion import check_ours, restore_command
from sandbox.model.errors import SandboxError
from sandbox.model.owner import Owner
from sandbox.model.record import Record
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision import equivalents, records
from sandbox.provision import namespace as ns
from sandbox.provision.inspect import find_sandbox
from sandbox.provision.locks import was_deleted, write_lock
from sandbox.provision.reporter import Reporter, Step
from sandbox.provision.services import is_ours
from sandbox.provision.target import Target
from sandbox.store.locks import RETENTION, forget_locks, keep_lock
from sandbox.store.store import Store

_AT_ONCE = 8
_LOOK_EVERY_S = 0.3
_SAY_EVERY_S = 3.0


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
    must_exist: bool = False,
) -> list[DownResult | Exception]:
    """Delete sandboxes; one that cannot be stops none of the others.

    Args:
        store: where their locks are kept; None: nowhere.
        must_exist: one that is not there is an error, unless it was deleted before and its lock is kept.

    Returns:
        What became of each, or what stood in the way: ``NotFound`` where it must exist and does not, ``Refused`` where
        its namespace is not one that we may delete.
    """
    async with Cluster.connect(target.context, target.kubeconfig) as cluster:
        at_once = asyncio.Semaphore(_AT_ONCE)
        volumes = _Volumes(cluster)

        async def one(name: str) -> DownResult | Exception:
            async with at_once:
                try:
                    return await _down_one(
                        cluster, name, reporter, store, volumes, dry_run=dry_run, wait=wait, timeout=timeout
                    )
                except NotFound as error:
                    is_fine = await _may_be_gone(
                        cluster, name, target.namespace_prefix, error, reporter, must_exist=must_exist
                    )
                    return DownResult(name, deleted=False) if is_fine else error
                except SandboxError as error:
                    return error

        outcomes = await asyncio.gather(*(one(name) for name in dict.fromkeys(names)))
        if store is not None and store.is_local:
            # Nobody else looks after the user's own; others are the clean-up's.
            with suppress(SandboxError):
                await forget_locks(store, RETENTION, await cluster.server_time())
    return outcomes


class _Volumes:
    """The volumes that stay; they have no namespace, so one list tells it of all sandboxes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listed: asyncio.Task[dict[str, list[str]]] | None = None

    async def of(self, namespace: str) -> list[str]:
        if self._listed is None:
            self._listed = asyncio.create_task(retained(self._cluster))
        return (await self._listed).get(namespace, [])


async def _down_one(
    cluster: Cluster,
    name: str,
    reporter: Reporter,
    store: Store | None,
    volumes: _Volumes,
    *,
    dry_run: bool,
    wait: bool,
    timeout: float,
) -> DownResult:
    sandbox = await find_sandbox(cluster, name)
    namespace = await ns.find(cluster, sandbox.namespace)
    if namespace is None:
        return DownResult(name, deleted=False)
    newest = await records.latest(cluster, sandbox.namespace)
    check_ours(namespace, newest.namespace_uid if newest else None)
    named = [str(item.ref) for s in newest.services.values() for item in s.inventory] if newest else []
    if dry_run:
        return DownResult(sandbox.name, deleted=True, objects=named)
    stay, owner = await volumes.of(sandbox.namespace), Owner.of(namespace)
    lock = await _keep_lock(sandbox, owner, newest, store, reporter)
    restore = restore_command(lock, sandbox, owner) if lock else ""
    if stay:
        reporter.warn(f"volumes stay with their data, for their reclaim policy is Retain: {', '.join(stay)}")
    with reporter.step(f"Delete {sandbox.name}") as step:
        if sandbox.phase != Phase.TERMINATING:
            step.detail("uninstall releases")
            await _uninstall(cluster, sandbox, newest, reporter)
            await _delete_cluster_scoped(cluster, sandbox, newest)
            reporter.command(equivalents.delete_namespace(cluster.context, sandbox.namespace))
            await objects.delete(cluster, ns.reference(sandbox.namespace), uid=sandbox.uid)
        if not wait:
            return DownResult(sandbox.name, deleted=True, ended=False, objects=named, lock=lock, restore=restore)
        step.detail(f"deleting {len(named)} objects and the namespace" if named else "deleting the namespace")
        stuck = await _wait_gone(cluster, sandbox, timeout, step)
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


async def _may_be_gone(
    cluster: Cluster, name: str, prefix: str, error: NotFound, reporter: Reporter, *, must_exist: bool
) -> bool:
    """Whether it is fine that a sandbox is not there: deleting twice is no failure, a typing error is one."""
    if not must_exist:
        reporter.warn(f"{error.what}; {error.hint}" if error.hint else error.what)
        return True
    if await was_deleted(cluster, name, prefix):
        reporter.info(f"{name} is gone already; `sandbox up --lock {name}` brings it back")
        return True
    asked = f"{error.hint}{' ' if error.hint.endswith('?') else '; '}" if error.hint else ""
    error.hint = f"{asked}--ignore-not-found where that is no matter"
    return False


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


async def _wait_gone(cluster: Cluster, sandbox: Sandbox, timeout: float, step: Step) -> list[str]:
    """Wait until the namespace is gone, and say meanwhile what for; else what holds it."""
    loop = asyncio.get_running_loop()
    end, next_word = loop.time() + timeout, loop.time() + _SAY_EVERY_S
    while True:
        # Rights given inside of it go before the namespace itself does.
        found = await ns.find(cluster, sandbox.namespace)
        if found is None or found["metadata"]["uid"] != sandbox.uid:
            return []
        if loop.time() >= end:
            return await what_holds(cluster, found)
        if loop.time() >= next_word:
            step.detail("; ".join(await what_holds(cluster, found)))
            next_word = loop.time() + _SAY_EVERY_S
        await asyncio.sleep(_LOOK_EVERY_S)
