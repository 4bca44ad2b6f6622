"""What somebody else put where a deployment is going to write: refused with a list, or taken over as record 0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm, HelmRelease
from sandbox.model import labels
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import InventoryItem, Record, ServiceRecord
from sandbox.provision import records
from sandbox.provision.base import lock_of_release, plan_of_objects, ports_of
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.render.transform import label

_HELM_RELEASE = "meta.helm.sh/release-name"
_REF = "found when it was adopted"


@dataclass(frozen=True)
class Foreign:
    """What is there of one service that no record of ours names.

    Attributes:
        release: the release of the service's name, as it was last good.
        objects: with the names of the service's own, as they live.
        in_the_way: what cannot be taken over, and why, one line each.
    """

    service: str
    release: HelmRelease | None = None
    objects: Sequence[Manifest] = field(default_factory=list)
    in_the_way: Sequence[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What it is, one line each."""
        if self.release is not None:
            found = f"release {self.release.name}, revision {self.release.revision} ({self.release.status})"
            return [f"{self.service}: {found}"]
        return [f"{self.service}: {ObjectRef.of(item)}" for item in self.objects]


async def find_foreign(cluster: Cluster, helm: Helm, plan: Plan) -> list[Foreign]:
    """Everything under the names of the plan's services that no record of the environment holds."""
    ours = {item.ref.identity for service in plan.applied.values() for item in service.inventory}
    releases = {service.release for record in plan.before for service in record.services.values() if service.release}
    found = await asyncio.gather(
        *(
            _of_release(cluster, helm, plan, service, ours)
            if service.release
            else _of_objects(cluster, plan, service, ours)
            for service in plan.services.values()
            if service.release is None or service.release not in releases
        )
    )
    return [one for one in found if one.release or one.objects or one.in_the_way]


async def _of_release(
    cluster: Cluster, helm: Helm, plan: Plan, service: ServicePlan, ours: set[tuple[str, str, str, str]]
) -> Foreign:
    assert service.release is not None
    history = await helm.history(service.release, plan.identity.namespace)
    if history:
        good = [revision for revision in history if revision.status in ("deployed", "superseded")]
        return Foreign(service.name, release=good[-1] if good else history[-1])
    there = await _living(cluster, plan, service, ours)
    return Foreign(service.name, in_the_way=[_owner(service, item) for item in there])


def _owner(service: ServicePlan, item: Manifest) -> str:
    release = (item["metadata"].get("annotations") or {}).get(_HELM_RELEASE)
    whose = f"the release {release}" if release else "kubectl, or whoever made it"
    return f"{service.name}: {ObjectRef.of(item)} belongs to {whose}, and the project makes a chart's of it"


async def _of_objects(
    cluster: Cluster, plan: Plan, service: ServicePlan, ours: set[tuple[str, str, str, str]]
) -> Foreign:
    there = await _living(cluster, plan, service, ours)
    released = [item for item in there if (item["metadata"].get("annotations") or {}).get(_HELM_RELEASE)]
    in_the_way = [
        f"{service.name}: {ObjectRef.of(item)} belongs to the release "
        f"{item['metadata']['annotations'][_HELM_RELEASE]}, and the project has it as a plain manifest"
        for item in released
    ]
    return Foreign(service.name, objects=[item for item in there if item not in released], in_the_way=in_the_way)


async def _living(
    cluster: Cluster, plan: Plan, service: ServicePlan, ours: set[tuple[str, str, str, str]]
) -> list[Manifest]:
    """The objects of a service that are there and that nobody wrote down."""
    refs = [ObjectRef.of(manifest) for manifest in service.manifests]
    asked = [ref for ref in refs if ref.identity not in ours and ref.namespace in (plan.identity.namespace, "")]
    found = await asyncio.gather(*(_placed(cluster, ref, plan.identity.namespace) for ref in asked))
    return [item for item in found if item is not None and not _is_of(item, service.name)]


async def _placed(cluster: Cluster, ref: ObjectRef, namespace: str) -> Manifest | None:
    placed = ObjectRef(ref.group, ref.version, ref.kind, ref.name, ref.namespace or namespace)
    found = await objects.get(cluster, placed)
    return None if found is None else {"apiVersion": ref.api_version, "kind": ref.kind, **found}


def _is_of(item: Manifest, service: str) -> bool:
    """Whether we applied it once: an older record named it, and that is forgotten."""
    return bool((item["metadata"].get("labels") or {}).get(labels.SERVICE) == service)


def refuse(foreign: Sequence[Foreign], environment: str) -> None:
    """
    Raises:
        Refused: there is anything that is not ours, with the list.
    """
    lines = [line for one in foreign for line in one.lines()]
    if lines or any(one.in_the_way for one in foreign):
        raise Refused(
            f"others deployed into {environment} what this would write over",
            why="\n".join([*lines, *_blocking(foreign)]),
            hint="--adopt takes it over: its state becomes the record that a rollback goes back to",
        )


def refuse_blocking(foreign: Sequence[Foreign], environment: str) -> None:
    """
    Raises:
        Refused: something is there that cannot even be adopted.
    """
    blocking = _blocking(foreign)
    if blocking:
        raise Refused(
            f"what others deployed into {environment} cannot be taken over",
            why="\n".join(blocking),
            hint="deploy the service as it is deployed there, or remove these objects first",
        )


def _blocking(foreign: Sequence[Foreign]) -> list[str]:
    return [line for one in foreign for line in one.in_the_way]


def adopted(
    foreign: Iterable[Foreign], services: Mapping[str, ServicePlan], namespace: str
) -> dict[str, ServiceRecord]:
    """What is taken over, as a record holds it; needs are those of the services that take its place."""
    found = {}
    for one in foreign:
        needs = services[one.service].needs
        if one.release is not None:
            found[one.service] = _of_helm(one.release, needs, namespace)
        elif one.objects:
            plan = plan_of_objects(_REF, one.service, one.objects)
            placed = [{**m, "metadata": {**m["metadata"], "namespace": namespace}} for m in plan.manifests]
            record = plan.record(label(placed, one.service))
            found[one.service] = record.model_copy(update={"needs": needs})
    return found


def _of_helm(release: HelmRelease, needs: tuple[str, ...], namespace: str) -> ServiceRecord:
    placed = [_in_namespace(manifest, namespace) for manifest in release.manifests]
    return ServiceRecord(
        lock=lock_of_release(release, _REF),
        manifests=release.manifests,
        hooks=release.hooks,
        values=release.values,
        inventory=[InventoryItem.of(ObjectRef.of(manifest)) for manifest in placed],
        needs=needs,
        ports=ports_of(release.manifests),
        revision=release.revision,
    )


def _in_namespace(manifest: Manifest, namespace: str) -> Manifest:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}


async def adopt(cluster: Cluster, plan: Plan, foreign: Sequence[Foreign], namespace_uid: str) -> Record:
    """Write down what is there, as a deployment that came through: record 0, or the next one where there are some."""
    before = plan.before[-1] if plan.before else None
    taken = adopted(foreign, plan.services, plan.identity.namespace)
    services = {**(before.services if before else {}), **taken}
    lock = plan.lock.model_copy(update={"services": {name: record.lock for name, record in services.items()}})
    record = Record(
        number=before.number + 1 if before else 0,
        at=await cluster.server_time(),
        by=plan.identity.created_by,
        namespace_uid=namespace_uid,
        outcome="deployed",
        lock=lock.sealed(),
        services=services,
    )
    await records.save(cluster, plan.identity.namespace, record)
    return record
