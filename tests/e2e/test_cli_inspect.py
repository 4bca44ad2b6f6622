"""The commands that look at a sandbox, as a user calls them, on a real cluster.

The sandbox is laid out by hand, so that each test knows what there is to see: a web page that answers (by
manifests), a service that crashes, a finished Job, a Secret, and a record of two deployments.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.objects import Manifest, ObjectRef, digest
from sandbox.model.record import InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.provision import records
from tests.conftest import kubectl
from tests.e2e.bounded import until

_COMMAND_SECONDS = 60
_PASSWORD = "correct-horse-battery"


@dataclass(frozen=True)
class Live:
    """A sandbox on the test cluster."""

    cluster: ClusterInfo
    name: str
    namespace: str
    owner: str

    def run(
        self, *arguments: str, stdin: bytes = b"", folder: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `sandbox` in a process of its own."""
        return subprocess.run(
            self.argv(*arguments),
            input=stdin,
            cwd=folder,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            env=self.env(**environment),
        )

    def argv(self, *arguments: str) -> list[str]:
        program = "from sandbox.cli.main import main; main()"
        return [sys.executable, "-c", program, *arguments]

    def env(self, **environment: str) -> dict[str, str]:
        return {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "SANDBOX_CONTEXT": self.cluster.context,
            "SANDBOX_NAME": self.name,
            **environment,
        }

    def text(self, *arguments: str, code: int = 0) -> str:
        """What a command that must end with a code writes to stdout."""
        done = self.run(*arguments)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "-o", "json"))


@pytest.fixture(scope="module")
def live(cluster: ClusterInfo, probe_image: str) -> Iterator[Live]:
    """The sandbox that all tests of this file look at; none changes it."""
    owner = f"dana{uuid.uuid4().hex[:6]}@example.com"
    name = f"{owner.partition('@')[0]}-shop-main"
    sandbox = Live(cluster, name, f"sbx-{name}", owner)
    now = datetime.now(UTC)
    namespace: Manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": sandbox.namespace,
            "labels": {
                labels.MANAGED_BY: labels.MANAGED_BY_VALUE,
                labels.NAME: name,
                labels.OWNER: owner.partition("@")[0],
                labels.PROJECT: "shop",
            },
            "annotations": {
                labels.NAMESPACE: sandbox.namespace,
                labels.CREATED_AT: to_rfc3339(now),
                labels.EXPIRES_AT: to_rfc3339(now + timedelta(hours=2)),
                labels.TTL: "2h",
                labels.OWNER_USER: owner,
                labels.PHASE: "Ready",
                labels.REF: "feature/\x1b[31mred",
                labels.COMMIT: "a" * 40,
                labels.QUOTA_PROFILE: "small",
            },
        },
    }
    kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(namespace))
    manifests = _manifests(sandbox, probe_image)
    for manifest in manifests["quota"]:
        kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(manifest))
    for service in ("web", "orders"):
        for manifest in manifests[service]:
            kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(manifest))
    uid = kubectl(cluster, "get", "namespace", sandbox.namespace, "-o", "jsonpath={.metadata.uid}")
    asyncio.run(_save_records(sandbox, uid, manifests, now))
    kubectl(cluster, "rollout", "status", "deployment/web", "-n", sandbox.namespace, "--timeout=50s")
    until(lambda: _crashing(sandbox), "orders crashed and was restarted")
    yield sandbox
    kubectl(cluster, "delete", "namespace", sandbox.namespace, "--wait=false")


def _manifests(sandbox: Live, image: str) -> dict[str, list[Manifest]]:
    def workload(name: str, *arguments: str) -> Manifest:
        container = {
            "name": "probe",
            "image": image,
            "args": list(arguments),
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": sandbox.namespace},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
            },
        }

    metadata = {"namespace": sandbox.namespace}
    return {
        "quota": [
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {**metadata, "name": labels.QUOTA_NAME},
                "spec": {"hard": {"pods": "10", "requests.cpu": "1", "services.nodeports": "0"}},
            }
        ],
        "web": [
            workload("web", "serve", "8080"),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {**metadata, "name": "web"},
                "spec": {
                    "selector": {"app": "web"},
                    "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {**metadata, "name": "web"},
                "data": {"password": base64.b64encode(_PASSWORD.encode()).decode()},
            },
        ],
        "orders": [workload("orders", "fail", "cannot reach \x1b[31mthe database")],
    }


async def _save_records(sandbox: Live, uid: str, manifests: dict[str, list[Manifest]], now: datetime) -> None:
    def service(name: str, revision: str) -> ServiceRecord:
        lock = ServiceLock(
            kind="manifests",
            repo="https://git.example.com/shop.git",
            ref="main",
            commit=revision * 40,
            input_digest=digest([name, revision]),
            manifest_digest=digest(manifests[name]),
        )
        inventory = [InventoryItem.of(ObjectRef.of(manifest)) for manifest in manifests[name]]
        return ServiceRecord(lock=lock, manifests=manifests[name], inventory=inventory, ports={"http": 80})

    async with Cluster.connect(sandbox.cluster.context, Path(sandbox.cluster.kubeconfig)) as cluster:
        for number, services in (
            (1, {"web": service("web", "b")}),
            (2, {"web": service("web", "a"), "orders": service("orders", "a")}),
        ):
            lock = Lock(
                project="shop", env="dev", services={n: s.lock for n, s in services.items()}, created_at=now
            ).sealed()
            record = Record(
                number=number,
                at=now,
                by=sandbox.owner,
                namespace_uid=uid,
                outcome="deployed" if number == 1 else "failed",
                failure="" if number == 1 else f"orders: login with {_PASSWORD} failed",
                lock=lock,
                services=services,
            )
            await records.save(cluster, sandbox.namespace, record)


def _crashing(sandbox: Live) -> bool | None:
    restarts = kubectl(
        sandbox.cluster,
        *("get", "pods", "-n", sandbox.namespace, "-l", "app=orders"),
        *("-o", "jsonpath={.items[0].status.containerStatuses[0].restartCount}"),
    )
    return True if restarts and int(restarts) > 0 else None


class TestList:
    def test_a_sandbox_is_listed_with_its_facts(self, live: Live) -> None:
        found = next(s for s in live.json("list") if s["name"] == live.name)
        assert (found["namespace"], found["owner"], found["phase"]) == (live.namespace, live.owner, "Ready")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["expires_at"])

    def test_the_table_shows_no_escape_of_a_ref(self, live: Live) -> None:
        table = live.text("list", "--owner", live.owner)
        assert "\x1b" not in table
        assert r"feature/\x1b[31mred" in table
        assert re.search(r" in (2h|1h\d\dm) ", table)
        assert table.splitlines()[0].split() == ["NAME", "OWNER", "PHASE", "REF", "COMMIT", "EXPIRES", "AGE"]

    @pytest.mark.parametrize(
        ("arguments", "there"),
        [
            (["--owner", "OWNER"], True),
            (["--owner", "me"], False),
            (["--project", "shop"], True),
            (["--project", "other"], False),
            (["--phase", "ready,failed"], True),
            (["--phase", "Failed"], False),
            (["--expiring", "3h"], True),
            (["--expiring", "1m"], False),
            (["-l", "sandbox.dev/project=shop"], True),
            (["-l", "sandbox.dev/project!=shop"], False),
            (["--all-contexts"], True),
            (["-A", "--sort-by", "age"], True),
        ],
    )
    def test_filters(self, live: Live, arguments: list[str], there: bool) -> None:
        given = [live.owner if argument == "OWNER" else argument for argument in arguments]
        # Of other contexts on this machine some may be gone.
        done = live.run("list", "-o", "name", *given)
        assert (live.name in done.stdout.decode().split()) is there, done.stderr.decode()

    def test_ls_is_list(self, live: Live) -> None:
        assert live.name in live.text("ls", "-o", "name").split()

    def test_an_unreachable_context_hides_no_other(self, live: Live, tmp_path: Path) -> None:
        document = yaml.safe_load(Path(live.cluster.kubeconfig).read_text())
        document["clusters"].append({"name": "gone", "cluster": {"server": "https://127.0.0.1:1"}})
        document["contexts"].append({"name": "gone", "context": {"cluster": "gone", "user": "nobody"}})
        document["users"].append({"name": "nobody", "user": {}})
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(yaml.safe_dump(document))
        contexts = f"{live.cluster.context},gone"
        done = live.run("list", "-o", "name", "--kubeconfig", str(kubeconfig), "--contexts", contexts)
        assert done.returncode == 6
        assert live.name in done.stdout.decode().split()
        assert "gone" in done.stderr.decode()

    def test_watching_shows_the_sandbox_and_then_what_changes(self, live: Live) -> None:
        with _running(live, "list", "-w", "-o", "name", "--owner", live.owner) as child:
            assert child.stdout is not None
            assert child.stdout.readline().decode().strip() == live.name
            kubectl(live.cluster, "annotate", "namespace", live.namespace, f"{labels.PHASE}=Failed", "--overwrite")
            assert child.stdout.readline().decode().strip() == live.name
            kubectl(live.cluster, "annotate", "namespace", live.namespace, f"{labels.PHASE}=Ready", "--overwrite")


class TestStatus:
    def test_services_findings_and_quota(self, live: Live) -> None:
        status = live.json("status")
        services = {service["name"]: service for service in status["services"]}
        assert (services["web"]["state"], services["web"]["ready"], services["web"]["desired"]) == ("ready", 1, 1)
        assert services["web"]["endpoints"][0]["port"] == 80
        orders = services["orders"]
        assert orders["state"] == "failed"
        assert orders["restarts"] > 0
        assert orders["findings"][0]["service"] == "orders"
        assert orders["findings"][0]["container"] == "probe"
        assert orders["findings"][0]["exit_code"] == 3
        assert {"resource": "pods", "used": "2", "hard": "10"} in status["quota"]
        assert (status["record_number"], status["outcome"]) == (2, "failed")

    def test_as_people_read_it(self, live: Live) -> None:
        text = live.text("status", live.name)
        assert "\x1b" not in text
        assert re.search(r"^orders +failed +0/1", text, re.MULTILINE)
        assert re.search(r"^web +ready +1/1 .* web:80", text, re.MULTILINE)
        assert "service orders · pod/orders-" in text
        assert re.search(r"^ +pods +2/10$", text, re.MULTILINE)
        # A quota of nothing that is not used is no news.
        assert "nodeports" not in text

    def test_by_its_namespace(self, live: Live) -> None:
        done = live.run("status", "-n", live.namespace, "-o", "name", SANDBOX_NAME="")
        assert done.stdout.decode().strip() == live.name

    def test_watching_goes_on_until_ctrl_c(self, live: Live) -> None:
        with _running(live, "status", "-w", live.name) as child:
            assert child.stdout is not None
            assert live.name in child.stdout.readline().decode()
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=20) == 130

    def test_an_unknown_sandbox_names_the_near_one(self, live: Live) -> None:
        done = live.run("status", live.name + "x")
        assert done.returncode == 1
        assert f"did you mean {live.name}" in done.stderr.decode()

    def test_a_namespace_that_is_no_sandbox_is_refused(self, live: Live) -> None:
        done = live.run("status", "kube-system")
        assert done.returncode == 4
        assert "is not a sandbox" in done.stderr.decode()


class TestLogs:
    def test_of_one_service_as_they_are(self, live: Live) -> None:
        assert "cannot reach \x1b[31mthe database\n" in live.text("logs", "orders")

    def test_of_the_run_before(self, live: Live) -> None:
        # Between a crash and the next back-off the run before is one that the kubelet has removed already.
        def told() -> bool | None:
            said = live.text("logs", "orders", "--previous", "--tail", "1", "-c", "probe")
            return True if "cannot reach" in said else None

        until(told, "the log of the run before", 120.0)

    def test_of_all_services_with_prefixes(self, live: Live) -> None:
        assert re.search(r"^\[orders-\S+/probe\] cannot reach", live.text("logs", "--prefix"), re.MULTILINE)

    def test_following_until_ctrl_c(self, live: Live) -> None:
        with _running(live, "logs", "-f", "orders") as child:
            assert child.stdout is not None
            assert b"cannot reach" in child.stdout.readline()
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=20) == 130

    def test_an_unknown_service_names_the_known(self, live: Live) -> None:
        done = live.run("logs", "order")
        assert done.returncode == 2
        assert "did you mean orders?" in done.stderr.decode()

    def test_an_unknown_container(self, live: Live) -> None:
        done = live.run("logs", "orders", "-c", "nothing")
        assert done.returncode == 2
        assert "probe" in done.stderr.decode()


class TestEvents:
    def test_of_a_service_only(self, live: Live) -> None:
        found = live.json("events", "orders", "--types", "Warning")
        assert {event["type"] for event in found} == {"Warning"}
        assert all("orders" in event["object"] for event in found)
        assert "BackOff" in {event["reason"] for event in found}

    def test_the_newest_last(self, live: Live) -> None:
        times = [event["last_seen"] for event in live.json("events")]
        assert times == sorted(times)

    def test_watching(self, live: Live) -> None:
        with _running(live, "events", "-w", "-o", "json", "--types", "Normal", "web") as child:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"{"


class TestPorts:
    def test_open_check_fetches_the_page_once(self, live: Live) -> None:
        done = live.run("open", "web", "--check", "/")
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().startswith("web-")
        assert "HTTP 200" in done.stderr.decode()

    def test_port_forward_answers_until_it_is_stopped(self, live: Live) -> None:
        with _running(live, "port-forward", "web", ":http") as child:
            assert child.stdout is not None
            line = child.stdout.readline().decode()
            port = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> service/web:80\n", line)
            assert port is not None, line
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=20) as answer:
                assert answer.read().startswith(b"web-")
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=20) == 130

    def test_open_gives_the_page_to_the_browser(self, live: Live, tmp_path: Path) -> None:
        browser, given = tmp_path / "browser", tmp_path / "url"
        browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {given}.part && mv {given}.part {given}\n')
        browser.chmod(0o755)
        with _running(live, "open", "web", BROWSER=str(browser)):
            until(lambda: given.exists() or None, "the browser is started", 60)
            with urllib.request.urlopen(given.read_text(), timeout=20) as answer:
                assert answer.read().startswith(b"web-")

    def test_open_without_browser_prints_the_url(self, live: Live) -> None:
        with _running(live, "open", "web", "--no-browser", "--path", "x") as child:
            assert child.stdout is not None
            url = child.stdout.readline().decode().strip()
            with urllib.request.urlopen(url, timeout=20) as answer:
                assert url.endswith("/x")
                assert answer.status == 200

    def test_what_is_not_ready_does_not_answer_and_says_so(self, live: Live) -> None:
        done = live.run("open", "orders", "--check", "/")
        assert done.returncode == 2
        assert "has no port to connect to" in done.stderr.decode()

    def test_an_unknown_port_names_the_known(self, live: Live) -> None:
        done = live.run("port-forward", "web", "grpc")
        assert done.returncode == 2
        assert "http (80)" in done.stderr.decode()


class TestExec:
    def test_the_exit_code_and_output_are_the_commands(self, live: Live) -> None:
        done = live.run("exec", "web", "--", "/probe", "fail", "as told")
        assert (done.returncode, done.stdout) == (3, b"as told\n")

    def test_bytes_pass_through_unchanged(self, live: Live) -> None:
        data = bytes(range(256)) * 500
        done = live.run("exec", "-i", "web", "--", "/probe", "cat", stdin=data)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == data

    def test_a_command_that_is_not_there(self, live: Live) -> None:
        done = live.run("exec", "web", "--", "/nothing")
        assert done.returncode == 1
        assert "/nothing" in done.stderr.decode()

    def test_no_terminal_to_give(self, live: Live) -> None:
        done = live.run("exec", "-i", "-t", "web", "--", "/probe", "cat", stdin=b"")
        assert done.returncode == 2
        assert "no terminal" in done.stderr.decode()

    def test_an_unknown_container(self, live: Live) -> None:
        assert live.run("exec", "web", "-c", "no", "--", "/probe", "cat").returncode == 2


class TestGet:
    def test_manifests_apply_again_and_hide_secrets(self, live: Live) -> None:
        text = live.text("get", "manifest", "web", "--number", "1")
        documents = list(yaml.safe_load_all(text))
        assert [document["kind"] for document in documents] == ["Deployment", "Service", "Secret"]
        assert _PASSWORD not in text
        assert base64.b64encode(_PASSWORD.encode()).decode() not in text

    def test_secrets_on_demand(self, live: Live) -> None:
        text = live.text("get", "manifest", "web", "--show-secrets")
        assert base64.b64encode(_PASSWORD.encode()).decode() in text
        kubectl(live.cluster, "apply", "--dry-run=server", "-n", live.namespace, "-f", "-", stdin=text)

    def test_a_record_hides_secrets_wherever_they_are(self, live: Live) -> None:
        done = live.run("get", "record", "-o", "json")
        assert _PASSWORD not in done.stdout.decode()
        assert base64.b64encode(_PASSWORD.encode()).decode() not in done.stdout.decode()
        assert set(json.loads(done.stdout)["services"]) == {"web", "orders"}

    def test_a_lock_is_as_it_was_sealed(self, live: Live) -> None:
        Lock.model_validate(yaml.safe_load(live.text("get", "lock"))).verify()

    def test_values_of_what_is_no_chart(self, live: Live) -> None:
        done = live.run("get", "values", "web")
        assert done.returncode == 2
        assert "not from a chart" in done.stderr.decode()

    def test_an_unknown_number_names_the_known(self, live: Live) -> None:
        done = live.run("get", "record", "--number", "9")
        assert done.returncode == 2
        assert "1, 2" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["list"], "get namespaces -l app.kubernetes.io/managed-by=sandbox"),
        (["status"], "get all,pvc,ingress,resourcequota,events"),
        (["logs", "orders", "--tail", "1"], "logs orders-"),
        (["events"], "get events"),
        (["open", "web", "--check", "/"], "port-forward service/web :80"),
        (["exec", "web", "--", "/probe", "fail", "x y"], "exec web-"),
        (["get", "lock"], "get secrets --field-selector=type=sandbox.dev/record"),
    ],
)
def test_verbose_shows_the_kubectl_command_that_does_the_same(live: Live, arguments: list[str], command: str) -> None:
    lines = live.run("-v", *arguments).stderr.decode().splitlines()
    shown = [line for line in lines if line.startswith("$ kubectl --context ")]
    assert any(command in line for line in shown), lines


class TestWhichSandbox:
    """Without a name: the one of the branch that is checked out."""

    def checkout(self, folder: Path, branch: str) -> Path:
        (folder / "k8s").mkdir()
        (folder / "k8s" / "web.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: web}}")
        (folder / "sandbox.yaml").write_text(
            "apiVersion: sandbox.dev/v1\nproject: shop\nservices: {web: {manifests: {paths: [k8s]}}}\n"
        )
        identity = ("-c", "user.name=Dana", "-c", "user.email=dana@example.com")
        for arguments in (("init", "-q", "-b", branch), ("add", "."), (*identity, "commit", "-q", "-m", "Begin")):
            subprocess.run(["git", *arguments], cwd=folder, check=True, timeout=20, capture_output=True)
        return folder

    def test_the_branchs(self, live: Live, tmp_path: Path) -> None:
        folder = self.checkout(tmp_path, "main") / "k8s"
        done = live.run("status", "--owner", live.owner, "-o", "name", folder=folder, SANDBOX_NAME="")
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().strip() == live.name

    def test_another_branch_is_another_sandbox(self, live: Live, tmp_path: Path) -> None:
        folder = self.checkout(tmp_path, "feature/x")
        done = live.run("logs", "--owner", live.owner, folder=folder, SANDBOX_NAME="")
        assert done.returncode == 1
        assert f"no sandbox {live.name.removesuffix('main')}feature--x" in done.stderr.decode()

    def test_outside_of_a_repository_it_has_to_be_named(self, live: Live, tmp_path: Path) -> None:
        done = live.run("status", folder=tmp_path, SANDBOX_NAME="")
        assert done.returncode == 2
        assert "-s NAME" in done.stderr.decode()


def test_history(live: Live) -> None:
    found = live.json("history")
    assert [(r["number"], r["outcome"]) for r in found] == [(1, "deployed"), (2, "failed")]
    table = live.text("history")
    assert re.search(r"^2 .* failed .* aaaaaaaaaaaa +web, orders", table, re.MULTILINE)


def test_a_reader_that_leaves_early_is_no_error(live: Live) -> None:
    argv = " ".join(f"'{part}'" for part in live.argv("status", "-o", "json"))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{argv} | head -c 1"],
        capture_output=True,
        env=live.env(),
        timeout=_COMMAND_SECONDS,
    )
    assert done.stderr == b""


class TestCompletion:
    def complete(self, live: Live, *words: str, **environment: str) -> list[str]:
        done = subprocess.run(
            live.argv(),
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            env=live.env(
                _SANDBOX_COMPLETE="complete_bash",
                COMP_WORDS=" ".join(["sandbox", *words]),
                COMP_CWORD=str(len(words)),
                **environment,
            ),
        )
        assert done.stderr == b""
        return done.stdout.decode().split()

    def test_of_sandboxes(self, live: Live) -> None:
        assert live.name in self.complete(live, "status", "-s", live.name[:9])
        assert live.name in self.complete(live, "status", live.name[:9])

    def test_of_services(self, live: Live) -> None:
        assert self.complete(live, "logs", "-s", live.name, "") == ["orders", "web"]
        assert self.complete(live, "logs", "-s", live.name, "we") == ["web"]

    def test_of_commands(self, live: Live) -> None:
        assert "port-forward" in self.complete(live, "po")

    def test_silent_and_quick_where_there_is_no_cluster(self, live: Live, tmp_path: Path) -> None:
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
                    "current-context": "c",
                }
            )
        )
        environment = {"KUBECONFIG": str(kubeconfig), "SANDBOX_CONTEXT": "c"}
        assert self.complete(live, "status", "-s", "d", **environment) == []


class _running:
    """A command under way, ended at the end whatever happens."""

    def __init__(self, live: Live, *arguments: str, **environment: str) -> None:
        self._argv = live.argv(*arguments)
        self._env = live.env(**environment)

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            self._argv, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        return self._child

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
        try:
            self._child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            raise
