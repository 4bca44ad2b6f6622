"""`sandbox up` finds the commit that is meant, and what is deployed of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.e2e.projects import (
    GitProject,
    Namespace,
    Tool,
    config_map,
    deployment,
    documents,
    temporary_project,
)


@pytest.fixture(scope="module")
def history(cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitProject]:
    """Three commits on `main` with the tag `v1` on the second, a feature branch, and a remote that has `main`."""
    folder = tmp_path_factory.mktemp("history")
    with temporary_project(cluster, folder / "work") as project:
        for number in ("1", "2", "3"):
            project.declare({"web": project.manifests("web", config_map("web", number=number))})
            project.commit(f"Count to {number}")
            if number == "2":
                project.tag("v1")
        project.git("remote", "add", "origin", project.bare(folder / "remote.git"))
        project.git("fetch", "--quiet", "origin")
        project.branch("feature/login")
        project.declare({"web": project.manifests("web", config_map("web", number="4"))})
        project.commit("Let people log in")
        yield project


def test_a_feature_branch_is_deployed_from_a_folder_inside_the_working_tree(
    tool: Tool, history: GitProject, cluster: ClusterInfo
) -> None:
    deep = history.folder / "k8s"

    data = tool.run("up", "-o", "json", cwd=deep).ok().data

    assert data["commit"]["sha"] == history.git("rev-parse", "feature/login")
    assert data["sandbox"]["name"].endswith(f"-{history.name}-feature--login")
    space = Namespace(cluster, data["sandbox"]["namespace"])
    assert space.get("configmap", "web")["data"] == {"number": "4"}
    assert space.annotations()["sandbox.dev/commit"] == data["commit"]["sha"]


@pytest.mark.parametrize(
    ("ref", "same_as"),
    [
        ("main", "main"),
        ("v1", "v1"),
        ("HEAD~2", "HEAD~2"),
        ("origin/main", "main"),
        ("short", "HEAD~1"),
        ("v1~1", "v1~1"),
    ],
)
def test_a_ref_may_be_written_as_git_takes_it(tool: Tool, history: GitProject, ref: str, same_as: str) -> None:
    sha = history.git("rev-parse", f"{same_as}^{{commit}}")

    plan = tool.plan(history, "--ref", sha[:8] if ref == "short" else ref)

    assert plan["plan"]["commit"]["sha"] == sha


def test_a_branch_that_was_never_fetched_is_deployed_from_a_bare_address(
    tool: Tool, history: GitProject, tmp_path: Path
) -> None:
    url = history.bare(tmp_path / "bare.git")
    tool.plan(history, "--repo", url, "--ref", "main")
    # Made only now: what an earlier run fetched does not have it.
    history.git("push", "--quiet", url, "feature/login~1:refs/heads/later")

    plan = tool.plan(history, "--repo", url, "--ref", "later", cwd=tmp_path)

    assert plan["plan"]["commit"]["sha"] == history.git("rev-parse", "feature/login~1")
    assert plan["plan"]["commit"]["branch"] == "later"


def test_uncommitted_changes_are_said_and_not_deployed(tool: Tool, project: GitProject, space: Namespace) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="committed"))})
    project.commit()
    project.manifests("web", config_map("web", text="edited"))

    ended = tool.up(project).ok()

    assert "1 uncommitted change" in ended.err
    assert "--dirty" in ended.err
    assert space.get("configmap", "web")["data"] == {"text": "committed"}
    assert ended.data["commit"]["dirty"] is False


def test_a_dirty_tree_is_deployed_when_asked_and_its_record_holds_the_patch(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    project.declare({"web": {"manifests": {"paths": ["k8s"]}}})
    project.manifests("web", config_map("web", text="committed"))
    project.commit()
    project.manifests("web", config_map("web", text="edited"))
    project.write({"k8s/untracked.yaml": documents(config_map("untracked", text="new"))})

    ended = tool.up(project, "--dirty").ok()

    assert ended.data["commit"]["dirty"] is True
    assert space.get("configmap", "web")["data"] == {"text": "edited"}
    assert space.get("configmap", "untracked")["data"] == {"text": "new"}
    record = tool.run("get", "record", "-s", project.name, "-o", "json").ok().data
    assert "+  text: edited" in record["patch"]
    assert "k8s/untracked.yaml" in record["patch"]
    assert record["services"]["web"]["lock"]["dirty"] is True
    # The patch is what is missing to have the same tree again.
    project.git("stash", "--quiet", "--include-untracked")
    (project.folder / "kept.patch").write_text(record["patch"])
    project.git("apply", "--check", "kept.patch")


def test_a_commit_that_no_remote_has_is_marked(tool: Tool, history: GitProject) -> None:
    assert tool.plan(history, "--ref", "feature/login")["plan"]["commit"]["pushed"] is False
    assert tool.plan(history, "--ref", "main")["plan"]["commit"]["pushed"] is True


CHART = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}"}
data: {text: "{{ .Values.text }}"}
"""


def _as_chart(project: GitProject) -> None:
    project.chart("web", CHART, values={"text": "chart"})


def _as_kustomization(project: GitProject) -> None:
    project.write(
        {
            "web/base/kustomization.yaml": documents({"resources": ["web.yaml"]}),
            "web/base/web.yaml": documents(config_map("web", text="base")),
            "web/overlays/dev/kustomization.yaml": documents({"resources": ["../../base"], "namePrefix": "dev-"}),
        }
    )


def _as_manifests(project: GitProject) -> None:
    project.write({"web/k8s/web.yaml": documents(deployment("web", "example.com/web:1"))})


def _as_charts_and_values(project: GitProject) -> None:
    project.chart("web", CHART)
    (project.folder / "charts").rename(project.folder / "helm-charts")
    project.write({"helm-values/web/dev-config.yaml": documents({"text": "of dev"})})
    project.write({"helm-values/web/qa-config.yaml": documents({"text": "of qa"})})


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (_as_chart, ("chart", "ConfigMap", "web")),
        (_as_kustomization, ("kustomize", "ConfigMap", "dev-web")),
        (_as_manifests, ("manifests", "Deployment", "web")),
        (_as_charts_and_values, ("chart", "ConfigMap", "web")),
    ],
)
def test_a_usual_layout_is_found_without_sandbox_yaml(
    tool: Tool, project: GitProject, layout: object, expected: tuple[str, str, str]
) -> None:
    assert callable(layout)
    layout(project)
    project.commit()

    found = tool.plan(project)

    (service,) = found["plan"]["services"]
    named = [(service["lock"]["kind"], m["kind"], m["metadata"]["name"]) for m in found["manifests"]]
    assert expected in named


def test_detected_values_files_follow_the_environment(tool: Tool, project: GitProject, space: Namespace) -> None:
    _as_charts_and_values(project)
    project.commit()

    ended = tool.up(project, "--env", "qa").ok()

    assert space.get("configmap", "web")["data"] == {"text": "of qa"}
    assert "env qa, quota small, ttl 8h, base none" in ended.err


def test_variables_of_the_sandbox_can_be_used_in_values(tool: Tool, project: GitProject, space: Namespace) -> None:
    chart = project.chart("web", CHART)
    text = "${SANDBOX_NAME} ${SANDBOX_NAMESPACE} ${SANDBOX_HOST} ${SANDBOX_ENV} ${SANDBOX_COMMIT} ${HOME}"
    chart["chart"] |= {"values": ["values/${SANDBOX_ENV}.yaml"]}
    project.write({"values/dev.yaml": documents({"text": text})})
    project.declare({"web": chart})
    sha = project.commit()

    tool.up(project).ok()

    name = project.name
    assert space.get("configmap", "web")["data"]["text"] == (
        f"{name} {name} {name}.sandbox.localhost dev {sha} ${{HOME}}"
    )


def test_values_of_the_command_line_win(tool: Tool, project: GitProject, tmp_path: Path) -> None:
    services = {
        name: project.chart(name, CHART) | {"environments": {"dev": {"set": {"text": "env"}}}} for name in ("a", "b")
    }
    project.declare(services)
    project.commit()
    extra = tmp_path / "extra.yaml"
    extra.write_text(documents({"text": "file"}))

    plan = tool.plan(project, "-f", str(extra), "--set", "b.text=set")

    texts = {m["metadata"]["name"]: m["data"]["text"] for m in plan["manifests"] if m["kind"] == "ConfigMap"}
    assert texts == {"a": "file", "b": "set"}


def test_a_service_of_another_repository_is_deployed_at_its_ref(
    tool: Tool, project: GitProject, space: Namespace, tmp_path: Path
) -> None:
    other = GitProject(tmp_path / "other")
    other.manifests("orders", config_map("orders", text="main"))
    other.commit()
    other.branch("stable")
    other.manifests("orders", config_map("orders", text="stable"))
    sha = other.commit()
    other.git("switch", "--quiet", "main")
    source = {"source": {"repo": other.bare(tmp_path / "other.git"), "ref": "stable"}}
    project.declare({"orders": {**source, "manifests": {"paths": ["k8s"]}}})
    project.commit()

    tool.up(project).ok()

    assert space.get("configmap", "orders")["data"] == {"text": "stable"}
    record = tool.run("get", "record", "-s", project.name, "-o", "json").ok().data
    assert record["services"]["orders"]["lock"]["commit"] == sha
