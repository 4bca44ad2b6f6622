"""The services of a captured namespace: in which version each ran, what is wrong with it, what changed. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sandbox.capture.collect.releases import Deployed
from sandbox.capture.collect.running import Running, tail_of
from sandbox.capture.model import Image, Service
from sandbox.cluster.helm import HelmRelease
from sandbox.cluster.readiness import container_statuses
from sandbox.model import labels
from sandbox.model.errors import InvalidInput
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest, containers, pod_spec, pod_template
from sandbox.model.record import Record, ServiceRecord
from sandbox.provision.attribution import attribute
from sandbox.provision.contents import KINDS
from sandbox.provision.status import ServiceStatus, service_statuses

_LOG_LINES = 20
_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet", "Pod"})
# Where people and their tools write down which commit something is made of, by label or annotation.
_COMMIT_KEYS = (
    "org.opencontainers.image.revision",
    "app.kubernetes.io/commit",
    "app.openshift.io/vcs-ref",
    "vcs-ref",
    "git-commit",
    "git-sha",
    "commit",
)
_SOURCE_KEYS = ("org.opencontainers.image.source", "app.openshift.io/vcs-uri")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_REVISION = "deployment.kubernetes.io/revision"
# What tells most: a container's own end, then what keeps one from starting, then what only says that it is late.
_RANK = ("OOMKilled", "CrashLoopBackOff", "Error", "StartError", "RunContainerError", "ContainerCannotRun")


@dataclass(frozen=True)
class Judged:
    """Services with their versions, and what is wrong, most telling first."""

    services: tuple[Service, ...]
    findings: tuple[Finding, ...]


def judge(
    contents: Sequence[Manifest], running: Running, deployed: Deployed, now: datetime, known: Sequence[Finding] = ()
) -> Judged:
    """Say which services there are, how they are and why.

    Args:
        contents: the namespace's objects, pods not among them.
        known: what the deployment itself found, which is more telling than anything that is still to be seen.
    """
    kinds = {kind for _, kind in KINDS}
    everything = [m for m in (*contents, *running.pods) if m["kind"] in kinds and "uid" in m["metadata"]]
    named = named_workloads(everything, deployed.record)
    service_of = attribute(named, deployed.record)
    statuses = [s for s in service_statuses(named, running.events, deployed.record, now) if s.name or s.workloads]
    members: defaultdict[str, list[Manifest]] = defaultdict(list)
    for manifest in named:
        members[service_of.get(manifest["metadata"]["uid"], "")].append(manifest)
    return Judged(
        tuple(_service(status, members[status.name], deployed) for status in statuses if status.name),
        tuple(_findings(statuses, running, deployed, known)),
    )


def named_workloads(everything: Sequence[Manifest], record: Record | None) -> list[Manifest]:
    """The same objects; workloads that belong to no service are one of their own, called as charts call theirs."""
    service_of = attribute(everything, record)
    found = []
    for manifest in everything:
        metadata = manifest["metadata"]
        alone = metadata["uid"] not in service_of and not metadata.get("ownerReferences")
        if alone and manifest["kind"] in _WORKLOADS:
            own = {**(metadata.get("labels") or {}), labels.SERVICE: metadata["name"]}
            manifest = {**manifest, "metadata": {**metadata, "labels": own}}
        found.append(manifest)
    return found


# -- findings ---------------------------------------------------------------------------------------------------


def _findings(
    statuses: Sequence[ServiceStatus], running: Running, deployed: Deployed, known: Sequence[Finding]
) -> list[Finding]:
    seen = [(s.state != "failed", _rank(f.reason), f) for s in statuses for f in s.findings]
    ordered = [*known, *(f for _, _, f in sorted(seen, key=lambda one: one[:2]))]
    ordered += [f for release in deployed.newest.values() for f in _of_release(release)]
    told: dict[tuple[str, ...], Finding] = {}
    for finding in ordered:
        if not finding.log_tail and finding.pod and finding.container:
            tail = tail_of(running.tails, finding.pod, finding.container, lines=_LOG_LINES)
            finding = replace(finding, log_tail=tail)
        told.setdefault((finding.service, finding.reason, finding.object, finding.container), finding)
    return list(told.values())


def _rank(reason: str) -> int:
    return _RANK.index(reason) if reason in _RANK else len(_RANK)


def _of_release(release: HelmRelease) -> list[Finding]:
    """What Helm itself says of a release that is not deployed."""
    if release.status in ("deployed", "superseded", "uninstalled"):
        return []
    return [Finding(f"release {release.status}", release.description, f"release/{release.name}", release.name)]


# -- versions ---------------------------------------------------------------------------------------------------


def _service(status: ServiceStatus, members: Sequence[Manifest], deployed: Deployed) -> Service:
    entry = deployed.record.services.get(status.name) if deployed.record else None
    release = _release_of(entry, status.name, members, deployed)
    commit, source, origin = _commit(entry, members)
    return Service(
        name=status.name,
        kind=entry.lock.kind if entry else "chart" if release else "manifests",
        repo=entry.lock.repo if entry else source,
        ref=entry.lock.ref if entry else "",
        commit=commit,
        commit_from=origin,
        release=release.name if release else "",
        revision=release.revision if release else None,
        chart=release.chart_name if release else "",
        chart_version=release.chart_version if release else "",
        app_version=release.app_version if release else "",
        state=status.state,
        ready=status.ready,
        desired=status.desired,
        restarts=status.restarts,
        images=_images(members),
        workloads=tuple(w.object for w in status.workloads),
        changed=tuple(_changed(status.name, entry, release, members, deployed)),
    )


def _release_of(
    entry: ServiceRecord | None, name: str, members: Sequence[Manifest], deployed: Deployed
) -> HelmRelease | None:
    if entry:
        return deployed.newest.get(entry.release or "")
    marked = {(m["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name") for m in members}
    return deployed.newest.get(name) if name in marked else None


def _commit(entry: ServiceRecord | None, members: Sequence[Manifest]) -> tuple[str, str, str]:
    """Commit, repository, and who says so."""
    if entry and entry.lock.commit:
        return entry.lock.commit, entry.lock.repo, "record"
    for manifest in _by_newness(members):
        places = [manifest["metadata"], (pod_template(manifest) or {}).get("metadata") or {}]
        texts = {
            key: str(value)
            for place in places
            for at in ("labels", "annotations")
            for key, value in (place.get(at) or {}).items()
        }
        for key in _COMMIT_KEYS:
            if _COMMIT.fullmatch(texts.get(key, "")):
                return texts[key], next((texts[s] for s in _SOURCE_KEYS if s in texts), ""), "pod"
    return "", "", ""


def _by_newness(members: Iterable[Manifest]) -> list[Manifest]:
    workloads = [m for m in members if m["kind"] in _WORKLOADS]
    return sorted(workloads, key=lambda m: str(m["metadata"].get("creationTimestamp")), reverse=True)


def _images(members: Sequence[Manifest]) -> tuple[Image, ...]:
    """The images of a service's containers, each once: what its pods run, else what its workloads ask for."""
    found: dict[tuple[str, str, str], Image] = {}
    pods = [m for m in members if m["kind"] == "Pod"]
    for pod in pods:
        ran = {s["name"]: str(s.get("imageID") or "") for s in container_statuses(pod)}
        for container in containers(pod.get("spec") or {}):
            image = image_of(container["name"], str(container.get("image") or ""), ran.get(container["name"], ""))
            found.setdefault((image.container, image.named, image.digest), image)
    seen = {(container, named) for container, named, _ in found}
    for workload in members:
        if workload["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "CronJob"):
            for container in containers(pod_spec(workload) or {}):
                image = image_of(container["name"], str(container.get("image") or ""), "")
                if (image.container, image.named) not in seen:
                    found.setdefault((image.container, image.named, image.digest), image)
    return tuple(found.values())


def image_of(container: str, named: str, image_id: str) -> Image:
    """An image by the digest that ran; by the one that was asked for where nothing has run.

    An ``imageID`` is ``repository@sha256:…``, with a scheme before it from some runtimes; only ``sha256:…`` is the id
    of what a node has, which no registry knows.
    """
    from sandbox.images.reference import parse_reference

    ran = image_id.partition("://")[2] or image_id
    repository, at, digest = ran.partition("@")
    if not at:
        repository, _, digest = named.partition("@")
        repository = repository if digest else ""
    try:
        repository = parse_reference(repository).repository if repository else ""
    except InvalidInput:
        repository = ""
    return Image(container=container, named=named, repository=repository, digest=digest)


# -- what changed -----------------------------------------------------------------------------------------------


def _changed(
    name: str,
    entry: ServiceRecord | None,
    release: HelmRelease | None,
    members: Sequence[Manifest],
    deployed: Deployed,
) -> list[str]:
    """What differs from the last good deployment: by our record, by Helm's revision, or by the ReplicaSet before."""
    if entry is not None and deployed.good_record is not None and deployed.good_record is not deployed.record:
        before = deployed.good_record.services.get(name)
        return ["new"] if before is None else _record_changes(before, entry)
    if release is not None and release.name in deployed.good:
        return _release_changes(deployed.good[release.name], release)
    return _replica_set_changes(members) if entry is None else []


def _record_changes(before: ServiceRecord, now: ServiceRecord) -> list[str]:
    old, new = before.lock, now.lock
    pairs = {
        "commit": (old.commit, new.commit),
        "images": ({(i.name, i.digest) for i in old.images}, {(i.name, i.digest) for i in new.images}),
        "chart": (
            old.chart and (old.chart.name, old.chart.version, old.chart.digest),
            new.chart and (new.chart.name, new.chart.version, new.chart.digest),
        ),
        "values": (before.values, now.values),
        "manifests": (old.manifest_digest, new.manifest_digest),
    }
    return [what for what, (was, is_) in pairs.items() if was != is_]


def _release_changes(before: HelmRelease, now: HelmRelease) -> list[str]:
    pairs = {
        "chart": ((before.chart_name, before.chart_version), (now.chart_name, now.chart_version)),
        "images": (_named_images(before.manifests), _named_images(now.manifests)),
        "values": (before.values, now.values),
        "manifests": (before.manifests, now.manifests),
        "hooks": (before.hooks, now.hooks),
    }
    return [what for what, (was, is_) in pairs.items() if was != is_]


def _named_images(manifests: Iterable[Manifest]) -> set[str]:
    return {str(c.get("image")) for manifest in manifests for c in containers(pod_spec(manifest) or {})}


def _replica_set_changes(members: Sequence[Manifest]) -> list[str]:
    changes: set[str] = set()
    for deployment in (m for m in members if m["kind"] == "Deployment"):
        uid = deployment["metadata"]["uid"]
        owned = [
            m
            for m in members
            if m["kind"] == "ReplicaSet"
            and any(owner.get("uid") == uid for owner in m["metadata"].get("ownerReferences") or ())
        ]
        numbered = sorted(owned, key=_revision_of)
        if len(numbered) > 1:
            before, now = numbered[-2], numbered[-1]
            changes |= {"images"} if _named_images([before]) != _named_images([now]) else set()
            changes |= {"manifests"} if _template(before) != _template(now) else set()
    return sorted(changes)


def _revision_of(replica_set: Manifest) -> int:
    text = (replica_set["metadata"].get("annotations") or {}).get(_REVISION, "0")
    return int(text) if str(text).isdecimal() else 0


def _template(replica_set: Manifest) -> Manifest:
    return (replica_set.get("spec") or {}).get("template", {}).get("spec") or {}


def names_in(pods: Iterable[Manifest]) -> set[str]:
    """What things are called here: workloads, containers, images, labels. A value that is spelt so is no secret."""
    found: set[str] = set()
    for pod in pods:
        metadata = pod["metadata"]
        found |= {str(metadata.get("namespace")), *map(str, (metadata.get("labels") or {}).values())}
        for container in containers(pod.get("spec") or {}):
            found |= {str(container.get("name")), *re.split(r"[/:@]", str(container.get("image")))}
    return found
