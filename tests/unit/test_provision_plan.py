"""Which services are deployed, in which order, and what is refused beforehand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.project.config import Project, Requires
from sandbox.provision import preflight
from sandbox.provision.plan import in_order
from sandbox.provision.selection import select
from sandbox.provision.services import install_order
from sandbox.provision.smoke import service_with_port


def project(**services: Any) -> Project:
    data = {name: {"manifests": {"paths": ["k8s"]}, **more} for name, more in services.items()}
    return Project.model_validate({"apiVersion": "sandbox.dev/v1", "project": "shop", "services": data}, strict=False)


SHOP = project(web={"needs": ["orders", "catalogue"]}, orders={"needs": ["postgres"]}, catalogue={}, postgres={})


def test_all_services_are_deployed() -> None:
    assert select(SHOP, (), has_base=False).deployed == ("web", "orders", "catalogue", "postgres")


def test_only_takes_what_it_needs_too() -> None:
    assert select(SHOP, ("orders",), has_base=False).deployed == ("orders", "postgres")


def test_needs_may_be_met_elsewhere() -> None:
    ways = project(
        web={"needs": ["orders", {"service": "mail", "as": "mock"}, {"service": "ads", "as": "skip"}]},
        orders={"needs": [{"service": "postgres", "as": "shared"}]},
        mail={"mock": {"image": "mock:1"}},
        ads={},
        postgres={},
    )
    found = select(ways, (), has_base=True)
    assert found.deployed == ("web", "orders")
    assert (found.shared, found.mocked, found.skipped) == (("postgres",), ("mail",), ("ads",))
    # Asked for by name, it is deployed after all.
    assert "ads" in select(ways, ("web", "ads"), has_base=True).deployed


def test_a_base_brings_what_the_project_does_not_have() -> None:
    web = project(web={"needs": ["orders"]})
    assert select(web, (), has_base=True).from_base is None
    assert select(web, ("web",), has_base=True).from_base == ("orders",)


@pytest.mark.parametrize(
    ("services", "wanted", "said"),
    [
        ({"web": {"needs": ["orders"]}}, (), "orders"),
        ({"web": {}}, ("wbe",), "wbe"),
        ({"web": {"needs": [{"service": "db", "as": "shared"}]}, "db": {}}, (), "shared"),
        ({"web": {"needs": [{"service": "db", "as": "mock"}]}, "db": {}}, (), "mock"),
    ],
)
def test_what_nobody_has_is_refused(services: dict[str, Any], wanted: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        select(project(**services), wanted, has_base=False)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef")), max_size=6))
def test_an_order_puts_each_after_its_needs_or_says_that_there_is_a_circle(needs: dict[str, set[str]]) -> None:
    try:
        order = in_order(needs)
    except InvalidInput:
        # There really is a circle: somebody can be reached from itself.
        def reach(start: str) -> set[str]:
            seen: set[str] = set()
            pending = list(needs.get(start, ()))
            while pending:
                name = pending.pop()
                if name not in seen:
                    seen.add(name)
                    pending += needs.get(name, ())
            return seen

        assert any(name in reach(name) for name in needs)
        return
    assert sorted(order) == sorted(needs)
    for position, name in enumerate(order):
        assert {need for need in needs[name] if need in needs} <= set(order[:position])


def test_objects_are_applied_as_helm_orders_them() -> None:
    kinds = ["Deployment", "Ingress", "Service", "Secret", "HorizontalPodAutoscaler", "ConfigMap", "ServiceAccount"]
    ordered = install_order([{"kind": kind} for kind in kinds])
    assert [manifest["kind"] for manifest in ordered] == [
        "ServiceAccount",
        "Secret",
        "ConfigMap",
        "Service",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
    ]


def pod(**spec: Any) -> dict[str, list[dict[str, Any]]]:
    return {"web": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}]}


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
        {"initContainers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
        {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}]},
    ],
)
def test_pods_that_reach_out_of_the_sandbox_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"web: pod/p"):
        preflight.check_pod_security(pod(**spec), "baseline")
    preflight.check_pod_security(pod(**spec), "privileged")


def test_ordinary_pods_are_admitted() -> None:
    container = {"name": "c", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}}
    preflight.check_pod_security(pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}]), "baseline")


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("v1.36.3", ">=1.28"), ("v1.31.2+k3s1", ">=1.31,<2"), ("v1.30.5-gke.1443001", ">=1.30.5"), ("4.3.1", "~=4.3")],
)
def test_versions_that_meet_the_requirement(version: str, wanted: str) -> None:
    preflight.check_requirements(Requires(kubernetes=wanted), {"kubernetes": version})


@pytest.mark.parametrize(
    ("found", "wanted"),
    [({"helm": "v3.10.0"}, ">=3.14"), ({}, ">=3"), ({"helm": "garbage"}, ">=3"), ({"helm": "3"}, "what")],
)
def test_versions_that_do_not(found: dict[str, str], wanted: str) -> None:
    with pytest.raises(Refused, match="helm"):
        preflight.check_requirements(Requires(helm=wanted), found)


def test_a_smoke_test_names_the_ports_that_there_are() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }
    assert service_with_port("web", [service], "http") is service
    assert service_with_port("web", [service], "80") is service
    with pytest.raises(OperationFailed, match="web:http"):
        service_with_port("web", [service], "grpc")
