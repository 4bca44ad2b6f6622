"""`sandbox capture` of namespaces that `sandbox` did not deploy: plain `helm upgrade`, plain `kubectl apply`."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyrage
import pytest
import yaml

from sandbox.capture.bundle import BundleWriter
from sandbox.capture.capture import Options, capture
from sandbox.capture.collect.collection import Bounds, Collection
from sandbox.capture.collect.running import Running, collect_logs, collect_pods
from sandbox.capture.fixtures.store import stores
from sandbox.capture.secrecy import Redactor
from sandbox.capture.signature import same_failure
from sandbox.cli.reporter import PlainReporter
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.store.store import Store
from tests.conftest import kubectl
from tests.e2e import datastores, projects
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.image_registry import running_registry
from tests.e2e.projects import Ended, GitProject, Namespace, Tool
from tests.e2e.workloads import container, deployment, pod_spec

PASSWORD = "s3cr3t/p&ss w'rd"
URL_PASSWORD = "hunter2hunter2"
COMMIT = "3c2dd8f35b3a4a1e9d3f0c6a1b2c3d4e5f607182"

_CHART = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {{ .Values.image | quote }}
          args: {{ .Values.args | toJson }}
          env:
            - {name: TOKEN, value: {{ .Values.token | quote }}}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
stringData: {token: {{ .Values.token | quote }}}
"""


@dataclass(frozen=True)
class Broken:
    """A namespace that `helm upgrade` and `kubectl apply` broke, captured before and after."""

    space: Namespace
    store: Path
    before: str
    after: str
    untouched: bool

    @property
    def environment(self) -> dict[str, str]:
        return {"SANDBOX_CAPTURE_STORE": str(self.store)}


@pytest.fixture(scope="module")
def keeper(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, with a store of its own."""
    return tool.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path_factory.mktemp("captures")))


@pytest.fixture(scope="module")
def broken(
    keeper: Tool, cluster: ClusterInfo, probe_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    space = Namespace(cluster, f"test-{uuid.uuid4().hex[:10]}")
    kubectl(cluster, "create", "namespace", space.name)
    chart = tmp_path_factory.mktemp("chart")
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 0.1.0\n")
    (chart / "templates").mkdir()
    (chart / "templates" / "all.yaml").write_text(_CHART)
    good = {"image": probe_image, "args": ["serve", "8080"], "token": "former-token-12345"}
    helm(cluster, space.name, chart, good)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    before = keeper.run("capture", "create", "-n", space.name, "--reason", "all is well", "-o", "name").ok().out.strip()

    helm(cluster, space.name, chart, {**good, "args": ["crash", "no", "table", "orders"], "token": "newer-token-12345"})
    values = {"password": PASSWORD, "url": f"postgres://shop:{URL_PASSWORD}@db:5432/shop", "username": "postgres"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": values}
    config = {"copy": quote(PASSWORD, safe=""), "basic": base64.b64encode(f"shop:{PASSWORD}".encode()).decode()}
    env = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
        {"name": "BASIC", "value": config["basic"]},
        {"name": "COPY", "value": PASSWORD},
        {"name": "URL", "value": values["url"]},
    ]
    says_all = container(probe_image, "environment", name="init", env=env)
    crashes = container(probe_image, "crash", "login as $(PASSWORD) refused", env=env)
    orders = deployment("orders", pod_spec(crashes, initContainers=[says_all]))
    orders["spec"]["template"]["metadata"]["annotations"] = {"org.opencontainers.image.revision": COMMIT}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "20"}}}
    maps = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": config}
    # As people do it: kubectl then keeps a copy of everything in an annotation.
    space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([secret, maps, quota, orders]))
    until(lambda: all(restarts(space, app) for app in ("web", "orders")) or None, "both crash twice", 60)
    ours = space.versions
    seen = {
        name: version for name, version in ours().items() if not name.startswith(("Pod/", "Deployment", "ReplicaSet"))
    }
    after = keeper.run("capture", "create", "-n", space.name, "--reason", "helm upgrade", "--env", "qa", "-o", "name")
    same = {
        name: version for name, version in ours().items() if not name.startswith(("Pod/", "Deployment", "ReplicaSet"))
    }
    yield Broken(space, Path(keeper.overrides["SANDBOX_CAPTURE_STORE"]), before, after.ok().out.strip(), seen == same)
    kubectl(cluster, "delete", "namespace", space.name, "--wait=false")


def helm(cluster: ClusterInfo, namespace: str, chart: Path, values: dict[str, Any]) -> None:
    """`helm upgrade --install` as anybody runs it."""
    folder = embedded_bin_dir()
    assert folder is not None
    where = ["--kubeconfig", str(cluster.kubeconfig), "--kube-context", cluster.context, "-n", namespace]
    command = [str(folder / "helm"), *where, "upgrade", "--install", "web", str(chart), "--values", "-"]
    subprocess.run(command, input=json.dumps(values), text=True, check=True, capture_output=True, timeout=60)


def restarts(space: Namespace, app: str) -> int:
    pods = api_of(space.cluster).list("pods", space.name, f"app={app}")
    statuses = [status for pod in pods for status in pod.get("status", {}).get("containerStatuses", ())]
    return sum(status["restartCount"] for status in statuses if status["restartCount"] > 0)


def shown(keeper: Tool, identifier: str, *arguments: str) -> Ended:
    return keeper.run("capture", "show", identifier, *arguments).ok()


def contents(store: Path) -> Iterator[tuple[Path, bytes]]:
    """Everything in a store, unpacked, but its key."""
    for path in store.rglob("*"):
        if path.is_file() and path.parent.name != "keys":
            data = path.read_bytes()
            yield path, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


# -- what it says


def test_the_first_lines_say_what_failed_and_why_in_the_pods_own_words(keeper: Tool, broken: Broken) -> None:
    lines = shown(keeper, broken.after).out.splitlines()
    # Two are failing; which of them is the more telling nobody can say.
    assert re.match(r"service (web|orders) · pod/(web|orders)-\S+, container main: \w+ \(exit code 1\)", lines[0])
    assert lines[1].strip().startswith(("no table orders", "login as redacted-"))
    text = "\n".join(lines)
    assert "no table orders" in text
    assert "login as redacted-" in text
    assert "helm upgrade" in text
    assert "pods 2/20" in text


def test_services_have_their_versions_and_what_changed(keeper: Tool, broken: Broken, probe_image: str) -> None:
    document = shown(keeper, broken.after, "-o", "json").data
    services = {service["name"]: service for service in document["services"]}
    web, orders = services["web"], services["orders"]
    assert (web["kind"], web["release"], web["revision"], web["chart_version"]) == ("chart", "web", 2, "0.1.0")
    assert {"values", "manifests"} <= set(web["changed"])
    assert "images" not in web["changed"]
    assert (orders["commit"], orders["commit_from"], orders["state"]) == (COMMIT, "pod", "failed")
    digest = probe_image.partition("@")[2]
    assert {image["digest"] for service in (web, orders) for image in service["images"]} == {digest}
    assert {image["available"] for image in web["images"]} == {True}
    assert document["environment"] == "qa"
    assert document["partial"] is False


def test_every_log_of_every_container_is_there(keeper: Tool, broken: Broken) -> None:
    items = {item["name"]: item for item in shown(keeper, broken.after, "-o", "json").data["items"]}
    logs = [name for name, item in items.items() if item["area"] == "logs" and item["status"] == "ok"]
    assert any("/init." in name for name in logs)
    [crashed] = [name for name in logs if "/web-" in name and name.endswith("/main.log.gz")]
    assert "no table orders" in shown(keeper, broken.after, "--item", crashed).out
    assert {"pods.json", "events.json", "objects/deployments.apps.json", "nodes.json", "versions.json"} <= set(items)
    assert items["objects/secrets.json"]["count"] == 2


def test_both_revisions_of_a_release_are_there(keeper: Tool, broken: Broken) -> None:
    def item(name: str) -> str:
        return shown(keeper, broken.after, "--item", name).out

    assert json.loads(item("helm/web/2/values.json"))["args"] == ["crash", "no", "table", "orders"]
    assert json.loads(item("helm/web/1/values.json"))["args"] == ["serve", "8080"]
    kinds = {m["kind"] for m in yaml.safe_load_all(item("helm/web/2/manifest.yaml"))}
    assert kinds == {"Deployment", "Secret"}
    templates = json.loads(item("helm/web/1/chart.json"))["templates"]
    assert base64.b64decode(templates[0]["data"]).decode() == _CHART


def test_no_secret_value_is_in_it_in_any_form(broken: Broken) -> None:
    secrets = (PASSWORD, URL_PASSWORD, "former-token-12345", "newer-token-12345")
    forms: set[bytes] = set()
    for secret in secrets:
        forms |= {secret.encode(), quote(secret).encode(), quote(secret, safe="").encode()}
        forms |= {json.dumps(secret)[1:-1].encode(), json.dumps(secret)[1:-1].replace("&", "\\u0026").encode()}
        forms.add(base64.b64encode(secret.encode()))
    forms.add(base64.b64encode(f"shop:{PASSWORD}".encode()))
    found = [(path.name, form) for path, data in contents(broken.store) for form in forms if form in data]
    assert not found
    everything = b"".join(data for _, data in contents(broken.store))
    assert b"redacted-" in everything
    assert b"hmac-" in everything


def test_it_is_one_page_for_a_browser(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    said = shown(keeper, broken.after, "--html", str(file))
    assert said.out.strip() == str(file)
    page = file.read_text()
    headline = escape(shown(keeper, broken.after, "-o", "json").data["findings"][0]["reason"])
    assert headline in page.partition("<h1>")[2].partition("</h1>")[0]
    assert "Helm release web: values, revision 1 to 2" in page
    assert 'class="crashed"' in page
    assert not [secret for secret in (PASSWORD, URL_PASSWORD, "newer-token-12345") if secret in page]
    keeper.run("capture", "show", broken.after, "--html", str(tmp_path / "none" / "page.html")).failed(
        1, "cannot be written"
    )
    keeper.run("capture", "show", broken.after, "--html", str(file), "--items").failed(2, "--html")


def test_taking_it_changed_nothing(broken: Broken) -> None:
    assert broken.untouched
    assert broken.space.names("pods")


def test_a_difference_names_what_was_changed(keeper: Tool, broken: Broken) -> None:
    done = keeper.run("capture", "diff", broken.before, broken.after, "-o", "json")
    assert done.code == 3, done.err
    found = {(d["area"], d["where"], d["path"]) for d in done.data}
    assert ("values", "web", "args") in found or any(w == "web" and p.startswith("args") for _, w, p in found)
    assert ("service", "orders", "") in found
    assert ("secret", "web", "token") in found
    assert ("config", "settings", "") in found
    assert keeper.run("capture", "diff", broken.after, broken.after).ok().out == ""


def test_the_same_failure_has_the_same_signature(keeper: Tool, broken: Broken) -> None:
    from sandbox.capture.model import Signature

    again = keeper.run(
        "capture", "create", "-n", broken.space.name, "-o", "json", "--store", str(broken.store / "again")
    )
    first = Signature.model_validate(shown(keeper, broken.after, "-o", "json").data["signature"])
    second = Signature.model_validate(again.ok().data["signature"])
    assert same_failure(first, second)
    assert first.log == second.log


# -- where it goes


def test_a_registry_an_archive_and_another_store_bring_it_back(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    with running_registry(tmp_path) as registry:
        reference = f"oci://{registry}/captures/qa"
        pushed = keeper.run("capture", "push", broken.after, reference).ok().out.strip()
        keeper.run("capture", "push", broken.after, reference).ok()
        there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "pulled"))
        assert there.run("capture", "pull", f"{reference}:{broken.after}").ok().out.strip() == broken.after
        there.run("capture", "verify").ok()
        by_digest = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "by-digest"))
        assert by_digest.run("capture", "pull", f"oci://{pushed}").ok().out.strip() == broken.after
        there.run("capture", "pull", f"{reference}:nothing").failed(1, "has no capture")
    archive = tmp_path / "capture.tar"
    keeper.run("capture", "push", broken.after, str(archive)).ok()
    from_archive = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "unpacked"))
    assert from_archive.run("capture", "pull", str(archive)).ok().out.strip() == broken.after
    other = str(tmp_path / "other")
    keeper.run("capture", "push", broken.after[:6], other).ok()
    assert keeper.run("capture", "list", "--store", other, "-o", "name").ok().out.strip() == broken.after
    originals = shown(keeper, broken.after, "-o", "json").data
    assert from_archive.run("capture", "show", "latest", "-o", "json").ok().data == originals


def test_captures_are_listed_by_place_commit_and_person(keeper: Tool, broken: Broken) -> None:
    def names(*arguments: str) -> set[str]:
        return set(keeper.run("capture", "list", "-o", "name", *arguments).ok().out.split())

    assert {broken.before, broken.after} <= names("--env", broken.space.name)
    assert names("--env", "qa") == {broken.after}
    assert broken.after in names("--commit", COMMIT[:8])
    assert broken.before not in names("--commit", COMMIT[:8])
    assert names("--owner", "nobody-else") == set()


def test_damage_is_found_and_a_damaged_capture_can_be_removed(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    other = tmp_path / "damaged"
    keeper.run("capture", "push", broken.after, str(other)).ok()
    largest = max((other / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(other))
    there.run("capture", "verify").failed(1, "not all captures are complete")
    there.run("capture", "rm", broken.after).failed(2, "no terminal to ask on")
    there.run("capture", "rm", broken.after, "--yes").ok()
    assert there.run("capture", "list", "-o", "name").ok().out == ""


# -- rights, time, and what goes wrong meanwhile


@contextmanager
def limited(cluster: ClusterInfo, namespace: str, folder: Path, *resources: str) -> Iterator[Path]:
    """A kubeconfig of an account that may only read some resources of a namespace."""
    name = f"reader-{uuid.uuid4().hex[:6]}"
    where = ("--namespace", namespace)
    kubectl(cluster, "create", "serviceaccount", name, *where)
    kubectl(cluster, "create", "role", name, "--verb=get,list", f"--resource={','.join(resources)}", *where)
    kubectl(cluster, "create", "rolebinding", name, f"--role={name}", f"--serviceaccount={namespace}:{name}", *where)
    token = kubectl(cluster, "create", "token", name, *where).strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    [context] = [c for c in config["contexts"] if c["name"] == cluster.context]
    config["users"] = [{"name": name, "user": {"token": token}}]
    config["contexts"] = [
        {"name": cluster.context, "context": {"cluster": context["context"]["cluster"], "user": name}}
    ]
    config["current-context"] = cluster.context
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield path
    kubectl(cluster, "delete", f"serviceaccount/{name}", f"role/{name}", f"rolebinding/{name}", *where)


def test_without_rights_it_is_partial_and_says_of_what(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    resources = ("pods", "pods/log", "events", "deployments.apps", "replicasets.apps")
    with limited(cluster, broken.space.name, tmp_path, *resources) as kubeconfig:
        done = keeper.run(
            "--kubeconfig", str(kubeconfig), "capture", "create", "-n", broken.space.name,
            "--store", str(tmp_path / "captures"), "-o", "json",
        ).ok()  # fmt: skip
    status = {item["name"]: item["status"] for item in done.data["items"]}
    assert done.data["partial"] is True
    assert done.data["redaction"]["complete"] is False
    assert status["pods.json"] == status["objects/deployments.apps.json"] == status["events.json"] == "ok"
    assert status["objects/secrets.json"] == status["helm"] == status["objects/configmaps.json"] == "denied"
    assert status["nodes.json"] == "denied"
    assert any(name.startswith("logs/") and state == "ok" for name, state in status.items())
    assert "objects/secrets.json: denied" in done.err
    reader = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "captures"))
    assert "Secrets:   not readable" in shown(reader, "latest").out


async def test_when_the_time_is_up_it_says_what_is_missing(
    broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        taken = await capture(
            connection,
            broken.space.name,
            store=store,
            reason="in a hurry",
            deadline=timedelta(milliseconds=2),
            progress=PlainReporter(),
        )
    assert taken.document.partial
    assert {item.status for item in taken.document.items} >= {"timeout"}
    # Nothing may be stored before the secrets are known.
    assert all(PASSWORD.encode() not in data for _, data in contents(tmp_path))


async def test_a_pod_that_goes_meanwhile_is_absent(
    cluster: ClusterInfo, namespace: str, probe_image: str, tmp_path: Path
) -> None:
    import asyncio

    kubectl(cluster, "-n", namespace, "run", "short", f"--image={probe_image}", "--restart=Never", "--", "environment")
    kubectl(cluster, "-n", namespace, "wait", "pod/short", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    store = Store.open(str(tmp_path))
    loop = asyncio.get_running_loop()
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        known: asyncio.Future[Redactor] = loop.create_future()
        known.set_result(Redactor(b"k" * 32, {}))
        collection = Collection(connection, namespace, store, BundleWriter(store), loop.time() + 60, Bounds(), known)
        running = Running()
        await collect_pods(collection, running)
        await asyncio.to_thread(
            kubectl, cluster, "-n", namespace, "delete", "pod", "short", "--force", "--grace-period=0"
        )
        await collect_logs(collection, running)
    [log] = [item for item in collection.items if item.area == "logs"]
    assert log.status == "absent"
    assert "went away" in log.why


async def test_a_noisy_log_keeps_its_end(
    cluster: ClusterInfo, namespace: str, probe_image: str, tmp_path: Path
) -> None:
    import asyncio

    kubectl(cluster, "-n", namespace, "run", "noisy", f"--image={probe_image}", "--restart=Never", "--", "produce", "3")
    kubectl(cluster, "-n", namespace, "wait", "pod/noisy", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    store = Store.open(str(tmp_path))
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        taken = await capture(
            connection, namespace, store=store, reason="", progress=PlainReporter(),
            options=Options(bounds=Bounds(log=100_000)),
        )  # fmt: skip
    [log] = [item for item in taken.document.items if item.area == "logs"]
    assert log.status == "truncated"
    assert "bytes are left out" in log.why
    # A long log is no gap.
    assert not taken.document.partial
    assert await asyncio.to_thread(lambda: sum(len(data) for _, data in contents(tmp_path))) < 1_000_000


async def test_nobody_holds_up_those_who_say_what_is_secret(
    broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    """With one request at a time, every kind of object would wait for the releases' Secrets, and they for it."""
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        taken = await capture(
            connection, broken.space.name, store=Store.open(str(tmp_path)), reason="", progress=PlainReporter(),
            options=Options(bounds=Bounds(requests=1)), fixtures=False,
        )  # fmt: skip
    assert taken.document.redaction.complete
    assert not [item for item in taken.document.items if item.status == "timeout"]


async def test_values_of_secrets_are_for_the_recipients_only(
    broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.keys import decrypted

    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"# created: now\n{identity}\n")
    store = Store.open(str(tmp_path / "captures"))
    options = Options(include_secrets=True, recipients=(str(identity.to_public()),))
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        taken = await capture(
            connection, broken.space.name, store=store, reason="", progress=PlainReporter(), options=options
        )
    bundle = await open_bundle(store, taken.entry)
    secrets = json.loads(decrypted(await bundle.read("secrets.json.age"), tmp_path / "identity"))
    [db] = [item for item in secrets["items"] if item["metadata"]["name"] == "db"]
    assert base64.b64decode(db["data"]["password"]).decode() == PASSWORD
    assert all(PASSWORD.encode() not in data for _, data in contents(tmp_path / "captures"))


def test_a_killed_capture_is_never_listed(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    running = there.start("capture", "create", "-n", broken.space.name)
    # Some of it is in the store already, and it is not done.
    until(lambda: any(tmp_path.glob("blobs/sha256/*")) or None, "the first blobs", 60, every=0.001)
    running.kill()
    listed = there.run("capture", "list", "-o", "name").ok().out
    there.run("capture", "verify").ok()
    there.run("capture", "create", "-n", broken.space.name).ok()
    there.run("capture", "verify").ok()
    assert listed == ""
    assert len(there.run("capture", "list", "-o", "name").ok().out.split()) == 1


def test_two_at_once(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    both = [there.start("capture", "create", "-n", broken.space.name, "-o", "name") for _ in range(2)]
    ids = {running.wait(90).ok().out.strip() for running in both}
    assert len(ids) == 2
    assert set(there.run("capture", "list", "-o", "name").ok().out.split()) == ids
    there.run("capture", "verify").ok()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_it_and_nothing_is_listed(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(disk))
        there.run("capture", "create", "-n", broken.space.name).failed(1, "No space left on device", "another --store")
        assert there.run("capture", "list", "-o", "name").ok().out == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "-n", "no-such-namespace"), 2, "there is no namespace no-such-namespace"),
        (("create", "-n", "default", "--include-secrets"), 2, "only ever stored encrypted"),
        (("create", "-n", "default", "--recipient", "age1nonsense"), 2, "no recipient of age"),
        (("create", "-n", "default", "--store", "ftp://x/y"), 2, "no kind of store called ftp"),
        (("show", "zzzz"), 1, "there is no capture 'zzzz'"),
        (("rm", "zzzz"), 1, "there is no capture 'zzzz'"),
        (("pull", "/no/such.tar"), 2, "cannot be read"),
        (("pull", "oci://127.0.0.1:1/x:y"), 5, "does not answer"),
    ],
)
def test_what_cannot_be_is_said(keeper: Tool, arguments: tuple[str, ...], code: int, said: str) -> None:
    keeper.run("capture", *arguments).failed(code, said)


def test_retention_keeps_the_newest_and_what_is_pinned(keeper: Tool, broken: Broken, tmp_path: Path) -> None:
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    for name in (broken.before, broken.after):
        keeper.run("capture", "push", name, str(tmp_path)).ok()
    there.run("capture", "pin", broken.before, "--for", "1d", "--why", "the last good one").ok()
    assert there.run("capture", "prune", "--keep", "0", "--dry-run").ok().out.split()[0] == broken.after
    there.run("capture", "prune", "--keep", "0", "--yes").ok()
    [left] = there.run("capture", "list", "-o", "json").ok().data
    assert left["id"] == broken.before
    assert left["pin"]["why"] == "the last good one"
    there.run("capture", "rm", broken.before, "--yes").failed(4, "is pinned until")
    assert datetime.fromisoformat(left["pin"]["until"]) > datetime.now(UTC)


# -- databases, and what `sandbox up` deployed


@pytest.fixture(scope="module")
def databases(cluster: ClusterInfo) -> Iterator[str]:
    """A namespace with a PostgreSQL and a Redis that hold something."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    kubectl(cluster, "create", "namespace", name)
    image = datastores.base_image(cluster)
    pods = [datastores.postgres("db", image), datastores.redis("cache", image)]
    kubectl(cluster, "-n", name, "apply", "-f", "-", stdin=yaml.safe_dump_all(pods))
    kubectl(cluster, "-n", name, "wait", "pod/db", "pod/cache", "--for=condition=Ready", "--timeout=120s")
    statement = "create table customers as select 1 as id, 'Ada-Lovelace' as name"
    kubectl(cluster, "-n", name, "exec", "db", "--", "psql", "-U", "postgres", "-c", statement)
    redis = f"redis-cli -a {datastores.PASSWORD} set cart:1 'two-lamps'"
    kubectl(cluster, "-n", name, "exec", "cache", "--", "sh", "-c", redis)
    yield name
    kubectl(cluster, "delete", "namespace", name, "--wait=false")


def test_databases_and_caches_are_in_it(keeper: Tool, databases: str) -> None:
    identifier = keeper.run("capture", "create", "-n", databases, "-o", "name").ok().out.strip()
    document = shown(keeper, identifier, "-o", "json").data
    fixtures = {fixture["kind"]: fixture for fixture in document["fixtures"]}
    installed = {"postgresql", "redis"} & set(stores())
    assert {kind: fixture["status"] for kind, fixture in fixtures.items()} == dict.fromkeys(installed, "ok")
    items = {item["name"]: item for item in document["items"]}
    for fixture in fixtures.values():
        item = items[f"fixtures/{fixture['name']}"]
        assert item["status"] == "ok"
        assert item["size"] == sum(part["size"] for part in fixture["parts"]) > 0
    text = shown(keeper, identifier).out
    for kind in installed:
        assert re.search(rf"{kind} \S+.*, ok, ", text)
    keeper.run("capture", "verify", identifier).ok()
    without = keeper.run("capture", "create", "-n", databases, "--no-fixtures", "-o", "json").ok().data
    assert without["fixtures"] == []


def test_contents_for_others_are_encrypted(keeper: Tool, databases: str, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    where = ("-n", databases, "--store", str(tmp_path), "--recipient", str(identity.to_public()), "-o", "json")
    document = keeper.run("capture", "create", *where).ok().data
    assert {fixture["status"] for fixture in document["fixtures"]} == {"ok"}
    plain = [path.name for path, data in contents(tmp_path) if b"Ada-Lovelace" in data or b"two-lamps" in data]
    assert not plain
    index = json.loads((tmp_path / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((tmp_path / "blobs" / "sha256" / digest).read_text())
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]]
    data = [title for title in titles if title.startswith("fixtures/")]
    assert data
    assert all(title.endswith(".age") for title in data)
    remote = ("-n", databases, "--store", "memory://captures")
    keeper.run("capture", "create", *remote).failed(4, "encrypted only", "--recipient age1")


def test_of_what_sandbox_deployed_the_record_says_the_commit(
    keeper: Tool, project: GitProject, space: Namespace, probe_image: str
) -> None:
    for arguments in (("serve", "8080"), ("crash", "no", "such", "table")):
        project.declare({"web": project.manifests("web", projects.deployment("web", probe_image, *arguments))})
        project.commit()
        ended = keeper.up(project)
    ended.failed(1, "no such table")
    document = keeper.run("capture", "create", "-s", project.name, "-o", "json").ok().data
    [service] = [service for service in document["services"] if service["name"]]
    assert (service["commit"], service["commit_from"]) == (project.git("rev-parse", "HEAD"), "record")
    assert {"commit", "manifests"} <= set(service["changed"])
    assert document["record"] == 2
    assert document["owner"]
    assert "no such table" in " ".join(document["signature"]["log"])
    names = {item["name"] for item in document["items"] if item["status"] == "ok"}
    assert {"records/1.json", "records/2.json"} <= names
