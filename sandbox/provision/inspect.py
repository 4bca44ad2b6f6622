"""Looking at sandboxes: which there are, which one is meant, and how its services are.

Nothing here writes. Listing stays off the libraries that are slow to import, because people and
shells (completion) wait for it.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden, NotFound
from sandbox.model import labels
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.failure import Finding
from sandbox.model.names import slug
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.quantities import parse_quantity
from sandbox.model.sandbox import Phase, Sandbox, is_sandbox
from sandbox.provision.attribution import attribute
from sandbox.provision.identity import display_name

if TYPE_CHECKING:
    from sandbox.cluster.readiness import Status, Symptom
    from sandbox.model.record import Record

State = Literal["ready", "progressing", "failed"]

# Kinds whose objects make up a service's state, with their API versions.
_WORKLOADS = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
)
_CONNECTING = (("apps/v1", "ReplicaSet"), ("batch/v1", "CronJob"))
_OTHERS = (("v1", "PersistentVolumeClaim"), ("v1", "Service"), ("networking.k8s.io/v1", "Ingress"))
_BUILT_IN = frozenset(kind for _, kind in (*_WORKLOADS, *_CONNECTING, *_OTHERS, ("v1", "Pod")))
# A namespace full of custom resources is looked at this far.
_MOST_CUSTOM = 50


# --- which sandboxes there are ----------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """Which sandboxes to list; None and empty: all.

    Attributes:
        owner: a user name in full (``dana@example.com``) or as it is shown (``dana``).
        label_selector: as kubectl's ``-l``.
        expiring_within: those that expire until then, or have expired.
    """

    owner: str | None = None
    project: str | None = None
    phases: frozenset[Phase] = frozenset()
    label_selector: str = ""
    expiring_within: timedelta | None = None

    def selector(self) -> str:
        """The part that the API server can do."""
        parts = [labels.SELECTOR]
        if self.owner:
            parts.append(f"{labels.OWNER}={slug(display_name(self.owner))}")
        if self.project:
            parts.append(f"{labels.PROJECT}={slug(self.project)}")
        if self.label_selector:
            parts.append(self.label_selector)
        return ",".join(parts)

    def matches(self, sandbox: Sandbox, now: datetime) -> bool:
        """The part that labels cannot say."""
        if self.owner and self.owner not in (sandbox.owner, display_name(sandbox.owner)):
            return False
        if self.phases and sandbox.phase not in self.phases:
            return False
        if self.expiring_within is not None:
            return sandbox.expires_at is not None and sandbox.expires_at <= now + self.expiring_within
        return True


async def list_sandboxes(cluster: Cluster, wanted: Filter | None = None) -> list[Sandbox]:
    """The sandboxes that one may see, by name.

    Raises:
        Refused: no permission to list namespaces.
    """
    wanted = wanted or Filter()
    # The clock is asked only where it matters: it costs a request.
    now = await cluster.server_time() if wanted.expiring_within is not None else datetime.max
    found = [
        sandbox
        async for namespace in objects.list_(
            cluster, "v1", "Namespace", label_selector=wanted.selector(), metadata_only=True
        )
        if is_sandbox(namespace) and wanted.matches(sandbox := Sandbox.of(namespace, cluster.context), now)
    ]
    return sorted(found, key=lambda sandbox: sandbox.name)


async def watch_sandboxes(cluster: Cluster, wanted: Filter | None = None) -> AsyncIterator[tuple[str, Sandbox]]:
    """The sandboxes that there are, then every change: (ADDED, MODIFIED or DELETED, the sandbox)."""
    wanted = wanted or Filter()
    async for kind, namespace in objects.watch(
        cluster, "v1", "Namespace", label_selector=wanted.selector(), metadata_only=True
    ):
        # Who looks again after a gap is told of what went meanwhile by its name only.
        if kind != "SYNCED" and is_sandbox(namespace):
            sandbox = Sandbox.of(namespace, cluster.context)
            now = await cluster.server_time() if wanted.expiring_within is not None else datetime.max
            if wanted.matches(sandbox, now):
                yield kind, sandbox


SORT_KEYS: Mapping[str, Callable[[Sandbox], Any]] = {
    "name": lambda s: s.name,
    "namespace": lambda s: s.namespace,
    "owner": lambda s: (s.owner, s.name),
    "project": lambda s: (s.project, s.name),
    "phase": lambda s: (s.phase, s.name),
    # None sorts last: nothing is known about when it ends.
    "expires": lambda s: (s.expires_at is None, s.expires_at and s.expires_at.timestamp(), s.name),
    "age": lambda s: (s.created_at is None, s.created_at and -s.created_at.timestamp(), s.name),
}


def sort_sandboxes(found: Iterable[Sandbox], by: str) -> list[Sandbox]:
    """Sort by one of :data:`SORT_KEYS`; youngest first for ``age``.

    Raises:
        InvalidInput: no such key.
    """
    if by not in SORT_KEYS:
        raise InvalidInput(f"cannot sort by {by!r}", hint=f"sort by one of {', '.join(SORT_KEYS)}")
    return sorted(found, key=SORT_KEYS[by])


# --- which sandbox is meant -------------------------------------------------------------------------


async def default_sandbox_name(
    cluster: Cluster, folder: Path | None = None, *, owner: str | None = None, prefix: str = ""
) -> str:
    """The name of the sandbox of the branch that is checked out in ``folder`` (default: the current one).

    Raises:
        InvalidInput: not in a git repository, or its ``sandbox.yaml`` is wrong.
        Unreachable: the cluster does not say who we are.
    """
    # GitPython and pydantic are slow to import, and not needed when a name is given.
    from sandbox.project.load import load_project
    from sandbox.provision.identity import identify
    from sandbox.source import git

    def local() -> tuple[str, str]:
        root = git.repository_root(folder or Path.cwd())
        branch = git.current_branch(root) or git.resolve(root, None).sha[:12]
        return load_project(root, name_hint=root.name).project.project, branch

    project, branch = await asyncio.to_thread(local)
    return (await identify(cluster, project=project, branch=branch, prefix=prefix, owner=owner)).name


async def find_sandbox(cluster: Cluster, name: str) -> Sandbox:
    """The sandbox of a name, or whose namespace has that name.

    Raises:
        OperationFailed: there is none; names near ones.
        Refused: that namespace is not a sandbox, or no permission to look.
    """
    by_label: list[Manifest] = []
    if slug(name) == name:
        selector = f"{labels.SELECTOR},{labels.NAME}={name}"
        try:
            by_label = [ns async for ns in objects.list_(cluster, "v1", "Namespace", label_selector=selector)]
        except Forbidden:
            # Who may not list all namespaces may still get their own by its name.
            by_label = []
    found = [ns for ns in by_label if is_sandbox(ns)]
    if len(found) > 1:
        raise InvalidInput(
            f"there are {len(found)} sandboxes called {name}",
            why="their namespaces: " + ", ".join(sorted(ns["metadata"]["name"] for ns in found)),
            hint="name one by its namespace with -n",
        )
    if found:
        return Sandbox.of(found[0], cluster.context)
    return Sandbox.of(await _by_namespace(cluster, name), cluster.context)


async def _by_namespace(cluster: Cluster, name: str) -> Manifest:
    namespace = None
    # Kubernetes itself says so of any other name, in more words.
    if slug(name) == name or name.replace("-", "").isalnum():
        namespace = await objects.get(cluster, ObjectRef("", "v1", "Namespace", name))
    if namespace is None:
        raise OperationFailed(f"there is no sandbox {name} in {cluster.context}", hint=await _near(cluster, name))
    if not is_sandbox(namespace):
        raise Refused(
            f"the namespace {name} is not a sandbox",
            why=f"it does not carry the label {labels.SELECTOR} and its own name in {labels.NAMESPACE}",
            hint="`sandbox list` shows the sandboxes that there are",
        )
    return namespace


async def _near(cluster: Cluster, name: str) -> str:
    try:
        known = [sandbox.name for sandbox in await list_sandboxes(cluster)]
    except Refused:
        known = []
    near = difflib.get_close_matches(name, known, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`sandbox list` shows the sandboxes that there are, `sandbox up` makes one"


# --- how a sandbox is -------------------------------------------------------------------------------


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
class Endpoint:
    """Where a service answers: a port of a Service, or the URL of an Ingress."""

    service: str
    object: str
    port_name: str
    port: int
    url: str = ""


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
    endpoints: tuple[Endpoint, ...]


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
    """

    sandbox: Sandbox
    services: tuple[ServiceStatus, ...]
    quota: tuple[QuotaUse, ...]
    record_number: int | None
    outcome: str
    failure: str
    now: datetime
    notes: tuple[str, ...]


async def status(cluster: Cluster, sandbox: Sandbox) -> SandboxStatus:
    """Look at everything in a sandbox.

    Raises:
        OperationFailed: it is gone.
        Refused: no permission to read its workloads.
    """
    async with asyncio.TaskGroup() as group:
        namespace = group.create_task(objects.get(cluster, ObjectRef("", "v1", "Namespace", sandbox.namespace)))
        record = group.create_task(_record(cluster, sandbox.namespace))
        contents = group.create_task(_contents(cluster, sandbox.namespace))
        events = group.create_task(_list(cluster, "v1", "Event", sandbox.namespace))
        quotas = group.create_task(_list(cluster, "v1", "ResourceQuota", sandbox.namespace))
        now = group.create_task(cluster.server_time())
    found = namespace.result()
    if found is None:
        raise OperationFailed(f"the sandbox {sandbox.name} is gone")
    latest, note = record.result()
    everything = [*contents.result(), *await _custom_resources(cluster, sandbox.namespace, latest)]
    return SandboxStatus(
        sandbox=Sandbox.of(found, cluster.context),
        services=service_statuses(everything, events.result(), latest, now.result()),
        quota=_quota(quotas.result()),
        record_number=latest.number if latest else None,
        outcome=latest.outcome if latest else "",
        failure=latest.failure if latest else "",
        now=now.result(),
        notes=(note,) if note else (),
    )


async def _list(cluster: Cluster, api_version: str, kind: str, namespace: str) -> list[Manifest]:
    return [manifest async for manifest in objects.list_(cluster, api_version, kind, namespace)]


async def _contents(cluster: Cluster, namespace: str) -> list[Manifest]:
    kinds = (*_WORKLOADS, *_CONNECTING, *_OTHERS, ("v1", "Pod"))
    lists = await asyncio.gather(*(_list(cluster, api_version, kind, namespace) for api_version, kind in kinds))
    return [manifest for found in lists for manifest in found]


async def _record(cluster: Cluster, namespace: str) -> tuple[Record | None, str]:
    """The newest record, or why there is none to read."""
    from sandbox.provision import records

    try:
        return await records.latest(cluster, namespace), ""
    except Refused as error:
        return None, str(error)


async def _custom_resources(cluster: Cluster, namespace: str, record: Record | None) -> list[Manifest]:
    """What the record names besides the built-in kinds."""
    refs = {
        item.ref
        for service in (record.services if record else {}).values()
        for item in service.inventory
        if "." in item.group and not item.group.endswith(".k8s.io") and item.kind not in _BUILT_IN
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
    from sandbox.cluster import readiness

    service_of = attribute(contents, record)
    members = _by_service(contents, service_of)
    symptoms = _symptoms(contents, events, service_of, now)
    found = []
    for name in sorted({*members, *(record.services if record else ())}):
        workloads = [_workload(m, readiness.status(m, now)) for m in members[name] if _counts(m)]
        workloads += _missing(name, members[name], record)
        if not name and not workloads:
            continue
        entry = record.services.get(name) if record else None
        found.append(
            ServiceStatus(
                name=name,
                kind=entry.lock.kind if entry else "",
                commit=entry.lock.commit if entry else "",
                state=_overall(workloads, stuck=any(final for _, final in symptoms[name])),
                ready=sum(w.ready or 0 for w in workloads),
                desired=sum(w.desired or 0 for w in workloads),
                restarts=sum(_restarts(m) for m in members[name] if m["kind"] == "Pod"),
                workloads=tuple(workloads),
                findings=tuple(_distinct(finding for finding, _ in symptoms[name])),
                endpoints=tuple(endpoints(name, members[name])),
            )
        )
    return tuple(found)


def _by_service(contents: Iterable[Manifest], service_of: Mapping[str, str]) -> defaultdict[str, list[Manifest]]:
    """The objects of each service; the empty name: of none."""
    members: defaultdict[str, list[Manifest]] = defaultdict(list)
    for manifest in contents:
        members[service_of.get(manifest["metadata"]["uid"], "")].append(manifest)
    return members


def _counts(manifest: Manifest) -> bool:
    """Whether an object's readiness is its service's: not what another object answers for."""
    if manifest["kind"] in ("ReplicaSet", "CronJob", "Service", "Ingress"):
        return False
    owners = manifest["metadata"].get("ownerReferences") or ()
    return not any(owner.get("controller") for owner in owners)


def _workload(manifest: Manifest, status: Status) -> WorkloadStatus:
    ready, desired = replicas(manifest)
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
    present = {(m["kind"], m["metadata"]["name"]) for m in members}
    kinds = {kind for _, kind in _WORKLOADS}
    return [
        WorkloadStatus(str(item.ref), "failed", 0, None, "it was deployed and is not there any more")
        for item in (entry.inventory if entry else ())
        # A finished Job may delete itself (ttlSecondsAfterFinished).
        if item.kind in kinds - {"Job"} and (item.kind, item.name) not in present
    ]


def _finished(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Succeeded" or "deletionTimestamp" in pod["metadata"]


def _restarts(pod: Manifest) -> int:
    state = pod.get("status") or {}
    containers = [*(state.get("initContainerStatuses") or ()), *(state.get("containerStatuses") or ())]
    return sum(int(container.get("restartCount", 0)) for container in containers)


def _symptoms(
    contents: Sequence[Manifest], events: Sequence[Manifest], service_of: Mapping[str, str], now: datetime
) -> defaultdict[str, list[tuple[Finding, bool]]]:
    """What is wrong with each service, and whether that has lasted too long to mend itself."""
    from sandbox.cluster import readiness

    by_uid = {m["metadata"]["uid"]: m for m in contents}
    unready = {uid for uid, m in by_uid.items() if readiness.status(m, now).state != "ready"}
    found: defaultdict[str, list[tuple[Finding, bool]]] = defaultdict(list)

    def note(symptom: Symptom, service: str, began: datetime | None) -> None:
        lasted = (now - (symptom.since or began or now)).total_seconds()
        final = symptom.restarts > 0 if symptom.crash else lasted >= symptom.grace
        found[service].append((symptom.finding, final))

    for uid, manifest in by_uid.items():
        service = service_of.get(uid, "")
        began = readiness.time_of(manifest["metadata"].get("creationTimestamp"))
        if manifest["kind"] == "Pod" and uid in unready:
            for symptom in readiness.pod_symptoms(manifest, service):
                note(symptom, service, began)
            owners = {owner.get("uid") for owner in manifest["metadata"].get("ownerReferences") or ()}
            # The failed tries of a Job that came through in the end are nobody's business.
            failed = readiness.failed_pod_symptom(manifest, service, 2) if owners & unready else None
            if failed:
                note(failed, service, began)
    for event in events:
        uid = (event.get("involvedObject") or {}).get("uid", "")
        if uid in unready:
            for symptom in readiness.event_symptoms(event, service_of.get(uid, "")):
                note(symptom, service_of.get(uid, ""), None)
    return found


def _overall(workloads: Sequence[WorkloadStatus], *, stuck: bool) -> State:
    states = Counter(workload.state for workload in workloads)
    if states["failed"] or (states["progressing"] and stuck):
        return "failed"
    return "progressing" if states["progressing"] else "ready"


def _distinct(findings: Iterable[Finding]) -> Iterable[Finding]:
    """One finding for the replicas that share it."""
    return {(f.reason, f.message, f.container): f for f in reversed(list(findings))}.values()


def endpoints(service: str, members: Iterable[Manifest]) -> Iterable[Endpoint]:
    """Where a service answers."""
    for manifest in members:
        ref, spec = str(ObjectRef.of(manifest)), manifest.get("spec") or {}
        if manifest["kind"] == "Service" and spec.get("type") != "ExternalName":
            for port in spec.get("ports") or ():
                if port.get("protocol", "TCP") == "TCP":
                    yield Endpoint(service, ref, port.get("name", ""), int(port["port"]))
        elif manifest["kind"] == "Ingress":
            secure = {host for tls in spec.get("tls") or () for host in tls.get("hosts") or ()}
            for rule in spec.get("rules") or ():
                if host := rule.get("host"):
                    scheme, port_number = ("https", 443) if host in secure else ("http", 80)
                    yield Endpoint(service, ref, scheme, port_number, f"{scheme}://{host}/")


def _quota(quotas: Sequence[Manifest]) -> tuple[QuotaUse, ...]:
    use = []
    for quota in quotas:
        state = quota.get("status") or {}
        for resource, hard in sorted((state.get("hard") or {}).items()):
            use.append(QuotaUse(resource, str((state.get("used") or {}).get(resource, "0")), str(hard)))
    return tuple(use)


# --- services and their pods ------------------------------------------------------------------------


async def service_names(cluster: Cluster, sandbox: Sandbox) -> list[str]:
    """The services of a sandbox."""
    record, _ = await _record(cluster, sandbox.namespace)
    contents = await _contents(cluster, sandbox.namespace)
    return sorted({*attribute(contents, record).values(), *(record.services if record else ())})


@dataclass(frozen=True)
class Inside:
    """What is in a sandbox, by service.

    Attributes:
        record: the newest one, where there is one that we may read.
        services: the names of all services.
        members: the objects of each service that are there; the empty name: of none.
    """

    record: Record | None
    services: tuple[str, ...]
    members: Mapping[str, Sequence[Manifest]]

    def pods(self, service: str | None) -> list[Manifest]:
        """The pods of a service, newest first; None: of all.

        Raises:
            InvalidInput: no such service.
        """
        groups = [self.of(service)] if service else list(self.members.values())
        pods = [m for members in groups for m in members if m["kind"] == "Pod"]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)

    def of(self, service: str) -> Sequence[Manifest]:
        """The objects of a service.

        Raises:
            InvalidInput: no such service; names those that there are.
        """
        if service in self.services:
            return self.members.get(service, ())
        known = ", ".join(self.services) or "none"
        near = difflib.get_close_matches(service, self.services, n=1)
        raise InvalidInput(
            f"there is no service {service} in this sandbox",
            why=f"its services: {known}",
            hint=f"did you mean {near[0]}?" if near else "",
        )


async def inside(cluster: Cluster, sandbox: Sandbox) -> Inside:
    """Read what is in a sandbox."""
    (record, _), contents = await asyncio.gather(
        _record(cluster, sandbox.namespace), _contents(cluster, sandbox.namespace)
    )
    service_of = attribute(contents, record)
    names = sorted({*service_of.values(), *(record.services if record else ())})
    return Inside(record, tuple(names), _by_service(contents, service_of))


async def pods_of_service(cluster: Cluster, sandbox: Sandbox, service: str | None) -> list[Manifest]:
    """The pods of a service, newest first; None: of all services.

    Raises:
        InvalidInput: no such service; names those that there are.
    """
    return (await inside(cluster, sandbox)).pods(service)


@dataclass(frozen=True)
class Door:
    """Where a connection to a service goes in: a port of a Service, or of a pod where there is no Service."""

    target: str
    port: int
    port_name: str


def door(found: Inside, service: str, wanted: str | None = None) -> Door:
    """The port of a service to connect to.

    Args:
        wanted: a port's name or number; default: the first one that ``sandbox.yaml`` names, else the
            first of its Services, the one called as the service before others.

    Raises:
        InvalidInput: no such service or port; names those that there are.
    """
    members = found.of(service)
    declared = found.record.services[service].ports if found.record and service in found.record.services else {}
    services = sorted(
        (m for m in members if m["kind"] == "Service"),
        key=lambda m: (m["metadata"]["name"] != service, m["metadata"]["name"]),
    )
    doors = [Door(e.object, e.port, e.port_name) for e in endpoints(service, services)]
    doors += _pod_doors(members) if not doors else []
    if wanted is None:
        for name, number in declared.items():
            fitting = [d for d in doors if d.port_name == name] or [d for d in doors if d.port == number]
            if fitting:
                return fitting[0]
    else:
        declared_number = declared.get(wanted)
        doors_wanted = [d for d in doors if wanted in (d.port_name, str(d.port)) or d.port == declared_number]
        if doors_wanted:
            return doors_wanted[0]
        known = ", ".join(f"{d.port_name or d.port} ({d.port})" for d in doors)
        if doors:
            raise InvalidInput(f"service {service} has no port {wanted}", why=f"its ports: {known}")
    if not doors:
        raise InvalidInput(
            f"service {service} has no port to connect to",
            why="it has neither a Service with a TCP port nor a pod that declares one",
            hint=f"`sandbox status` shows how {service} is",
        )
    return doors[0]


def _pod_doors(members: Iterable[Manifest]) -> list[Door]:
    return [
        Door(f"pod/{pod['metadata']['name']}", int(port["containerPort"]), port.get("name", ""))
        for pod in members
        if pod["kind"] == "Pod" and not _finished(pod)
        for container in pod["spec"].get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP"
    ]
