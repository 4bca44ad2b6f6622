"""``sandbox sleep`` and ``wake``: a sandbox that costs nothing while nobody works with it.

The phase on the namespace says that it sleeps, before anything does, so that nobody takes the workloads that are
missing for a failure; its own annotation remembers the phase before. Sleeping does not stop the time to live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.cluster import objects, sleeping
from sandbox.cluster.client import Cluster
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.readiness import status
from sandbox.model import labels
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Slept:
    """What became of a sandbox that was put to sleep or woken.

    Attributes:
        refs: what was changed (would be, in a dry run).
        awake: what goes on running (as kubectl writes it), and why.
    """

    sandbox: Sandbox
    refs: tuple[ObjectRef, ...]
    awake: dict[str, str]

    @property
    def changed(self) -> list[str]:
        """As kubectl writes it."""
        return [str(ref) for ref in self.refs]


async def fall_asleep(cluster: Cluster, sandbox: Sandbox, *, dry_run: bool = False) -> Slept:
    """Put a sandbox to sleep. One that sleeps already is put to sleep again: what was woken by hand in it sleeps too.

    Raises:
        Busy: something is being deployed into it now.
        OperationFailed: it is gone, being deleted, or some of it could not be put to sleep.
    """
    if dry_run:
        return _slept(sandbox, await sleeping.put_to_sleep(cluster, sandbox.namespace, dry_run=True))
    async with deployment_lease(cluster, sandbox.namespace):
        now = await _say_asleep(cluster, sandbox)
        return _slept(now, await sleeping.put_to_sleep(cluster, sandbox.namespace))


async def wake_up(cluster: Cluster, sandbox: Sandbox, *, dry_run: bool = False) -> Slept:
    """Wake a sandbox: whatever was put to sleep becomes what it was; one that is awake stays as it is.

    Raises:
        as :func:`fall_asleep`.
    """
    if dry_run:
        return _slept(sandbox, await sleeping.wake(cluster, sandbox.namespace, dry_run=True))
    async with deployment_lease(cluster, sandbox.namespace):
        done = await sleeping.wake(cluster, sandbox.namespace)
        return _slept(await _say_awake(cluster, sandbox), done)


async def wait_awake(
    cluster: Cluster, slept: Slept, timeout: float, on_change: Callable[[str], None] = lambda _text: None
) -> None:
    """Wait until what was woken is ready.

    Args:
        timeout: seconds.

    Raises:
        OperationFailed: naming what is not ready, and why.
    """
    deadline = time.monotonic() + timeout
    while unready := await _unready(cluster, slept):
        if time.monotonic() > deadline:
            raise OperationFailed(
                f"{slept.sandbox.name} is not ready {timeout:.0f} s after it was woken",
                why="\n".join(unready),
                hint=f"`sandbox status {slept.sandbox.name}` says more",
            )
        on_change(unready[0])
        await asyncio.sleep(_LOOK_EVERY_S)


async def _say_asleep(cluster: Cluster, sandbox: Sandbox) -> Sandbox:
    found = _alive(sandbox, await objects.get(cluster, _reference(sandbox)))
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(labels.PHASE) == Phase.SLEEPING:
        return Sandbox.of(found, cluster.context)
    note = {labels.PHASE: Phase.SLEEPING, labels.AWAKE: annotations.get(labels.PHASE, "")}
    return await _annotate(cluster, sandbox, note)


async def _say_awake(cluster: Cluster, sandbox: Sandbox) -> Sandbox:
    found = _alive(sandbox, await objects.get(cluster, _reference(sandbox)))
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(labels.PHASE) != Phase.SLEEPING:
        return Sandbox.of(found, cluster.context)
    before = annotations.get(labels.AWAKE, "")
    phase = before if before in (Phase.READY, Phase.FAILED, Phase.PROVISIONING) else Phase.READY
    return await _annotate(cluster, sandbox, {labels.PHASE: phase, labels.AWAKE: None})


async def _annotate(cluster: Cluster, sandbox: Sandbox, note: dict[str, str | None]) -> Sandbox:
    answer = await objects.patch_merge(cluster, _reference(sandbox), {"metadata": {"annotations": note}})
    # A PATCH on a namespace that is being deleted succeeds.
    return Sandbox.of(_alive(sandbox, answer), cluster.context)


def _alive(sandbox: Sandbox, namespace: Manifest | None) -> Manifest:
    if namespace is None or namespace["metadata"]["uid"] != sandbox.uid:
        raise OperationFailed(f"{sandbox.name} is gone", hint="`sandbox up` makes it anew")
    if "deletionTimestamp" in namespace["metadata"]:
        raise OperationFailed(f"{sandbox.name} is being deleted", hint="`sandbox up` makes it anew when it is gone")
    return namespace


def _reference(sandbox: Sandbox) -> ObjectRef:
    return ObjectRef("", "v1", "Namespace", sandbox.namespace)


def _slept(sandbox: Sandbox, done: sleeping.Outcome) -> Slept:
    return Slept(sandbox, tuple(sorted(ObjectRef.of(manifest) for manifest in done.changed)), dict(done.awake))


async def _unready(cluster: Cluster, slept: Slept) -> list[str]:
    found = await asyncio.gather(*(objects.get(cluster, ref) for ref in slept.refs))
    statuses = [(ref, status(manifest)) for ref, manifest in zip(slept.refs, found, strict=True) if manifest]
    return [f"{ref}: {state.message}" for ref, state in statuses if state.state != "ready"]
