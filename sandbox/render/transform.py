"""Manifests put into the sandbox's namespace and marked as a service's. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sandbox.model import labels
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest, ObjectRef, pod_template, split_api_version

# What lies there serves the whole cluster: a copy elsewhere would not do its work, or not the same.
SYSTEM_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})

_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
_RBAC = "rbac.authorization.k8s.io"


def place(
    manifests: Sequence[Manifest],
    namespace: str,
    *,
    is_namespaced: Callable[[str, str], bool],
    movable: bool = True,
    service: str = "",
) -> tuple[list[Manifest], list[str]]:
    """Put objects into the sandbox's namespace, and say what that changed.

    Objects of a foreign namespace are moved; a ``Namespace`` is dropped (the sandbox has one); service accounts that
    come with the manifests are followed in the subjects of bindings. Cluster-scoped objects stay, marked
    as the sandbox's; whether they may be there is the preflight's to say.

    Args:
        is_namespaced: (apiVersion, kind) → whether such objects lie in a namespace.
        movable: False for what a chart renders: Helm applies it itself, as it is.
        service: named in errors.

    Returns:
        New manifests, and what was done, one line each.

    Raises:
        Refused: an object belongs to a system namespace, or is a chart's and belongs to any other.
    """
    if not movable:
        _refuse_foreign(manifests, namespace, is_namespaced, service)
        return copy.deepcopy(list(manifests)), []
    placed: list[Manifest] = []
    notes: list[str] = []
    for original in manifests:
        if (original["apiVersion"], original["kind"]) == ("v1", "Namespace"):
            notes.append(f"{ObjectRef.of(original)} is left out: everything goes into {namespace}")
            continue
        manifest = copy.deepcopy(original)
        if is_namespaced(manifest["apiVersion"], manifest["kind"]):
            notes += _move(manifest, namespace, service)
        else:
            note = manifest["metadata"].get("annotations") or {}
            manifest["metadata"]["annotations"] = {**note, labels.NAMESPACE: namespace}
        placed.append(manifest)
    accounts = {m["metadata"]["name"] for m in placed if (m["apiVersion"], m["kind"]) == ("v1", "ServiceAccount")}
    for manifest in placed:
        notes += _follow_accounts(manifest, accounts, namespace)
    return placed, notes


def belongs_to(manifest: Manifest, namespace: str) -> bool:
    """Whether a cluster-scoped object is marked as that sandbox's."""
    return (manifest["metadata"].get("annotations") or {}).get(labels.NAMESPACE) == namespace


def label(manifests: Sequence[Manifest], service: str) -> list[Manifest]:
    """Mark objects, and the pods that they make, as a service's (label ``sandbox.dev/service``)."""
    marked = copy.deepcopy(list(manifests))
    for manifest in marked:
        _add_label(manifest["metadata"], service)
        template = pod_template(manifest)
        if template is not None and template is not manifest:
            metadata = template.get("metadata") or {}
            template["metadata"] = metadata
            _add_label(metadata, service)
    return marked


def _add_label(metadata: dict[str, Any], service: str) -> None:
    metadata["labels"] = {**(metadata.get("labels") or {}), labels.SERVICE: service}


def _move(manifest: Manifest, namespace: str, service: str) -> Iterator[str]:
    metadata = manifest["metadata"]
    foreign = metadata.get("namespace") or namespace
    if foreign in SYSTEM_NAMESPACES:
        raise Refused(
            f"{_of(service)}{ObjectRef.of(manifest)} belongs to the namespace {foreign}",
            why="what lies there serves the whole cluster; it cannot be part of a sandbox",
            hint="leave it out of the manifests for sandboxes, such as by an overlay or a value",
        )
    metadata["namespace"] = namespace
    if foreign != namespace:
        yield f"{ObjectRef.of(manifest)} is moved from the namespace {foreign} into {namespace}"


def _follow_accounts(manifest: Manifest, accounts: set[str], namespace: str) -> Iterator[str]:
    """Point the subjects of a binding at the sandbox's own service accounts."""
    group, _ = split_api_version(manifest["apiVersion"])
    if group != _RBAC or manifest["kind"] not in _BINDINGS:
        return
    for subject in manifest.get("subjects") or ():
        if subject.get("kind") != "ServiceAccount":
            continue
        foreign = subject.get("namespace") or namespace
        if foreign == namespace or subject.get("name") in accounts:
            subject["namespace"] = namespace
        if foreign != subject["namespace"]:
            yield f"{ObjectRef.of(manifest)}: its subject {foreign}/{subject['name']} is now the sandbox's own"
        elif foreign != namespace:
            yield f"{ObjectRef.of(manifest)} gives rights in the sandbox to {foreign}/{subject.get('name')}"


def _of(service: str) -> str:
    return f"service {service}: " if service else ""


def _refuse_foreign(
    manifests: Sequence[Manifest], namespace: str, is_namespaced: Callable[[str, str], bool], service: str
) -> None:
    foreign = [
        ref
        for ref in map(ObjectRef.of, manifests)
        if ref.namespace not in ("", namespace) and is_namespaced(ref.api_version, ref.kind)
    ]
    if foreign:
        raise Refused(
            f"{_of(service)}the chart puts objects into other namespaces",
            why="\n".join(f"{ref} → {ref.namespace}" for ref in foreign),
            hint="Helm applies a chart as it is: write `namespace: {{ .Release.Namespace }}` (or nothing) in its"
            " templates, or set the value that decides it",
        )
