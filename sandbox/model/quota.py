"""What manifests ask of a ResourceQuota, counted as the API server counts it.

Rules from the Kubernetes documentation: "Resource Quotas", "Limit Ranges", and, for init and sidecar
containers, "Init Containers: Resource sharing within containers" (KEP-753).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sandbox.model.objects import Manifest, ObjectRef, pod_spec
from sandbox.model.quantities import format_quantity, parse_quantity

Amounts = dict[str, Decimal]

# What counts one object each, under its quota name.
_COUNTED = {
    ("", "Service"): "services",
    ("", "Secret"): "secrets",
    ("", "ConfigMap"): "configmaps",
    ("", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("", "ReplicationController"): "replicationcontrollers",
    ("", "ResourceQuota"): "resourcequotas",
}
_PLURALS = {
    ("apps", "Deployment"): "deployments",
    ("apps", "StatefulSet"): "statefulsets",
    ("apps", "DaemonSet"): "daemonsets",
    ("apps", "ReplicaSet"): "replicasets",
    ("batch", "Job"): "jobs",
    ("batch", "CronJob"): "cronjobs",
    ("networking.k8s.io", "Ingress"): "ingresses",
}
_COMPUTE = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True)
class Asked:
    """What one object asks of one resource of the quota."""

    service: str
    object: str
    resource: str
    amount: Decimal


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

    def line(self) -> str:
        memory = "memory" in self.resource or "storage" in self.resource

        def amount(value: Decimal) -> str:
            return format_quantity(value, memory=memory)

        who = ", ".join(f"{a.service}: {a.object} {amount(a.amount)}" for a in self.by[:5])
        more = f" and {len(self.by) - 5} more" if len(self.by) > 5 else ""
        left = max(self.hard - self.used, Decimal(0))
        return f"{self.resource}: asked {amount(self.asked)}, left {amount(left)} of {amount(self.hard)} ({who}{more})"


def asked_by(
    service: str, manifest: Manifest, limits: Sequence[Mapping[str, Any]] = (), *, nodes: int = 1
) -> list[Asked]:
    """What one manifest will ask, its pods included.

    Args:
        limits: the LimitRange's ``limits``: what containers get that say nothing.
        nodes: on how many nodes a DaemonSet's pods run.
    """
    ref = ObjectRef.of(manifest)
    amounts: Amounts = defaultdict(Decimal)
    if counted := _COUNTED.get((ref.group, ref.kind)):
        amounts[counted] += 1
    plural = counted or _PLURALS.get((ref.group, ref.kind))
    if plural:
        amounts[f"count/{plural}" + (f".{ref.group}" if ref.group else "")] += 1
    if (ref.group, ref.kind) == ("", "Service"):
        _add(amounts, _service_amounts(manifest))
    if (ref.group, ref.kind) == ("", "PersistentVolumeClaim"):
        _add(amounts, _claim_amounts(manifest))
    spec = pod_spec(manifest)
    if spec is not None:
        pods = _pods(manifest, nodes)
        for resource, amount in pod_amounts(spec, limits).items():
            amounts[resource] += amount * pods
        amounts["pods"] += pods
        amounts["count/pods"] += pods
    if (ref.group, ref.kind) == ("apps", "StatefulSet"):
        for template in (manifest.get("spec") or {}).get("volumeClaimTemplates") or ():
            for resource, amount in {**_claim_amounts(template), "persistentvolumeclaims": Decimal(1)}.items():
                amounts[resource] += amount * _pods(manifest, nodes)
    return [Asked(service, str(ref), resource, amount) for resource, amount in amounts.items() if amount]


def pod_amounts(spec: Manifest, limits: Sequence[Mapping[str, Any]] = ()) -> Amounts:
    """Requests and limits of one pod: of its containers together, or of its largest init step."""
    defaults = next((limit for limit in limits if limit.get("type") == "Container"), {})
    total: Amounts = defaultdict(Decimal)
    for kind in ("requests", "limits"):
        for resource in _COMPUTE:
            amount = _pod_amount(spec, kind, resource, defaults)
            if amount is None:
                continue
            total[f"{kind}.{resource}"] = amount
            # The quota's plain names mean requests.
            if kind == "requests":
                total[resource] = amount
    return total


def _pod_amount(spec: Manifest, kind: str, resource: str, defaults: Mapping[str, Any]) -> Decimal | None:
    said = False
    sidecars = Decimal(0)
    largest_step = Decimal(0)
    for container in spec.get("initContainers") or ():
        amount = _container_amount(container, kind, resource, defaults)
        said |= amount is not None
        if container.get("restartPolicy") == "Always":
            sidecars += amount or 0
            largest_step = max(largest_step, sidecars)
        else:
            largest_step = max(largest_step, sidecars + (amount or 0))
    running = sidecars
    for container in spec.get("containers") or ():
        amount = _container_amount(container, kind, resource, defaults)
        said |= amount is not None
        running += amount or 0
    overhead = (spec.get("overhead") or {}).get(resource)
    if not said:
        return None
    return max(largest_step, running) + (parse_quantity(overhead) if overhead else 0)


def _container_amount(container: Manifest, kind: str, resource: str, defaults: Mapping[str, Any]) -> Decimal | None:
    """A container's own amount, else the API server's defaulting: a request from its limit, then the LimitRange's."""
    resources = container.get("resources") or {}
    requests, own_limits = resources.get("requests") or {}, resources.get("limits") or {}
    if kind == "limits":
        found = own_limits.get(resource, (defaults.get("default") or {}).get(resource))
    elif resource in requests:
        found = requests[resource]
    elif resource in own_limits:
        found = own_limits[resource]
    else:
        default = defaults.get("default") or {}
        found = (defaults.get("defaultRequest") or {}).get(resource, default.get(resource))
    return None if found is None else parse_quantity(found)


def _pods(manifest: Manifest, nodes: int) -> int:
    spec = manifest.get("spec") or {}
    match manifest["kind"]:
        case "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController":
            replicas = spec.get("replicas")
            return 1 if replicas is None else int(replicas)
        case "DaemonSet":
            return nodes
        case "Job":
            parallelism = spec.get("parallelism")
            wanted = 1 if parallelism is None else int(parallelism)
            completions = spec.get("completions")
            return 0 if spec.get("suspend") else wanted if completions is None else min(wanted, int(completions))
        case "CronJob":
            # Runs later, or never.
            return 0
        case _:
            return 1


def _service_amounts(manifest: Manifest) -> Amounts:
    spec = manifest.get("spec") or {}
    kind = spec.get("type")
    ports = Decimal(len(spec.get("ports") or ()))
    if kind == "NodePort":
        return {"services.nodeports": ports}
    if kind == "LoadBalancer":
        nodeports = Decimal(0) if spec.get("allocateLoadBalancerNodePorts") is False else ports
        return {"services.loadbalancers": Decimal(1), "services.nodeports": nodeports}
    return {}


def _claim_amounts(manifest: Manifest) -> Amounts:
    spec = manifest.get("spec") or {}
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if asked is None:
        return {}
    storage = parse_quantity(asked)
    amounts = {"requests.storage": storage}
    if storage_class := spec.get("storageClassName"):
        prefix = f"{storage_class}.storageclass.storage.k8s.io"
        amounts |= {f"{prefix}/requests.storage": storage, f"{prefix}/persistentvolumeclaims": Decimal(1)}
    return amounts


def _add(amounts: Amounts, more: Amounts) -> None:
    for resource, amount in more.items():
        amounts[resource] += amount


def excesses(
    asked: Iterable[Asked], hard: Mapping[str, str], used: Mapping[str, str | Decimal] | None = None
) -> list[Excess]:
    """Where more is asked than ``hard`` minus ``used`` leaves; empty when all fits."""
    by_resource: dict[str, list[Asked]] = defaultdict(list)
    for item in asked:
        by_resource[item.resource].append(item)
    found = []
    for resource, limit in hard.items():
        items = by_resource.get(resource, [])
        total = sum((item.amount for item in items), Decimal(0))
        already = parse_quantity(str((used or {}).get(resource, 0)))
        if total and total + already > parse_quantity(limit):
            largest = tuple(sorted(items, key=lambda item: item.amount, reverse=True))
            found.append(Excess(resource, total, parse_quantity(limit), already, largest))
    return found
