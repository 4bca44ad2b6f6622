"""Objects put into the sandbox's namespace."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sandbox.model.errors import Refused
from sandbox.render.transform import belongs_to, label, place

CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
RBAC = "rbac.authorization.k8s.io/v1"


def is_namespaced(api_version: str, kind: str) -> bool:
    return kind not in CLUSTER_SCOPED


def an(kind: str, name: str, namespace: str | None = None, api_version: str = "v1", **more: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def test_objects_without_a_namespace_and_with_ours_need_no_word() -> None:
    placed, notes = place([an("Service", "a"), an("Service", "b", "mine")], "mine", is_namespaced=is_namespaced)
    assert [item["metadata"]["namespace"] for item in placed] == ["mine", "mine"]
    assert notes == []


def test_foreign_ones_are_moved_and_said() -> None:
    original = an("Service", "web", "shop-prod")
    before = copy.deepcopy(original)
    placed, notes = place([original], "mine", is_namespaced=is_namespaced)
    assert placed[0]["metadata"]["namespace"] == "mine"
    assert notes == ["service/web is moved from the namespace shop-prod into mine"]
    assert original == before


def test_a_namespace_is_left_out_and_said() -> None:
    placed, notes = place([an("Namespace", "shop"), an("Service", "web", "shop")], "mine", is_namespaced=is_namespaced)
    assert [item["kind"] for item in placed] == ["Service"]
    assert notes[0] == "namespace/shop is left out: everything goes into mine"


def test_cluster_scoped_objects_are_the_preflights() -> None:
    role = an("ClusterRole", "r", api_version=RBAC)
    assert not belongs_to(role, "mine")
    (placed,), notes = place([role], "mine", is_namespaced=is_namespaced)
    assert notes == []
    assert "namespace" not in placed["metadata"]
    assert belongs_to(placed, "mine")
    assert not belongs_to(placed, "another")


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease"])
def test_what_belongs_to_the_cluster_cannot_be_moved(namespace: str) -> None:
    binding = an("RoleBinding", "reader", namespace, RBAC)
    with pytest.raises(Refused, match=rf"service web: rolebinding\.{RBAC[:-3]}/reader belongs to .* {namespace}"):
        place([binding], "mine", is_namespaced=is_namespaced, service="web")


def test_service_accounts_are_followed_in_bindings() -> None:
    subjects = [
        {"kind": "ServiceAccount", "name": "app", "namespace": "shop-prod"},
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"},
        {"kind": "ServiceAccount", "name": "other"},
        {"kind": "User", "name": "dana", "apiGroup": "rbac.authorization.k8s.io"},
    ]
    objects = [
        an("RoleBinding", "rights", "shop-prod", RBAC, subjects=subjects),
        an("ServiceAccount", "app", "shop-prod"),
    ]
    placed, notes = place(objects, "mine", is_namespaced=is_namespaced)
    assert [subject.get("namespace") for subject in placed[0]["subjects"]] == ["mine", "monitoring", "mine", None]
    assert any("its subject shop-prod/app is now the sandbox's own" in note for note in notes)
    assert any("gives rights in the sandbox to monitoring/prometheus" in note for note in notes)
    assert subjects[0]["namespace"] == "shop-prod"


def test_a_charts_foreign_objects_are_refused_with_their_list() -> None:
    objects = [an("Service", "web"), an("Service", "a", "shop"), an("Role", "b", "kube-system", RBAC)]
    with pytest.raises(Refused, match="service web: the chart puts objects into other namespaces") as caught:
        place(objects, "mine", is_namespaced=is_namespaced, movable=False, service="web")
    assert caught.value.why == "service/a → shop\nrole.rbac.authorization.k8s.io/b → kube-system"
    assert ".Release.Namespace" in caught.value.hint


def test_a_charts_own_objects_stay_as_helm_has_them() -> None:
    objects = [an("Service", "web"), an("Service", "a", "mine"), an("ClusterRole", "c", api_version=RBAC)]
    assert place(objects, "mine", is_namespaced=is_namespaced, movable=False) == (objects, [])


def test_labels_go_on_objects_and_their_pods_but_not_on_selectors() -> None:
    deployment = an(
        "Deployment", "web", api_version="apps/v1",
        spec={"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}},
    )  # fmt: skip
    marked = label([deployment, an("Pod", "p", spec={})], "web")
    assert marked[0]["metadata"]["labels"] == {"sandbox.dev/service": "web"}
    assert marked[0]["spec"]["template"]["metadata"]["labels"] == {"app": "web", "sandbox.dev/service": "web"}
    assert marked[0]["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert marked[1]["metadata"]["labels"] == {"sandbox.dev/service": "web"}
    assert "labels" not in deployment["metadata"]
