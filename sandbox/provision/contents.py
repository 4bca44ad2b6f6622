"""What is in a sandbox: its services, their objects and pods, and where they can be reached."""

from __future__ import annotations

import asyncio
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision.attribution import attribute

if TYPE_CHECKING:
    from sandbox.model.record import Record

# Kinds whose objects make up a service's state, with their API versions.
WORKLOADS = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
)
_CONNECTING = (("apps/v1", "ReplicaSet"), ("batch/v1", "CronJob"))
_OTHERS = (("v1", "PersistentVolumeClaim"), ("v1", "Service"), ("networking.k8s.io/v1", "Ingress"))
KINDS = (*WORKLOADS, *_CONNECTING, *_OTHERS, ("v1", "Pod"))


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
        return sorted(pods, key=_created, reverse=True)

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
        newest_record(cluster, sandbox.namespace), contents_of(cluster, sandbox.namespace)
    )
    service_of = attribute(contents, record)
    names = sorted({*service_of.values(), *(record.services if record else ())})
    return Inside(record, tuple(names), by_service(contents, service_of))


def check_awake(sandbox: Sandbox, pods: Iterable[Manifest]) -> None:
    """Refuse to look for pods in a sandbox that sleeps; what goes on running in it is there as ever.

    Pods that still end are as good as gone.

    Raises:
        OperationFailed: it sleeps; says how to wake it.
    """
    if sandbox.phase is Phase.SLEEPING and not any(_goes_on(pod) for pod in pods):
        raise OperationFailed(
            f"the sandbox {sandbox.name} sleeps",
            why="its pods were stopped by `sandbox sleep`",
            hint=f"`sandbox wake {sandbox.name}` starts them again, as they were",
        )


def _goes_on(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


async def pods_of_service(cluster: Cluster, sandbox: Sandbox, service: str | None) -> list[Manifest]:
    """The pods of a service, newest first; None: of all services.

    Raises:
        InvalidInput: no such service; names those that there are.
    """
    return (await inside(cluster, sandbox)).pods(service)


class PodFinder:
    """Finds the pods of a service again and again, as they come and go, for one request each time."""

    def __init__(self, cluster: Cluster, sandbox: Sandbox, service: str | None, found: Inside) -> None:
        self._cluster = cluster
        self._sandbox = sandbox
        self._service = service
        self._found = found

    async def __call__(self) -> list[Manifest]:
        """The pods that there are now, newest first."""
        pods = await list_all(self._cluster, "v1", "Pod", self._sandbox.namespace)
        known = {m["metadata"]["uid"] for members in self._found.members.values() for m in members}
        if any(pod["metadata"]["uid"] not in known for pod in pods):
            # Only a look at everything tells whose a new pod is.
            self._found = await inside(self._cluster, self._sandbox)
        wanted = {pod["metadata"]["uid"] for pod in self._found.pods(self._service)}
        fresh = [pod for pod in pods if pod["metadata"]["uid"] in wanted]
        return sorted(fresh, key=_created, reverse=True)


def _created(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("creationTimestamp", ""))


async def service_names(cluster: Cluster, sandbox: Sandbox) -> list[str]:
    """The services of a sandbox."""
    record, _ = await newest_record(cluster, sandbox.namespace)
    contents = await contents_of(cluster, sandbox.namespace)
    return sorted({*attribute(contents, record).values(), *(record.services if record else ())})


@dataclass(frozen=True)
class ServicePort:
    """Where a service answers: a port of a Service, or the URL of an Ingress."""

    service: str
    object: str
    port_name: str
    port: int
    url: str = ""


def endpoints(service: str, members: Iterable[Manifest]) -> Iterable[ServicePort]:
    """Where a service answers."""
    for manifest in members:
        ref, spec = str(ObjectRef.of(manifest)), manifest.get("spec") or {}
        if manifest["kind"] == "Service" and spec.get("type") != "ExternalName":
            for port in spec.get("ports") or ():
                if port.get("protocol", "TCP") == "TCP":
                    yield ServicePort(service, ref, port.get("name", ""), int(port["port"]))
        elif manifest["kind"] == "Ingress":
            secure = {host for tls in spec.get("tls") or () for host in tls.get("hosts") or ()}
            for rule in spec.get("rules") or ():
                if host := rule.get("host"):
                    scheme, port_number = ("https", 443) if host in secure else ("http", 80)
                    yield ServicePort(service, ref, scheme, port_number, f"{scheme}://{host}/")


@dataclass(frozen=True)
class Door:
    """Where a connection to a service goes in: a port of a Service, or of a pod where there is no Service."""

    target: ObjectRef
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
    doors = [
        Door(ObjectRef.of(m), endpoint.port, endpoint.port_name)
        for m in services
        for endpoint in endpoints(service, [m])
    ]
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
        Door(ObjectRef.of(pod), int(port["containerPort"]), port.get("name", ""))
        for pod in members
        if pod["kind"] == "Pod" and not finished(pod)
        for container in pod["spec"].get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP"
    ]


async def list_all(cluster: Cluster, api_version: str, kind: str, namespace: str) -> list[Manifest]:
    """All objects of a kind in a namespace."""
    return [manifest async for manifest in objects.list_(cluster, api_version, kind, namespace)]


async def contents_of(cluster: Cluster, namespace: str) -> list[Manifest]:
    """The objects of all :data:`KINDS` in a namespace."""
    lists = await asyncio.gather(*(list_all(cluster, api_version, kind, namespace) for api_version, kind in KINDS))
    return [manifest for found in lists for manifest in found]


async def newest_record(cluster: Cluster, namespace: str) -> tuple[Record | None, str]:
    """The newest record, or why there is none to read."""
    from sandbox.provision import records

    try:
        return await records.latest(cluster, namespace), ""
    except Refused as error:
        return None, str(error)


def by_service(contents: Iterable[Manifest], service_of: Mapping[str, str]) -> defaultdict[str, list[Manifest]]:
    """The objects of each service; the empty name: of none."""
    members: defaultdict[str, list[Manifest]] = defaultdict(list)
    for manifest in contents:
        members[service_of.get(manifest["metadata"]["uid"], "")].append(manifest)
    return members


def finished(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Succeeded" or "deletionTimestamp" in pod["metadata"]
