"""Kubernetes objects as plain dictionaries, and what can be read off them without a cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Manifest = dict[str, Any]

# Where the pod template of each built-in workload lies.
_POD_TEMPLATE_PATHS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): ("spec", "template"),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, order=True)
class ObjectRef:
    """Which object: API group (empty for core), version, kind, name, and namespace (empty: none)."""

    group: str
    version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> ObjectRef:
        group, version = split_api_version(manifest["apiVersion"])
        metadata = manifest["metadata"]
        return cls(group, version, manifest["kind"], metadata["name"], metadata.get("namespace", ""))

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays the same when only the API version changes."""
        return (self.group, self.kind, self.namespace, self.name)

    def __str__(self) -> str:
        """As kubectl writes it: ``deployment.apps/web``, ``service/web``."""
        group = f".{self.group}" if self.group else ""
        return f"{self.kind.lower()}{group}/{self.name}"


def split_api_version(api_version: str) -> tuple[str, str]:
    """``apps/v1`` → (``apps``, ``v1``); ``v1`` → (empty, ``v1``)."""
    group, slash, version = api_version.rpartition("/")
    return (group, version) if slash else ("", api_version)


def pod_template(manifest: Manifest) -> Manifest | None:
    """The pod template (or the pod itself) of a built-in workload; None for any other object."""
    group, _ = split_api_version(manifest.get("apiVersion", ""))
    path = _POD_TEMPLATE_PATHS.get((group, manifest.get("kind", "")))
    if path is None:
        return None
    node: Any = manifest
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def pod_spec(manifest: Manifest) -> Manifest | None:
    """The pod spec of a built-in workload; None for any other object."""
    template = pod_template(manifest)
    spec = template.get("spec") if template else None
    return spec if isinstance(spec, dict) else None


def containers(
    spec: Manifest, *, kinds: tuple[Literal["containers", "initContainers"], ...] = ("initContainers", "containers")
) -> Iterator[Manifest]:
    """All containers of a pod spec, init containers first."""
    for kind in kinds:
        for container in spec.get(kind) or ():
            if isinstance(container, dict):
                yield container


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value always gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode()


def digest(value: Any) -> str:
    """``sha256:<hex>`` of a value's canonical JSON, or of bytes as they are."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
