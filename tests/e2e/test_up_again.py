"""`sandbox up` run again: nothing, what changed, what went, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.cluster.providers import ClusterInfo
from sandbox.model.durations import to_rfc3339
from tests.conftest import kubectl
from tests.e2e.projects import GitProject, Namespace, Tool, config_map, deployment, documents, temporary_project

CHART = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: 1
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}"}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: {{ .Values.image | quote }}
        args: {{ .Values.args | toJson }}
        env: [{name: TEXT, value: "{{ .Values.text }}"}]
"""


def declare(project: GitProject, image: str, *, text: str = "1", args: tuple[str, ...] = ("sleep",)) -> None:
    """A chart, a Deployment by manifests, and a service without pods."""
    values = {"image": image, "args": list(args), "text": text}
    project.declare(
        {
            "chart": project.chart("chart", CHART, values=values),
            "plain": project.manifests("plain", deployment("plain", image, "sleep"), config_map("plain", text="1")),
            "extra": project.manifests("extra", config_map("extra", text="1"), config_map("other", text="1")),
        }
    )


@pytest.fixture(scope="module")
def deployed(
    tool: Tool, cluster: ClusterInfo, probe_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GitProject, Namespace]]:
    """A sandbox of three services, which the tests of this module change one after the other."""
    with temporary_project(cluster, tmp_path_factory.mktemp("again")) as project:
        declare(project, probe_image)
        project.commit("The first")
        tool.up(project).ok()
        yield project, Namespace(cluster, project.name)


Deployed = tuple[GitProject, Namespace]


def actions(data: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {service["name"]: service["action"] for service in data["services"]}


def test_the_same_commit_again_writes_nothing_but_the_expiry(tool: Tool, deployed: Deployed) -> None:
    project, space = deployed
    # Times are whole seconds, and the deployment before may have ended in this one.
    soon = to_rfc3339(datetime.now(UTC) + timedelta(hours=1))
    space.kubectl("annotate", "namespace", space.name, f"sandbox.dev/expires-at={soon}", "--overwrite")
    before, expiry = space.versions(), space.annotations()

    ended = tool.up(project).ok()

    assert space.versions() == before
    assert set(actions(ended.data).values()) == {"unchanged"}
    assert ended.data["record"] == 1
    after = space.annotations()
    assert after.pop("sandbox.dev/expires-at") > expiry.pop("sandbox.dev/expires-at")
    assert after == expiry


def test_a_dry_run_changes_nothing(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    before, itself = space.versions(), space.itself()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "hidden-password"}}
    project.declare({"plain": project.manifests("plain", deployment("plain", probe_image, "sleep"), secret)})

    ended = tool.up(project, "--dry-run", "--dirty").ok()
    text = tool.run("up", "--name", project.name, "--dry-run", "--dirty", cwd=project.folder).ok()

    project.git("checkout", "--quiet", ".")
    assert space.versions() == before
    assert space.itself() == itself
    found = {service["name"]: service["action"] for service in ended.data["plan"]["services"]}
    assert found == {"plain": "upgraded", "chart": "pruned", "extra": "pruned"}
    kinds = [manifest["kind"] for manifest in ended.data["manifests"]]
    assert kinds.index("ResourceQuota") < kinds.index("Deployment")
    assert "Nothing was changed." in text.out
    assert "REQUESTED" in text.out
    assert "hidden-password" not in ended.out + ended.err + text.out + text.err


def test_a_dry_run_makes_no_namespace(tool: Tool, project: GitProject, space: Namespace) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()

    assert tool.plan(project, "--name", project.name)["plan"]["sandbox"]["namespace"] == space.name

    assert space.itself() is None


def test_only_what_changed_is_upgraded(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    before = space.versions()
    declare(project, probe_image, text="2")
    sha = project.commit("Change the chart's values")

    ended = tool.up(project).ok()

    assert actions(ended.data) == {"chart": "upgraded", "plain": "unchanged", "extra": "unchanged"}
    after = space.versions()
    assert after["Deployment/chart"] != before["Deployment/chart"]
    for name in ("Deployment/plain", "ConfigMap/plain", "ConfigMap/extra", "ConfigMap/other"):
        assert after[name] == before[name], name
    (container,) = space.get("deployment", "chart")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "TEXT", "value": "2"}]
    assert space.annotations()["sandbox.dev/commit"] == sha
    assert ended.data["record"] == 2


def test_changes_by_hand_do_not_stand_in_the_way(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    for name in ("chart", "plain"):
        space.kubectl("scale", f"deployment/{name}", "--replicas=2")
        space.kubectl("set", "env", f"deployment/{name}", "TEXT=by-hand")
    declare(project, probe_image, text="3")
    project.manifests("plain", deployment("plain", probe_image, "sleep", env=[{"name": "TEXT", "value": "3"}]))
    project.commit("Change both")

    tool.up(project).ok()

    for name in ("chart", "plain"):
        spec = space.get("deployment", name)["spec"]
        assert spec["replicas"] == 1, name
        assert spec["template"]["spec"]["containers"][0]["env"] == [{"name": "TEXT", "value": "3"}], name


def test_objects_that_a_service_no_longer_has_are_pruned(tool: Tool, deployed: Deployed) -> None:
    project, space = deployed
    by_hand = config_map("by-hand", text="mine")
    space.kubectl("apply", "-f", "-", stdin=documents(by_hand))
    project.manifests("extra", config_map("extra", text="1"))
    project.commit("Drop a ConfigMap")

    tool.up(project).ok()

    names = space.names("configmaps")
    assert "other" not in names
    assert {"extra", "by-hand"} <= names


def test_a_failing_upgrade_stays_and_rollback_goes_back(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    good = max(entry["number"] for entry in tool.run("history", "-s", project.name, "-o", "json").ok().data)
    before = space.names("configmaps")
    declare(project, probe_image, text="broken", args=("crash", "no database there"))
    project.commit("Break it")

    failed = tool.up(project).failed(1, "no database there", "exit code 1", "sandbox rollback")

    assert f"record {good}" in failed.err
    assert space.annotations()["sandbox.dev/phase"] == "Failed"
    (container,) = space.get("deployment", "chart")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["crash", "no database there"]

    planned = tool.run("rollback", project.name, "--dry-run", "-o", "name").ok()
    assert planned.out.strip() == str(good)
    shown = tool.run("rollback", project.name, "--yes", "-v").ok().err
    assert f"-n {space.name} rollback chart " in shown
    assert "-f plain.yaml" in shown

    (container,) = space.get("deployment", "chart")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["sleep"]
    assert space.get("deployment", "chart")["status"].get("availableReplicas") == 1
    # Rolled back too: what the failing commit had changed otherwise.
    assert space.names("configmaps") == before
    assert space.annotations()["sandbox.dev/phase"] == "Ready"
    newest = tool.run("history", "-s", project.name, "-o", "json").ok().data
    assert max(entry["number"] for entry in newest) > good


def test_a_failing_upgrade_is_rolled_back_when_asked(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    declare(project, probe_image, text="broken again", args=("crash", "still no database"))
    project.manifests("plain", deployment("plain", probe_image, "crash", "neither here"))
    project.commit("Break two")

    ended = tool.up(project, "--rollback-on-failure").failed(1, "rolled back to record")

    assert "still no database" in ended.err or "neither here" in ended.err
    for name in ("chart", "plain"):
        (container,) = space.get("deployment", name)["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["sleep"], name
        assert space.get("deployment", name)["status"].get("availableReplicas") == 1, name
    assert space.annotations()["sandbox.dev/phase"] == "Ready"


def test_a_service_that_the_project_no_longer_has_is_removed(tool: Tool, deployed: Deployed, probe_image: str) -> None:
    project, space = deployed
    project.declare({"plain": project.manifests("plain", deployment("plain", probe_image, "sleep"))})
    project.commit("One service is enough")

    ended = tool.up(project, "-v").ok()

    found = actions(ended.data)
    assert (found["chart"], found["extra"]) == ("pruned", "pruned")
    assert f"-n {space.name} uninstall chart" in ended.err
    assert f"-n {space.name} delete --ignore-not-found configmap/extra" in ended.err
    assert space.names("deployments") == {"plain"}
    assert "extra" not in space.names("configmaps")
    assert not [name for name in space.names("secrets") if name.startswith("sh.helm.release.v1.chart.")]


def test_an_expiry_that_was_extended_further_is_kept(tool: Tool, deployed: Deployed) -> None:
    project, space = deployed
    later = to_rfc3339(datetime.now(UTC).replace(microsecond=0) + timedelta(days=3))
    note = f"sandbox.dev/expires-at={later}"
    kubectl(space.cluster, "annotate", "namespace", space.name, note, "--overwrite")

    tool.up(project).ok()

    assert space.annotations()["sandbox.dev/expires-at"] == later


def test_what_is_broken_by_hand_is_mended_by_the_same_commit(tool: Tool, deployed: Deployed) -> None:
    project, space = deployed
    space.kubectl("delete", "deployment", "plain")

    tool.up(project).ok()

    assert space.get("deployment", "plain")["status"].get("availableReplicas") == 1
