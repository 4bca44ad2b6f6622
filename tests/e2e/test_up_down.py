"""`sandbox down`: everything, nothing else, and what is in the way."""

from __future__ import annotations

import base64
import gzip
import json
import time

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.projects import GitProject, Namespace, Tool, config_map, deployment, documents


@pytest.fixture
def small(tool: Tool, project: GitProject) -> GitProject:
    """A deployed sandbox without pods."""
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    tool.up(project).ok()
    return project


def down(tool: Tool, *arguments: str) -> list[dict[str, object]]:
    data: list[dict[str, object]] = tool.run("down", "--yes", "-o", "json", *arguments).ok().data
    return data


def test_everything_is_gone_and_a_second_time_is_no_error(
    tool: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    hook = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "bye", "annotations": {"helm.sh/hook": "pre-delete"}},
    }
    project.declare(
        {
            "chart": project.chart("chart", documents(config_map("chart", text="x")), documents(hook)),
            "web": project.manifests("web", deployment("web", probe_image, "sleep")),
        }
    )
    project.commit()
    tool.up(project).ok()

    (dry,) = down(tool, project.name, "--dry-run")
    assert space.itself() is not None
    assert {"configmap/chart", "deployment.apps/web"} <= set(json.loads(json.dumps(dry["objects"])))
    (done,) = down(tool, project.name)
    assert (done["deleted"], done["stuck"]) == (True, [])
    assert space.itself() is None
    (again,) = down(tool, project.name)
    assert again["deleted"] is False
    # Others say how it comes back.
    tool.run("status", project.name).failed(1, "there is no sandbox", f"`sandbox up --lock {project.name}`")
    # What never was there is a typing error, unless somebody says that it does not matter.
    unknown = f"{project.name}-x"
    tool.run("down", "--yes", unknown).failed(1, f"there is no sandbox {unknown}", "--ignore-not-found")
    # It stops none of the others, which are told.
    mixed = tool.run("down", "--yes", "-o", "name", unknown, project.name).failed(1, "there is no sandbox")
    assert mixed.out.strip() == project.name
    (ignored,) = down(tool, unknown, "--ignore-not-found")
    assert ignored["deleted"] is False


def test_the_sandbox_of_the_current_branch_is_meant_without_a_name(
    tool: Tool, project: GitProject, cluster: ClusterInfo
) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    data = tool.run("up", "-o", "json", cwd=project.folder).ok().data

    for _ in range(2):
        # A CI job may end the branch's sandbox whether it was made or not.
        tool.run("down", "--yes", cwd=project.folder).ok()

    assert Namespace(cluster, data["sandbox"]["namespace"]).itself() is None


def test_up_waits_for_the_end_of_what_is_being_deleted(tool: Tool, small: GitProject, space: Namespace) -> None:
    before = space.itself()
    assert before is not None
    tool.run("down", small.name, "--yes", "--no-wait").ok()

    tool.up(small).ok()

    after = space.itself()
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "deletionTimestamp" not in after["metadata"]


def test_nobody_is_asked_where_nobody_can_answer(tool: Tool, small: GitProject, space: Namespace) -> None:
    tool.run("down", small.name).failed(2, "--yes")

    assert space.itself() is not None


def test_what_holds_a_namespace_is_said_within_the_bound(tool: Tool, small: GitProject, space: Namespace) -> None:
    held = config_map("held", text="x")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    space.kubectl("apply", "-f", "-", stdin=documents(held))
    started = time.monotonic()

    ended = tool.run("down", small.name, "--yes", "--timeout", "8s").failed(6, "example.com/hold", "configmaps")

    assert time.monotonic() - started < 30
    assert "stuck" in ended.out
    # Of what ends, only what it waits for matters.
    said = tool.run("status", small.name).ok().out
    assert "Terminating" in said
    assert "example.com/hold" in said
    assert "Findings" not in said
    space.kubectl("patch", "configmap", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    tool.run("down", small.name, "--yes").ok()
    assert space.itself() is None


def copied(itself: dict[str, object], name: str) -> str:
    metadata = json.loads(json.dumps(itself["metadata"]))
    annotations = {**metadata["annotations"], "sandbox.dev/namespace": name}
    labels = {key: value for key, value in metadata["labels"].items() if key != "kubernetes.io/metadata.name"}
    labels["sandbox.dev/name"] = name
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
        }
    )


def test_a_namespace_that_only_looks_like_a_sandbox_is_refused(
    tool: Tool, small: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    itself = space.itself()
    assert itself is not None
    copy = Namespace(cluster, f"{small.name}-copy")
    kubectl(cluster, "apply", "-f", "-", stdin=copied(itself, copy.name))
    try:
        tool.run("down", copy.name, "--yes").failed(4, copy.name, "record")
        # With the record copied too, its UID is that of the other namespace.
        for secret in space.list("secrets"):
            if secret["metadata"]["name"].startswith("sandbox-record"):
                metadata = {key: secret["metadata"][key] for key in ("name", "labels", "annotations")}
                copy.kubectl("apply", "-f", "-", stdin=json.dumps({**secret, "metadata": metadata}))
        tool.run("down", copy.name, "--yes").failed(4, copy.name, "another namespace")

        found = copy.itself()
        assert found is not None
        assert "deletionTimestamp" not in found["metadata"]
    finally:
        kubectl(cluster, "delete", "namespace", copy.name, "--wait=false")


def test_a_namespace_that_is_not_ours_is_refused(tool: Tool, cluster: ClusterInfo, namespace: str) -> None:
    tool.run("down", namespace, "--yes").failed(4, namespace, "not a sandbox")

    found = Namespace(cluster, namespace).itself()
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]


def test_a_record_that_names_objects_of_others_does_not_reach_them(
    tool: Tool, small: GitProject, cluster: ClusterInfo, namespace: str
) -> None:
    # Whoever may write in the sandbox can rewrite the record: it is no right to delete elsewhere.
    other = Namespace(cluster, namespace)
    other.kubectl("apply", "-f", "-", stdin=documents(config_map("precious", text="x")))
    _rewrite_record(Namespace(cluster, small.name), namespace)

    tool.run("down", small.name, "--yes").ok()

    assert "precious" in other.names("configmaps")


def _rewrite_record(space: Namespace, elsewhere: str) -> None:
    secret = space.get("secret", "sandbox-record-1")
    record = json.loads(gzip.decompress(base64.b64decode(secret["data"]["record"])))
    item = {"group": "", "version": "v1", "kind": "ConfigMap", "name": "precious", "namespace": elsewhere}
    record["services"]["web"]["inventory"] = [item]
    secret["data"]["record"] = base64.b64encode(gzip.compress(json.dumps(record).encode())).decode()
    space.kubectl("replace", "-f", "-", stdin=json.dumps(secret))
