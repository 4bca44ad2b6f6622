from decimal import Decimal
from typing import Any

import pytest

from sandbox.model.errors import InvalidInput
from sandbox.model.pod_resources import LimitItem, PodResources
from sandbox.model.quota import Asked, Circumstances, asked_by, broken_by, broken_later, excesses
from sandbox.model.quota_later import replicas_at_once, warnings

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


def amounts(manifest: Any, **given: Any) -> dict[str, Decimal]:
    return {item.resource: item.amount for item in asked_by("web", manifest, Circumstances(**given))}


def usage(spec: dict[str, Any], limits: Any = (), **more: Any) -> dict[str, Decimal]:
    return PodResources.of(spec, [LimitItem.of(item) for item in limits], **more).usage()


def broken(spec: dict[str, Any], *limits: Any, hard: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    given = Circumstances.of(dict.fromkeys(hard, "1"), limits)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    return [found.row() for found in broken_by("web", pod, given)]


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
        # Finer than a thousandth is rounded up, in each container.
        ({"containers": [container({"cpu": "0.0001"}), container({"cpu": "0.0001"})]}, "0.002"),
        # What the pod itself says is what counts; its request is its containers', else its own limit.
        ({"containers": [container({"cpu": "1"})], "resources": {"requests": {"cpu": "3"}}}, "3"),
        ({"containers": [container({"cpu": "1"})], "resources": {"limits": {"cpu": "3"}}}, "1"),
        ({"containers": [container()], "resources": {"limits": {"cpu": "3"}}}, "3"),
    ],
)
def test_requests_of_a_pod(spec: dict[str, Any], cpu: str) -> None:
    assert usage(spec)["requests.cpu"] == Decimal(cpu)


def test_limit_range_defaults_are_counted() -> None:
    found = usage({"containers": [container()]}, LIMITS)
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


def job(**spec: Any) -> Any:
    template = {"spec": {"containers": [container({"cpu": "1"})]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template, **spec}}


@pytest.mark.parametrize(
    ("spec", "pods"),
    [
        ({}, 1),
        ({"parallelism": 3}, 3),
        ({"parallelism": 3, "completions": 2}, 2),
        ({"parallelism": 0}, 0),
        ({"parallelism": 3, "suspend": True}, 0),
        ({"managedBy": "example.com/queue"}, 0),
    ],
)
def test_jobs_start_as_many_pods_as_may_run_at_once(spec: dict[str, Any], pods: int) -> None:
    assert amounts(job(**spec)).get("pods", 0) == pods


def test_a_paused_deployment_makes_no_pods() -> None:
    manifest = deployment(container({"cpu": "1"}), replicas=3)
    manifest["spec"]["paused"] = True
    assert "pods" not in amounts(manifest)


def node(name: str, *taints: dict[str, str], **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": list(taints)}}


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
NODES = [node("a", zone="1"), node("b", zone="2"), node("c", GPU, zone="2", cores="64")]
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}


def affinity(**rule: Any) -> dict[str, Any]:
    terms = [{"matchExpressions": [rule]}]
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    }


@pytest.mark.parametrize(
    ("spec", "pods"),
    [
        ({}, 2),
        ({"nodeSelector": {"zone": "1"}}, 1),
        ({"tolerations": [{"operator": "Exists"}]}, 3),
        ({"tolerations": [{"key": "gpu", "value": "yes"}]}, 3),
        ({"tolerations": [{"key": "gpu", "value": "no"}]}, 2),
        ({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]}, 2),
        (affinity(key="zone", operator="NotIn", values=["1"]), 1),
        (affinity(key="zone", operator="In", values=["1", "2"]), 2),
        ({**affinity(key="cores", operator="Gt", values=["32"]), "tolerations": [{"operator": "Exists"}]}, 1),
        (affinity(key="zone", operator="DoesNotExist"), 0),
    ],
)
def test_daemon_sets_run_on_the_nodes_that_they_fit_on(spec: dict[str, Any], pods: int) -> None:
    manifest = deployment(container({"cpu": "1"}))
    manifest["kind"] = "DaemonSet"
    manifest["spec"]["template"]["spec"] |= spec
    assert amounts(manifest, nodes=NODES).get("pods", 0) == pods
    # Unknown nodes count as one.
    assert amounts(manifest)["pods"] == 1


def test_a_node_that_is_not_ready_has_its_daemons() -> None:
    manifest = deployment(container({"cpu": "1"}))
    manifest["kind"] = "DaemonSet"
    assert amounts(manifest, nodes=[node("a", NOT_READY)])["pods"] == 1


def claim(**spec: Any) -> Any:
    storage = {"resources": {"requests": {"storage": "1500m"}}}
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {**storage, **spec}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "storage_class"), [({}, "slow"), ({"storageClassName": "gold"}, "gold"), ({"storageClassName": ""}, None)]
)
def test_claims_are_counted_by_their_class_too(spec: dict[str, Any], storage_class: str | None) -> None:
    found = amounts(claim(**spec), storage_class="slow")
    # Whole bytes.
    assert [found["requests.storage"], found["persistentvolumeclaims"]] == [Decimal(2), Decimal(1)]
    of_classes = {name.partition(".")[0] for name in found if ".storageclass." in name}
    assert of_classes == ({storage_class} if storage_class else set())


def test_ephemeral_volumes_ask_for_claims() -> None:
    manifest = deployment(container(), replicas=2)
    manifest["spec"]["template"]["spec"]["volumes"] = [
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim()["spec"]}}}
    ]
    assert amounts(manifest)["persistentvolumeclaims"] == 2


def test_what_controllers_make_is_counted() -> None:
    assert amounts(deployment(container()))["count/replicasets.apps"] == 1
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}
    assert amounts(service)["count/endpointslices.discovery.k8s.io"] == 1
    gadget = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "x"}}
    assert amounts(gadget, plurals={("example.com", "Gadget"): "gadgetry"}) == {"count/gadgetry.example.com": 1}
    assert amounts({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x"}}) == {}


def test_extended_resources_and_huge_pages_are_counted_by_their_requests() -> None:
    found = usage({"containers": [container(None, {"nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"})]})
    assert found["requests.nvidia.com/gpu"] == 2
    assert found["hugepages-2Mi"] == found["requests.hugepages-2Mi"] == 4 * 2**20
    assert "limits.nvidia.com/gpu" not in found


def test_a_runtime_class_adds_to_requests_and_to_limits_that_are_there() -> None:
    spec = {"containers": [container({"cpu": "1"}, {"memory": "1Gi"})], "runtimeClassName": "kata"}
    found = usage(spec, overheads={"kata": {"cpu": Decimal("0.25"), "memory": Decimal(2**20)}})
    assert found["requests.cpu"] == Decimal("1.25")
    assert found["limits.memory"] == 2**30 + 2**20
    assert "limits.cpu" not in found


# What the API server refuses whatever is left


def test_a_quota_wants_every_container_to_say_what_it_takes() -> None:
    spec = {"containers": [container({"cpu": "1"})], "initContainers": [{"name": "i"}]}
    assert broken(spec, hard=("requests.cpu", "limits.memory", "limits.ephemeral-storage", "pods")) == [
        ("web: pod/web, container i", "requests.cpu", "nothing", "must be given: the quota counts it"),
        ("web: pod/web, container i", "limits.memory", "nothing", "must be given: the quota counts it"),
        ("web: pod/web, container c", "limits.memory", "nothing", "must be given: the quota counts it"),
    ]
    assert broken({**spec, "resources": {"limits": {"cpu": "2"}}}, hard=("limits.memory",)) == []
    assert broken({"containers": [container()]}, *LIMITS, hard=("requests.cpu", "limits.memory")) == []


TWICE = {"maxLimitRequestRatio": {"cpu": "2"}}


@pytest.mark.parametrize(
    ("resources", "limit", "said"),
    [
        (({"cpu": "1"}, {"cpu": "3"}), {"max": {"cpu": "2"}}, ["limits.cpu 3 at most 2"]),
        (({"cpu": "1m"}, {}), {"min": {"cpu": "10m"}}, ["requests.cpu 1m at least 10m"]),
        # A greatest limit is the default limit, which is less than the request.
        (({"cpu": "3"}, {}), {"max": {"cpu": "2"}}, ["requests.cpu 3 at most its limit 2", "requests.cpu 3 at most 2"]),
        (({}, {}), {"max": {"cpu": "2"}}, []),
        (({"cpu": "1"}, {"cpu": "3"}), TWICE, ["limits.cpu 3 at most 2 times its request of 1"]),
        (({}, {"cpu": "3"}), {"maxLimitRequestRatio": {"cpu": "1"}}, []),
        (({}, {}), TWICE, ["limits.cpu nothing must be given, at most 2 times its request"]),
    ],
)  # fmt: skip
def test_limits_of_containers(resources: Any, limit: dict[str, Any], said: list[str]) -> None:
    found = broken({"containers": [container(*resources)]}, {"type": "Container", **limit})
    assert [" ".join(row[1:]) for row in found] == said


def test_limits_of_pods_and_claims() -> None:
    spec = {"containers": [container(None, {"memory": "1Gi"}), container(None, {"memory": "1Gi"})]}
    (row,) = broken(spec, {"type": "Pod", "max": {"memory": "1Gi"}})[1:]
    assert row == ("web: pod/web", "limits.memory", "2Gi", "at most 1Gi")
    limit = {"type": "PersistentVolumeClaim", "max": {"storage": "1"}}
    (refused,) = broken_by("db", claim(), Circumstances.of({}, [limit]))
    assert refused.row() == ("db: persistentvolumeclaim/c", "requests.storage", "2", "at most 1")


def test_what_is_no_quantity_is_named_with_its_container() -> None:
    with pytest.raises(InvalidInput) as raised:
        asked_by("web", deployment(container({"cpu": "lots"})))
    assert raised.value.what == "web: deployment.apps/web: container c: cpu: 'lots' is not a Kubernetes quantity"


def test_a_workload_without_pods_is_refused_for_what_its_template_says_only() -> None:
    given = Circumstances.of({"limits.cpu": "1"})
    assert broken_by("web", deployment(container()), given) != []
    asleep = deployment(container(), replicas=0)
    assert broken_by("web", asleep, given) == []
    assert [found.row()[1] for found in broken_later("web", asleep, given)] == ["limits.cpu"]
    wrong = deployment(container({"cpu": "2"}, {"cpu": "1"}), replicas=0)
    assert [found.row()[1:] for found in broken_by("web", wrong, given)] == [
        ("requests.cpu", "2", "at most its limit 1")
    ]


# What may not fit later


def hpa(most: int, least: int = 1) -> Any:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": least, "maxReplicas": most}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "w"}, "spec": spec}


def later(*manifests: Any, **hard: str) -> list[str]:
    given = Circumstances.of({name.replace("_", "."): value for name, value in hard.items()})
    asked = [item for manifest in manifests for item in asked_by("web", manifest, given)]
    return list(warnings([("web", manifest) for manifest in manifests], asked, given))


def test_an_hpa_that_may_scale_beyond_the_quota_is_a_warning() -> None:
    web = deployment(container({"cpu": "1"}), replicas=2)
    (said,) = later(web, hpa(5), requests_cpu="4")
    assert said == (
        "web: deployment.apps/web may be scaled to 5 pods by its HPA; the quota has room for 4 "
        "(requests.cpu: 3 more are wanted, 2 are left)"
    )
    assert later(web, hpa(4), requests_cpu="4") == []
    assert replicas_at_once([("web", hpa(5, 3))]) == {("Deployment", "web"): 3}


def test_a_rollout_without_room_for_its_new_pod_is_a_warning() -> None:
    web = deployment(container({"cpu": "1"}), replicas=2)
    (said,) = later(web, pods="2")
    assert "will not be updated by the next `up`" in said
    assert "pods: 1 more are wanted, 0 are left" in said
    assert later(web, pods="3") == []
    web["spec"]["strategy"] = {"type": "Recreate"}
    assert later(web, pods="2") == []
    web["spec"]["strategy"] = {"rollingUpdate": {"maxUnavailable": 1}}
    assert later(web, pods="2") == []


def test_runs_of_cron_jobs_that_do_not_fit_are_a_warning() -> None:
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": job()}}
    assert later(cron, requests_cpu="1") == []
    (said,) = later(cron, requests_cpu="500m")
    assert (
        said
        == "web: runs of cronjob.batch/c do not fit beside all else (requests.cpu: 1 more are wanted, 500m are left)"
    )


# The refusal


def test_excess_names_who_asks_and_what_is_left_to_each() -> None:
    asked = [
        Asked("web", "deployment.apps/web", "requests.cpu", Decimal(3), 3),
        Asked("db", "statefulset.apps/db", "requests.cpu", Decimal(1), 1),
    ]
    (excess,) = excesses(asked, {"requests.cpu": "2", "pods": "1"})
    assert list(excess.rows()) == [
        ("web: deployment.apps/web (3 pods)", "requests.cpu", "3", "1"),
        ("all 2 together", "requests.cpu", "4", "2"),
    ]
    # Where one alone could not make room, those who could do so together.
    (more,) = excesses(asked, {"requests.cpu": "500m"})
    assert [row[0].partition(":")[0] for row in more.rows()] == ["web", "db", "together"]
    assert excesses(asked, {"requests.cpu": "4"}) == []
    assert excesses(asked, {"requests.cpu": "4"}, {"requests.cpu": "1m"}) != []
    # What nobody asks for is no reason, however much of it is used.
    assert excesses(asked, {"pods": "0"}, {"pods": "3"}) == []


def test_a_long_list_of_who_asks_is_cut() -> None:
    asked = [Asked("web", f"pod/{n}", "pods", Decimal(1)) for n in range(9)]
    (excess,) = excesses(asked, {"pods": "2"})
    assert [row[0] for row in excess.rows()][-1] == "all 9 together"
    assert len(list(excess.rows())) == 6
