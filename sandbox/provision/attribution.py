"""Which service an object of a sandbox belongs to.

Asked in this order: the record's inventory and hooks, the label that we put on what we apply ourselves,
Helm's annotation with the release (while a first deployment has no record yet), and whoever owns the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sandbox.model import labels
from sandbox.model.objects import Manifest, split_api_version

if TYPE_CHECKING:
    from sandbox.model.record import Record

_HELM_RELEASE = "meta.helm.sh/release-name"
_HELM_INSTANCE = "app.kubernetes.io/instance"
_FORMER_REPLICAS = 20

Key = tuple[str, str, str]


def key_of(manifest: Mapping[str, Any]) -> Key:
    """API group, kind and name."""
    group, _ = split_api_version(manifest.get("apiVersion", ""))
    return (group, manifest.get("kind", ""), manifest["metadata"]["name"])


def attribute(objects: Iterable[Manifest], record: Record | None) -> dict[str, str]:
    """Say for each object's UID which service it belongs to; objects of no service are left out."""
    found = list(objects)
    known = _recorded(record)
    releases = _releases(record)
    by_uid = {manifest["metadata"]["uid"]: manifest for manifest in found}
    claims = _claim_owners(found)
    services: dict[str, str] = {}

    def service_of(manifest: Manifest, seen: frozenset[str]) -> str:
        uid = manifest["metadata"]["uid"]
        if uid in services:
            return services[uid]
        direct = known.get(key_of(manifest)) or _claimed(manifest, releases)
        if direct:
            return direct
        for owner in manifest["metadata"].get("ownerReferences") or ():
            parent = by_uid.get(owner.get("uid", ""))
            # Ownership has no cycles, but what a cluster returns is not ours to trust.
            if parent is not None and owner["uid"] not in seen:
                inherited = service_of(parent, seen | {uid})
                if inherited:
                    return inherited
        stateful_set = claims.get(manifest["metadata"]["name"]) if manifest["kind"] == "PersistentVolumeClaim" else None
        if stateful_set is not None:
            return service_of(stateful_set, seen | {uid})
        return _by_instance(manifest, releases)

    for manifest in found:
        service = service_of(manifest, frozenset())
        if service:
            services[manifest["metadata"]["uid"]] = service
    return services


def _claim_owners(objects: Iterable[Manifest]) -> dict[str, Manifest]:
    """The StatefulSet of each claim that one makes: nothing but the name says it."""
    owners = {}
    for manifest in objects:
        if manifest["kind"] != "StatefulSet":
            continue
        spec = manifest.get("spec") or {}
        first = (spec.get("ordinals") or {}).get("start", 0)
        # Claims outlive a scaling down.
        count = max(spec.get("replicas", 1), (manifest.get("status") or {}).get("replicas", 0), _FORMER_REPLICAS)
        for template in spec.get("volumeClaimTemplates") or ():
            for number in range(first, first + count):
                owners[f"{template['metadata']['name']}-{manifest['metadata']['name']}-{number}"] = manifest
    return owners


def _recorded(record: Record | None) -> dict[Key, str]:
    known: dict[Key, str] = {}
    for name, service in (record.services if record else {}).items():
        for item in service.inventory:
            known[(item.group, item.kind, item.name)] = name
        for hook in service.hooks:
            if (hook.get("metadata") or {}).get("name"):
                known.setdefault(key_of(hook), name)
    return known


def _releases(record: Record | None) -> dict[str, str]:
    """Helm release → service; a release of no record is called as its service."""
    services = record.services if record else {}
    return {service.lock.chart.release: name for name, service in services.items() if service.lock.chart}


def _claimed(manifest: Manifest, releases: Mapping[str, str]) -> str:
    metadata = manifest["metadata"]
    label = (metadata.get("labels") or {}).get(labels.SERVICE)
    if label:
        return str(label)
    release = (metadata.get("annotations") or {}).get(_HELM_RELEASE)
    return releases.get(release, str(release)) if release else ""


def _by_instance(manifest: Manifest, releases: Mapping[str, str]) -> str:
    """What nobody owns and Helm does not mark (its hooks): the release in the label that charts set by convention."""
    return releases.get((manifest["metadata"].get("labels") or {}).get(_HELM_INSTANCE, ""), "")
