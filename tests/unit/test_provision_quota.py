"""What a whole plan asks of its quota: charts, hooks, what we add ourselves; and how a refusal reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from sandbox.model.errors import Refused
from sandbox.model.quota import Circumstances, broken_by, excesses
from sandbox.model.record import ChartLock, Lock, ServiceLock
from sandbox.project.config import Service
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.identity import Identity
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.quota import asked_of_quota, refuse

Manifest = dict[str, Any]


def pods(cpu: str) -> Manifest:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return {"spec": {"containers": [container]}}


def workload(kind: str, name: str, cpu: str, hook: str = "", **spec: Any) -> Manifest:
    annotations = {"helm.sh/hook": hook} if hook else {}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"template": pods(cpu), **spec},
    }


def service(
    name: str, *manifests: Manifest, helm_hooks: tuple[Manifest, ...] = (), chart: bool = False, **spec: Any
) -> ServicePlan:
    release = ChartLock(name=name, version="1", release=name, digest="sha256:0") if chart else None
    lock = ServiceLock(
        kind="chart" if chart else "manifests",
        repo="r",
        ref="main",
        commit="0" * 40,
        input_digest="sha256:0",
        manifest_digest="sha256:0",
        chart=release,
    )
    source = {"chart": {"path": name}} if chart else {"manifests": {"paths": ["k8s"]}}
    declared = Service.model_validate({**source, **spec}, strict=False) if spec else None
    return ServicePlan(name=name, lock=lock, manifests=list(manifests), spec=declared, hooks=list(helm_hooks))


def plan(*services: ServicePlan, pull_secrets: tuple[str, ...] = (), hard: Mapping[str, str] | None = None) -> Plan:
    profile = {
        "apiVersion": "sandbox.dev/v1",
        "kind": "QuotaProfile",
        "name": "tiny",
        "resourceQuota": dict(hard or {"pods": "1"}),
    }
    lock = Lock(
        project="shop", env="dev", services={}, tools={}, created_at=datetime(2030, 1, 1, tzinfo=UTC), created_by="dana"
    )
    return Plan(
        identity=Identity("dana", "dana", "shop", "main", "dana-shop-main", "dana-shop-main"),
        commit=None,
        env="dev",
        profile=QuotaProfile.model_validate(profile, strict=False),
        ttl=timedelta(hours=8),
        lock=lock,
        services={item.name: item for item in services},
        kept={},
        before=[],
        pull_secrets=pull_secrets,
    )


def totals(made: Plan) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for asked in asked_of_quota(made, Circumstances()):
        found[asked.resource] = found.get(asked.resource, Decimal(0)) + asked.amount
    return found


def test_what_is_in_every_sandbox_is_counted() -> None:
    found = totals(plan())
    # The record; its summary and the cluster's certificate.
    assert [found[name] for name in ("secrets", "configmaps", "resourcequotas")] == [1, 2, 1]
    assert found["count/leases.coordination.k8s.io"] == found["count/networkpolicies.networking.k8s.io"] == 1
    assert "pods" not in found


def test_releases_and_pull_secrets_take_secrets() -> None:
    chart, plain = service("web", chart=True), service("db")
    assert totals(plan(chart, plain, pull_secrets=("pull",)))["secrets"] == 3


@pytest.mark.parametrize(
    ("before", "after", "cpu"),
    [
        # One after another, beside what stays or before it.
        ("1", "500m", "1.5"),
        ("2", "500m", "2"),
        ("1", "3", "4"),
    ],
)
def test_hooks_that_end_count_at_the_services_peak(before: str, after: str, cpu: str) -> None:
    web = service(
        "web",
        workload("Deployment", "web", "1"),
        helm_hooks=(
            workload("Job", "migrate", before, "pre-install,pre-upgrade"),
            workload("Job", "seed", "100m", "pre-install"),
            workload("Job", "check", after, "post-install"),
            workload("Job", "never", "9", "pre-delete"),
        ),
        chart=True,
    )
    found = totals(plan(web))
    assert found["requests.cpu"] == Decimal(cpu)
    # What they were stays, until somebody deletes it.
    assert [found["count/pods"], found["count/jobs.batch"]] == [4, 3]


def test_commands_and_smoke_tests_of_the_project_are_jobs() -> None:
    hook = {"name": "migrate", "command": ["true"], "image": "busybox:1"}
    spec: dict[str, Any] = {"hooks": {"beforeDeploy": [hook]}, "smoke": {"command": ["true"], "image": "busybox:1"}}
    web = service("web", workload("Deployment", "web", "1"), **spec)
    found = totals(plan(web))
    assert [found[name] for name in ("count/jobs.batch", "pods", "count/pods")] == [2, 2, 3]


def test_an_hpa_goes_up_to_its_least_at_once() -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 3, "maxReplicas": 5}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "w"}, "spec": spec}
    assert totals(plan(service("web", workload("Deployment", "web", "1"), hpa)))["pods"] == 3
    assert totals(plan(service("web", workload("Deployment", "web", "1", replicas=4), hpa)))["pods"] == 4
    # Scaled to nothing on purpose, it is left alone.
    assert "pods" not in totals(plan(service("web", workload("Deployment", "web", "1", replicas=0), hpa)))


def test_a_refusal_is_a_table() -> None:
    made = plan(service("web", workload("Deployment", "web", "1", replicas=3)), hard={"requests.cpu": "2", "pods": "3"})
    with pytest.raises(Refused) as raised:
        refuse(made.profile, [], excesses(asked_of_quota(made, Circumstances()), made.profile.resource_quota))
    assert raised.value.what == "the services ask for more than the quota profile tiny has"
    assert raised.value.why.splitlines() == [
        "WORKLOAD                            RESOURCE       ASKED   LEFT",
        "web: deployment.apps/web (3 pods)   requests.cpu   3       2",
    ]


def test_a_service_on_every_node_is_told_of_other_ways_in() -> None:
    spec = {"type": "NodePort", "ports": [{"port": 80}]}
    item = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    made = plan(service("web", item), hard={"services.nodeports": "0"})
    with pytest.raises(Refused) as raised:
        refuse(made.profile, [], excesses(asked_of_quota(made, Circumstances()), made.profile.resource_quota))
    assert "type ClusterIP" in raised.value.hint
    assert "sandbox port-forward" in raised.value.hint


def test_pods_that_no_quota_would_admit_are_refused_in_the_same_table() -> None:
    item = workload("Deployment", "web", "1")
    made = plan(service("web", item), hard={"limits.cpu": "2"})
    with pytest.raises(Refused, match="do not keep to the limits") as raised:
        refuse(made.profile, broken_by("web", item, Circumstances.of(made.profile.resource_quota)), [])
    assert "container c   limits.cpu   nothing   must be given: the quota counts it" in raised.value.why
    refuse(made.profile, [], [])
