"""Putting the workloads of a namespace to sleep and waking them: what is changed, and what is remembered where.

What a workload was like is written on the workload itself, in the very request that puts it to sleep: there is no
moment at which it is forgotten, and a wake that was interrupted is simply run again. A wake looks at what there is
(level-triggered): it restores whatever carries the annotation, whoever put it to sleep and however far they got.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import all_resources
from sandbox.cluster.errors import Conflict, NotFound
from sandbox.model import labels
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef, split_api_version

_AT_ONCE: Final = 8
# An autoscaler may write between our look and our change; more often than this, somebody is at work there.
_TRIES: Final = 6


@dataclass(frozen=True)
class Switch:
    """How a kind is put to sleep: the field that is set, and to what.

    Attributes:
        unset: what the API takes the field for where nobody set it; None: it can be removed again.
    """

    path: tuple[str, ...]
    asleep: Any
    unset: Any = None


_REPLICAS: Final = Switch(("spec", "replicas"), 0, unset=1)
_SUSPEND: Final = Switch(("spec", "suspend"), True, unset=False)

# Kinds that Kubernetes itself has.
_BUILT_IN: Final[Mapping[tuple[str, str], Switch]] = {
    ("apps", "Deployment"): _REPLICAS,
    ("apps", "StatefulSet"): _REPLICAS,
    ("apps", "ReplicaSet"): _REPLICAS,
    ("", "ReplicationController"): _REPLICAS,
    ("batch", "CronJob"): _SUSPEND,
    ("batch", "Job"): _SUSPEND,
}


def _annotation(name: str, asleep: str) -> Switch:
    return Switch(("metadata", "annotations", name), asleep)


# Operators would undo what is done to their workloads; these are asked themselves. Their documentation:
# https://keda.sh/docs/latest/concepts/scaling-deployments/#pause-autoscaling,
# https://cloudnative-pg.io/documentation/current/declarative_hibernation/,
# https://argo-rollouts.readthedocs.io/en/stable/features/specification/,
# https://postgres-operator.readthedocs.io/en/latest/reference/cluster_manifest/ (numberOfInstances).
_OPERATORS: Final[Mapping[tuple[str, str], Switch]] = {
    ("keda.sh", "ScaledObject"): _annotation("autoscaling.keda.sh/paused-replicas", "0"),
    ("keda.sh", "ScaledJob"): _annotation("autoscaling.keda.sh/paused", "true"),
    ("postgresql.cnpg.io", "Cluster"): _annotation("cnpg.io/hibernation", "on"),
    ("argoproj.io", "Rollout"): _REPLICAS,
    ("acid.zalan.do", "postgresql"): Switch(("spec", "numberOfInstances"), 0, unset=1),
}

_LOOKED_AT: Final = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "DaemonSet"),
    ("v1", "ReplicationController"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of the workloads.

    Attributes:
        changed: put to sleep, or woken; as they were before.
        awake: what goes on running (as kubectl writes it), and why.
    """

    changed: tuple[Manifest, ...] = ()
    awake: Mapping[str, str] = field(default_factory=dict)


async def put_to_sleep(cluster: Cluster, namespace: str, *, dry_run: bool = False) -> Outcome:
    """Put every workload of a namespace to sleep that can be.

    Raises:
        OperationFailed: some were changed by others again and again, or the server refuses; the rest sleep.
    """
    sleepers, awake = plan_sleep(await _contents(cluster, namespace))
    await _change_all(cluster, sleepers, sleep_patch, dry_run=dry_run)
    return Outcome(tuple(sleepers), awake)


async def wake(cluster: Cluster, namespace: str, *, dry_run: bool = False) -> Outcome:
    """Bring every workload of a namespace back to what it was before it was put to sleep.

    One that somebody has set to something else meanwhile stays as they set it.

    Raises:
        as :func:`put_to_sleep`.
    """
    sleepers = plan_wake(await _contents(cluster, namespace))
    await _change_all(cluster, sleepers, wake_patch, dry_run=dry_run)
    return Outcome(tuple(sleepers))


# -- pure -------------------------------------------------------------------------------------------------------


def remembers(manifest: Manifest) -> bool:
    """Whether an object was put to sleep: it says what it was like before."""
    return labels.AWAKE in (manifest["metadata"].get("annotations") or {})


def plan_sleep(found: Iterable[Manifest]) -> tuple[list[Manifest], dict[str, str]]:
    """Which objects of a namespace are put to sleep, and what goes on running and why."""
    sleepers: list[Manifest] = []
    awake: dict[str, str] = {}
    for manifest in found:
        owner = _controller(manifest)
        switch = _switch(manifest)
        if owner is not None and not _decides_itself(manifest):
            if _kind(owner) not in {*_BUILT_IN, *_OPERATORS, ("apps", "DaemonSet")} and _runs(manifest):
                name = f"{owner['kind'].lower()}.{_kind(owner)[0]}/{owner['name']}"
                awake[name] = f"it owns {ObjectRef.of(manifest)}, and nothing is known of how it sleeps"
        elif switch is not None:
            if _value(manifest, switch.path) != switch.asleep and not _finished(manifest):
                sleepers.append(manifest)
        elif manifest["kind"] == "DaemonSet":
            awake[str(ObjectRef.of(manifest))] = "a DaemonSet has no replicas that could be none"
        elif manifest["kind"] == "Pod" and _runs(manifest):
            awake[str(ObjectRef.of(manifest))] = "nobody would make this pod again"
        elif manifest["kind"] == "HorizontalPodAutoscaler" and manifest["spec"].get("minReplicas") == 0:
            # All others leave alone what has no replicas.
            awake[str(ObjectRef.of(manifest))] = "it scales up from zero by itself"
    return sleepers, awake


def plan_wake(found: Iterable[Manifest]) -> list[Manifest]:
    """Which objects of a namespace are woken."""
    # A Deployment's annotations are copied to its ReplicaSets, which are not ours to scale.
    return [manifest for manifest in found if remembers(manifest) and _decides_itself(manifest)]


def sleep_patch(manifest: Manifest) -> Manifest | None:
    """What puts an object to sleep and remembers what it was; None: it sleeps already."""
    switch = _switch(manifest)
    assert switch is not None, "only what has a switch is planned to sleep"
    value = _value(manifest, switch.path)
    if value == switch.asleep:
        return None
    memory = json.dumps({"value": switch.unset if value is None else value})
    return _nested(switch.path, switch.asleep, memory)


def wake_patch(manifest: Manifest) -> Manifest | None:
    """What wakes an object and forgets; None: it is not asleep.

    Raises:
        InvalidInput: what it was is not readable any more.
    """
    switch = _switch(manifest)
    note = (manifest["metadata"].get("annotations") or {}).get(labels.AWAKE)
    if switch is None or note is None:
        return None
    if _value(manifest, switch.path) != switch.asleep:
        # Somebody woke it by hand; what they set stays.
        return {"metadata": {"annotations": {labels.AWAKE: None}}}
    return _nested(switch.path, _remembered(manifest, note, switch), None)


def _remembered(manifest: Manifest, note: str, switch: Switch) -> Any:
    try:
        memory = json.loads(note)
        value = memory["value"]
    except (ValueError, TypeError, KeyError, RecursionError):
        value = ...
    fits = value is None if switch.unset is None else type(value) is type(switch.unset)
    if switch.unset is None and isinstance(value, str):
        fits = True
    if not fits or (isinstance(value, int) and value < 0):
        raise InvalidInput(
            f"{ObjectRef.of(manifest)} does not say what it was before it slept",
            why=f"{labels.AWAKE}: {note[:80]!r}",
            hint=f"set it yourself (such as `kubectl scale`) and take the annotation {labels.AWAKE} off",
        )
    return value


def _nested(path: tuple[str, ...], value: Any, memory: str | None) -> Manifest:
    """A merge patch that sets a field and the annotation."""
    patch: Manifest = {"metadata": {"annotations": {labels.AWAKE: memory}}}
    node: Any = patch
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    return patch


def _value(manifest: Manifest, path: tuple[str, ...]) -> Any:
    node: Any = manifest
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _kind(thing: Mapping[str, Any]) -> tuple[str, str]:
    return split_api_version(thing["apiVersion"])[0], thing["kind"]


def _switch(manifest: Manifest) -> Switch | None:
    return _BUILT_IN.get(_kind(manifest)) or _OPERATORS.get(_kind(manifest))


def _controller(manifest: Manifest) -> Mapping[str, Any] | None:
    owners = manifest["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def _decides_itself(manifest: Manifest) -> bool:
    """Whether nobody else would undo what is done to an object: a CronJob leaves its Jobs alone."""
    owner = _controller(manifest)
    return owner is None or (_kind(owner) == ("batch", "CronJob") and manifest["kind"] == "Job")


def _finished(manifest: Manifest) -> bool:
    """Whether a Job has come to its end; there is nothing to put to sleep then."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    over = any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)
    return manifest["kind"] == "Job" and over


def _runs(manifest: Manifest) -> bool:
    """Whether an object has, or is, pods that run."""
    if manifest["kind"] == "Pod":
        return (manifest.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    if manifest["kind"] == "HorizontalPodAutoscaler" or _finished(manifest):
        return False
    switch = _switch(manifest)
    return switch is None or _value(manifest, switch.path) != switch.asleep


# -- the cluster ------------------------------------------------------------------------------------------------


async def _contents(cluster: Cluster, namespace: str) -> list[Manifest]:
    """What a namespace has of all kinds that matter here."""
    served = [
        (resource.api_version, resource.kind)
        for resource in await all_resources(cluster)
        if (resource.group, resource.kind) in _OPERATORS
    ]
    lists = await asyncio.gather(
        *(_list(cluster, *kind, namespace) for kind in _LOOKED_AT),
        *(_list_permitted(cluster, *kind, namespace) for kind in served),
    )
    return [manifest for found in lists for manifest in found]


async def _list(cluster: Cluster, api_version: str, kind: str, namespace: str) -> list[Manifest]:
    return [manifest async for manifest in objects.list_(cluster, api_version, kind, namespace)]


async def _list_permitted(cluster: Cluster, api_version: str, kind: str, namespace: str) -> list[Manifest]:
    try:
        return await _list(cluster, api_version, kind, namespace)
    except (Refused, NotFound):
        # Who may not see them has none of them.
        return []


async def _change_all(
    cluster: Cluster, manifests: Iterable[Manifest], patch: Callable[[Manifest], Manifest | None], *, dry_run: bool
) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(manifest: Manifest) -> str:
        async with at_once:
            try:
                await _change(cluster, manifest, patch, dry_run=dry_run)
            except Unreachable:
                raise
            except SandboxError as error:
                return f"{ObjectRef.of(manifest)}: {error}"
        return ""

    problems = [text for text in await asyncio.gather(*(one(manifest) for manifest in manifests)) if text]
    if problems:
        raise OperationFailed(
            "not everything could be changed", why="\n".join(problems), hint="mend that, then run it again"
        )


async def _change(
    cluster: Cluster, manifest: Manifest, patch: Callable[[Manifest], Manifest | None], *, dry_run: bool
) -> None:
    """Change an object as it is now; when others change it at the same time, as it is then."""
    ref, live = ObjectRef.of(manifest), manifest
    for _ in range(_TRIES):
        wanted = patch(live)
        if wanted is None:
            return
        try:
            await objects.patch_merge(
                cluster, ref, wanted, resource_version=live["metadata"]["resourceVersion"], dry_run=dry_run
            )
            return
        except NotFound:
            return
        except Conflict:
            fresh = await objects.get(cluster, ref)
            if fresh is None:
                return
            live = fresh
    raise OperationFailed("others change it all the time", hint="try again")
