"""`sandbox up` that is interrupted, killed, or run twice at once."""

from __future__ import annotations

import os
import signal
import time

import pytest
import yaml

from tests.e2e.projects import (
    GitProject,
    Manifest,
    Namespace,
    Tool,
    config_map,
    deployment,
    descendants,
    documents,
    job,
    wait_ended,
)

EARLY = ["• Resolve source", "• Resolve images", "• Render", "• Preflight"]
LATE = ["• Namespace", "• Guardrails", "• Deploy", "apply Deployment", "0 of 1", "helm upgrade --install"]


@pytest.fixture
def slow(project: GitProject, probe_image: str) -> GitProject:
    """A chart with a migration of two seconds, and a Deployment that needs two to be ready."""
    probe = {"exec": {"command": ["/probe", "resolve", "localhost"]}, "initialDelaySeconds": 2, "periodSeconds": 1}
    migration = job("migrate", probe_image, "wait", "2s", annotations={"helm.sh/hook": "pre-install,pre-upgrade"})
    services: dict[str, Manifest] = {
        "chart": project.chart("chart", documents(migration), documents(config_map("chart", text="x"))),
        "plain": project.manifests("plain", deployment("plain", probe_image, "sleep", readinessProbe=probe)),
    }
    project.declare(services)
    project.commit()
    return project


def check_expiry(space: Namespace) -> None:
    itself = space.itself()
    if itself is not None:
        assert itself["metadata"]["annotations"]["sandbox.dev/expires-at"]
        assert itself["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "sandbox"


def check_converges(tool: Tool, project: GitProject, space: Namespace) -> None:
    tool.up(project).ok()
    assert space.get("deployment", "plain")["status"]["availableReplicas"] == 1
    assert space.get("configmap", "chart")["data"] == {"text": "x"}
    assert space.annotations()["sandbox.dev/phase"] == "Ready"


def test_killed_before_the_first_write_nothing_is_left(tool: Tool, slow: GitProject, space: Namespace) -> None:
    for step in EARLY:
        running = tool.start_up(slow)
        running.read_until(step)
        wait_ended(running.kill())
        check_expiry(space)
    tool.run("list").ok()
    # The next command tidies up after those that were killed.
    tool.plan(slow)
    assert list((tool.home / "cache" / "work").iterdir()) == []


@pytest.mark.parametrize("step", LATE)
def test_killed_at_a_step_a_second_run_converges(tool: Tool, slow: GitProject, space: Namespace, step: str) -> None:
    running = tool.start_up(slow)
    running.read_until(step)

    wait_ended(running.kill())

    check_expiry(space)
    check_converges(tool, slow, space)
    assert "sandbox-deploy" not in space.names("leases")


@pytest.mark.parametrize("step", ["• Resolve source", "• Guardrails", "helm upgrade --install", "0 of 1"])
def test_interrupted_at_a_step_it_ends_at_once_and_a_second_run_converges(
    tool: Tool, slow: GitProject, space: Namespace, step: str
) -> None:
    running = tool.start_up(slow)
    running.read_until(step)
    children = descendants(running.process.pid)

    os.kill(running.process.pid, signal.SIGINT)
    started = time.monotonic()
    running.wait(15).failed(130, "interrupted")

    assert time.monotonic() - started < 10
    wait_ended(children, 2)
    check_expiry(space)
    check_converges(tool, slow, space)
    assert "sandbox-deploy" not in space.names("leases")


@pytest.mark.parametrize(
    ("step", "sign"),
    [("• Remove extra", signal.SIGKILL), ("✓ Remove extra", signal.SIGKILL), ("• Remove extra", signal.SIGINT)],
)
def test_ended_while_it_removes_a_service_or_after_it_a_second_run_converges(
    tool: Tool, slow: GitProject, space: Namespace, step: str, sign: signal.Signals
) -> None:
    declared = yaml.safe_load((slow.folder / "sandbox.yaml").read_text())
    extra = slow.manifests("extra", *(config_map(f"extra-{number}", text="x") for number in range(20)))
    slow.declare({**declared["services"], "extra": extra})
    slow.commit("Bring a service that the next commit does not have")
    tool.up(slow).ok()
    slow.git("revert", "--no-edit", "HEAD")
    running = tool.start_up(slow)
    running.read_until(step)

    os.kill(running.process.pid, sign)
    running.wait(30)

    check_converges(tool, slow, space)
    assert not {name for name in space.names("configmaps") if name.startswith("extra")}


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_ended_while_it_rolls_back_a_second_rollback_converges(
    tool: Tool, slow: GitProject, space: Namespace, probe_image: str, sign: signal.Signals
) -> None:
    tool.up(slow).ok()
    slow.write({"charts/chart/templates/1.yaml": documents(config_map("chart", text="other"))})
    slow.commit("Change the chart")
    tool.up(slow).ok()
    assert space.get("configmap", "chart")["data"] == {"text": "other"}
    running = tool.start("rollback", slow.name, "--yes")
    running.read_until("• Roll back")

    os.kill(running.process.pid, sign)
    running.wait(30)

    tool.run("rollback", slow.name, "--to", "1", "--yes").ok()
    assert space.get("configmap", "chart")["data"] == {"text": "x"}
    slow.git("revert", "--no-edit", "HEAD")
    check_converges(tool, slow, space)


def test_killed_during_an_upgrade_what_it_had_done_is_known(
    tool: Tool, slow: GitProject, space: Namespace, probe_image: str
) -> None:
    tool.up(slow).ok()
    plain = deployment("plain", probe_image, "sleep", env=[{"name": "A", "value": "b"}])
    slow.manifests("plain", plain, config_map("new", text="x"))
    slow.commit("Bring a ConfigMap, which the next commit does not have")
    running = tool.start_up(slow)
    running.read_until("apply Deployment")
    wait_ended(running.kill())
    slow.git("revert", "--no-edit", "HEAD")

    tool.up(slow).ok()

    assert "new" not in space.names("configmaps")


def test_two_at_once_one_is_told_that_the_other_is_at_work(tool: Tool, slow: GitProject) -> None:
    first = tool.start_up(slow)
    first.read_until("• Deploy")

    tool.up(slow).failed(7, "another deployment", "held by")

    first.wait(90).ok()
