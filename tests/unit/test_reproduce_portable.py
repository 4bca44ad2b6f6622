"""What the server gave an object goes, what people wrote stays, and what cannot live in a sandbox is replaced."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.objects import Manifest
from sandbox.reproduce.portable import Surroundings, replaced, stripped, why_left_out
from sandbox.reproduce.report import _object

RBAC = "rbac.authorization.k8s.io/v1"
HERE = Surroundings("again", host="again.sandbox.localhost", storage_classes={"fast"})


def made(kind: str, api: str = "v1", spec: Manifest | None = None, **more: Any) -> Manifest:
    metadata = {"name": "it", "namespace": "qa", "uid": "u-1", "resourceVersion": "7", **more.pop("metadata", {})}
    found = {"apiVersion": api, "kind": kind, "metadata": metadata, **more}
    return {**found, "spec": spec} if spec is not None else found


def by(manager: str, fields: Manifest, **more: Any) -> Manifest:
    return {"manager": manager, "operation": "Update", "fieldsV1": fields, **more}


def port(*owners: Manifest, **more: Any) -> Manifest:
    ports = [{"port": 80, "protocol": "TCP", "nodePort": 31000}]
    return made("Service", spec={"ports": ports, "clusterIP": "10.0.0.7", **more}, metadata={"managedFields": owners})


NODE_PORT: Manifest = {"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:nodePort": {}}}}}
PLAIN_PORT: Manifest = {"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:port": {}}}}}


def test_metadata_is_what_people_wrote() -> None:
    given_by_server = {
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "ownerReferences": [{"uid": "x"}],
        "finalizers": ["a/b"],
        "generateName": "it-",
        "labels": {"app": "web", "sandbox.dev/service": "web"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "shop"},
    }
    plain = stripped(made("ConfigMap", data={"a": "b"}, status={"x": 1}, metadata=given_by_server))
    assert plain == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "data": {"a": "b"},
        "metadata": {"name": "it", "labels": {"app": "web"}, "annotations": {"team": "shop"}},
    }


@pytest.mark.parametrize(
    ("service", "kept"),
    [
        (port(by("kubectl", PLAIN_PORT)), False),
        (port(by("kubectl", NODE_PORT)), True),
        (port(), False),
        (port(by("kube-controller-manager", NODE_PORT)), False),
    ],
    ids=["assigned", "explicit", "nobody says", "a controller"],
)
def test_a_port_of_nodes_is_told_from_an_assigned_one_before_its_fields_are_gone(service: Manifest, kept: bool) -> None:
    plain = stripped(service)
    assert ("nodePort" in plain["spec"]["ports"][0]) is kept
    assert "clusterIP" not in plain["spec"]
    here, changes = replaced(plain, HERE)
    assert here is not None
    assert "nodePort" not in here["spec"]["ports"][0]
    assert any("31000" in change.why for change in changes) is kept


def test_a_headless_service_stays_one() -> None:
    headless = made("Service", spec={"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}})
    assert stripped(headless)["spec"] == {"clusterIP": "None", "selector": {"a": "b"}}


def test_a_job_gets_labels_of_its_own() -> None:
    marks = {"controller-uid": "1", "batch.kubernetes.io/controller-uid": "1", "job-name": "it", "app": "migrate"}
    template = {"metadata": {"labels": marks}, "spec": {"containers": []}}
    job = made("Job", "batch/v1", {"selector": {"matchLabels": {"controller-uid": "1"}}, "template": template})
    assert stripped(job)["spec"] == {
        "template": {"metadata": {"labels": {"app": "migrate"}}, "spec": {"containers": []}}
    }
    manual = copy.deepcopy(job)
    manual["spec"]["manualSelector"] = True
    assert "selector" in stripped(manual)["spec"]


def test_a_pod_loses_its_node_its_token_and_what_admission_gave_it() -> None:
    mounts = [{"name": "kube-api-access-x", "mountPath": "/t"}, {"name": "data", "mountPath": "/d"}]
    pod = made(
        "Pod",
        spec={
            "nodeName": "node-3",
            "priority": 0,
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300}, {"key": "gpu"}],
            "volumes": [{"name": "kube-api-access-x"}, {"name": "data"}],
            "containers": [{"name": "main", "volumeMounts": mounts}],
        },
    )
    assert stripped(pod)["spec"] == {
        "tolerations": [{"key": "gpu"}],
        "volumes": [{"name": "data"}],
        "containers": [{"name": "main", "volumeMounts": mounts[1:]}],
    }


def paths(manifest: Manifest, place: Surroundings = HERE) -> dict[str, str]:
    return {change.path: change.outcome for change in replaced(stripped(manifest), place)[1]}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (made("Service", spec={"type": "LoadBalancer", "loadBalancerIP": "1.2.3.4", "selector": {"a": "b"}}),
         {"spec.type": "substituted", "spec.loadBalancerIP": "substituted"}),
        (made("Service", spec={"type": "ExternalName", "externalName": "db.example.com"}), {"spec": "unavailable"}),
        (made("Service", spec={"ports": [{"port": 1}]}), {"(endpoints)": "unavailable"}),
        (made("Ingress", "networking.k8s.io/v1", {"rules": [{"host": "qa.example.com"}], "tls": [{"hosts": []}]}),
         {"spec.rules[0].host": "substituted", "spec.tls": "substituted"}),
        (made("PersistentVolumeClaim", spec={"storageClassName": "premium", "volumeName": "pv-1"}),
         {"spec.storageClassName": "substituted", "(contents)": "unavailable"}),
        (made("PersistentVolumeClaim", spec={"storageClassName": "fast"}), {"(contents)": "unavailable"}),
        (made("CronJob", "batch/v1", {"suspend": False}), {"spec.suspend": "substituted"}),
        (made("ConfigMap", metadata={"annotations": {"external-dns.alpha.kubernetes.io/hostname": "a"}}),
         {"metadata.annotations.external-dns.alpha.kubernetes.io/hostname": "substituted"}),
        (made("ConfigMap", data={"a": "b"}), {}),
    ],
)  # fmt: skip
def test_what_cannot_live_in_a_sandbox_is_replaced_and_told(manifest: Manifest, expected: dict[str, str]) -> None:
    assert paths(manifest) == expected


def test_nothing_leads_out_to_where_an_external_name_led() -> None:
    external = stripped(made("Service", spec={"type": "ExternalName", "externalName": "db.example.com"}))
    here, _ = replaced(external, HERE)
    assert here is not None
    assert "db.example.com" not in str(here)


def test_kinds_that_are_not_served_are_unavailable() -> None:
    nowhere = Surroundings("again", serves=lambda _version, kind: kind != "CronJob")
    here, changes = replaced(stripped(made("CronJob", "batch/v1", {})), nowhere)
    assert here is None
    assert changes[0].outcome == "unavailable"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (made("ConfigMap"), ""),
        (made("ConfigMap", metadata={"name": "kube-root-ca.crt"}), None),
        (made("ConfigMap", metadata={"ownerReferences": [{"uid": "known"}]}), None),
        (made("ConfigMap", metadata={"ownerReferences": [{"uid": "gone"}]}), ""),
        (made("Secret", type="kubernetes.io/service-account-token"), None),
        (made("ResourceQuota"), None),
        (made("EndpointSlice", "discovery.k8s.io/v1"), None),
        (made("NetworkPolicy", "networking.k8s.io/v1"), "of its own"),
        (made("Certificate", "cert-manager.io/v1"), "outside"),
        (made("ClusterRoleBinding", "rbac.authorization.k8s.io/v1"), "not brought back"),
        (made("RoleBinding", RBAC, roleRef={"kind": "ClusterRole", "name": "admin"}), "admin"),
        (made("RoleBinding", RBAC, roleRef={"kind": "Role", "name": "reader"}), ""),
        (made("Job", "batch/v1", status={"conditions": [{"type": "Complete", "status": "True"}]}), "completed"),
        (made("Job", "batch/v1", status={"conditions": [{"type": "Failed", "status": "True"}]}), ""),
        (made("NetworkPolicy", "networking.k8s.io/v1",
              metadata={"labels": {"app.kubernetes.io/managed-by": "sandbox"}}), None),
    ],
)  # fmt: skip
def test_what_is_left_out_and_why(manifest: Manifest, said: str | None) -> None:
    why = why_left_out(manifest, {"known"})
    assert why == said if not said else said in str(why)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.dictionaries(st.text(max_size=8), _JSON, max_size=4))
def test_stripping_twice_is_stripping_once_and_changes_nothing_else(data: dict[str, Any]) -> None:
    original = made("ConfigMap", data=data)
    kept = copy.deepcopy(original)
    once = stripped(original)
    assert stripped(once) == once
    assert once["data"] == data
    assert original == kept


def test_whose_an_object_is_now_is_told_and_is_no_unexpected_difference() -> None:
    expected = {"kind": "Service", "metadata": {"name": "web", "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    live = {"kind": "Service", "metadata": {"name": "web", "labels": {"app.kubernetes.io/managed-by": "sandbox"}}}
    line = _object("service/web", expected, live, [])
    assert line.outcome == "substituted"
    assert line.why == "the label app.kubernetes.io/managed-by names sandbox, which applied it"
    other = _object("service/web", {**expected, "spec": {"type": "ClusterIP"}}, live, [])
    assert "differs, which was not meant: spec" in other.why
