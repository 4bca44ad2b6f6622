"""How a sandbox is: its services, why they are not ready, and what of its quota is used."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sandbox.cluster import objects, pods, readiness
from sandbox.cluster.client import Cluster
from sandbox.cluster.ending import what_holds
from sandbox.cluster.errors import NotFound
from sandbox.cluster.readiness import Symptom
from sandbox.cluster.sleeping import remembers
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.quantities import parse_quantity
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision.attribution import attribute
from sandbox.provision.contents import (
    KINDS,
    WORKLOADS,
    ServicePort,
    by_service,
    contents_of,
    endpoints,
    list_all,
    newest_record,
)

if TYPE_CHECKING:
    from sandbox.model.record import Record

State = Literal["ready", "progressing", "failed", "sleeping"]

_LISTED = frozenset(kind for _, kind in KINDS)
# A namespace full of custom resources is looked at this far.
_MOST_CUSTOM = 50
# Kubernetes' reason where a controller may not make a pod.
_REJECTED = "FailedCreate"
# How many failed containers' logs are shown, and how much of each.
_MOST_LOGS = 5
_LOG_LINES = 5


@dataclass(frozen=True)
class WorkloadStatus:
    """One object that a service consists of.

    Attributes:
        object: such as ``deployment.apps/web``.
        ready: how many replicas (completions of a Job) are there; None for what has none.
        message: why it is not ready, in the cluster's words.
    """

    object: str
    state: State
    ready: int | None
    desired: int | None
    message: str


@dataclass(frozen=True)
class ServiceStatus:
    """How one service is. ``name`` is empty for objects that belong to no service.

    Attributes:
        kind: chart, kustomize or manifests; empty where no record tells.
        commit: that is deployed, all digits; empty where no record tells.
        restarts: of all its containers together.
    """

    name: str
    kind: str
    commit: str
    state: State
    ready: int
    desired: int
    restarts: int
    workloads: tuple[WorkloadStatus, ...]
    findings: tuple[Finding, ...]
    endpoints: tuple[ServicePort, ...]


@dataclass(frozen=True)
class QuotaUse:
    """How much of one resource of the ResourceQuota is used, as Kubernetes writes quantities."""

    resource: str
    used: str
    hard: str

    @property
    def share(self) -> float:
        """0 to 1, or more where the quota was lowered later; 0 for a quota of nothing."""
        hard = parse_quantity(self.hard)
        return float(parse_quantity(self.used) / hard) if hard else 0.0


@dataclass(frozen=True)
class SandboxStatus:
    """A sandbox, its services and its quota.

    Attributes:
        record_number: of the newest deployment; None: there is none yet, or we may not read it.
        outcome: of that deployment: deployed or failed; ``failure`` says why.
        now: the server's time when it was looked at.
        notes: what could not be looked at.
        waits_for: what holds it, where it is being deleted; its services then have no findings: they are to end.
    """

    sandbox: Sandbox
    services: tuple[ServiceStatus, ...]
    quota: tuple[QuotaUse, ...]
    record_number: int | None
    outcome: str
    failure: str
    now: datetime
    notes: tuple[str, ...]
    waits_for: tuple[str, ...] = ()


async def status(cluster: Cluster, sandbox: Sandbox) -> SandboxStatus:
    """Look at everything in a sandbox.

    Raises:
        OperationFailed: it is gone.
        Refused: no permission to read its workloads.
    """
    async with asyncio.TaskGroup() as group:
        namespace = group.create_task(objects.get(cluster, ObjectRef("", "v1", "Namespace", sandbox.namespace)))
        record = group.create_task(newest_record(cluster, sandbox.namespace))
        contents = group.create_task(contents_of(cluster, sandbox.namespace))
        events = group.create_task(list_all(cluster, "v1", "Event", sandbox.namespace))
        quotas = group.create_task(list_all(cluster, "v1", "ResourceQuota", sandbox.namespace))
        now = group.create_task(cluster.server_time())
    found = namespace.result()
    if found is None:
        raise OperationFailed(f"the sandbox {sandbox.name} is gone")
    latest, note = record.result()
    shown = Sandbox.of(found, cluster.context)
    if latest is None and not note and shown.phase in (Phase.READY, Phase.FAILED):
        note = "its record is gone: somebody deleted it; the next `sandbox up` writes a new one"
    everything = [*contents.result(), *await _custom_resources(cluster, sandbox.namespace, latest)]
    services = service_statuses(everything, events.result(), latest, now.result())
    ends = shown.phase is Phase.TERMINATING
    return SandboxStatus(
        sandbox=shown,
        services=_ending(services) if ends else await _with_logs(cluster, sandbox.namespace, services),
        waits_for=tuple(await what_holds(cluster, found)) if ends else (),
        quota=_quota(quotas.result()),
        record_number=latest.number if latest else None,
        outcome=latest.outcome if latest else "",
        failure=latest.failure if latest else "",
        now=now.result(),
        notes=(note,) if note else (),
    )


def _ending(services: Sequence[ServiceStatus]) -> tuple[ServiceStatus, ...]:
    """The same of a sandbox that is being deleted: that its pods stop is no finding."""
    return tuple(replace(service, findings=()) for service in services)


async def _with_logs(cluster: Cluster, namespace: str, services: Sequence[ServiceStatus]) -> tuple[ServiceStatus, ...]:
    """The same with the last lines that containers wrote before they ended badly."""
    ended = [f for service in services for f in service.findings if f.container and f.exit_code is not None]
    shown = ended[:_MOST_LOGS]
    tails = await asyncio.gather(
        *(pods.log_tail(cluster, namespace, f.pod, f.container, lines=_LOG_LINES) for f in shown)
    )
    told = {finding: replace(finding, log_tail=tail) for finding, tail in zip(shown, tails, strict=True)}
    return tuple(replace(s, findings=tuple(told.get(f, f) for f in s.findings)) for s in services)


async def _custom_resources(cluster: Cluster, namespace: str, record: Record | None) -> list[Manifest]:
    """What the record names besides the built-in kinds."""
    refs = {
        item.ref
        for service in (record.services if record else {}).values()
        for item in service.inventory
        if "." in item.group and not item.group.endswith(".k8s.io") and item.kind not in _LISTED
    }
    wanted = sorted(refs)[:_MOST_CUSTOM]
    found = await asyncio.gather(*(_get_or_none(cluster, ref, namespace) for ref in wanted))
    return [manifest for manifest in found if manifest is not None]


async def _get_or_none(cluster: Cluster, ref: ObjectRef, namespace: str) -> Manifest | None:
    if ref.namespace not in ("", namespace):
        return None
    try:
        return await objects.get(cluster, ref)
    except (NotFound, Refused, InvalidInput):
        # Its definition has gone, or we may not see it.
        return None


def service_statuses(
    contents: Sequence[Manifest], events: Sequence[Manifest], record: Record | None, now: datetime
) -> tuple[ServiceStatus, ...]:
    """How the services are, from the objects that are there. Pure."""
    service_of = attribute(contents, record)
    members = by_service(contents, service_of)
    symptoms = _symptoms(contents, events, service_of, now)
    found = []
    for name in sorted({*members, *(record.services if record else ())}):
        workloads = [_workload(m, readiness.status(m)) for m in members[name] if _counts(m)]
        workloads += _missing(name, members[name], record)
        if not name and not workloads:
            continue
        entry = record.services.get(name) if record else None
        crashed = _crashed(workloads, [m for m in members[name] if m["kind"] == "Pod"], name, now)
        state = _overall(workloads, stuck=any(final for _, final in symptoms[name]), crashed=crashed)
        # What sleeps is not partly there because a migration once came to its end.
        counted = [w for w in workloads if not (state == "sleeping" and w.object.startswith("job."))]
        found.append(
            ServiceStatus(
                name=name,
                kind=entry.lock.kind if entry else "",
                commit=entry.lock.commit if entry else "",
                state=state,
                ready=max(sum(w.ready or 0 for w in counted) - crashed, 0),
                desired=sum(w.desired or 0 for w in counted),
                restarts=sum(_restarts(m) for m in members[name] if m["kind"] == "Pod"),
                workloads=tuple(workloads),
                findings=tuple(_distinct(finding for finding, _ in symptoms[name])),
                endpoints=tuple(endpoints(name, members[name])),
            )
        )
    return tuple(found)


def _crashed(workloads: Sequence[WorkloadStatus], pods: Sequence[Manifest], service: str, now: datetime) -> int:
    """How many pods their workloads count as ready although they crash."""
    between = sum(readiness.restarted_symptom(pod, service, now) is not None for pod in pods)
    if any(workload.state != "ready" for workload in workloads):
        return between
    # Workloads and pods are listed one after the other: a pod can have crashed after its workload was read.
    symptoms = (symptom for pod in pods if not _of_job(pod) for symptom in readiness.pod_symptoms(pod, service))
    return between + sum(symptom.crash and symptom.restarts > 0 for symptom in symptoms)


def _of_job(pod: Manifest) -> bool:
    return any(owner.get("kind") == "Job" for owner in pod["metadata"].get("ownerReferences") or ())


def _counts(manifest: Manifest) -> bool:
    """Whether an object's readiness is its service's: not what another object answers for."""
    if manifest["kind"] in ("ReplicaSet", "CronJob", "Service", "Ingress"):
        return False
    owners = manifest["metadata"].get("ownerReferences") or ()
    return not any(owner.get("controller") for owner in owners)


def _workload(manifest: Manifest, status: readiness.Status) -> WorkloadStatus:
    ready, desired = replicas(manifest)
    if remembers(manifest):
        return WorkloadStatus(str(ObjectRef.of(manifest)), "sleeping", ready, desired, "it sleeps: `sandbox wake`")
    return WorkloadStatus(str(ObjectRef.of(manifest)), status.state, ready, desired, status.message)


def replicas(manifest: Manifest) -> tuple[int | None, int | None]:
    """How many replicas are ready and how many there shall be; (None, None) for what has no replicas."""
    spec, state = manifest.get("spec") or {}, manifest.get("status") or {}
    match manifest["kind"]:
        case "Deployment" | "StatefulSet":
            return state.get("readyReplicas", 0), spec.get("replicas", 1)
        case "DaemonSet":
            return state.get("numberReady", 0), state.get("desiredNumberScheduled", 0)
        case "Job":
            return state.get("succeeded", 0), spec.get("completions") or 1
        case "Pod":
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in state.get("conditions") or ())
            return int(ready), 1
    return None, None


def _missing(service: str, members: Sequence[Manifest], record: Record | None) -> list[WorkloadStatus]:
    """Workloads that the record names and that are not there."""
    entry = record.services.get(service) if record else None
    if record is None or entry is None:
        return []
    present = {(m["kind"], m["metadata"]["name"]) for m in members}
    kinds = {kind for _, kind in WORKLOADS}
    deployed = record.outcome == "deployed"
    message = "it was deployed and is not there any more" if deployed else "it is not there: the deployment failed"
    return [
        WorkloadStatus(str(item.ref), "failed", 0, None, message)
        for item in entry.inventory
        # A finished Job may delete itself (ttlSecondsAfterFinished).
        if item.kind in kinds - {"Job"} and (item.kind, item.name) not in present
    ]


def _restarts(pod: Manifest) -> int:
    state = pod.get("status") or {}
    containers = [*(state.get("initContainerStatuses") or ()), *(state.get("containerStatuses") or ())]
    return sum(int(container.get("restartCount", 0)) for container in containers)


def _symptoms(
    contents: Sequence[Manifest], events: Sequence[Manifest], service_of: Mapping[str, str], now: datetime
) -> defaultdict[str, list[tuple[Finding, bool]]]:
    """What is wrong with each service, and whether that has lasted too long to mend itself."""
    by_uid = {m["metadata"]["uid"]: m for m in contents}
    unready = {uid for uid, m in by_uid.items() if readiness.status(m).state != "ready"}
    found: defaultdict[str, list[tuple[Finding, bool]]] = defaultdict(list)

    def note(symptom: Symptom, service: str, began: datetime | None) -> None:
        lasted = (now - (symptom.since or began or now)).total_seconds()
        final = symptom.restarts > 0 if symptom.crash else lasted >= symptom.grace
        found[service].append((symptom.finding, final))

    for uid, manifest in by_uid.items():
        service = service_of.get(uid, "")
        began = readiness.time_of(manifest["metadata"].get("creationTimestamp"))
        if manifest["kind"] == "Pod" and uid in unready:
            owners = {owner.get("uid") for owner in manifest["metadata"].get("ownerReferences") or ()}
            if _of_job(manifest) and not owners & unready:
                # The failed tries of a Job that came through in the end are nobody's business.
                continue
            for symptom in readiness.pod_symptoms(manifest, service):
                note(symptom, service, began)
            failed = readiness.failed_pod_symptom(manifest, service, 2)
            if failed and failed.finding not in [finding for finding, _ in found[service]]:
                note(failed, service, began)
        elif manifest["kind"] == "Pod" and (restarted := readiness.restarted_symptom(manifest, service, now)):
            note(restarted, service, began)
    for event in events:
        uid = (event.get("involvedObject") or {}).get("uid", "")
        if uid in unready and not _overtaken(event, by_uid[uid]):
            for symptom in readiness.event_symptoms(event, service_of.get(uid, "")):
                note(symptom, service_of.get(uid, ""), None)
    return found


def _overtaken(event: Manifest, manifest: Manifest) -> bool:
    """Whether a pod has since come past what an event tells of: events stay for an hour."""
    if manifest["kind"] != "Pod":
        return False
    if event.get("reason") == "FailedScheduling":
        return bool((manifest.get("spec") or {}).get("nodeName"))
    # Everything else that keeps a pod from starting is over when a container has started.
    return any(
        container.get("restartCount") or (container.get("state") or {}).keys() & {"running", "terminated"}
        for container in readiness.container_statuses(manifest)
    )


def _overall(workloads: Sequence[WorkloadStatus], *, stuck: bool, crashed: int) -> State:
    states = Counter(workload.state for workload in workloads)
    if states["failed"] or crashed or (states["progressing"] and stuck):
        return "failed"
    if states["progressing"]:
        return "progressing"
    return "sleeping" if states["sleeping"] else "ready"


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for the replicas that share it, and one for all tries of a controller to make a pod, counted."""
    alike: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for finding in findings:
        alike[_likeness(finding)].append(finding)
    return [
        replace(found[0], message=f"{found[0].message} ({len(found)} tries)")
        if found[0].reason == _REJECTED and len(found) > 1
        else found[0]
        for found in alike.values()
    ]


def _likeness(finding: Finding) -> tuple[str, ...]:
    """What findings that say the same have in common."""
    if finding.reason != _REJECTED:
        return (finding.reason, finding.message, finding.container)
    # Each try has another name for the pod, and another one may have come or gone meanwhile.
    said = re.sub(r'"[^"]*"', "", finding.message).partition(", used: ")[0]
    return (finding.reason, finding.object, said)


def _quota(quotas: Sequence[Manifest]) -> tuple[QuotaUse, ...]:
    use = []
    for quota in quotas:
        state = quota.get("status") or {}
        for resource, hard in sorted((state.get("hard") or {}).items()):
            use.append(QuotaUse(resource, str((state.get("used") or {}).get(resource, "0")), str(hard)))
    return tuple(use)
