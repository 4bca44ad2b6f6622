"""Captured objects made fit for another place: what the server gave them goes, what cannot live there is replaced.

What is stripped is Velero's list (``docs/reproduce.md``); what is replaced is told as a :class:`Change`, so that the
fidelity report can tell an intended difference from one that nobody meant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef, containers, pod_spec, pod_template, split_api_version
from sandbox.reproduce.namespaces import pod_path

Outcome = Literal["reproduced", "substituted", "unavailable"]

# Why a Job is not run again.
HAD_COMPLETED = "it had completed: what it did is in the data"
# What a bundle may bring; all else is acted on from outside of the sandbox, or derived from these.
RESTORED = frozenset(
    {
        ("", "ConfigMap"),
        ("", "PersistentVolumeClaim"),
        ("", "Pod"),
        ("", "ReplicationController"),
        ("", "Secret"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("batch", "CronJob"),
        ("batch", "Job"),
        ("networking.k8s.io", "Ingress"),
        ("policy", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
    }
)
# Derived from others, or the cluster's and our own business in a namespace: nothing is lost without them.
_SILENT = frozenset(
    {
        "Endpoints",
        "EndpointSlice",
        "ControllerRevision",
        "Event",
        "Lease",
        "PodMetrics",
        "ResourceQuota",
        "LimitRange",
        "PodTemplate",
    }
)
_ANNOTATIONS = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "deployment.kubernetes.io/revision",
        "deprecated.daemonset.template.generation",
        "pv.kubernetes.io/bind-completed",
        "pv.kubernetes.io/bound-by-controller",
        "volume.kubernetes.io/selected-node",
        "volume.kubernetes.io/storage-provisioner",
        "volume.beta.kubernetes.io/storage-provisioner",
        "autoscaling.alpha.kubernetes.io/conditions",
        "kubernetes.io/limit-ranger",
        "meta.helm.sh/release-name",
        "meta.helm.sh/release-namespace",
        labels.AWAKE,
    }
)
_JOB_LABELS = frozenset(
    {"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"}
)
# Tell controllers outside of the sandbox to act on the world: on DNS zones, load balancers, certificates.
_OUTWARD = (
    "external-dns.alpha.kubernetes.io/",
    "cert-manager.io/",
    "acme.cert-manager.io/",
    "service.beta.kubernetes.io/",
    "service.kubernetes.io/",
    "cloud.google.com/",
    "networking.gke.io/",
    "alb.ingress.kubernetes.io/",
    "metallb.universe.tf/",
    "metallb.io/",
    "lbipam.cilium.io/",
    "argocd.argoproj.io/",
)
_DEFAULT_TOLERATIONS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
_TOKEN_VOLUME = "kube-api-access-"
_HOSTNAME = "kubernetes.io/hostname"
_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
_SERVICE_ASSIGNED = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort")
_OUTSIDE = (
    "loadBalancerIP",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
    "externalIPs",
    "externalTrafficPolicy",
)


@dataclass(frozen=True)
class Change:
    """One way in which an object of the sandbox is meant to differ from the captured one.

    Attributes:
        object: as kubectl writes it, such as ``service/web``.
        path: where, such as ``spec.type``; empty: all of it.
        why: in words.
        outcome: ``unavailable`` where nothing stands for what was there.
    """

    object: str
    path: str
    why: str
    outcome: Literal["substituted", "unavailable"] = "substituted"


@dataclass(frozen=True)
class Surroundings:
    """What the new place is like.

    Attributes:
        host: that Ingresses get; empty: they are left out.
        storage_classes: that there are; None: nobody may look.
        serves: whether the server knows a kind, by API version and kind.
    """

    namespace: str
    host: str = ""
    storage_classes: Collection[str] | None = None
    serves: Callable[[str, str], bool] = field(default=lambda _version, _kind: True)


def why_left_out(manifest: Manifest, captured: Collection[str]) -> str | None:
    """Why an object is not brought back; empty: it is; None: nothing is missing without it, and nobody needs to know.

    Args:
        captured: UIDs of all captured objects, pods too.
    """
    group, _ = split_api_version(manifest["apiVersion"])
    kind, metadata = manifest["kind"], manifest["metadata"]
    name = metadata["name"]
    if any(owner.get("uid") in captured for owner in metadata.get("ownerReferences") or () if isinstance(owner, dict)):
        return None
    if kind in _SILENT or _is_ours(manifest):
        return None
    if (kind, name) in (("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")):
        return None
    if kind == "Secret" and manifest.get("type") == _ACCOUNT_TOKEN:
        return None
    if kind == "NetworkPolicy":
        return "the sandbox has NetworkPolicies of its own"
    if (group, kind) not in RESTORED:
        return "such objects are acted on from outside of the namespace: they are not brought back"
    if kind == "Pod" and (manifest.get("status") or {}).get("phase") == "Succeeded":
        return "it had ended"
    if kind == "Job" and _has_completed(manifest):
        return HAD_COMPLETED
    if kind == "RoleBinding" and (manifest.get("roleRef") or {}).get("kind") != "Role":
        role = (manifest.get("roleRef") or {}).get("name")
        return f"it gives the cluster-wide role {role}, which a sandbox does not"
    return ""


def _is_ours(manifest: Manifest) -> bool:
    metadata = manifest["metadata"]
    managed = (metadata.get("labels") or {}).get(labels.MANAGED_BY) == labels.MANAGED_BY_VALUE
    return managed or metadata["name"] == labels.RECORD_NAME or str(manifest.get("type", "")).startswith(labels.DOMAIN)


def _has_completed(job: Manifest) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Complete" and c.get("status") == "True" for c in conditions if isinstance(c, dict))


# -- what the server gave it ------------------------------------------------------------------------------------------


def stripped(manifest: Manifest) -> Manifest:
    """An object without what the server, its controllers and its place gave it; its name, and what people wrote."""
    plain = copy.deepcopy(manifest)
    explicit = _Explicit(plain)
    plain.pop("status", None)
    metadata = plain["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in _ANNOTATIONS}
    marked = {k: v for k, v in (metadata.get("labels") or {}).items() if k != labels.SERVICE}
    plain["metadata"] = {
        "name": metadata["name"],
        **({"labels": marked} if marked else {}),
        **({"annotations": annotations} if annotations else {}),
    }
    template, spec = pod_template(plain), plain.get("spec")
    if template is not None:
        _strip_template(template, is_pod=template is plain)
    if isinstance(spec, dict):
        _strip_spec(plain["kind"], spec, explicit)
    if plain["kind"] == "ServiceAccount":
        plain.pop("secrets", None)
    return plain


def _strip_spec(kind: str, spec: dict[str, Any], explicit: _Explicit) -> None:
    match kind:
        case "Service":
            if spec.get("clusterIP") != "None":
                for key in _SERVICE_ASSIGNED:
                    spec.pop(key, None)
            else:
                for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                    spec.pop(key, None)
            for port in spec.get("ports") or ():
                if not explicit.node_port(port):
                    port.pop("nodePort", None)
        case "PersistentVolumeClaim":
            if not explicit.volume_name():
                spec.pop("volumeName", None)
        case "Job":
            _strip_job(spec)
        case "CronJob":
            _strip_job((spec.get("jobTemplate") or {}).get("spec") or {})
        case "StatefulSet":
            for claim in spec.get("volumeClaimTemplates") or ():
                claim.pop("status", None)
                (claim.get("metadata") or {}).pop("creationTimestamp", None)


def _strip_job(spec: dict[str, Any]) -> None:
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
    metadata = (spec.get("template") or {}).get("metadata") or {}
    if metadata.get("labels"):
        metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in _JOB_LABELS}


def _strip_template(template: dict[str, Any], *, is_pod: bool) -> None:
    metadata = template.get("metadata") or {}
    if not is_pod:
        metadata.pop("creationTimestamp", None)
        if labels.SERVICE in (metadata.get("labels") or {}):
            metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k != labels.SERVICE}
    spec = template.get("spec")
    if not isinstance(spec, dict):
        return
    spec.pop("serviceAccount", None)
    if not is_pod:
        return
    for key in ("nodeName", "priority", "ephemeralContainers", "preemptionPolicy"):
        spec.pop(key, None)
    volumes = [v for v in spec.get("volumes") or () if not str(v.get("name", "")).startswith(_TOKEN_VOLUME)]
    spec["volumes"] = volumes
    for container in containers(spec):
        mounts = container.get("volumeMounts") or ()
        container["volumeMounts"] = [m for m in mounts if not str(m.get("name", "")).startswith(_TOKEN_VOLUME)]
    given = [t for t in spec.get("tolerations") or () if not _is_default(t)]
    spec["tolerations"] = given
    if spec.get("serviceAccountName") == "default":
        spec.pop("serviceAccountName")


def _is_default(toleration: Mapping[str, Any]) -> bool:
    return toleration.get("key") in _DEFAULT_TOLERATIONS and toleration.get("tolerationSeconds") == 300


class _Explicit:
    """What somebody wrote, rather than the server: ``managedFields`` tells, and must be asked before it is stripped."""

    def __init__(self, manifest: Manifest) -> None:
        managed = manifest["metadata"].get("managedFields") or ()
        self._known = bool(managed)
        self._owned = [
            m.get("fieldsV1") or {}
            for m in managed
            if isinstance(m, dict) and m.get("manager") != "kube-controller-manager" and not m.get("subresource")
        ]

    def _says(self, *path: str) -> bool:
        for fields in self._owned:
            node: Any = fields
            for key in path:
                node = node.get(key) if isinstance(node, dict) else None
            if node is not None:
                return True
        return False

    def volume_name(self) -> bool:
        return self._says("f:spec", "f:volumeName")

    def node_port(self, port: Mapping[str, Any]) -> bool:
        key = f'k:{{"port":{port.get("port")},"protocol":"{port.get("protocol", "TCP")}"}}'
        return self._says("f:spec", "f:ports", key, "f:nodePort")


# -- what cannot live there -------------------------------------------------------------------------------------------


def replaced(plain: Manifest, place: Surroundings) -> tuple[Manifest | None, list[Change]]:
    """A stripped object as the sandbox can have it, and what that changes; None where nothing stands for it."""
    changes: list[Change] = []
    name = str(ObjectRef.of(plain))
    made = copy.deepcopy(plain)
    made["metadata"]["namespace"] = place.namespace

    def change(path: str, why: str, outcome: Literal["substituted", "unavailable"] = "substituted") -> None:
        changes.append(Change(name, path, why, outcome))

    if not place.serves(made["apiVersion"], made["kind"]):
        change("", f"this cluster serves no {made['kind']} of {made['apiVersion']}", "unavailable")
        return None, changes
    _drop_outward(made, change)
    spec = made.get("spec") if isinstance(made.get("spec"), dict) else {}
    assert isinstance(spec, dict)
    match made["kind"]:
        case "Service":
            _service(spec, change)
        case "Ingress":
            if not place.host:
                change("", "this sandbox has no host", "unavailable")
                return None, changes
            _ingress(spec, place.host, change)
        case "PersistentVolumeClaim":
            _claim(spec, place, change)
            # Whether a database fills it is said of the database.
            change("(contents)", "what the volume held was not captured: it is empty", "unavailable")
        case "StatefulSet":
            for number, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
                _claim(claim.get("spec") or {}, place, change, f"spec.volumeClaimTemplates[{number}].spec.")
        case "CronJob":
            if not spec.get("suspend"):
                spec["suspend"] = True
                change("spec.suspend", "it is suspended: nothing starts by the clock in a reproduction")
    pod = pod_spec(made)
    if pod is not None:
        _pod(made, pod, change)
    return made, changes


_Say = Callable[..., None]


def _drop_outward(made: Manifest, change: _Say) -> None:
    annotations = made["metadata"].get("annotations") or {}
    for key in [key for key in annotations if key.startswith(_OUTWARD)]:
        del annotations[key]
        change(f"metadata.annotations.{key}", "it speaks to controllers outside of the sandbox")
    if "annotations" in made["metadata"] and not annotations:
        made["metadata"].pop("annotations")


def _service(spec: dict[str, Any], change: _Say) -> None:
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName":
        target = spec.pop("externalName", "")
        spec["type"] = "ClusterIP"
        spec.setdefault("ports", [{"name": "none", "port": 80}])
        spec.pop("selector", None)
        change(
            "spec",
            f"it led out of the namespace to {target}, which a sandbox does not reach: a Service without endpoints",
            "unavailable",
        )
        return
    if not spec.get("selector") and spec.get("clusterIP") != "None":
        change("(endpoints)", "it led to addresses outside of the namespace: nothing answers there", "unavailable")
    if kind in ("LoadBalancer", "NodePort"):
        spec["type"] = "ClusterIP"
        change("spec.type", f"ClusterIP instead of {kind}: nothing outside of the cluster leads into a sandbox")
    for key in _OUTSIDE:
        # Its default comes with the type, and goes with it.
        if key in spec and spec.pop(key) not in ("Cluster", True, None):
            change(f"spec.{key}", "nothing outside of the cluster leads into a sandbox")
    for number, port in enumerate(spec.get("ports") or ()):
        if "nodePort" in port:
            written = port.pop("nodePort")
            change(f"spec.ports[{number}].nodePort", f"the port {written} of nodes is the captured environment's")


def _ingress(spec: dict[str, Any], host: str, change: _Say) -> None:
    for number, rule in enumerate(spec.get("rules") or ()):
        if rule.get("host") != host:
            change(f"spec.rules[{number}].host", f"{host} instead of {rule.get('host') or 'any host'}")
            rule["host"] = host
    if spec.pop("tls", None):
        change("spec.tls", "certificates are of the captured hosts: plain HTTP")


def _claim(spec: dict[str, Any], place: Surroundings, change: _Say, path: str = "spec.") -> None:
    for key in ("dataSource", "dataSourceRef"):
        if spec.pop(key, None):
            change(f"{path}{key}", "what it was made of is not here: it is empty")
    if spec.pop("volumeName", None):
        change(f"{path}volumeName", "a volume of its own instead of the captured one")
    wanted = spec.get("storageClassName")
    if wanted and place.storage_classes is not None and wanted not in place.storage_classes:
        del spec["storageClassName"]
        change(f"{path}storageClassName", f"there is no storage class {wanted} here: the default one")


def _pod(made: Manifest, pod: dict[str, Any], change: _Say) -> None:
    path = pod_path(made)
    if pod.pop("nodeName", None):
        change(f"{path}.nodeName", "the node is the captured cluster's")
    selector = pod.get("nodeSelector") or {}
    if selector.pop(_HOSTNAME, None):
        change(f"{path}.nodeSelector", "the node is the captured cluster's")
        if not selector:
            pod.pop("nodeSelector", None)
    if pod.pop("priorityClassName", None):
        change(f"{path}.priorityClassName", "a sandbox takes nobody's place: the default priority")
        pod.pop("priority", None)


def explained(path: str, changes: Collection[Change]) -> Change | None:
    """The change that a difference at some path is due to."""
    return next((c for c in changes if c.path in ("", path) or path.startswith((f"{c.path}.", f"{c.path}["))), None)
