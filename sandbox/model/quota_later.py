"""What workloads may ask of a quota after they were applied: warnings, as nothing of it is certain.

HPAs that scale, rolling updates that surge, runs of CronJobs. Source: Kubernetes documentation, "Horizontal Pod
Autoscaling", "Deployments: Rolling Update", "CronJob".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.pod_resources import amounts
from sandbox.model.quota import Asked, Circumstances, asked_by, broken_later, pods_of, shown

Owned = tuple[str, Manifest]


def replicas_at_once(manifests: Iterable[Owned]) -> dict[tuple[str, str], int]:
    """(kind, name) of what an HPA scales → the replicas that it goes up to at once: its least.

    It does so without any measurement, within seconds; a workload of no replicas it leaves alone.
    """
    return {target: least for target, least, _ in _scaled(manifests)}


def warnings(manifests: Sequence[Owned], asked: Sequence[Asked], given: Circumstances) -> Iterator[str]:
    """What may not fit later, as people read it.

    Args:
        manifests: all that is applied, each with its service.
        asked: by all of it, at first.
    """
    free = _free(asked, given.hard)
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): (s, manifest) for s, manifest in manifests}
    for target, _, most in _scaled(manifests):
        if target in by_name:
            service, manifest = by_name[target]
            yield from _of_scaling(service, manifest, most, asked, free, given)
    for service, manifest in manifests:
        if (manifest["kind"], manifest["apiVersion"]) == ("Deployment", "apps/v1"):
            yield from _of_rolling(service, manifest, free, given)
        if manifest["kind"] == "CronJob":
            yield from _of_runs(service, manifest, free, given)
        for found in broken_later(service, manifest, given):
            workload, resource, amount, allowed = found.row()
            yield f"{workload}: {resource} is {amount}, {allowed}: pods that are made of it later will be refused"


def _of_scaling(
    service: str,
    manifest: Manifest,
    most: int,
    asked: Sequence[Asked],
    free: Mapping[str, Decimal],
    given: Circumstances,
) -> Iterator[str]:
    ref = str(ObjectRef.of(manifest))
    now = max((item.pods for item in asked if (item.service, item.object) == (service, ref)), default=0)
    room = now + _room(_one_pod(service, manifest, given), free)
    if now and room < most:
        tight = _tightest(_one_pod(service, manifest, given), free, most - now)
        yield f"{service}: {ref} may be scaled to {most} pods by its HPA; the quota has room for {room} ({tight})"


def _of_rolling(service: str, manifest: Manifest, free: Mapping[str, Decimal], given: Circumstances) -> Iterator[str]:
    strategy = (manifest.get("spec") or {}).get("strategy") or {}
    replicas = pods_of(manifest)
    if strategy.get("type") == "Recreate" or not replicas:
        return
    rolling = strategy.get("rollingUpdate") or {}
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    surge = _share(rolling.get("maxSurge", "25%"), replicas, math.ceil)
    # Where some pods may go first, an update that does not fit is slower, but it ends.
    if unavailable or not surge:
        return
    one = _one_pod(service, manifest, given)
    if _room(one, free) < 1:
        tight = _tightest(one, free, 1)
        yield (
            f"{service}: {ObjectRef.of(manifest)} will not be updated by the next `up`: that makes a new pod before "
            f"an old one goes, and the quota has no room for it ({tight}); set strategy.type: Recreate, or ask for less"
        )


def _of_runs(service: str, manifest: Manifest, free: Mapping[str, Decimal], given: Circumstances) -> Iterator[str]:
    spec = (manifest.get("spec") or {}).get("jobTemplate") or {}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": manifest["metadata"], "spec": spec.get("spec") or {}}
    run = {item.resource: item.amount for item in asked_by(service, job, given) if item.pods}
    if any(amount > free[name] for name, amount in run.items() if name in free):
        yield f"{service}: runs of {ObjectRef.of(manifest)} do not fit beside all else ({_tightest(run, free, 1)})"


def _scaled(manifests: Iterable[Owned]) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Target, least and most replicas of each HPA."""
    for _, manifest in manifests:
        if manifest["kind"] != "HorizontalPodAutoscaler":
            continue
        spec = manifest.get("spec") or {}
        target = spec.get("scaleTargetRef") or {}
        least, most = _number(spec.get("minReplicas"), 1), _number(spec.get("maxReplicas"), 1)
        yield (str(target.get("kind")), str(target.get("name"))), least, most


def _one_pod(service: str, manifest: Manifest, given: Circumstances) -> dict[str, Decimal]:
    return {item.resource: item.amount for item in asked_by(service, manifest, given, replicas=1) if item.pods}


def _free(asked: Iterable[Asked], hard: Mapping[str, str]) -> dict[str, Decimal]:
    free = amounts(hard)
    for item in asked:
        if item.resource in free:
            free[item.resource] -= item.amount
    return free


def _room(one: Mapping[str, Decimal], free: Mapping[str, Decimal]) -> int:
    """How many more of such pods fit."""
    rooms = [max(free[name], Decimal(0)) // amount for name, amount in one.items() if name in free and amount]
    return int(min(rooms, default=Decimal(10**9)))


def _tightest(one: Mapping[str, Decimal], free: Mapping[str, Decimal], pods: int) -> str:
    """The resource that is short first: what is wanted of it, and what is left."""
    short = [name for name, amount in one.items() if name in free and amount * pods > free[name]]
    name = min(short, key=lambda name: free[name] / (one[name] * pods))
    left = max(free[name], Decimal(0))
    return f"{name}: {shown(name, one[name] * pods)} more are wanted, {shown(name, left)} are left"


def _share(value: Any, replicas: int, rounded: Any) -> int:
    """``maxSurge`` and ``maxUnavailable``: a number, or a share of the replicas."""
    text = str(value).strip()
    try:
        return int(rounded(replicas * int(text[:-1]) / 100)) if text.endswith("%") else int(text)
    except ValueError:
        return 0


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default
