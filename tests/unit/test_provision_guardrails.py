"""The guardrails that are made from a profile, and how long a sandbox may live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.model.errors import Refused
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.guardrails import guardrails, pod_security_labels
from sandbox.provision.namespace import Lifetime, expiry_annotations

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
ITSELF: dict[str, Any] = {"podSelector": {}}


def profile(**more: Any) -> QuotaProfile:
    data = {"apiVersion": "sandbox.dev/v1", "kind": "QuotaProfile", "name": "tiny", "resourceQuota": {"pods": "5"}}
    return QuotaProfile.model_validate({**data, **more}, strict=False)


def policy(**more: Any) -> dict[str, Any]:
    (found,) = (rail for rail in guardrails(profile(**more), "x") if rail["kind"] == "NetworkPolicy")
    spec: dict[str, Any] = found["spec"]
    return spec


def test_every_rail_is_ours_and_in_its_namespace() -> None:
    rails = guardrails(profile(limitRange=[{"type": "Pod", "max": {"cpu": "1"}}]), "dana-shop-main")
    assert [rail["kind"] for rail in rails] == ["ResourceQuota", "LimitRange", "NetworkPolicy"]
    for rail in rails:
        assert rail["metadata"]["namespace"] == "dana-shop-main"
        assert rail["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "sandbox"}
    assert rails[0]["spec"] == {"hard": {"pods": "5"}}
    assert rails[1]["spec"] == {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}
    assert pod_security_labels(profile(podSecurity="restricted"))["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_open_network_has_no_policy() -> None:
    assert {rail["kind"] for rail in guardrails(profile(network="open"), "x")} == {"ResourceQuota"}


def test_an_isolated_network_lets_out_all_and_in_what_is_its_own_or_marked() -> None:
    spec = policy(network="isolated")
    assert spec["policyTypes"] == ["Ingress"]
    (rule,) = spec["ingress"]
    assert rule["from"] == [ITSELF, {"namespaceSelector": {"matchLabels": {"sandbox.dev/allow-ingress": "true"}}}]
    assert policy() == spec


def test_a_restricted_network_lets_out_to_itself_dns_and_what_is_listed() -> None:
    egress = [
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [{"port": 5432}, {"port": 1, "endPort": 9}]},
        {"namespace": "shared"},
        {"namespaceLabels": {"team": "data"}},
    ]
    spec = policy(network="restricted", egress=egress)
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    itself, pods_dns, node_dns, *listed = spec["egress"]
    assert itself == {"to": [ITSELF]}
    assert {port["port"] for port in pods_dns["ports"]} == {53, 5353}
    assert node_dns["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    tcp = [{"protocol": "TCP", "port": 5432}, {"protocol": "TCP", "port": 1, "endPort": 9}]
    assert listed == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": tcp},
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shared"}}}]},
        {"to": [{"namespaceSelector": {"matchLabels": {"team": "data"}}}]},
    ]


# How long it lives


def namespace(**notes: str) -> dict[str, Any]:
    annotations = {f"sandbox.dev/{name.replace('_', '-')}": value for name, value in notes.items()}
    return {"metadata": {"name": "x", "creationTimestamp": "2030-01-31T00:00:00Z", "annotations": annotations}}


def extended(*, until: str, longest: str) -> dict[str, Any]:
    return namespace(expires_at=until, max_expires_at=longest)


def ends(found: dict[str, Any] | None, *, ttl: int = 8, longest: int = 24) -> dict[str, str]:
    lifetime = Lifetime(timedelta(hours=ttl), timedelta(hours=longest), NOW)
    return {name.removeprefix("sandbox.dev/"): value for name, value in expiry_annotations(lifetime, found).items()}


@pytest.mark.parametrize(
    ("found", "expires", "longest"),
    [
        (None, "2030-01-31T20:00:00Z", "2030-02-01T12:00:00Z"),
        # Of a sandbox that says nothing yet, the longest life counts from its creation.
        (namespace(), "2030-01-31T20:00:00Z", "2030-02-01T00:00:00Z"),
        (namespace(max_expires_at="soon", expires_at="later"), "2030-01-31T20:00:00Z", "2030-02-01T00:00:00Z"),
        # What is written down is not written again.
        (namespace(max_expires_at="2030-02-09T00:00:00Z"), "2030-01-31T20:00:00Z", None),
        (namespace(max_expires_at="2030-01-31T13:00:00Z"), "2030-01-31T13:00:00Z", None),
        # A longer extension stays, up to the longest life.
        (extended(until="2030-02-01T06:00:00Z", longest="2030-02-09T00:00:00Z"), "2030-02-01T06:00:00Z", None),
        (extended(until="2030-02-01T06:00:00Z", longest="2030-02-01T00:00:00Z"), "2030-02-01T00:00:00Z", None),
    ],
)  # fmt: skip
def test_no_expiry_is_later_than_the_longest_life(
    found: dict[str, Any] | None, expires: str, longest: str | None
) -> None:
    said = ends(found)
    assert (said["expires-at"], said.get("max-expires-at"), said["ttl"]) == (expires, longest, "8h")


def test_a_sandbox_at_the_end_of_its_longest_life_is_not_prolonged() -> None:
    with pytest.raises(Refused, match="longest life") as raised:
        ends(namespace(max_expires_at="2030-01-31T12:00:00Z"))
    assert "sandbox down" in raised.value.hint
