"""What bounds a sandbox is there first, and what does not fit into it is refused before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from sandbox.model import labels
from tests.conftest import kubectl
from tests.e2e.projects import (
    GitProject,
    Manifest,
    Namespace,
    Tool,
    config_map,
    deployment,
    documents,
    service,
    temporary_project,
)

# --- a sandbox that is there ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(
    tool: Tool, cluster: ClusterInfo, probe_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GitProject, Namespace, dict[str, Any], str]]:
    """A project with one pod, deployed by the defaults; what `up` answered and said."""
    with temporary_project(cluster, tmp_path_factory.mktemp("deployed")) as project:
        moved = {**service("web"), "metadata": {"name": "web", "namespace": "production"}}
        web = project.manifests("web", deployment("web", probe_image, "serve", "8080"), moved)
        project.declare({"web": {**web, "ports": {"http": 8080}, "smoke": {"http": {"contains": "web-"}}}})
        project.commit()
        ended = tool.up(project).ok()
        yield project, Namespace(cluster, project.name), ended.data, ended.err


Deployed = tuple[GitProject, Namespace, dict[str, Any], str]


def test_the_namespace_says_whose_it_is_and_when_it_ends(deployed: Deployed) -> None:
    project, space, data, _ = deployed
    itself = space.itself()
    assert itself is not None
    note = {key.removeprefix("sandbox.dev/"): value for key, value in space.annotations().items()}
    created = datetime.fromisoformat(itself["metadata"]["creationTimestamp"])

    assert itself["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "sandbox"
    assert itself["metadata"]["labels"]["sandbox.dev/project"] == project.name
    assert note["namespace"] == space.name
    assert abs(datetime.fromisoformat(note["created-at"]) - created) < timedelta(seconds=60)
    # Counted from the end of the deployment, which took its time: a pod was to become ready.
    assert timedelta(hours=8) < datetime.fromisoformat(note["expires-at"]) - created < timedelta(hours=8.1)
    assert datetime.fromisoformat(note["max-expires-at"]) - created == pytest.approx(
        timedelta(days=14), abs=timedelta(minutes=1)
    )
    assert (note["ttl"], note["max-ttl"], note["quota-profile"], note["phase"]) == ("8h", "3d", "small", "Ready")
    assert note["commit"] == data["commit"]["sha"]
    assert note["created-by"] == note["owner-user"] != ""
    assert {"sandbox", "helm", "kubernetes", "git"} <= set(json.loads(note["tools"]))


def test_quota_and_limits_are_there_before_any_workload(deployed: Deployed) -> None:
    _, space, _, _ = deployed
    (quota,) = space.list("resourcequotas")
    (limits,) = space.list("limitranges")
    (pod,) = space.list("pods")

    assert quota["spec"]["hard"]["requests.cpu"] == "2"
    assert quota["status"]["used"]["pods"] == "1"
    assert space.names("networkpolicies") == {"sandbox-default-deny"}
    (web,) = space.list("deployments")
    for rail in (quota, limits):
        # Of one second or earlier; that the pod was given its requests shows which was first.
        assert rail["metadata"]["creationTimestamp"] <= web["metadata"]["creationTimestamp"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    }


def test_what_is_chosen_and_how_far_it_is_said_in_plain_lines(deployed: Deployed) -> None:
    _, space, _, said = deployed

    assert "env dev, quota small, ttl 8h, base none" in said
    ended = re.findall(r"^✓ (.+) \(\d+\.\ds\)$", said, re.MULTILINE)
    expected = ["Resolve source", "Render", "Preflight", f"Namespace {space.name}", "Guardrails: small", "Deploy web"]
    assert [title for title in ended if title in expected] == expected
    assert "\x1b" not in said


def test_an_object_of_a_foreign_namespace_is_moved_into_the_sandbox_and_said(deployed: Deployed) -> None:
    _, space, data, said = deployed

    assert "web" in space.names("services")
    assert f"service/web is moved from the namespace production into {space.name}" in said
    assert any("production" in note for note in data["notes"])


def test_the_endpoints_and_the_record_are_told(deployed: Deployed, tool: Tool) -> None:
    project, _, data, _ = deployed

    assert data["record"] == 1
    assert data["services"] == [{"name": "web", "action": "created", "detail": ""}]
    assert [(e["service"], e["port_name"], e["port"]) for e in data["endpoints"]] == [("web", "http", 8080)]
    record = tool.run("get", "record", "-s", project.name, "-o", "json").ok().data
    assert (record["number"], record["outcome"]) == (1, "deployed")
    assert {item["kind"] for item in record["services"]["web"]["inventory"]} == {"Deployment", "Service"}
    assert record["lock"]["tools"]["kubernetes"].startswith("v1.")
    manifest = list(yaml.safe_load_all(tool.run("get", "manifest", "-s", project.name).ok().out))
    assert {m["kind"] for m in manifest} == {"Deployment", "Service"}


def test_a_namespace_that_is_another_project_s_sandbox_is_refused(
    tool: Tool, project: GitProject, deployed: Deployed
) -> None:
    theirs, _, _, _ = deployed
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()

    tool.run("up", "--name", theirs.name, cwd=project.folder).failed(4, theirs.name, "another sandbox")


# --- refused before anything is written -------------------------------------------------------------


def refused(tool: Tool, project: GitProject, space: Namespace, *said: str, arguments: tuple[str, ...] = ()) -> str:
    project.commit()
    ended = tool.up(project, *arguments).failed(4, *said)
    assert space.itself() is None, "something was written"
    return ended.err


def test_missing_secrets_config_maps_and_keys_are_named(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    def variable(name: str, kind: str, ref: str, key: str) -> Manifest:
        return {"name": name, "valueFrom": {kind: {"name": ref, "key": key}}}

    env = [
        variable("PASSWORD", "secretKeyRef", "database", "password"),
        variable("MODE", "configMapKeyRef", "settings", "mode"),
        variable("THERE", "configMapKeyRef", "settings", "there"),
        {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
    ]
    web = deployment("web", probe_image, "sleep", env=env, envFrom=[{"configMapRef": {"name": "nowhere"}}])
    project.declare({"shop": project.manifests("shop", web, config_map("settings", there="yes"))})

    said = refused(tool, project, space, "service shop", "deployment.apps/web", "database", "nowhere", "'mode'")

    assert "'there'" not in said
    assert "MAYBE" not in said


def test_more_than_the_quota_is_refused_with_who_asks_for_what(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    large = deployment(
        "large", probe_image, "sleep", replicas=3, resources={"requests": {"cpu": "900m", "memory": "64Mi"}}
    )
    small = deployment("small", probe_image, "sleep")
    project.declare({"a": project.manifests("a", large), "b": project.manifests("b", small)})

    refused(tool, project, space, "quota profile small", "requests.cpu", "deployment.apps/large", "2700m")


def test_a_profile_of_the_project_s_own_is_used(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    profile = {
        "apiVersion": "sandbox.dev/v1",
        "kind": "QuotaProfile",
        "name": "tiny",
        "description": "one pod",
        "resourceQuota": {"pods": "1"},
        "limitRange": [],
        "maxTTL": "1h",
        "podSecurity": "baseline",
        "network": "isolated",
    }
    project.write({"quotas/tiny.yaml": documents(profile)})
    project.declare(
        {"web": project.manifests("web", deployment("web", probe_image, "sleep", replicas=2))},
        defaults={"quota": "tiny", "ttl": "30m"},
    )

    refused(tool, project, space, "quota profile tiny", "pods")


CLUSTER_ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "{{ .Release.Namespace }}-reader"}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
"""


KIND = "ClusterRole.rbac.authorization.k8s.io"
OPEN = {
    "apiVersion": "sandbox.dev/v1",
    "kind": "QuotaProfile",
    "name": "open",
    "description": "lets a role in",
    "resourceQuota": {"pods": "5"},
    "limitRange": [],
    "maxTTL": "1h",
    "podSecurity": "baseline",
    "network": "isolated",
    "allowedClusterScoped": [KIND],
}


def test_cluster_scoped_objects_are_refused_with_their_list(tool: Tool, project: GitProject, space: Namespace) -> None:
    binding = CLUSTER_ROLE.replace("kind: ClusterRole", "kind: PriorityClass").replace(
        "rbac.authorization.k8s.io", "scheduling.k8s.io"
    )
    binding = binding[: binding.index("rules:")] + "value: 1\n"
    project.declare({"web": project.chart("web", CLUSTER_ROLE, binding)})

    refused(tool, project, space, f"web: clusterrole.rbac.authorization.k8s.io/{space.name}-reader", "priorityclass")
    # The option alone is not enough: the profile permits none.
    refused(tool, project, space, "clusterrole", arguments=("--allow-cluster-scoped",))


def test_cluster_scoped_objects_that_project_and_profile_permit_are_deployed_when_asked_and_go_with_down(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    project.write({"quotas/open.yaml": documents(OPEN)})
    chart = project.chart("chart", CLUSTER_ROLE, documents(config_map("chart", text="x")))
    roles = [f"{space.name}-reader", f"{space.name}-first", f"{space.name}-second"]

    def declare(*plain: str) -> None:
        template = yaml.safe_load(CLUSTER_ROLE)
        manifests = project.manifests("plain", *({**template, "metadata": {"name": name}} for name in plain))
        about = {"allowClusterScoped": [KIND], "defaults": {"quota": "open", "ttl": "30m"}}
        project.declare({"chart": chart, "plain": manifests}, **about)
        project.commit()

    def left() -> list[str]:
        words = (
            "get",
            "clusterroles",
            "--ignore-not-found",
            "-o",
            "jsonpath={.items[*].metadata.name} {.metadata.name}",
        )
        return sorted(kubectl(cluster, *words, *roles).split())

    declare(*roles[1:])
    refused(tool, project, space, "clusterrole")
    tool.up(project, "--allow-cluster-scoped").ok()
    assert left() == sorted(roles)
    declare(roles[1])
    tool.up(project, "--allow-cluster-scoped").ok()
    assert left() == sorted(roles[:2])
    tool.run("down", project.name, "--yes").ok()
    assert left() == []


def test_a_cluster_scoped_object_of_others_is_not_taken_over(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    role = {**yaml.safe_load(CLUSTER_ROLE), "metadata": {"name": f"{space.name}-theirs"}}
    kubectl(cluster, "create", "-f", "-", stdin=documents(role))
    try:
        project.write({"quotas/open.yaml": documents(OPEN)})
        about = {"allowClusterScoped": [KIND], "defaults": {"quota": "open", "ttl": "30m"}}
        project.declare({"plain": project.manifests("plain", role)}, **about)

        refused(tool, project, space, "theirs exists and is not this sandbox's", arguments=("--allow-cluster-scoped",))
    finally:
        kubectl(cluster, "delete", "clusterrole", f"{space.name}-theirs")


def test_resource_definitions_beside_the_templates_of_a_chart_are_seen(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    chart = project.chart("web", documents(config_map("web", text="x")))
    names = {"plural": "gadgets", "kind": "Gadget"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": []},
    }
    project.write({"charts/web/crds/gadget.yaml": documents(definition)})
    project.declare({"web": chart})

    refused(tool, project, space, "web: customresourcedefinition.apiextensions.k8s.io/gadgets.example.com")


def test_objects_of_a_chart_for_a_foreign_namespace_are_refused(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    foreign = documents({**config_map("web", text="x"), "metadata": {"name": "web", "namespace": "production"}})
    project.declare({"web": project.chart("web", foreign)})

    refused(tool, project, space, "configmap/web", "production")


def test_objects_of_a_system_namespace_are_refused(tool: Tool, project: GitProject, space: Namespace) -> None:
    system = {**config_map("web", text="x"), "metadata": {"name": "web", "namespace": "kube-system"}}
    project.declare({"web": project.manifests("web", system)})

    refused(tool, project, space, "configmap/web", "kube-system")


def test_pods_that_reach_for_the_node_are_refused(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    web = deployment("web", probe_image, "sleep", securityContext={"privileged": True})
    web["spec"]["template"]["spec"] |= {"hostNetwork": True, "volumes": [{"name": "r", "hostPath": {"path": "/"}}]}
    project.declare({"web": project.manifests("web", web)})

    refused(tool, project, space, "deployment.apps/web", "privileged", "hostNetwork", "hostPath")


def test_guardrails_of_a_service_s_own_are_refused(tool: Tool, project: GitProject, space: Namespace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "sandbox"}, "spec": {"hard": {}}}
    project.declare({"web": project.manifests("web", quota)})

    refused(tool, project, space, "resourcequota/sandbox")


def test_a_namespace_that_is_not_ours_is_refused_and_left_as_it_is(
    tool: Tool, project: GitProject, cluster: ClusterInfo, namespace: str
) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    before = Namespace(cluster, namespace).itself()

    tool.run("up", "--name", namespace, cwd=project.folder).failed(4, namespace, "not a sandbox")

    assert Namespace(cluster, namespace).itself() == before
    assert Namespace(cluster, namespace).names("configmaps") <= {"kube-root-ca.crt"}


def test_what_a_sandbox_put_outside_of_its_namespace_goes_with_it(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    project.write({"quotas/open.yaml": documents(OPEN)})
    plain = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": f"{project.name}-plain"},
        "rules": [],
    }
    services = {"plain": project.manifests("plain", plain), "chart": project.chart("chart", CLUSTER_ROLE)}
    project.declare(services, defaults={"quota": "open", "ttl": "30m"}, allowClusterScoped=[KIND])
    project.commit()
    tool.up(project, "--allow-cluster-scoped").ok()
    kept = kubectl(cluster, "get", "clusterroles", "-o", "name")
    assert f"{project.name}-plain" in kept
    assert f"{space.name}-reader" in kept
    past = json.dumps({"metadata": {"annotations": {labels.EXPIRES_AT: "2020-01-01T00:00:00Z"}}})
    space.kubectl("patch", "namespace", project.name, "--type=merge", "-p", past)

    tool.run("cleanup", "--yes", "-l", f"{labels.PROJECT}={project.name}").ok()

    left = kubectl(cluster, "get", "clusterroles", "-o", "name")
    assert project.name not in left
    itself = space.itself()
    assert itself is None or "deletionTimestamp" in itself["metadata"]
