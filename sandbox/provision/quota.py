"""Whether a plan fits into its quota: what it asks for, held against the profile before anything is written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from sandbox.cluster import discovery, objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model import labels
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest, ObjectRef, pod_spec
from sandbox.model.pod_resources import Amounts, LimitItem, amounts
from sandbox.model.quota import Asked, Broken, Circumstances, Excess, asked_by, broken_by, excesses
from sandbox.model.quota_later import Owned, replicas_at_once, warnings
from sandbox.project.config import Hook
from sandbox.project.quotas import QuotaProfile
from sandbox.provision import records, smoke
from sandbox.provision.guardrails import guardrails, limits
from sandbox.provision.plan import Plan, ServicePlan

_HEADERS: Final = ("WORKLOAD", "RESOURCE", "ASKED", "LEFT")
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
# Helm's own limit of revisions that it keeps of a release.
_REVISIONS_KEPT: Final = 10
_ITSELF: Final = "(sandbox)"
# What opens a Service to the outside of the cluster.
_OPENED: Final = ("services.nodeports", "services.loadbalancers")


@dataclass(frozen=True)
class _Deployment:
    """What one service brings, in the order in which it comes.

    Attributes:
        before: Jobs and pods that run one after another before anything else is there.
        main: what stays.
        after: Jobs and pods that run one after another when all is there.
    """

    service: str
    main: Sequence[Manifest]
    before: Sequence[Manifest] = field(default_factory=list)
    after: Sequence[Manifest] = field(default_factory=list)
    release: str | None = None


async def check(cluster: Cluster, plan: Plan) -> tuple[list[Asked], list[str]]:
    """Refuse a plan that does not fit into its profile.

    Returns:
        What it asks, and warnings: what may not fit later.

    Raises:
        Refused: with a table of who asks for what, and what is left.
    """
    given = await circumstances(cluster, plan)
    asked = asked_of_quota(plan, given)
    broken = [found for service, manifest in _all(plan) for found in broken_by(service, manifest, given)]
    refuse(plan.profile, broken, excesses(asked, given.hard))
    owned = [(s.name, manifest) for s in plan.services.values() for manifest in s.manifests]
    found = [*warnings(owned, asked, given), *_of_history(plan, asked)]
    if given.nodes is None and any(manifest["kind"] == "DaemonSet" for _, manifest in owned):
        found.append("DaemonSets are counted as one pod each: you may not see the cluster's nodes")
    return asked, found


def refuse(profile: QuotaProfile, broken: Sequence[Broken], exceeded: Sequence[Excess]) -> None:
    """Raise what does not fit, as a table.

    Raises:
        Refused: there is anything.
    """
    rows = [found.row() for found in broken] + [row for excess in exceeded for row in excess.rows()]
    if not rows:
        return
    what = "ask for more than" if exceeded else "do not keep to the limits that"
    hint = "lower the requests or replicas, take a larger profile with --quota, or fewer services with --only"
    if any(excess.resource in _OPENED for excess in exceeded):
        hint = (
            "give these Services the type ClusterIP (often a value such as service.type): `sandbox open` and `sandbox "
            "port-forward` lead to them, and an Ingress does from outside"
        )
    raise Refused(
        f"the services {what} the quota profile {profile.name} has",
        why="\n".join(_table([_HEADERS, *rows])),
        hint=hint,
    )


def asked_of_quota(plan: Plan, given: Circumstances) -> list[Asked]:
    """What the services, those that stay and what we add ourselves ask of the quota."""
    asked = [item for manifest in _own_objects(plan) for item in asked_by(_ITSELF, manifest, given)]
    asked += _of_record(plan)
    for service in plan.services.values():
        upgrade = service.name in plan.applied
        asked += _of_deployment(_deployment(service, upgrade=upgrade), given)
    for name, record in plan.kept.items():
        asked += _of_deployment(_Deployment(name, record.manifests, release=record.release), given)
    return asked


async def circumstances(cluster: Cluster, plan: Plan) -> Circumstances:
    """What counting depends on, asked of the cluster only where something depends on it."""
    manifests = [manifest for _, manifest in _all(plan)]
    profile = plan.profile
    classes = {str(spec.get("runtimeClassName") or "") for m in manifests if (spec := pod_spec(m))} - {""}
    by_class = any(".storageclass." in resource for resource in profile.resource_quota)
    return Circumstances(
        limits=[LimitItem.of(item) for item in limits(profile)],
        hard=profile.resource_quota,
        nodes=await _nodes(cluster) if any(m["kind"] == "DaemonSet" for m in manifests) else None,
        storage_class=await _default_storage_class(cluster) if by_class else "",
        overheads={name: await _overhead(cluster, name) for name in sorted(classes)},
        plurals=await _plurals(cluster, profile, manifests),
    )


async def _nodes(cluster: Cluster) -> list[Manifest] | None:
    try:
        return [node async for node in objects.list_(cluster, "v1", "Node")]
    except Forbidden:
        return None


async def _default_storage_class(cluster: Cluster) -> str:
    """The class that claims without one get: the newest of those that are marked as the default."""
    try:
        found = [item async for item in objects.list_(cluster, "storage.k8s.io/v1", "StorageClass")]
    except Forbidden:
        return ""
    marked = [i for i in found if (i["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"]
    # Of one second, the first by its name.
    marked.sort(key=lambda item: item["metadata"]["name"])
    marked.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]), reverse=True)
    return str(marked[0]["metadata"]["name"]) if marked else ""


async def _overhead(cluster: Cluster, name: str) -> Amounts:
    """What a RuntimeClass adds to each pod; that there is none, the API server says."""
    try:
        found = await objects.get(cluster, ObjectRef("node.k8s.io", "v1", "RuntimeClass", name))
    except Forbidden:
        return {}
    return amounts(((found or {}).get("overhead") or {}).get("podFixed"))


async def _plurals(
    cluster: Cluster, profile: QuotaProfile, manifests: Iterable[Manifest]
) -> dict[tuple[str, str], str]:
    """How the cluster calls the kinds that come, where the quota counts any by their plural."""
    if not any(resource.startswith("count/") for resource in profile.resource_quota):
        return {}
    found = {}
    for api_version, kind in {(manifest["apiVersion"], manifest["kind"]) for manifest in manifests}:
        resource = await discovery.resource_for(cluster, api_version, kind)
        found[(resource.group, resource.kind)] = resource.plural
    return found


def _of_deployment(deployment: _Deployment, given: Circumstances) -> list[Asked]:
    """What a service asks: all that it brings, and of pods that end as many as are there at the same time."""
    service = deployment.service
    owned: list[Owned] = [(service, manifest) for manifest in deployment.main]
    scaled = replicas_at_once(owned)
    asked = [
        item for _, manifest in owned for item in asked_by(service, manifest, given, replicas=_least(manifest, scaled))
    ]
    if deployment.release:
        # Helm keeps each revision in a Secret.
        secret = f"release/{deployment.release}"
        asked += [Asked(service, secret, name, Decimal(1)) for name in ("secrets", "count/secrets")]
    before, after = (
        [item for manifest in stage for item in asked_by(service, manifest, given)]
        for stage in (deployment.before, deployment.after)
    )
    # A pod that has ended is an object still; what it took is free again.
    asked += [item for item in (*before, *after) if not item.pods or item.resource == "count/pods"]
    return asked + _largest(asked, before, after)


def _largest(main: Sequence[Asked], before: Sequence[Asked], after: Sequence[Asked]) -> list[Asked]:
    """What pods that end take at most beside what stays, of each resource."""
    found = []
    for resource in {item.resource for item in (*before, *after) if item.pods} - {"count/pods"}:
        staying = sum((item.amount for item in main if item.resource == resource), Decimal(0))
        first = [(item.amount - staying, item) for item in before if item.pods and item.resource == resource]
        last = [(item.amount, item) for item in after if item.pods and item.resource == resource]
        more, item = max([*first, *last], key=lambda pair: pair[0])
        if more > 0:
            found.append(Asked(item.service, item.object, resource, more, item.pods))
    return found


def _least(manifest: Manifest, scaled: Mapping[tuple[str, str], int]) -> int | None:
    """How many replicas an HPA makes of a workload at once; None: as many as the manifest says."""
    least = scaled.get((manifest["kind"], manifest["metadata"]["name"]))
    said = (manifest.get("spec") or {}).get("replicas")
    said = said if isinstance(said, int) else 1
    return max(said, least) if least is not None and said else None


def _deployment(service: ServicePlan, *, upgrade: bool) -> _Deployment:
    event = "upgrade" if upgrade else "install"
    hooks = {stage: [h for h in service.hooks if f"{stage}-{event}" in _events(h)] for stage in ("pre", "post")}
    ending = {stage: [h for h in found if h["kind"] in ("Job", "Pod")] for stage, found in hooks.items()}
    others = [h for found in hooks.values() for h in found if h["kind"] not in ("Job", "Pod")]
    return _Deployment(
        service.name,
        [*service.manifests, *others],
        before=[*_commands(service, "before"), *ending["pre"]],
        after=[*ending["post"], *_commands(service, "after"), *_commands(service, "smoke")],
        release=service.release,
    )


def _events(hook: Manifest) -> set[str]:
    said = str((hook["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))
    return {event.strip() for event in said.split(",")}


def _commands(service: ServicePlan, stage: str) -> Iterator[Manifest]:
    """The Jobs of the project's own commands."""
    if service.spec is None:
        return
    hooks: Sequence[Hook] = ()
    if stage == "smoke":
        hook = smoke.smoke_hook(service.spec, service.images)
        hooks = [hook] if hook else ()
    else:
        hooks = service.spec.hooks.before_deploy if stage == "before" else service.spec.hooks.after_deploy
    for hook in hooks:
        yield smoke.command_job("", service.name, stage, hook, service.images)


def _own_objects(plan: Plan) -> list[Manifest]:
    """What is in every sandbox: our guardrails and lease, and what the control plane puts there."""

    def item(api_version: str, kind: str, name: str) -> Manifest:
        return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}

    return [
        item("v1", "ConfigMap", "kube-root-ca.crt"),
        item("v1", "ConfigMap", labels.RECORD_NAME),
        item("v1", "ServiceAccount", "default"),
        item("coordination.k8s.io/v1", "Lease", labels.LEASE_NAME),
        *(item("v1", "Secret", name) for name in plan.pull_secrets),
        *guardrails(plan.profile, plan.identity.namespace),
    ]


def _of_record(plan: Plan) -> list[Asked]:
    """The Secrets that hold the record of this deployment."""
    written = json.dumps([[s.manifests, s.hooks, s.values] for s in plan.services.values()], default=str).encode()
    # Hardly any is larger than one Secret; packing it to see costs more than all else here.
    parts = 1 if len(written) < records.PART_BYTES else records.parts(len(zlib.compress(written, 6)))
    return [Asked(_ITSELF, "the record", name, Decimal(parts)) for name in ("secrets", "count/secrets")]


def _of_history(plan: Plan, asked: Sequence[Asked]) -> Iterator[str]:
    """Whether the Secrets of later deployments fit, until Helm and we forget the oldest."""
    hard = amounts(plan.profile.resource_quota).get("secrets")
    now = sum((item.amount for item in asked if item.resource == "secrets"), Decimal(0))
    deployed = [s.release for s in plan.services.values()] + [s.release for s in plan.kept.values()]
    releases = len([release for release in deployed if release])
    later = now + (_REVISIONS_KEPT - 1) * releases + (records.KEPT - 1)
    if hard is not None and later > hard:
        yield (
            f"after ten deployments the revisions of {releases} releases, the records and what the services bring take "
            f"{later.normalize():f} Secrets; the profile {plan.profile.name} has {hard.normalize():f}"
        )


def _all(plan: Plan) -> Iterator[Owned]:
    """Everything that is going to be applied now."""
    for service in plan.services.values():
        deployment = _deployment(service, upgrade=service.name in plan.applied)
        for manifest in (*deployment.before, *deployment.main, *deployment.after):
            yield service.name, manifest


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
