"""What one does when a deployment failed: its capture reproduced with a fix, or with the data from before it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.datastores import PASSWORD, base_image, postgres
from tests.e2e.projects import Ended, GitProject, Manifest, Namespace, Tool, service

ENV = "integration"
_WEB = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app.kubernetes.io/instance: "{{ .Release.Name }}"}
  annotations: {note: {{ .Values.note | quote }}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {{ .Values.base }}
          command: [sh, -c, {{ .Values.script | quote }}]
          envFrom: [{secretRef: {name: web}}]
          env: {{ toYaml .Values.env | nindent 12 }}
"""
_MIGRATE = """
apiVersion: batch/v1
kind: Job
metadata:
  name: web-migrate
  labels: {app.kubernetes.io/instance: "{{ .Release.Name }}"}
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: migrate
          image: {{ .Values.base }}
          command: [sh, -c, "exec psql -q -h db -U postgres -v ON_ERROR_STOP=1 -c \\"$SQL\\""]
          env:
            - {name: PGPASSWORD, value: {{ .Values.password }}}
            - {name: SQL, value: {{ .Values.sql | quote }}}
"""
# The Secret is the chart's: its value is another one in each rendering.
_SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: web}
stringData: {TOKEN: "{{ randAlphaNum 24 }}"}
"""
_STARTS = '[ -n "$PAYMENT_URL" ] || { echo "error: PAYMENT_URL is not set" >&2; exit 3; }; exec sleep 3600'
_FIRST = "CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, total int)"
_SECOND = f"{_FIRST}; ALTER TABLE orders ADD COLUMN IF NOT EXISTS paid bool; INSERT INTO orders (total) VALUES (1)"
_PAYMENT = [{"name": "PAYMENT_URL", "value": "http://payment"}]


@dataclass(frozen=True)
class Failed:
    """An environment whose deployment crashed at its start, after it had changed the database; its capture."""

    space: Namespace
    project: GitProject
    tool: Tool
    image: str
    capture: str

    def run(self, *arguments: str) -> Ended:
        return self.tool.run(*arguments, cwd=self.project.folder)


def declare(project: GitProject, image: str, namespace: str, **values: Any) -> None:
    """Write a database and a chart that migrates it."""
    stores = {"db": project.manifests("db", _kept(postgres("db", image)), service("db", 5432))}
    given: dict[str, Any] = {"base": image, "password": PASSWORD, "script": "exec sleep 3600", "sql": _FIRST}
    given |= {"env": [], "note": "", **values}
    web = {**project.chart("web", _WEB, _MIGRATE, _SECRET, values=given), "needs": ["db"]}
    services = {**stores, "web": {**web, "migrations": {"restore": "fixtures"}}}
    project.declare(services, environments={ENV: {"namespace": namespace}}, defaults={"ttl": "3h"})


def _kept(pod: Manifest) -> Manifest:
    name, label = pod["metadata"]["name"], {**pod["metadata"]["labels"], "app": pod["metadata"]["name"]}
    template = {"metadata": {"labels": label}, "spec": pod["spec"]}
    spec = {"serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def failed(cluster: ClusterInfo, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    folder = tmp_path_factory.mktemp("failed")
    project, image = GitProject(folder), base_image(cluster)
    space = Namespace(cluster, f"env-{uuid.uuid4().hex[:8]}")
    keeper = tool.with_environment(SANDBOX_CAPTURE_STORE=str(folder / "captures"))
    declare(project, image, space.name)
    project.commit("Begin")
    deploy = ("deploy", ENV, "--timeout", "90s", "-o", "json")
    keeper.run(*deploy, cwd=project.folder).ok()
    sql(space, "INSERT INTO orders (total) VALUES (10), (20), (30)")
    project.branch("payment")
    declare(project, image, space.name, script=_STARTS, sql=_SECOND)
    project.commit("Pay")
    ended = keeper.run(*deploy, cwd=project.folder)
    ended.failed(1, "error: PAYMENT_URL is not set", "rolled back")
    project.branch("fix")
    declare(project, image, space.name, script=_STARTS, sql=_SECOND, env=_PAYMENT)
    project.commit("Say where to pay")
    project.git("switch", "--quiet", "payment")
    yield Failed(space, project, keeper, image, ended.data["capture"]["id"])
    kubectl(cluster, "delete", "namespace", space.name, "--wait=false")


def sql(space: Namespace, statement: str) -> str:
    where = ("exec", "-i", "-n", space.name, "db-0")
    return kubectl(space.cluster, *where, "--", "psql", "-U", "postgres", "-At", "-q", stdin=statement).strip()


@dataclass(frozen=True)
class Again:
    """A reproduction: its sandbox, and what was said of it."""

    space: Namespace
    ended: Ended

    @property
    def report(self) -> dict[str, tuple[str, str]]:
        return {line["name"]: (line["outcome"], line["why"]) for line in self.ended.data["report"]}


def reproduced(failed: Failed, *arguments: str) -> Iterator[Again]:
    name = f"again-{uuid.uuid4().hex[:8]}"
    bound = ("--verdict-timeout", "90s")
    ended = failed.run("reproduce", failed.capture, "--name", name, "-o", "json", *bound, *arguments)
    yield Again(Namespace(failed.space.cluster, name), ended)
    kubectl(failed.space.cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def fixed(failed: Failed) -> Iterator[Again]:
    """The capture with the service at the commit that mends it."""
    yield from reproduced(failed, "--replace", "web=fix")


@pytest.fixture(scope="module")
def before(failed: Failed) -> Iterator[Again]:
    """The capture with the data that it had before the deployment that failed."""
    yield from reproduced(failed, "--state", "before")


def test_with_the_fix_nothing_fails(failed: Failed, fixed: Again) -> None:
    assert fixed.ended.code == 3, fixed.ended.err
    assert fixed.ended.data["verdict"]["verdict"] == "no failure", fixed.ended.err
    commit = failed.project.git("rev-parse", "fix")
    assert fixed.ended.data["replaced"]["web"]["commit"] == commit
    assert fixed.report["source/web"] == ("substituted", f"replaced by {commit[:12]}: Say where to pay")
    [container] = fixed.space.get("deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == _PAYMENT
    # As the project's own sandbox.yaml says.
    assert fixed.space.annotations()["sandbox.dev/ttl"] == "3h"
    assert f"replaced by {commit[:12]}" in failed.run("status", fixed.space.name).ok().out


def test_the_fix_has_the_data_of_the_failure(failed: Failed, fixed: Again) -> None:
    # Three, one by the migration that had run, one by the fix's.
    assert sql(fixed.space, "SELECT count(*), sum(total), count(paid) FROM orders") == "5|62|0"
    assert fixed.report["statefulset.apps/db"][0] == "reproduced"
    assert fixed.report["fixture/db"][0] == "reproduced"
    # The chart would have made up another one.
    assert "new values for TOKEN" in fixed.report["secret/web"][1]


def test_it_fails_again_with_the_data_from_before_the_deployment(before: Again) -> None:
    before.ended.ok()
    assert before.ended.data["verdict"]["verdict"] == "same failure"
    assert before.report["fixture/db"][0] == "substituted"
    assert "before the deployment" in before.report["fixture/db"][1]
    # Its migration ran again, once.
    until(lambda: sql(before.space, "SELECT count(*), sum(total) FROM orders") == "4|61" or None, "it is migrated", 60)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--replace", "web"], "SERVICE=REF"),
        (["--replace", "wep=fix"], "no service wep"),
        (["--replace", "web=nowhere"], "nowhere"),
        (["--replace", "web=fix", "--replace", "web=main"], "twice"),
        (["--replace", "web=fix", "--only", "db"], "--only"),
        (["--state", "after"], "after"),
    ],
)
def test_what_cannot_be_meant(failed: Failed, given: list[str], said: str) -> None:
    failed.run("reproduce", failed.capture, "--name", "never", *given).failed(2, said)
    assert Namespace(failed.space.cluster, "never").itself() is None


def test_nobody_knows_the_service_from_elsewhere(failed: Failed, tmp_path: Path) -> None:
    """Where the command runs is no repository; the record says which one it was."""
    ended = failed.tool.run(
        "reproduce", failed.capture, "--name", "dry", "--replace", "web=main", "--dry-run", cwd=tmp_path
    )
    assert "# web: replaced by" in ended.ok().out


def test_a_fix_keeps_what_the_command_line_gave_the_deployment_that_failed(failed: Failed) -> None:
    deploy = ("deploy", ENV, "--timeout", "90s", "--set", "web.note=of ${SANDBOX_NAMESPACE}", "-o", "json")
    capture = failed.run(*deploy).data["capture"]["id"]

    ended = failed.run("reproduce", capture, "--name", "dry", "--replace", "web=fix", "--dry-run", "-o", "json").ok()

    [web] = [m for m in ended.data["manifests"] if (m["kind"], m["metadata"]["name"]) == ("Deployment", "web")]
    [namespace] = {m["metadata"].get("namespace") for m in ended.data["manifests"] if m["kind"] == "LimitRange"}
    assert web["metadata"]["annotations"]["note"] == f"of {namespace}"


# -- what differs


def differences(failed: Failed, *sides: str, tool: Tool | None = None) -> list[tuple[str, ...]]:
    ended = (tool or failed.tool).run("diff", *sides, "-o", "json", cwd=failed.project.folder)
    assert ended.code == (3 if ended.data else 0), ended.err
    for secret in (PASSWORD,):
        assert secret not in json.dumps([d for d in ended.data if d["area"] == "secret"])
    return [(d["area"], d["where"], d["path"]) for d in ended.data]


def test_what_the_environment_is_now_differs_from_what_failed(failed: Failed) -> None:
    found = differences(failed, failed.capture, ENV)
    assert ("service", "web", "commit") in found
    assert ("failure", "", "") in found
    assert any(area == "object" and where == "deployments.apps/web" for area, where, _ in found)
    assert any(area == "data" and where == "db" for area, where, _ in found)


def test_two_commits_are_compared_without_a_cluster(failed: Failed, tmp_path: Path) -> None:
    alone = failed.tool.with_environment(KUBECONFIG=str(tmp_path / "none"), SANDBOX_CONTEXT="")
    assert set(differences(failed, "payment", "fix", tool=alone)) == {
        ("service", "db", "commit"),
        ("service", "web", "commit"),
        ("object", "deployment.apps/web", "spec.template.spec.containers.main.env.PAYMENT_URL"),
    }
    assert differences(failed, "fix", "ref:fix", tool=alone) == []


def test_a_commit_a_record_and_a_capture_of_the_same_deployment_do_not_differ(failed: Failed, tmp_path: Path) -> None:
    assert {area for area, *_ in differences(failed, failed.capture, "payment")} <= {"tool"}
    # The first deployment and, after the second one failed, the way back to it.
    assert differences(failed, f"{ENV}@1", "main") == []
    found = differences(failed, f"{ENV}@1", f"{ENV}@2")
    assert ("object", "job.batch/web-migrate", "spec.template.spec.containers.migrate.env.SQL.value") in found
    lock = failed.tool.run("lock", "--ref", "fix", "--env", ENV, cwd=failed.project.folder).ok()
    (tmp_path / "fix.yaml").write_text(lock.out)
    assert ("service", "web", "commit") in differences(failed, f"lock:{tmp_path / 'fix.yaml'}", f"{ENV}@1")


def test_what_is_called_so_by_nobody(failed: Failed) -> None:
    failed.run("diff", "main", "nowhere").failed(2, "nothing is called 'nowhere'", "KIND:NAME")


# -- data, out of a place and into another


@pytest.fixture(scope="module")
def empty(failed: Failed) -> Iterator[Namespace]:
    """A sandbox with a database in which nothing is."""
    name = f"empty-{uuid.uuid4().hex[:8]}"
    failed.run("up", "--ref", "main", "--only", "db", "--name", name, "--timeout", "90s").ok()
    yield Namespace(failed.space.cluster, name)
    kubectl(failed.space.cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_a_sandbox_runs_on_a_copy_of_an_environments_data(failed: Failed, empty: Namespace, tmp_path: Path) -> None:
    exported = failed.run("data", "export", ENV, "--to", str(tmp_path / "copy")).ok()
    assert f"sandbox data load NAME {tmp_path / 'copy'}" in exported.err
    failed.run("data", "load", empty.name, str(tmp_path / "copy")).ok()
    assert sql(empty, "SELECT count(*), sum(total) FROM orders") == "3|60"
    # A second time it would take away what is there.
    failed.run("data", "load", empty.name, failed.capture).failed(4, "has data already", "--replace-data")
    failed.run("data", "load", empty.name, failed.capture, "--replace-data").ok()
    assert sql(empty, "SELECT count(*), sum(total) FROM orders") == "4|61"


def test_masking_rules_hold_for_what_is_exported(failed: Failed, tmp_path: Path) -> None:
    other = GitProject(tmp_path)
    web = other.manifests("web", service("web"))
    other.declare({"web": web}, fixtures={"mask": {"postgres.orders.total": "number"}})
    where = ("-n", failed.space.name, "--to", "masked", "-o", "json")
    [fixture] = failed.tool.run("data", "export", *where, cwd=other.folder).ok().data
    assert fixture["masked"] == ["postgres.public.orders.total: number"]
    captured = ("-n", failed.space.name, "--no-images", "--store", str(tmp_path / "store"), "-o", "json")
    [kept] = failed.tool.run("capture", "create", *captured, cwd=other.folder).ok().data["fixtures"]
    assert kept["masked"] == fixture["masked"]


def test_data_that_cannot_be_copied(failed: Failed, tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    failed.run("data", "export", ENV, "--to", str(tmp_path)).failed(2, "is there already")
    failed.run("data", "export", ENV, "--only", "dp", "--to", str(tmp_path / "x")).failed(2, "no store dp", "db")
    failed.run("data", "load", ENV, failed.capture).failed(1)
    failed.run("data", "load", "nobody", str(tmp_path)).failed(1)
