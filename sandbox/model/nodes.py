"""On which nodes a DaemonSet puts a pod.

Source: the DaemonSet controller (``NodeShouldRunDaemonPod``, pkg/controller/daemon) of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sandbox.model.objects import Manifest

# The controller lets every daemon pod tolerate these.
_ALWAYS: Final = frozenset(
    f"node.kubernetes.io/{name}"
    for name in ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
)
_NETWORK: Final = "node.kubernetes.io/network-unavailable"


def runs_daemons(node: Manifest, template: Manifest) -> bool:
    """Whether a DaemonSet's pod is put on a node.

    Args:
        node: a Node object.
        template: the pod spec of the DaemonSet.
    """
    return _selected(node, template) and _tolerated(node, template)


def _selected(node: Manifest, template: Manifest) -> bool:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    wanted: Mapping[str, str] = template.get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    affinity = ((template.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_matches(labels, rule) for rule in term.get("matchExpressions") or ())
        and all(_matches(fields, rule) for rule in term.get("matchFields") or ())
        for term in affinity.get("nodeSelectorTerms") or ()
    )


def _matches(labels: Mapping[str, str], rule: Mapping[str, Any]) -> bool:
    value = labels.get(str(rule.get("key")))
    values: Sequence[str] = rule.get("values") or ()
    match rule.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                number, bound = int(str(value)), int(str(values[0]))
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
        case _:
            return False


def _tolerated(node: Manifest, template: Manifest) -> bool:
    always = _ALWAYS | ({_NETWORK} if template.get("hostNetwork") else set())
    tolerations = template.get("tolerations") or ()
    return all(
        taint.get("effect") == "PreferNoSchedule" or taint.get("key") in always or _tolerates(tolerations, taint)
        for taint in (node.get("spec") or {}).get("taints") or ()
    )


def _tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    return any(
        toleration.get("effect") in (None, "", taint.get("effect"))
        and toleration.get("key") in (None, "", taint.get("key"))
        and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
        for toleration in tolerations
    )
