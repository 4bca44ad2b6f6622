"""`sandbox deploy`: into an environment that others use too; what fails is captured, then rolled back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.projects import Ended, GitProject, Manifest, Namespace, Tool, config_map, deployment, service

ENV = "integration"
CHART = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: {image}, args: {{{{ .Values.args | toJson }}}}}}]
"""


class Site:
    """An environment and the two repositories whose services run there: `web` (a chart) and `api` (manifests)."""

    def __init__(self, cluster: ClusterInfo, tool: Tool, folder: Path, image: str) -> None:
        self.name = f"env-{uuid.uuid4().hex[:8]}"
        self.tool = tool.with_environment(SANDBOX_CAPTURE_STORE=str(folder / "captures"))
        self.space = Namespace(cluster, self.name)
        self.image = image
        self.next = Namespace(cluster, f"{self.name}-next")
        self.environments = {ENV: {"namespace": self.name}, "staging": {"namespace": self.next.name}}
        self.web, self.api = GitProject(folder / "one"), GitProject(folder / "two")

    def declare_web(self, *args: str, **more: Manifest) -> None:
        chart = self.web.chart("web", CHART.format(name="web", image=self.image), values={"args": list(args)})
        self.web.declare({"web": {**chart, **more}}, environments=self.environments)
        self.web.commit()

    def declare_api(self, greeting: str, *args: str, **more: Manifest) -> None:
        live = deployment("api", self.image, *(args or ("serve", "8080")))
        spec = self.api.manifests("api", live, service("api"), config_map("api-words", greeting=greeting))
        declared = {"api": {**spec, "ports": {"http": 8080}, **more}}
        self.api.declare(declared, environments=self.environments)
        self.api.commit()

    def deploy(self, project: GitProject, *arguments: str) -> Ended:
        return self.tool.run("deploy", ENV, "--timeout", "60s", "-o", "json", *arguments, cwd=project.folder)

    def records(self, project: GitProject) -> list[Manifest]:
        found: list[Manifest] = self.tool.run("history", ENV, "-o", "json", cwd=project.folder).ok().data
        return found

    def args(self, workload: str) -> list[str]:
        found: list[str] = self.space.get("deployment", workload)["spec"]["template"]["spec"]["containers"][0]["args"]
        return found

    def greeting(self) -> str:
        return str(self.space.get("configmap", "api-words")["data"]["greeting"])


@pytest.fixture(scope="module")
def site(
    cluster: ClusterInfo, tool: Tool, probe_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Both services deployed; each test leaves them as it found them."""
    made = Site(cluster, tool, tmp_path_factory.mktemp("site"), probe_image)
    made.declare_web("sleep")
    made.declare_api("hello")
    made.deploy(made.web).ok()
    made.deploy(made.api).ok()
    yield made
    kubectl(cluster, "delete", "namespace", made.name, made.next.name, "--wait=false", "--ignore-not-found")


def test_each_repository_deploys_its_own_services_into_a_namespace_that_is_no_sandbox(site: Site) -> None:
    namespace = site.space.itself()
    assert namespace is not None
    assert "app.kubernetes.io/managed-by" not in namespace["metadata"]["labels"]
    assert "sandbox.dev/expires-at" not in namespace["metadata"].get("annotations", {})
    assert not site.space.names("resourcequotas,limitranges,networkpolicies")

    newest = site.records(site.web)[-1]

    assert (newest["outcome"], set(newest["services"])) == ("deployed", {"web", "api"})


def test_a_crash_is_captured_and_rolled_back_and_neighbours_stay_as_they_are(site: Site, tmp_path: Path) -> None:
    site.space.kubectl("patch", "configmap", "api-words", "--type=merge", "-p", '{"data":{"by-hand":"yes"}}')
    site.declare_web("crash", "cannot read /etc/web.conf")
    names = {"junit": "junit.xml", "summary": "summary.md", "html": "page.html"}
    pages = [word for option, name in names.items() for word in (f"--{option}", str(tmp_path / name))]

    ended = site.deploy(site.web, *pages)

    ended.failed(1, "rolled back to record", "cannot read /etc/web.conf", "sandbox capture show")
    assert (ended.data["outcome"], ended.data["failure"]["findings"][0]["service"]) == ("rolled back", "web")
    assert [s["name"] for s in ended.data["services"] if s["action"] == "rolled back"] == ["web"]
    assert site.args("web") == ["sleep"]
    assert site.space.get("configmap", "api-words")["data"]["by-hand"] == "yes"
    shown = site.tool.run("capture", "show", ended.data["capture"]["id"]).ok().out
    assert "cannot read /etc/web.conf" in "".join(shown.splitlines(True)[:4])
    assert "cannot read /etc/web.conf" in (tmp_path / "summary.md").read_text()
    assert "cannot read /etc/web.conf" in (tmp_path / "page.html").read_text().partition("<nav>")[0]
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert {case.get("name") for case in suite if case.find("failure") is not None} == {"web", ENV}
    assert [record["outcome"] for record in site.records(site.web)[-2:]] == ["failed", "deployed"]


def test_a_test_that_fails_rolls_back_what_became_ready(site: Site) -> None:
    site.declare_api("good bye")
    check = "import os,sys,urllib.request as r; print(r.urlopen(os.environ['SANDBOX_API_URL']).status); sys.exit(3)"

    ended = site.deploy(site.api, "--", sys.executable, "-c", check)

    ended.failed(1, "the test failed", "exit code 3", "200")
    assert ended.data["failure"]["findings"][0]["log_tail"] == ["200"]
    assert site.greeting() == "hello"


def test_the_composite_action_keeps_the_evidence_and_no_credentials(site: Site, tmp_path: Path) -> None:
    """Its step as GitHub would run it; GitHub itself cannot run here."""
    action = yaml.safe_load((Path(__file__).resolve().parents[2] / "action.yml").read_text())
    [step] = [step for step in action["runs"]["steps"] if step.get("id") == "deploy"]
    inputs = {name: str(given.get("default", "")) for name, given in action["inputs"].items()}
    inputs |= {"environment": ENV, "kubeconfig": Path(site.space.cluster.kubeconfig).read_text()}
    inputs |= {"command": "echo 'no such \"order\"' >&2; exit 3", "store": str(tmp_path / "captures")}
    given = {name: inputs[re.fullmatch(r"\$\{\{ inputs\.(\S+) \}\}", text)[1]] for name, text in step["env"].items()}  # type: ignore[index]
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        given[name] = str(tmp_path / name)
    site.declare_web("sleep")
    path = f"{Path(sys.executable).parent}:{site.tool.environment['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=site.web.folder,
        env={**site.tool.environment, **given, "PATH": path, "RUNNER_TEMP": str(tmp_path), "CI": "true"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines())
    assert outputs["outcome"] == "rolled back", done.stderr
    assert outputs["capture"] in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert 'no such "order"' in unescape((tmp_path / "sandbox" / "failure.html").read_text())
    assert (tmp_path / "sandbox" / "junit.xml").exists()
    assert not (tmp_path / "sandbox-kubeconfig").exists()


def test_what_does_not_render_changes_nothing_and_is_reported_the_same(site: Site, tmp_path: Path) -> None:
    before = site.space.versions()
    site.web.write({"charts/web/templates/9.yaml": "{{ .Values.no.such.value }}"})
    site.web.commit()

    junit = tmp_path / "reports" / "junit.xml"
    no_folder = junit / "summary.md"
    ended = site.deploy(site.web, "--junit", str(junit), "--summary", str(no_folder))
    site.web.remove("charts/web/templates/9.yaml")

    ended.failed(2, "was not begun; nothing was changed", "nil pointer", f"warning: {no_folder} was not written")
    assert ended.data["outcome"] == "refused"
    assert "nil pointer" in junit.read_text()
    assert site.space.versions() == before


def test_a_first_deployment_that_fails_is_removed_again(site: Site) -> None:
    site.declare_api("hello")
    broken = site.api.manifests("extra", deployment("extra", site.image, "crash", "no first time"))
    declared = {"extra": broken}
    site.api.declare(declared, environments=site.environments)
    site.api.commit()

    ended = site.deploy(site.api, "--only", "extra")
    site.declare_api("hello")

    ended.failed(1, "no first time")
    assert "extra" not in site.space.names("deployments")
    assert site.space.names("deployments") == {"web", "api"}


def test_while_another_deployment_holds_the_environment_it_is_busy(site: Site) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "sandbox-deploy"},
        "spec": {
            "holderIdentity": "elsewhere_1_1",
            "leaseDurationSeconds": 3600,
            "renewTime": "2199-01-01T00:00:00.000000Z",
        },
    }
    site.space.kubectl("apply", "-f", "-", stdin=json.dumps(lease))
    try:
        site.deploy(site.api).failed(7, "held by elsewhere_1_1")
        site.deploy(site.api, "--wait-for-lease", "1s").failed(7, "waited 1s for it")
    finally:
        site.space.kubectl("delete", "lease", "sandbox-deploy")


def test_what_others_deployed_is_refused_and_taken_over_with_adopt(
    site: Site, cluster: ClusterInfo, tmp_path: Path
) -> None:
    """Its state becomes the record that a rollback goes back to."""
    old = {**config_map("found", colour="red"), "metadata": {"name": "found"}}
    site.space.kubectl("apply", "-f", "-", stdin=json.dumps(old))
    site.space.kubectl("apply", "-f", "-", stdin=json.dumps(deployment("found", site.image, "sleep")))
    project = GitProject(tmp_path)
    new = project.manifests(
        "found", deployment("found", site.image, "crash", "after all"), config_map("found", colour="blue")
    )
    project.declare({"found": new}, environments=site.environments)
    project.commit()

    site.deploy(project).failed(4, "configmap/found", "deployment.apps/found", "--adopt")
    site.deploy(project, "--adopt").failed(1, "after all")

    assert site.space.get("configmap", "found")["data"] == {"colour": "red"}
    assert site.args("found") == ["sleep"]


def test_what_a_killed_deployment_left_is_said_and_never_taken_for_good(site: Site) -> None:
    """A neighbour's deployment that comes through in between does not vouch for it either."""
    never = {"exec": {"command": ["/probe", "crash", "not yet"]}}
    slow = deployment("api", site.image, "serve", "8080", readinessProbe=never)
    half = site.api.manifests("api", slow, config_map("api-words", greeting="half"))
    site.api.declare({"api": half}, environments=site.environments)
    site.api.commit()
    running = site.tool.start("deploy", ENV, "-v", cwd=site.api.folder)
    until(lambda: site.greeting() == "half" or None, "the deployment that is killed has not written")
    running.kill()

    site.declare_web("sleep")
    neighbour = site.deploy(site.web).ok()
    site.declare_api("broken", "crash", "no better")
    ended = site.deploy(site.api)
    site.declare_api("hello")

    assert "did not come through: interrupted; half deployed are api" in neighbour.err
    assert "half deployed, and left alone: api" in neighbour.err
    ended.failed(1, "no better")
    assert site.space.get("deployment", "api")["status"]["readyReplicas"] == 1
    assert site.greeting() == "hello"
    site.deploy(site.api).ok()


def test_a_service_that_a_failed_deployment_did_not_come_to_is_deployed_by_the_next(
    site: Site, cluster: ClusterInfo, tmp_path: Path
) -> None:
    project = GitProject(tmp_path)

    def declare(word: str, *args: str) -> None:
        first = project.manifests("first", deployment("first", site.image, *args))
        words = project.manifests("words", config_map("words", word=word))
        project.declare({"first": first, "words": {**words, "needs": ["first"]}}, environments=site.environments)
        project.commit()

    declare("old", "sleep")
    site.deploy(project).ok()
    declare("new", "crash", "at once")
    failed = site.deploy(project)
    stands = {service["name"]: service for service in failed.data["services"]}
    was = site.records(project)[-1]["services"]["words"]
    declare("new", "sleep")
    site.deploy(project).ok()

    failed.failed(1, "at once")
    assert (stands["words"]["action"], stands["words"]["commit"]) == ("unchanged", stands["first"]["commit"])
    assert stands["words"]["commit"] == was["commit"]
    assert site.space.get("configmap", "words")["data"] == {"word": "new"}


def test_what_passed_goes_to_the_next_environment_and_nothing_else_does(site: Site) -> None:
    ended = site.tool.run("promote", ENV, "staging", "-o", "json", cwd=site.api.folder).ok()

    assert [(s["name"], s["action"]) for s in ended.data["services"]] == [("api", "created")]
    assert site.next.names("deployments") == {"api"}
    assert site.next.get("configmap", "api-words")["data"] == {"greeting": "hello"}


def test_rights_inside_of_the_namespace_are_enough(site: Site, cluster: ClusterInfo, tmp_path: Path) -> None:
    """As docs/deploy.md has it: the ClusterRole `admin`, bound in the namespace."""
    site.space.kubectl("create", "serviceaccount", "ci")
    site.space.kubectl("create", "rolebinding", "ci", "--clusterrole=admin", f"--serviceaccount={site.name}:ci")
    token = site.space.kubectl("create", "token", "ci").strip()
    known = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in known["users"]:
        user["user"] = {"token": token}
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump(known))
    site.declare_api("hello from ci")

    ended = site.tool.with_environment(KUBECONFIG=str(config)).run("deploy", ENV, cwd=site.api.folder).ok()
    site.declare_api("hello")

    assert "record" in ended.err
    assert site.greeting() == "hello from ci"
    site.deploy(site.api).ok()
