from decimal import Decimal
from typing import Any

import pytest

from sandbox.model.quota import Asked, asked_by, excesses, pod_amounts

LIMITS = [{"type": "Container", "default": {"cpu": "500m", "memory": "256Mi"}, "defaultRequest": {"cpu": "50m"}}]


def container(
    requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def deployment(*containers: dict[str, Any], replicas: int | None = 1, init: tuple[dict[str, Any], ...] = ()) -> Any:
    spec = {"containers": list(containers), "initContainers": list(init)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": spec}, **({} if replicas is None else {"replicas": replicas})},
    }


def amounts(manifest: Any, limits: Any = ()) -> dict[str, Decimal]:
    return {item.resource: item.amount for item in asked_by("web", manifest, limits)}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container({"cpu": "100m"}), container({"cpu": "200m"})]}, "0.3"),
        # The largest init step counts where it is more than the containers together.
        ({"containers": [container({"cpu": "100m"})], "initContainers": [container({"cpu": "1"})]}, "1"),
        # A sidecar runs beside the containers and beside later init steps.
        (
            {
                "containers": [container({"cpu": "100m"})],
                "initContainers": [container({"cpu": "300m"}, restartPolicy="Always"), container({"cpu": "200m"})],
            },
            "0.5",
        ),
        (
            {
                "containers": [container({"cpu": "400m"})],
                "initContainers": [container({"cpu": "300m"}, restartPolicy="Always"), container({"cpu": "200m"})],
            },
            "0.7",
        ),
        # A limit without a request is the request.
        ({"containers": [container(None, {"cpu": "250m"})]}, "0.25"),
        ({"containers": [container({"cpu": "1"})], "overhead": {"cpu": "250m"}}, "1.25"),
    ],
)
def test_requests_of_a_pod(spec: dict[str, Any], cpu: str) -> None:
    assert pod_amounts(spec)["requests.cpu"] == Decimal(cpu)


def test_limit_range_defaults_are_counted() -> None:
    found = pod_amounts({"containers": [container()]}, LIMITS)
    assert found["requests.cpu"] == Decimal("0.05")
    assert found["limits.cpu"] == Decimal("0.5")
    # Without a default request the default limit is the request.
    assert found["requests.memory"] == found["limits.memory"] == Decimal(256 * 2**20)


def test_replicas_multiply_and_are_one_where_nothing_is_said() -> None:
    assert amounts(deployment(container({"cpu": "1"}), replicas=3))["requests.cpu"] == 3
    assert amounts(deployment(container({"cpu": "1"}), replicas=None))["pods"] == 1
    assert "pods" not in amounts(deployment(container({"cpu": "1"}), replicas=0))


def test_stateful_sets_ask_for_their_claims() -> None:
    manifest = deployment(container(), replicas=2)
    manifest["kind"] = "StatefulSet"
    manifest["spec"]["volumeClaimTemplates"] = [{"spec": {"resources": {"requests": {"storage": "1Gi"}}}}]
    found = amounts(manifest)
    assert found["requests.storage"] == 2 * 2**30
    assert found["persistentvolumeclaims"] == 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [{}]}, {"services": 1}),
        ({"type": "NodePort", "ports": [{}, {}]}, {"services": 1, "services.nodeports": 2}),
        (
            {"type": "LoadBalancer", "ports": [{}]},
            {"services": 1, "services.loadbalancers": 1, "services.nodeports": 1},
        ),
    ],
)
def test_services_are_counted_by_type(spec: dict[str, Any], expected: dict[str, int]) -> None:
    found = amounts({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    assert {name: value for name, value in found.items() if not name.startswith("count/")} == expected


def test_cron_jobs_ask_for_nothing_now() -> None:
    template = {"spec": {"containers": [container({"cpu": "1"})]}}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    assert set(amounts(manifest)) == {"count/cronjobs.batch"}


def test_excess_names_who_asks_most() -> None:
    asked = [
        Asked("web", "deployment.apps/web", "requests.cpu", Decimal(3)),
        Asked("db", "x", "requests.cpu", Decimal(1)),
    ]
    (excess,) = excesses(asked, {"requests.cpu": "2", "pods": "1"})
    assert excess.line() == "requests.cpu: asked 4, left 2 of 2 (web: deployment.apps/web 3, db: x 1)"
    assert excesses(asked, {"requests.cpu": "4"}) == []
    assert excesses(asked, {"requests.cpu": "4"}, {"requests.cpu": "1m"}) != []
