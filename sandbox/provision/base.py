"""``--base``: the services that a commit does not bring, as they run somewhere else.

They are read from that place's record or, where it has none, from its Helm releases and its plain objects.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm, HelmRelease
from sandbox.model import labels
from sandbox.model.errors import InvalidInput
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest, containers, digest, pod_spec, pod_template
from sandbox.model.record import ChartLock, ImageLock, ServiceLock, ServiceRecord
from sandbox.project.yamlfile import near_any
from sandbox.provision import records
from sandbox.provision.plan import ServicePlan
from sandbox.render.references import find_references

# Server-side fields that must not be copied (Velero's list of what to strip at a restore).
_SERVER_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "managedFields",
    "finalizers",
    "selfLink",
    "namespace",
)
_SERVER_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
_WORKLOADS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"), ("batch/v1", "CronJob"))


@dataclass(frozen=True)
class Base:
    """A place that services are taken from."""

    cluster: Cluster
    helm: Helm
    namespace: str
    title: str


async def base_services(
    base: Base, wanted: Iterable[str] | None, without: set[str], workspace: Path
) -> dict[str, ServicePlan]:
    """The services of a base.

    Args:
        wanted: names; None for all.
        without: services that the commit brings itself.

    Raises:
        InvalidInput: the base has nothing, or not what is wanted.
    """
    found = await _from_record(base, workspace)
    if not found:
        found = await _from_live(base, workspace)
    if not found:
        raise InvalidInput(
            f"the base {base.title} has no services",
            why=f"in the namespace {base.namespace} there is no record, no Helm release and no workload",
            hint="name another place with --base",
        )
    missing = set(wanted or ()) - set(found) - without
    if missing:
        raise InvalidInput(
            f"the base {base.title} has no service {', '.join(sorted(missing))}{near_any(missing, found)}",
            why=f"it has {', '.join(sorted(found))}",
            hint="name another place with --base, or declare the service in sandbox.yaml",
        )
    return {
        name: plan for name, plan in found.items() if name not in without and (wanted is None or name in set(wanted))
    }


async def _from_record(base: Base, workspace: Path) -> dict[str, ServicePlan]:
    record = records.last_deployed(await records.load_records(base.cluster, base.namespace))
    if record is None:
        return {}
    plans = {}
    for name, service in record.services.items():
        if service.lock.chart is None:
            plans[name] = _plan_of_record(name, service)
            continue
        release = await base.helm.release(service.lock.chart.release, base.namespace)
        if release is None:
            raise InvalidInput(
                f"the base {base.title} has no release {service.lock.chart.release}",
                why="its record names it, but it was uninstalled",
                hint="deploy the base again, or name another with --base",
            )
        plans[name] = await _plan_of_release(base, name, release, workspace, service.lock, service)
    return plans


def _plan_of_record(name: str, service: ServiceRecord) -> ServicePlan:
    return ServicePlan(
        name=name,
        lock=service.lock,
        manifests=[_portable(manifest) for manifest in service.manifests],
        images=_images(service.lock),
        needs=service.needs,
        ports=service.ports,
    )


async def _plan_of_release(
    base: Base,
    name: str,
    release: HelmRelease,
    workspace: Path,
    lock: ServiceLock | None = None,
    service: ServiceRecord | None = None,
) -> ServicePlan:
    chart = await base.helm.unpack_chart(release, workspace / "base" / name)
    values = dict(release.values)
    if lock is None:
        lock = lock_of_release(release, base.title)
    return ServicePlan(
        name=name,
        lock=lock,
        manifests=[_portable(manifest) for manifest in release.manifests],
        hooks=[_portable(manifest) for manifest in release.hooks],
        chart_path=chart,
        values=values,
        images=_images(lock),
        needs=service.needs if service else (),
        ports=service.ports if service else ports_of(release.manifests),
    )


def lock_of_release(release: HelmRelease, ref: str) -> ServiceLock:
    """What is known of a release that no record names; ``ref`` says where it was found."""
    chart = ChartLock(
        release=release.name,
        name=release.chart_name,
        version=release.chart_version,
        app_version=release.app_version,
        digest=digest({"name": release.chart_name, "version": release.chart_version}),
    )
    return ServiceLock(
        kind="chart",
        repo="",
        ref=ref,
        commit="",
        chart=chart,
        images=_images_of_manifests(release.manifests),
        input_digest=digest([release.chart_name, release.chart_version, dict(release.values)]),
        manifest_digest=digest(release.manifests),
    )


async def _from_live(base: Base, workspace: Path) -> dict[str, ServicePlan]:
    """What runs in a namespace that we did not deploy: releases, then workloads that belong to none.

    Plain workloads get the digests that their pods run; a release's images are what its values say.
    """
    running = await _running_digests(base)
    plans = {}
    for release in await base.helm.releases(base.namespace):
        plans[release.name] = await _plan_of_release(base, release.name, release, workspace)
    everything = [manifest async for manifest in _namespace_objects(base)]
    for workload in everything:
        if pod_template(workload) is None or not _is_plain(workload):
            continue
        name = workload["metadata"]["name"]
        if name not in plans:
            pinned = [_pinned(manifest, running) for manifest in _belonging(workload, everything)]
            plans[name] = plan_of_objects(base.title, name, pinned)
    return plans


async def _namespace_objects(base: Base) -> AsyncIterator[Manifest]:
    kinds = (
        *_WORKLOADS,
        ("v1", "Service"),
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "ServiceAccount"),
        ("v1", "PersistentVolumeClaim"),
    )
    for api_version, kind in kinds:
        async for item in objects.list_(base.cluster, api_version, kind, base.namespace):
            yield {"apiVersion": api_version, "kind": kind, **item}


async def _running_digests(base: Base) -> dict[str, str]:
    """Image as pods name it → the same by digest, as the kubelet reports it (``status…imageID``).

    An image that runs in two versions (a tag that was pushed again) is left as it is named.
    """
    found: dict[str, set[str]] = {}
    async for pod in objects.list_(base.cluster, "v1", "Pod", base.namespace):
        named = {c["name"]: c.get("image", "") for c in containers(pod.get("spec") or {})}
        status = pod.get("status") or {}
        for state in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            _, at, image_digest = str(state.get("imageID", "")).rpartition("@")
            if at and state["name"] in named:
                found.setdefault(named[state["name"]], set()).add(image_digest)
    return {image: f"{image.partition('@')[0]}@{min(digests)}" for image, digests in found.items() if len(digests) == 1}


def _pinned(manifest: Manifest, running: Mapping[str, str]) -> Manifest:
    """A workload whose containers name their images by the digests that run."""
    if pod_spec(manifest) is None:
        return manifest
    pinned = copy.deepcopy(manifest)
    for container in containers(pod_spec(pinned) or {}):
        container["image"] = running.get(container.get("image", ""), container.get("image"))
    return pinned


def _is_plain(manifest: Manifest) -> bool:
    """Whether it was made by hand or kubectl: not by Helm, not by a controller."""
    metadata = manifest["metadata"]
    helm = "meta.helm.sh/release-name" in (metadata.get("annotations") or {})
    return not helm and not metadata.get("ownerReferences")


def _belonging(workload: Manifest, everything: Sequence[Manifest]) -> list[Manifest]:
    """A workload with the Services that select its pods and the objects it refers to."""
    pod_labels = ((pod_template(workload) or {}).get("metadata") or {}).get("labels") or {}
    referred = {(reference.kind, reference.name) for reference in find_references([workload])}
    mine = [workload]
    for other in everything:
        selector = (other.get("spec") or {}).get("selector") or {}
        selects = other["kind"] == "Service" and selector and selector.items() <= pod_labels.items()
        if selects or ((other["kind"], other["metadata"]["name"]) in referred and _is_plain(other)):
            mine.append(other)
    return [m for m in mine if (m["kind"], m["metadata"]["name"]) != ("ServiceAccount", "default")]


def plan_of_objects(ref: str, name: str, manifests: Sequence[Manifest]) -> ServicePlan:
    """A service of objects as they live in the cluster, by no record; ``ref`` says where they were found."""
    portable = [_portable(manifest) for manifest in manifests]
    lock = ServiceLock(
        kind="manifests",
        repo="",
        ref=ref,
        commit="",
        images=_images_of_manifests(manifests),
        input_digest=digest(portable),
        manifest_digest=digest(portable),
    )
    return ServicePlan(name=name, lock=lock, manifests=portable, images=_images(lock), ports=ports_of(manifests))


def _portable(manifest: Manifest) -> Manifest:
    """An object without what the server and its place gave it."""
    portable = copy.deepcopy(manifest)
    portable.pop("status", None)
    metadata = portable["metadata"]
    for key in _SERVER_METADATA:
        metadata.pop(key, None)
    annotations = metadata.get("annotations") or {}
    for key in _SERVER_ANNOTATIONS:
        annotations.pop(key, None)
    spec = portable.get("spec") or {}
    match portable["kind"]:
        case "Service":
            if spec.get("clusterIP") != "None":
                for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                    spec.pop(key, None)
            for port in spec.get("ports") or ():
                port.pop("nodePort", None)
        case "PersistentVolumeClaim":
            spec.pop("volumeName", None)
        case "Job":
            spec.pop("selector", None)
    return portable


def _images(lock: ServiceLock) -> tuple[ResolvedImage, ...]:
    return tuple(ResolvedImage(i.name, i.repository, i.tag, i.digest, "locked") for i in lock.images)


def _images_of_manifests(manifests: Iterable[Manifest]) -> tuple[ImageLock, ...]:
    """Images that manifests name by digest; a tag alone is not a version and is not locked."""
    found = {}
    for manifest in manifests:
        for container in (pod_spec(manifest) or {}).get("containers") or ():
            name, at, image_digest = str(container.get("image", "")).partition("@")
            if at:
                repository, tag = _split_tag(name)
                found[repository] = ImageLock(name=repository, repository=repository, tag=tag, digest=image_digest)
    return tuple(found.values())


def _split_tag(name: str) -> tuple[str, str]:
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "")


def ports_of(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Ports by name of all Services among manifests; the first of a name wins."""
    ports: dict[str, int] = {}
    for manifest in manifests:
        if (manifest.get("apiVersion"), manifest.get("kind")) == ("v1", "Service"):
            for port in (manifest.get("spec") or {}).get("ports") or ():
                ports.setdefault(port.get("name") or str(port["port"]), int(port["port"]))
    return ports


async def shared_services(base: Base, name: str, namespace: str) -> list[Manifest]:
    """ExternalName Services that lead from a sandbox to a service in the base's namespace.

    Each Service that the base's record knows of it gets one; without a record, the service's own name.
    """
    record = records.last_deployed(await records.load_records(base.cluster, base.namespace))
    known = record.services[name].manifests if record is not None and name in record.services else []
    names = [m["metadata"]["name"] for m in known if (m.get("apiVersion"), m.get("kind")) == ("v1", "Service")]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service, "namespace": namespace, "labels": {labels.SERVICE: name}},
            "spec": {"type": "ExternalName", "externalName": f"{service}.{base.namespace}.svc.cluster.local"},
        }
        for service in names or [name]
    ]
