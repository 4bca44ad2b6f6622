"""What a reproduction may reach: itself and DNS, whatever its quota profile lets other sandboxes reach."""

from __future__ import annotations

from typing import Final

from sandbox.model import labels
from sandbox.model.objects import Manifest
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.guardrails import guardrails

NAME: Final = "sandbox-reproduce"


def deny_egress(profile: QuotaProfile, namespace: str) -> list[Manifest]:
    """A NetworkPolicy beside the profile's own; none where that already bounds what goes out.

    NetworkPolicies add up: this one takes away what no other gives.
    """
    if profile.network == "restricted":
        return []
    restricted = profile.model_copy(update={"network": "restricted", "egress": ()})
    [policy] = [rail for rail in guardrails(restricted, namespace) if rail["kind"] == "NetworkPolicy"]
    spec = {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": policy["spec"]["egress"],
    }
    metadata = {"name": NAME, "namespace": namespace, "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE}}
    return [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}]
