"""What bounds a sandbox in the cluster, made from its quota profile: the one place that knows these objects.

``guardrails()`` and ``pod_security_labels()`` are what `up` applies and what the chart's admission policies hold a
namespace to, so both must come from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model import labels
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.project.quotas import EgressRule, QuotaProfile

# Namespaces that carry it may send traffic to every sandbox: an ingress controller's, Prometheus'.
ALLOW_INGRESS: Final = f"{labels.DOMAIN}/allow-ingress"
_QUOTA_BOUND = 20.0
# The cluster's DNS: a pod in some namespace (CoreDNS listens on 53, OpenShift's on 5353), or NodeLocal DNSCache.
_DNS: Final[list[Manifest]] = [
    {
        "to": [{"namespaceSelector": {}}],
        "ports": [{"protocol": p, "port": n} for n in (53, 5353) for p in ("UDP", "TCP")],
    },
    {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]},
]


def guardrails(profile: QuotaProfile, namespace: str) -> list[Manifest]:
    """ResourceQuota, LimitRange and NetworkPolicy of a profile."""
    metadata = {"namespace": namespace, "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE}}
    rails: list[Manifest] = [
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {**metadata, "name": labels.QUOTA_NAME},
            "spec": {"hard": dict(profile.resource_quota)},
        }
    ]
    if profile.limit_range:
        rails.append(
            {
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": {**metadata, "name": labels.LIMIT_RANGE_NAME},
                "spec": {"limits": limits(profile)},
            }
        )
    if profile.network != "open":
        rails.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {**metadata, "name": labels.NETWORK_POLICY_NAME},
                "spec": _network_policy(profile),
            }
        )
    return rails


def pod_security_labels(profile: QuotaProfile) -> dict[str, str]:
    """Pod Security Admission's labels (``pod-security.kubernetes.io/…``) for the profile's level."""
    return {f"pod-security.kubernetes.io/{mode}": profile.pod_security for mode in ("enforce", "warn")}


def limits(profile: QuotaProfile) -> list[Manifest]:
    """The items of a profile's LimitRange, as Kubernetes writes them."""
    return [item.model_dump(by_alias=True, exclude_defaults=True) for item in profile.limit_range]


def _network_policy(profile: QuotaProfile) -> dict[str, Any]:
    """Let in what comes from the sandbox itself, and from namespaces that the platform marks for it (ingress).

    In the mode ``restricted``, let out what goes to the sandbox itself, to DNS, and where the profile says.
    """
    itself: Manifest = {"podSelector": {}}
    marked = {"namespaceSelector": {"matchLabels": {ALLOW_INGRESS: "true"}}}
    spec: dict[str, Any] = {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [itself, marked]}],
    }
    if profile.network == "restricted":
        spec["policyTypes"].append("Egress")
        spec["egress"] = [{"to": [itself]}, *_DNS, *_destinations(profile.egress)]
    return spec


def _destinations(rules: Iterable[EgressRule]) -> Iterable[Manifest]:
    for rule in rules:
        ports = [port.model_dump(by_alias=True, exclude_none=True) for port in rule.ports]
        yield {"to": [_peer(rule)], **({"ports": ports} if ports else {})}


def _peer(rule: EgressRule) -> Mapping[str, Any]:
    if rule.cidr:
        return {"ipBlock": {"cidr": rule.cidr, **({"except": list(rule.except_)} if rule.except_ else {})}}
    wanted = {"kubernetes.io/metadata.name": rule.namespace} if rule.namespace else dict(rule.namespace_labels)
    return {"namespaceSelector": {"matchLabels": wanted}}


async def apply_guardrails(cluster: Cluster, profile: QuotaProfile, namespace: str) -> None:
    """Apply the guardrails and wait until the quota counts.

    Until the quota controller has filled in ``status.hard``, the API server rejects pods with
    "status unknown for quota".

    Raises:
        OperationFailed: the quota controller did not take notice in time.
    """
    rails = guardrails(profile, namespace)
    await asyncio.gather(*(objects.apply(cluster, rail, namespace=namespace) for rail in rails))
    quota = ObjectRef("", "v1", "ResourceQuota", labels.QUOTA_NAME, namespace)
    wanted = set(profile.resource_quota)
    retrying = AsyncRetrying(
        stop=stop_after_delay(_QUOTA_BOUND),
        wait=wait_fixed(0.05),
        retry=retry_if_result(
            lambda found: found is None or not wanted <= set((found.get("status") or {}).get("hard") or {})
        ),
    )
    try:
        await retrying(objects.get, cluster, quota)
    except RetryError:
        raise OperationFailed(
            f"the quota of {namespace} did not become active within {_QUOTA_BOUND:.0f} s",
            why="the controller manager has not filled in status.hard",
            hint="see whether the cluster's kube-controller-manager runs, then run `sandbox up` again",
        ) from None
