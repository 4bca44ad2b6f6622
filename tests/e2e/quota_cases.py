"""Generated profiles and workloads, for holding the preflight's arithmetic against a real API server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from sandbox.model.quantities import parse_quantity
from sandbox.model.quota import Asked, Broken, Circumstances, Excess, asked_by, broken_by, excesses

Manifest = dict[str, Any]

IMAGE = "registry.invalid/nothing:1"
# Written in every way that a quantity may be, and finer than what the API server stores.
CPU = ("0", "0.0001", "1m", "50m", "0.1", "1e-1", "250m", "0.5", "1", "1500m", "2")
MEMORY = ("0", "1500m", "64Mi", "100M", "128974848", "0.5Gi", "1.1Gi", "1e9", "2Gi")
DISK = ("1M", "10Mi", "1Gi")
STORAGE = ("1", "1500m", "100M", "0.3Gi", "1Gi", "2Gi")
_OF = {"cpu": CPU, "memory": MEMORY, "ephemeral-storage": DISK}
# Resources whose quota the cases bound; those of pods, of claims, of services and of plain objects.
BOUNDED = (
    *("cpu", "requests.cpu", "limits.cpu", "memory", "requests.memory", "limits.memory"),
    *("ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage", "requests.example.com/dongle"),
    *("pods", "count/pods", "requests.storage", "persistentvolumeclaims", "count/persistentvolumeclaims"),
    "gold.storageclass.storage.k8s.io/requests.storage",
    "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
    *("services", "services.nodeports", "services.loadbalancers", "count/services"),
    *("configmaps", "count/configmaps", "secrets", "count/secrets"),
)


# Those of what controllers make, too.
OF_WORKLOADS = (
    *(name for name in BOUNDED if not name.endswith(("services", "nodeports", "balancers", "configmaps", "secrets"))),
    *("count/deployments.apps", "count/replicasets.apps", "count/statefulsets.apps", "count/daemonsets.apps"),
    *("count/jobs.batch", "count/cronjobs.batch"),
)


@dataclass(frozen=True)
class Case:
    """Objects, the limits that they meet, and what the preflight says to it."""

    objects: tuple[Manifest, ...]
    limit_range: tuple[Manifest, ...]
    hard: Mapping[str, str]

    @property
    def given(self) -> Circumstances:
        return circumstances(self.hard, self.limit_range)

    def asked(self) -> list[Asked]:
        return [asked for item in self.objects for asked in asked_by("case", item, self.given)]

    def refusals(self, used: Mapping[str, str]) -> list[Broken | Excess]:
        broken = [found for item in self.objects for found in broken_by("case", item, self.given)]
        return [*broken, *excesses(self.asked(), self.hard, used)]


def circumstances(hard: Mapping[str, str], items: Sequence[Manifest]) -> Circumstances:
    """Those of a control plane without nodes."""
    return replace(Circumstances.of(hard, items), nodes=[])


def total(asked: Sequence[Asked], resource: str) -> Decimal:
    return sum((item.amount for item in asked if item.resource == resource), Decimal(0))


@st.composite
def resources(draw: st.DrawFn, *, of_pod: bool = False) -> Manifest:
    found: Manifest = {"requests": {}, "limits": {}}
    for name, values in _OF.items():
        if of_pod and name not in ("cpu", "memory"):
            continue
        low, high = sorted((draw(st.sampled_from(values)), draw(st.sampled_from(values))), key=parse_quantity)
        # Now and then more is requested than the limit allows.
        if draw(st.integers(0, 60)) == 0:
            low, high = high, low
        said = draw(st.sampled_from(("both",) * 6 + ("requests", "limits", "none")))
        if said in ("both", "requests"):
            found["requests"][name] = low
        if said in ("both", "limits"):
            found["limits"][name] = high
    if not of_pod and draw(st.integers(0, 5)) == 0:
        found["limits"]["example.com/dongle"] = draw(st.sampled_from(("1", "2")))
    return {kind: said for kind, said in found.items() if said}


@st.composite
def pod_spec(draw: st.DrawFn) -> Manifest:
    def container(name: str, **more: Any) -> Manifest:
        return {"name": name, "image": IMAGE, "resources": draw(resources()), **more}

    spec: Manifest = {"containers": [container(f"c{n}") for n in range(draw(st.integers(1, 2)))]}
    inits = [
        container(f"i{n}", **({"restartPolicy": "Always"} if draw(st.booleans()) else {}))
        for n in range(draw(st.sampled_from((0, 0, 1, 2, 3))))
    ]
    if inits:
        spec["initContainers"] = inits
    if draw(st.integers(0, 3)) == 0:
        spec["resources"] = draw(resources(of_pod=True))
    return spec


@st.composite
def claim_spec(draw: st.DrawFn) -> Manifest:
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": draw(st.sampled_from(STORAGE))}},
    }
    storage_class = draw(st.sampled_from((None, "", "gold", "silver")))
    return spec if storage_class is None else {**spec, "storageClassName": storage_class}


@st.composite
def service_spec(draw: st.DrawFn) -> Manifest:
    ports = [{"name": f"p{n}", "port": 80 + n} for n in range(draw(st.integers(1, 3)))]
    spec: Manifest = {"type": draw(st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer"))), "ports": ports}
    if spec["type"] == "LoadBalancer" and draw(st.booleans()):
        spec["allocateLoadBalancerNodePorts"] = False
    return spec


@st.composite
def plain_objects(draw: st.DrawFn) -> tuple[Manifest, ...]:
    """Pods, claims, Services, ConfigMaps and Secrets, as they stand."""
    found: list[Manifest] = []
    for _ in range(draw(st.integers(1, 3))):
        found.append({"kind": "Pod", "spec": draw(pod_spec())})
    for _ in range(draw(st.integers(0, 2))):
        found.append({"kind": "PersistentVolumeClaim", "spec": draw(claim_spec())})
    for _ in range(draw(st.integers(0, 2))):
        found.append({"kind": "Service", "spec": draw(service_spec())})
    found += [{"kind": kind} for kind in ("ConfigMap", "Secret") for _ in range(draw(st.integers(0, 2)))]
    return tuple(
        {"apiVersion": "v1", **item, "metadata": {"name": f"{item['kind'].lower()}-{n}"}}
        for n, item in enumerate(found)
    )


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Manifest, ...]:
    """What charts bring, whose controllers make pods and claims of it."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        name = f"w{number}"
        kind = draw(st.sampled_from(("Deployment", "StatefulSet", "Job", "CronJob", "DaemonSet", "ReplicaSet")))
        template = {"metadata": {"labels": {"app": name}}, "spec": draw(pod_spec())}
        spec: Manifest = {"selector": {"matchLabels": {"app": name}}, "template": template}
        if kind in ("Deployment", "StatefulSet", "ReplicaSet"):
            replicas = draw(st.sampled_from((None, 0, 1, 3)))
            spec |= {} if replicas is None else {"replicas": replicas}
        if kind == "Deployment" and draw(st.integers(0, 4)) == 0:
            spec["paused"] = True
        if kind == "StatefulSet":
            claims = [
                {"metadata": {"name": f"v{n}"}, "spec": draw(claim_spec())} for n in range(draw(st.integers(0, 2)))
            ]
            # Pods that never become ready would keep the others from being made.
            spec |= {"serviceName": name, "podManagementPolicy": "Parallel", "volumeClaimTemplates": claims}
        if kind in ("Job", "CronJob"):
            del spec["selector"]
            template["spec"]["restartPolicy"] = "Never"
            for field, values in (("parallelism", (0, 1, 2, 3)), ("completions", (1, 2, 5))):
                value = draw(st.sampled_from((None, *values)))
                spec |= {} if value is None else {field: value}
            if draw(st.integers(0, 4)) == 0:
                spec["suspend"] = True
        if kind == "CronJob":
            spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
        group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
        found.append({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec})
    return tuple(found)


@st.composite
def limit_range(draw: st.DrawFn) -> tuple[Manifest, ...]:
    items: list[Manifest] = []
    if draw(st.integers(0, 3)) > 0:
        item: Manifest = {"type": "Container"}
        for name in ("cpu", "memory"):
            values = sorted(draw(st.lists(st.sampled_from(_OF[name]), min_size=4, max_size=4)), key=parse_quantity)
            for key, value in zip(("min", "defaultRequest", "default", "max"), values, strict=True):
                wanted = draw(st.integers(0, 9))
                if wanted < {"min": 2, "max": 1}.get(key, 7):
                    item.setdefault(key, {})[name] = value
            if not {"min", "max"} & item.keys() and draw(st.integers(0, 9)) == 0:
                item.setdefault("maxLimitRequestRatio", {})[name] = draw(st.sampled_from(("1", "1.5", "4", "20")))
        items.append(item)
    if draw(st.integers(0, 6)) == 0:
        most = {name: draw(st.sampled_from(_OF[name][5:])) for name in ("cpu", "memory") if draw(st.booleans())}
        least = {name: draw(st.sampled_from(_OF[name][:2])) for name in ("cpu", "memory") if draw(st.booleans())}
        items.append({"type": "Pod", **({"max": most} if most else {}), **({"min": least} if least else {})})
    if draw(st.integers(0, 4)) == 0:
        low, high = sorted((draw(st.sampled_from(STORAGE)), draw(st.sampled_from(STORAGE))), key=parse_quantity)
        items.append({"type": "PersistentVolumeClaim", "min": {"storage": low}, "max": {"storage": high}})
    return tuple(items)


@st.composite
def cases(draw: st.DrawFn, objects: st.SearchStrategy[tuple[Manifest, ...]], bounded: Sequence[str]) -> Case:
    """Objects under a quota that is exactly what they ask for, or a little less or more of something."""
    made, items = draw(objects), draw(limit_range())
    names = draw(st.lists(st.sampled_from(bounded), min_size=1, max_size=8, unique=True))
    if draw(st.integers(0, 3)) and _broken(made, items, names):
        # Most cases shall be about what is left of the quota.
        items = ()
        names = [name for name in names if not name.endswith(("cpu", "memory"))] or ["pods"]
    asked = [asked for item in made for asked in asked_by("case", item, circumstances({}, items))]
    less = draw(st.sampled_from((None, *names))) if draw(st.booleans()) else None
    hard = {}
    for name in names:
        # The control plane's own ConfigMap is in every namespace.
        there = 1 if name in ("configmaps", "count/configmaps") else 0
        step = Decimal(1) if _is_counted_in_ones(name) else Decimal("0.001")
        change = -step if name == less else step * draw(st.sampled_from((0, 0, 0, 1, 100)))
        hard[name] = f"{max(total(asked, name) + there + change, Decimal(0)):f}"
    return Case(made, items, hard)


def _broken(made: Sequence[Manifest], items: Sequence[Manifest], names: Sequence[str]) -> bool:
    given = circumstances(dict.fromkeys(names, "0"), items)
    return any(broken_by("case", item, given) for item in made)


def _is_counted_in_ones(resource: str) -> bool:
    return "/" in resource or not resource.endswith(("cpu", "memory", "storage"))
