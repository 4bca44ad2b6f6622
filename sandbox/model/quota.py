"""What manifests ask of a ResourceQuota when they are applied first, counted as the API server counts it.

Pods are counted as their controllers make them at once: initial replicas, a Job's parallelism, a DaemonSet's nodes.
What comes later (an HPA that scales, a rolling update, a CronJob's run) is in :mod:`sandbox.model.quota_later`.
Source: Kubernetes documentation, "Resource Quotas" and "Limit Ranges", and pkg/quota/v1/evaluator of Kubernetes 1.36.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from sandbox.model.errors import InvalidInput
from sandbox.model.nodes import runs_daemons
from sandbox.model.objects import Manifest, ObjectRef, pod_spec
from sandbox.model.pod_resources import Amounts, LimitItem, PodResources, Problem, amounts, claim_problems
from sandbox.model.quantities import format_quantity, parse_quantity

# What counts one object each under a name of its own, besides `count/…`.
_ALIASES: Final = frozenset(
    {"services", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"}
)
_PLURALS: Final[Mapping[tuple[str, str], str]] = {
    ("", "Endpoints"): "endpoints",
    ("networking.k8s.io", "Ingress"): "ingresses",
    ("networking.k8s.io", "NetworkPolicy"): "networkpolicies",
}
# What a controller makes of each object of a kind, and keeps.
_MADE: Final[Mapping[tuple[str, str], str]] = {
    ("apps", "Deployment"): "count/replicasets.apps",
    ("apps", "StatefulSet"): "count/controllerrevisions.apps",
    ("apps", "DaemonSet"): "count/controllerrevisions.apps",
}
# Events have never been counted.
_NEVER: Final = frozenset({("", "Event"), ("events.k8s.io", "Event")})
_STORAGE_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_MOST_SHOWN: Final = 5


@dataclass(frozen=True)
class Circumstances:
    """What counting depends on besides the manifests.

    Attributes:
        limits: of the namespace's LimitRange.
        hard: the quota's limits, as its profile writes them.
        nodes: the cluster's Node objects; None where we may not see them.
        storage_class: that claims get which name none; empty: none.
        overheads: RuntimeClass → what it adds to each pod.
        plurals: (group, kind) → plural, of kinds that are not built in.
    """

    limits: Sequence[LimitItem] = ()
    hard: Mapping[str, str] = field(default_factory=dict)
    nodes: Sequence[Manifest] | None = None
    storage_class: str = ""
    overheads: Mapping[str, Amounts] = field(default_factory=dict)
    plurals: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, hard: Mapping[str, str], limit_range: Iterable[Mapping[str, Any]] = ()) -> Circumstances:
        """The circumstances of a quota and the items of a LimitRange, without a cluster."""
        return cls(limits=[LimitItem.of(item) for item in limit_range], hard=hard)


@dataclass(frozen=True)
class Asked:
    """What one object asks of one resource of the quota.

    Attributes:
        pods: how many pods ask for it together; 0: the object itself.
    """

    service: str
    object: str
    resource: str
    amount: Decimal
    pods: int = 0

    @property
    def workload(self) -> str:
        """Who asks, as people read it."""
        return f"{self.service}: {self.object}" + (f" ({self.pods} pods)" if self.pods > 1 else "")


@dataclass(frozen=True)
class Excess:
    """A resource of which more is asked than the quota has.

    Attributes:
        asked: by all objects together.
        hard: the quota's limit.
        used: by what is in the namespace already and is not replaced.
        by: who asks, largest first.
    """

    resource: str
    asked: Decimal
    hard: Decimal
    used: Decimal
    by: tuple[Asked, ...]

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Workload, resource, what it asks, and what all others leave to it; the sum last.

        Of those who ask, the largest, as many as would have to go for the others to fit.
        """
        free = max(self.hard - self.used, Decimal(0))
        over, largest = self.asked - free, 0
        while largest < min(len(self.by), _MOST_SHOWN) and over > 0:
            over -= self.by[largest].amount
            largest += 1
        for asked in self.by[:largest]:
            left = max(free - (self.asked - asked.amount), Decimal(0))
            yield asked.workload, self.resource, shown(self.resource, asked.amount), shown(self.resource, left)
        others = f"all {len(self.by)} together" if len(self.by) > largest else "together"
        if len(self.by) > 1:
            yield others, self.resource, shown(self.resource, self.asked), shown(self.resource, free)


@dataclass(frozen=True)
class Broken:
    """An object that the API server refuses whatever is left of the quota."""

    service: str
    object: str
    problem: Problem

    def row(self) -> tuple[str, str, str, str]:
        """Workload, resource, what it asks, and what it may."""
        problem = self.problem
        container = f", container {problem.where}" if problem.where else ""
        asked = "nothing" if problem.asked is None else shown(problem.resource, problem.asked)
        bound = "" if problem.bound is None else f" {shown(problem.resource, problem.bound)}"
        return f"{self.service}: {self.object}{container}", problem.resource, asked, f"{problem.allowed}{bound}"


def shown(resource: str, amount: Decimal) -> str:
    """An amount as people read it: bytes as ``1.5Gi``, all else as ``250m`` or ``2``."""
    return format_quantity(amount, memory=resource.endswith(("memory", "storage")) or "hugepages-" in resource)


def asked_by(
    service: str, manifest: Manifest, given: Circumstances | None = None, *, replicas: int | None = None
) -> list[Asked]:
    """What one manifest will ask at first, what its controllers make at once included.

    Args:
        replicas: instead of the manifest's own, such as an HPA's least.

    Raises:
        InvalidInput: it says something that is no quantity.
    """
    given = given or Circumstances()
    ref = ObjectRef.of(manifest)
    found = Amounts()
    _add(found, _object(ref, given))
    if (made := _MADE.get((ref.group, ref.kind))) and (manifest.get("spec") or {}).get("paused") is not True:
        found[made] = Decimal(1)
    if (ref.group, ref.kind) == ("", "Service"):
        _add(found, _service(manifest))
    if (ref.group, ref.kind) == ("", "PersistentVolumeClaim"):
        _add(found, _storage(manifest, given))
    asked = [Asked(service, str(ref), resource, amount) for resource, amount in found.items() if amount]
    count = pods_of(manifest, given.nodes) if replicas is None else replicas
    with _said_of(service, ref):
        asked += [
            Asked(service, str(ref), resource, amount * count, count)
            for resource, amount in _of_one_pod(manifest, given).items()
            if amount * count
        ]
    return asked


def broken_by(service: str, manifest: Manifest, given: Circumstances) -> list[Broken]:
    """Why the API server would refuse a manifest's pods or claims even with nothing else there.

    Of a workload that makes no pods at first, only what the API server finds in its template already.

    Raises:
        InvalidInput: it says something that is no quantity.
    """
    ref = ObjectRef.of(manifest)
    spec = pod_spec(manifest)
    with _said_of(service, ref):
        if spec is None:
            storage = amounts(_requests(manifest)) if ref.kind == "PersistentVolumeClaim" else None
            found = [] if storage is None else list(claim_problems(storage, given.limits))
        elif pods_of(manifest, given.nodes):
            found = _of_pods(manifest, spec, given)
        else:
            found = list(PodResources.of_template(spec).problems((), ()))
    return [Broken(service, str(ref), problem) for problem in dict.fromkeys(found)]


def broken_later(service: str, manifest: Manifest, given: Circumstances) -> list[Broken]:
    """Why the API server would refuse the pods of a workload that makes none yet: a CronJob, no replicas."""
    spec = pod_spec(manifest)
    if spec is None or pods_of(manifest, given.nodes):
        return []
    now = {found.problem for found in broken_by(service, manifest, given)}
    ref = str(ObjectRef.of(manifest))
    return [Broken(service, ref, found) for found in dict.fromkeys(_of_pods(manifest, spec, given)) if found not in now]


def _of_pods(manifest: Manifest, spec: Manifest, given: Circumstances) -> list[Problem]:
    found = list(PodResources.of(spec, given.limits, given.overheads).problems(given.limits, given.hard))
    for claim in claims_of(manifest):
        found += claim_problems(amounts(_requests(claim)), given.limits)
    return found


def pods_of(manifest: Manifest, nodes: Sequence[Manifest] | None = None) -> int:
    """How many pods a workload has at first; 0 for what is none.

    Args:
        nodes: that a DaemonSet may run on; None: unknown, counted as one.
    """
    spec = manifest.get("spec") or {}
    match manifest["kind"]:
        case "Deployment":
            return 0 if spec.get("paused") is True else _whole(spec.get("replicas"), 1)
        case "StatefulSet" | "ReplicaSet" | "ReplicationController":
            return _whole(spec.get("replicas"), 1)
        case "DaemonSet":
            template = pod_spec(manifest) or {}
            return 1 if nodes is None else sum(runs_daemons(node, template) for node in nodes)
        case "Job":
            wanted = _whole(spec.get("parallelism"), 1)
            others = spec.get("managedBy") not in (None, "kubernetes.io/job-controller")
            return 0 if spec.get("suspend") or others else min(wanted, _whole(spec.get("completions"), wanted))
        case "Pod":
            return 1
        case _:
            # A CronJob runs later, or never.
            return 0


def excesses(
    asked: Iterable[Asked], hard: Mapping[str, str], used: Mapping[str, str | Decimal] | None = None
) -> list[Excess]:
    """Where more is asked than ``hard`` minus ``used`` leaves; empty when all fits."""
    by_resource: dict[str, list[Asked]] = defaultdict(list)
    for item in asked:
        by_resource[item.resource].append(item)
    found = []
    for resource, limit in amounts(hard).items():
        items = by_resource.get(resource, [])
        total = sum((item.amount for item in items), Decimal(0))
        already = parse_quantity(str((used or {}).get(resource, 0)))
        # What asks for nothing of a resource is let in however much of it is used.
        if total and total + already > limit:
            largest = tuple(sorted(items, key=lambda item: item.amount, reverse=True))
            found.append(Excess(resource, total, limit, already, largest))
    return found


def _object(ref: ObjectRef, given: Circumstances) -> Amounts:
    """The object itself."""
    if (ref.group, ref.kind) in _NEVER or (ref.group, ref.kind) == ("", "Pod"):
        return {}
    plural = given.plurals.get((ref.group, ref.kind)) or _PLURALS.get((ref.group, ref.kind)) or f"{ref.kind.lower()}s"
    found = {f"count/{plural}" + (f".{ref.group}" if ref.group else ""): Decimal(1)}
    if not ref.group and plural in _ALIASES:
        found[plural] = Decimal(1)
    return found


def _of_one_pod(manifest: Manifest, given: Circumstances) -> Amounts:
    """What one pod of a workload takes, with the claims that are made for it."""
    spec = pod_spec(manifest)
    if spec is None:
        return {}
    found = PodResources.of(spec, given.limits, given.overheads).usage()
    for claim in claims_of(manifest):
        one = {"persistentvolumeclaims": Decimal(1), "count/persistentvolumeclaims": Decimal(1)}
        _add(found, {**_storage(claim, given), **one})
    return found


def claims_of(manifest: Manifest) -> Iterator[Manifest]:
    """The claims that are made for each pod of a workload."""
    if manifest["kind"] == "StatefulSet":
        yield from (manifest.get("spec") or {}).get("volumeClaimTemplates") or ()
    for volume in (pod_spec(manifest) or {}).get("volumes") or ():
        if template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            yield template


def _service(manifest: Manifest) -> Amounts:
    spec = manifest.get("spec") or {}
    kind, ports = spec.get("type"), spec.get("ports") or ()
    found = Amounts()
    if kind == "NodePort":
        found["services.nodeports"] = Decimal(len(ports))
    if kind == "LoadBalancer":
        found["services.loadbalancers"] = Decimal(1)
        named = [port for port in ports if port.get("nodePort")]
        without = spec.get("allocateLoadBalancerNodePorts") is False
        found["services.nodeports"] = Decimal(len(named if without else ports))
    if spec.get("selector") and kind != "ExternalName":
        families = len(spec.get("ipFamilies") or ()) or 1
        found |= {"count/endpoints": Decimal(1), "count/endpointslices.discovery.k8s.io": Decimal(families)}
    return found


def _storage(claim: Manifest, given: Circumstances) -> Amounts:
    """What a claim takes besides being one."""
    noted = ((claim.get("metadata") or {}).get("annotations") or {}).get(_STORAGE_CLASS)
    said = (claim.get("spec") or {}).get("storageClassName")
    # Empty on purpose is no class; not given is the default one.
    storage_class = noted or (given.storage_class if said is None and noted is None else said)
    found = Amounts()
    storage = amounts(_requests(claim)).get("storage")
    if storage is not None:
        found["requests.storage"] = storage.to_integral_value(ROUND_CEILING)
    if storage_class:
        prefix = f"{storage_class}.storageclass.storage.k8s.io"
        found |= {f"{prefix}/{name}": value for name, value in found.items()}
        found[f"{prefix}/persistentvolumeclaims"] = Decimal(1)
    return found


def _requests(claim: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return found


def _whole(value: Any, default: int) -> int:
    """A number of pods; what is none is refused by the API server, in its own words."""
    return value if isinstance(value, int) and value >= 0 else default


def _add(total: Amounts, more: Amounts) -> None:
    for resource, amount in more.items():
        total[resource] = total.get(resource, Decimal(0)) + amount


class _said_of:
    """Adds to an error which object says it."""

    def __init__(self, service: str, ref: ObjectRef) -> None:
        self._where = f"{service}: {ref}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidInput):
            raise InvalidInput(f"{self._where}: {error.what}", hint=error.hint) from None
