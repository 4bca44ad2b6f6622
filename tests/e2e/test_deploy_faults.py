"""`sandbox deploy` when more goes wrong than the deployment: what stands is said, and the next command goes on."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.projects import Ended, GitProject, Manifest, Namespace, Running, Tool, config_map, deployment

NEVER_READY = {"readinessProbe": {"exec": {"command": ["/probe", "crash", "not yet"]}}}
CHART = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: {image}, args: {{{{ .Values.args | toJson }}}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: colour}}
data: {{colour: {{{{ .Values.colour }}}}}}
"""


@dataclass(frozen=True)
class Site:
    """An environment of one repository, and its namespace."""

    tool: Tool
    project: GitProject
    space: Namespace
    image: str

    def declare(self, *manifests: Manifest) -> None:
        self._commit(self.project.manifests("api", *manifests))

    def declare_chart(self, *args: str, colour: str) -> None:
        values = {"args": list(args), "colour": colour}
        self._commit(self.project.chart("api", CHART.format(image=self.image), values=values))

    def _commit(self, spec: Manifest) -> None:
        self.project.declare({"api": spec}, environments={"qa": {"namespace": self.space.name}})
        self.project.commit()

    def live(self, *arguments: str, **container: Any) -> Manifest:
        """Of which no pod of an earlier deployment is left while the next one starts."""
        made = deployment("api", self.image, *arguments, **container)
        made["spec"]["strategy"] = {"type": "Recreate"}
        return made

    def deploy(self, *arguments: str) -> Ended:
        return self.tool.run("deploy", "qa", "-o", "json", *arguments, cwd=self.project.folder)

    def start(self) -> Running:
        return self.tool.start("deploy", "qa", "-o", "json", cwd=self.project.folder)

    def word(self) -> str:
        return str(self.space.get("configmap", "words")["data"]["word"])


@pytest.fixture
def site(cluster: ClusterInfo, tool: Tool, probe_image: str, tmp_path: Path) -> Iterator[Site]:
    name = f"env-{uuid.uuid4().hex[:8]}"
    placed = tool.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "captures"))
    yield Site(placed, GitProject(tmp_path / "project"), Namespace(cluster, name), probe_image)
    kubectl(cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_a_rollback_that_does_not_come_through_says_what_stands_and_why(site: Site) -> None:
    site.space.kubectl("create", "namespace", site.space.name)
    site.space.kubectl("create", "configmap", "by-hand", "--from-literal=a=1")
    needs_it = {"envFrom": [{"configMapRef": {"name": "by-hand"}}]}
    site.declare(site.live("sleep", **needs_it), config_map("words", word="old"))
    site.deploy().ok()
    site.space.kubectl("delete", "configmap", "by-hand")
    site.declare(site.live("crash", "a new fault"), config_map("words", word="new"))

    ended = site.deploy("--timeout", "10s")

    ended.failed(6, "a new fault", 'configmap "by-hand" not found')
    assert ended.data["outcome"] == "incomplete"
    [stands] = ended.data["services"]
    assert (stands["name"], stands["action"]) == ("api", "stands")
    assert 'configmap "by-hand" not found' in stands["detail"]
    assert site.word() == "old"


def test_killed_while_it_rolls_back_the_next_command_brings_it_back(site: Site) -> None:
    site.declare(site.live("sleep"), config_map("words", word="old"))
    site.deploy().ok()
    site.declare(site.live("crash", "no start"), config_map("words", word="new"))
    running = site.start()
    running.read_until("Roll back to record 1", bound=120)
    running.kill()

    done = site.tool.run("rollback", "qa", "--yes", cwd=site.project.folder).ok()

    assert "record 1" in done.err
    assert site.word() == "old"
    assert site.space.get("deployment", "api")["status"]["readyReplicas"] == 1


def test_a_deployment_that_loses_its_lease_stops_and_says_what_it_left(site: Site) -> None:
    site.declare(site.live("sleep"), config_map("words", word="old"))
    site.deploy().ok()
    site.declare(site.live("sleep", **NEVER_READY), config_map("words", word="new"))
    running = site.start()
    until(lambda: site.word() == "new" or None, "the deployment has written")
    thief = {"spec": {"holderIdentity": "elsewhere_1_1", "renewTime": "2199-01-01T00:00:00.000000Z"}}
    site.space.kubectl("patch", "lease", "sandbox-deploy", "--type=merge", "-p", json.dumps(thief))

    ended = running.wait(60)

    ended.failed(6, f"the deployment lease of {site.space.name} was lost", "half deployed")
    assert [(s["name"], s["action"]) for s in ended.data["services"]] == [("api", "stands")]
    assert site.space.get("lease", "sandbox-deploy")["spec"]["holderIdentity"] == "elsewhere_1_1"


def test_a_release_of_plain_helm_is_taken_over_and_comes_back(site: Site) -> None:
    site.declare_chart("sleep", colour="red")
    words = ["helm", "upgrade", "--install", "api", str(site.project.folder / "charts/api"), "--create-namespace"]
    words += ["--namespace", site.space.name, "--kube-context", site.space.cluster.context]
    subprocess.run(words, env=site.tool.environment, check=True, timeout=60, capture_output=True)
    site.declare_chart("crash", "not so", colour="blue")

    site.deploy().failed(4, "release api, revision 1 (deployed)", "--adopt")
    ended = site.deploy("--adopt")

    ended.failed(1, "not so", "rolled back to record 0")
    assert site.space.get("configmap", "colour")["data"] == {"colour": "red"}
    assert site.space.get("deployment", "web")["status"]["readyReplicas"] == 1
