"""`sandbox sleep` and `wake` with real pods; and what comes back after a clean-up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.model import labels
from tests.e2e.bounded import until
from tests.e2e.projects import GitProject, Manifest, Namespace, Tool, config_map, deployment, documents, pods


def cron_job(name: str, image: str) -> Manifest:
    template = pods(name, image, "sleep")
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
    }


def autoscaler(name: str) -> Manifest:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3},
    }


@pytest.fixture
def deployed(tool: Tool, project: GitProject, probe_image: str) -> GitProject:
    """Two replicas behind an autoscaler, a chart's one that gives no number, a CronJob."""
    bare = deployment("chart", probe_image, "sleep")
    del bare["spec"]["replicas"]
    web = [deployment("web", probe_image, "sleep", replicas=2), autoscaler("web"), cron_job("nightly", probe_image)]
    project.declare({"web": project.manifests("web", *web), "chart": project.chart("chart", documents(bare))})
    project.commit()
    tool.up(project).ok()
    return project


def replicas(space: Namespace) -> dict[str, int]:
    return {item["metadata"]["name"]: item["spec"]["replicas"] for item in space.list("deployments")}


def states(tool: Tool, name: str) -> dict[str, str]:
    data = tool.run("status", name, "-o", "json").ok().data
    return {service["name"]: service["state"] for service in data["services"]}


def phase(tool: Tool, name: str) -> str:
    (listed,) = tool.run("list", "-l", f"{labels.NAME}={name}", "-o", "json").ok().data
    return str(listed["phase"])


def no_pods(space: Namespace) -> bool | None:
    return True if not space.names("pods") else None


def test_a_sandbox_sleeps_and_wakes_as_it_was(tool: Tool, deployed: GitProject, space: Namespace) -> None:
    name = deployed.name
    before = replicas(space)
    assert before == {"web": 2, "chart": 1}

    dry = tool.run("sleep", name, "--dry-run", "-o", "json").ok().data
    assert replicas(space) == before
    done = tool.run("sleep", name, "-o", "json").ok().data
    assert dry[0]["changed"] == done[0]["changed"]
    assert set(done[0]["changed"]) == {"deployment.apps/web", "deployment.apps/chart", "cronjob.batch/nightly"}
    until(lambda: no_pods(space), "all pods end", 60)

    assert replicas(space) == {"web": 0, "chart": 0}
    assert space.get("cronjob", "nightly")["spec"]["suspend"] is True
    # Asleep is not failed.
    assert phase(tool, name) == "Sleeping"
    assert states(tool, name) == {"web": "sleeping", "chart": "sleeping"}
    # Who wants to go in learns why they cannot, and what to do.
    for command in (["exec", "web", "--", "true"], ["open", "web", "--check", "/"], ["port-forward", "web"], ["logs"]):
        tool.run(command[0], "-s", name, *command[1:]).failed(1, f"{name} sleeps", f"sandbox wake {name}")
    # Its time goes on, and can be extended.
    tool.run("extend", name, "9h").ok()
    assert phase(tool, name) == "Sleeping"
    # Once more changes nothing, and forgets nothing.
    assert tool.run("sleep", name, "-o", "json").ok().data[0]["changed"] == []

    tool.run("wake", name, "-o", "json").ok()
    assert replicas(space) == before
    assert space.get("cronjob", "nightly")["spec"].get("suspend") is False
    assert phase(tool, name) == "Ready"
    assert states(tool, name) == {"web": "ready", "chart": "ready"}
    for item in space.list("deployments,cronjobs"):
        assert labels.AWAKE not in item["metadata"].get("annotations", {})
    assert tool.run("wake", name, "-o", "json").ok().data[0]["changed"] == []


def test_a_wake_that_was_interrupted_is_run_again(tool: Tool, deployed: GitProject, space: Namespace) -> None:
    name = deployed.name
    tool.run("sleep", name).ok()
    # As one that woke one of them, said that all is awake, and was killed.
    woken = {"metadata": {"annotations": {labels.AWAKE: None}}, "spec": {"replicas": 1}}
    space.kubectl("patch", "deployment", "chart", "--type=merge", "-p", json.dumps(woken))
    note = json.dumps({"metadata": {"annotations": {labels.PHASE: "Ready"}}})
    space.kubectl("patch", "namespace", name, "--type=merge", "-p", note)

    assert set(tool.run("wake", name, "-o", "json").ok().data[0]["changed"]) == {
        "deployment.apps/web",
        "cronjob.batch/nightly",
    }

    assert replicas(space) == {"web": 2, "chart": 1}


def test_up_wakes_what_sleeps(tool: Tool, deployed: GitProject, space: Namespace) -> None:
    tool.run("sleep", deployed.name).ok()

    data: dict[str, Any] = tool.up(deployed).ok().data

    assert data["sandbox"]["phase"] == "Ready"
    assert replicas(space) == {"web": 2, "chart": 1}
    assert states(tool, deployed.name) == {"web": "ready", "chart": "ready"}
    assert space.get("cronjob", "nightly")["spec"].get("suspend") is False


def test_a_sandbox_that_was_cleaned_up_comes_back_by_its_lock(
    tool: Tool, project: GitProject, space: Namespace, tmp_path: Path
) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="first"))})
    sha = project.commit()
    tool.up(project).ok()
    project.declare({"web": project.manifests("web", config_map("web", text="second"))})
    project.commit()
    past = json.dumps({"metadata": {"annotations": {labels.EXPIRES_AT: "2020-01-01T00:00:00Z"}}})
    space.kubectl("patch", "namespace", project.name, "--type=merge", "-p", past)
    selector = f"{labels.PROJECT}={project.name}"

    done = tool.run("cleanup", "--yes", "-l", selector, "--store", str(tmp_path / "store"), "-o", "json").ok()
    (deleted,) = [line for line in map(json.loads, done.out.splitlines()) if line["action"] == "deleted"]
    until(lambda: True if space.itself() is None else None, "the namespace is gone", 60)
    tool.up(project, "--lock", deleted["lock"] + "x").failed(2, "there is no lock")
    data = tool.up(project, "--lock", deleted["lock"]).ok().data

    assert data["commit"]["sha"] == sha
    assert space.get("configmap", "web")["data"] == {"text": "first"}
