"""`sandbox reproduce` of a namespace that plain `kubectl apply` broke: what its PostgreSQL and Redis hold is why."""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from sandbox.capture.bundle import JSON_TYPE, BundleWriter
from sandbox.capture.capture import Options, capture
from sandbox.capture.model import Document
from sandbox.cli.reporter import PlainReporter
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest
from sandbox.store.store import Store
from tests.conftest import kubectl
from tests.e2e import datastores
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.projects import Namespace, Tool
from tests.e2e.workloads import claim, container, deployment, pod_spec

ADMIN = "admin-of-tests-41b7"
ROLE = "role-of-tests-9d3e"
CACHE = "cache-of-tests-6c0a"

# Dies of what is in the databases, and says which row and key it was; without its data it would say something else.
# It writes down where it ran, and says it too.
_SHOP = """
psql "$DATABASE_URL" -q -c "insert into starts values ('$(hostname)', '$NAMESPACE')" || { sleep 1; exit 2; }
state=$(psql "$DATABASE_URL" -At -c 'select state from orders where id = 7') || { sleep 1; exit 2; }
cart=$(redis-cli -h "$CACHE_HOST" -a "$CACHE_PASSWORD" --no-auth-warning get cart:7)
echo "error: order 7 is $state and its cart holds $cart, on $(hostname) in $NAMESPACE" >&2
exit 3
"""
_SCHEMA = """
create role shop login password '{role}';
create database shop owner shop;
\\c shop
set role shop;
create table orders (id int primary key, state text);
create table starts (host text, namespace text);
insert into orders select n, case n when 7 then 'paid twice' else 'paid' end from generate_series(1, 50) n;
"""


@dataclass(frozen=True)
class Broken:
    """A namespace whose service crashes because of its data, and its capture."""

    space: Namespace
    capture: str


def in_deployment(pod: Manifest) -> Manifest:
    """A bare pod's contents as a Deployment."""
    made = deployment(pod["metadata"]["name"], pod["spec"])
    made["spec"]["template"]["metadata"]["labels"] |= pod["metadata"]["labels"]
    return made


def secret_value(name: str, key: str) -> Manifest:
    return {"secretKeyRef": {"name": name, "key": key}}


def service(name: str, port: int, **spec: Any) -> Manifest:
    ports = [{"port": port, "targetPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def secret(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def stores(image: str, namespace: str) -> list[Manifest]:
    """PostgreSQL and Redis with passwords from Secrets, and what leads to them."""
    admin = [{"name": "POSTGRES_PASSWORD", "valueFrom": secret_value("admin", "password")}]
    cache = [{"name": "REDIS_PASSWORD", "valueFrom": secret_value("shop", "cache-password")}]
    url = f"postgresql://shop:{ROLE}@db.{namespace}.svc.cluster.local:5432/shop"
    settings = {"CACHE_HOST": f"cache.{namespace}.svc", "GREETING": f"welcome to {namespace}"}
    return [
        secret("admin", password=ADMIN),
        secret("shop", **{"url": url, "cache-password": CACHE, "username": "shop"}),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": settings},
        service("db", 5432),
        service("cache", 6379),
        service("shop", 8080, type="NodePort"),
        in_deployment(datastores.postgres("db", image, env=admin)),
        in_deployment(datastores.redis("cache", image, env=cache)),
    ]


def shop(image: str) -> Manifest:
    env = [
        {"name": "DATABASE_URL", "valueFrom": secret_value("shop", "url")},
        {"name": "CACHE_PASSWORD", "valueFrom": secret_value("shop", "cache-password")},
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    environment = [{"configMapRef": {"name": "settings"}}]
    main = container(image, command=["sh", "-c", _SHOP], env=env, envFrom=environment)
    volumes = [{"name": "uploads", "persistentVolumeClaim": {"claimName": "uploads"}}]
    mounted = {**main, "volumeMounts": [{"name": "uploads", "mountPath": "/uploads"}]}
    return deployment("shop", pod_spec(mounted, volumes=volumes))


@pytest.fixture(scope="module")
def keeper(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, with a store of its own."""
    return tool.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path_factory.mktemp("captures")))


@pytest.fixture(scope="module")
def image(cluster: ClusterInfo) -> str:
    return datastores.base_image(cluster)


@pytest.fixture(scope="module")
def broken(keeper: Tool, cluster: ClusterInfo, image: str) -> Iterator[Broken]:
    space = Namespace(cluster, f"test-{uuid.uuid4().hex[:10]}")
    kubectl(cluster, "create", "namespace", space.name)
    space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(stores(image, space.name)))
    for name in ("db", "cache"):
        space.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
    sql(space, "postgres", _SCHEMA.format(role=ROLE))
    redis(space, CACHE, "set", "cart:7", "two lamps")
    space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([claim("uploads"), shop(image)]))
    until(lambda: backs_off(space, "shop") or None, "shop crashes twice", 120)
    done = keeper.run("capture", "create", "-n", space.name, "--reason", "the shop is down", "-o", "name")
    yield Broken(space, done.ok().out.strip())
    kubectl(cluster, "delete", "namespace", space.name, "--wait=false")


def sql(space: Namespace, database: str, statements: str) -> str:
    psql = ("psql", "-U", "postgres", "-At", "-q", "-v", "ON_ERROR_STOP=1", "-d", database)
    where = ("exec", "-i", "-n", space.name, "deployment/db")
    return kubectl(space.cluster, *where, "--", *psql, stdin=statements).strip()


def redis(space: Namespace, password: str, *command: str) -> str:
    words = ("redis-cli", "-a", password, "--no-auth-warning", *command)
    return kubectl(space.cluster, "exec", "-n", space.name, "deployment/cache", "--", *words).strip()


def backs_off(space: Namespace, app: str) -> bool:
    """Whether a container has crashed again and waits: in the second in which it runs, nothing is wrong with it."""
    pods = api_of(space.cluster).list("pods", space.name, f"app={app}")
    statuses = [status for pod in pods for status in pod.get("status", {}).get("containerStatuses", ())]
    return any(
        status["restartCount"] and status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        for status in statuses
    )


def value_of(space: Namespace, name: str, key: str) -> str:
    return base64.b64decode(space.get("secret", name)["data"][key]).decode()


@dataclass(frozen=True)
class Again:
    """What `reproduce` made of it."""

    space: Namespace
    data: dict[str, Any]
    err: str


@pytest.fixture(scope="module")
def again(keeper: Tool, cluster: ClusterInfo, broken: Broken) -> Iterator[Again]:
    name = f"again-{uuid.uuid4().hex[:8]}"
    ended = keeper.run("reproduce", broken.capture, "--name", name, "-o", "json")
    yield Again(Namespace(cluster, name), ended.ok().data, ended.err)
    kubectl(cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def items(again: Again, outcome: str) -> dict[str, str]:
    return {item["name"]: item["why"] for item in again.data["report"] if item["outcome"] == outcome}


def test_the_same_failure_shows(again: Again) -> None:
    verdict = again.data["verdict"]
    assert verdict["verdict"] == "same failure", again.err
    assert "order 7 is paid twice and its cart holds two lamps" in "\n".join(verdict["evidence"])


def test_rows_and_keys_are_those_that_were_captured(again: Again, broken: Broken) -> None:
    query = "select count(*), md5(string_agg(id || state, ',' order by id)) from orders"
    assert sql(again.space, "shop", query) == sql(broken.space, "shop", query)
    password = value_of(again.space, "shop", "cache-password")
    assert redis(again.space, password, "get", "cart:7") == "two lamps"


def test_what_a_service_wrote_of_its_own_place_stays_as_it_was(again: Again, broken: Broken, keeper: Tool) -> None:
    """Data is not rewritten; what the service writes now, it writes of the sandbox."""
    fixtures = keeper.run("capture", "show", broken.capture, "-o", "json").ok().data["fixtures"]
    [database] = [d for f in fixtures if f["name"] == "db" for d in f["facts"]["databases"] if d["name"] == "shop"]
    [starts] = [table["rows"] for table in database["tables"] if table["name"] == "starts"]
    places = "select namespace, count(*) from starts group by 1"
    found = dict(line.split("|") for line in sql(again.space, "shop", places).splitlines())
    assert found[broken.space.name] == str(starts)
    assert int(found[again.space.name]) >= 1


def test_secrets_have_new_values_that_fit_together(again: Again) -> None:
    url, password = (value_of(again.space, "shop", key) for key in ("url", "cache-password"))
    assert ROLE not in url
    assert password not in ("", CACHE)
    assert url.startswith("postgresql://shop:")
    assert f"@db.{again.space.name}.svc.cluster.local:5432/shop" in url
    # The role has the new password: only then the failure could be the same.
    assert value_of(again.space, "shop", "username") == "shop"


def test_the_report_is_what_is_there(again: Again, broken: Broken) -> None:
    reproduced, substituted, unavailable = (items(again, o) for o in ("reproduced", "substituted", "unavailable"))
    assert {"deployment.apps/db", "deployment.apps/cache", "fixture/db", "fixture/cache"} <= set(reproduced)
    for kind in ("deployments", "services", "configmaps", "secrets"):
        there = broken.space.names(kind) - {"kube-root-ca.crt"}
        assert there <= again.space.names(kind)
    assert again.space.get("service", "shop")["spec"]["type"] == "ClusterIP"
    assert "ClusterIP" in substituted["service/shop"]
    assert "secret/admin" in substituted
    settings = again.space.get("configmap", "settings")["data"]
    assert settings["CACHE_HOST"] == f"cache.{again.space.name}.svc"
    # Not a name of a service: it is left, and said.
    assert settings["GREETING"] == f"welcome to {broken.space.name}"
    assert "configmap/settings" in substituted
    assert "GREETING" in "\n".join(again.data["unresolved"])
    assert "empty" in unavailable["persistentvolumeclaim/uploads"]


def test_it_is_a_sandbox_within_guardrails(again: Again, keeper: Tool) -> None:
    itself = again.space.itself()
    assert itself is not None
    assert itself["metadata"]["annotations"]["sandbox.dev/expires-at"]
    assert "sandbox" in again.space.names("resourcequotas")
    egress = [p for p in again.space.list("networkpolicies") if "Egress" in p["spec"]["policyTypes"]]
    assert egress
    status = keeper.run("status", again.space.name, "-o", "json").ok().data
    assert {service["name"] for service in status["services"] if service["name"]} >= {"db", "cache", "shop"}
    [note] = [note for note in status["notes"] if "reproduces capture" in note]
    assert "same failure" in note


def test_again_into_what_has_data_is_refused(again: Again, keeper: Tool, broken: Broken) -> None:
    keeper.run("reproduce", broken.capture, "--name", again.space.name).failed(4, "has data already", "--name")


def test_a_dry_run_changes_nothing(keeper: Tool, broken: Broken, cluster: ClusterInfo) -> None:
    name = f"dry-{uuid.uuid4().hex[:8]}"
    done = keeper.run("reproduce", "latest", "--name", name, "--dry-run").ok()
    assert Namespace(cluster, name).itself() is None
    kinds = [m["kind"] for m in yaml.safe_load_all(done.out) if m]
    assert kinds.index("ResourceQuota") < kinds.index("Secret") < kinds.index("Deployment")
    assert ROLE not in done.out


def test_a_quota_that_is_too_small_is_said_before_anything_is_written(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    profile = {
        "apiVersion": "sandbox.dev/v1",
        "kind": "QuotaProfile",
        "name": "tiny",
        "resourceQuota": {"pods": "2"},
    }
    (tmp_path / "quotas").mkdir()
    (tmp_path / "quotas" / "tiny.yaml").write_text(yaml.safe_dump(profile))
    done = keeper.run("reproduce", broken.capture, "--name", name, "--quota", "tiny", cwd=tmp_path)
    done.failed(4, "the quota profile tiny", "--only")
    assert Namespace(cluster, name).itself() is None


# -- what goes wrong, and captures of others


@contextmanager
def another(cluster: ClusterInfo) -> Iterator[Namespace]:
    """A sandbox that a test makes, removed afterwards."""
    space = Namespace(cluster, f"other-{uuid.uuid4().hex[:8]}")
    try:
        yield space
    finally:
        kubectl(cluster, "delete", "namespace", space.name, "--wait=false", "--ignore-not-found")


def test_killed_in_the_middle_and_run_again_it_is_complete(keeper: Tool, broken: Broken, cluster: ClusterInfo) -> None:
    with another(cluster) as space:
        running = keeper.start("reproduce", broken.capture, "--name", space.name)
        running.read_until("Fill db", 120)
        running.kill()
        again = keeper.run("reproduce", broken.capture, "--name", space.name, "-o", "json").ok()
        assert "going on" in again.err
        assert again.data["verdict"]["verdict"] == "same failure"
        assert sql(space, "shop", "select count(*) from orders") == "50"


def test_contents_that_are_damaged_are_not_called_ready(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    keeper.run("capture", "push", broken.capture, str(tmp_path)).ok()
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    fixtures = there.run("capture", "show", broken.capture, "-o", "json").ok().data["fixtures"]
    [digest] = [part["sha256"] for fixture in fixtures if fixture["name"] == "cache" for part in fixture["parts"]]
    blob = tmp_path / "blobs" / "sha256" / digest
    blob.write_bytes(blob.read_bytes()[:-1])
    with another(cluster) as space:
        ended = there.run("reproduce", broken.capture, "--name", space.name, "--only", "cache")
        ended.failed(1, "is damaged", f"sandbox down {space.name}")
        assert space.annotations()["sandbox.dev/phase"] == "Failed"
        there.run("down", space.name, "--yes").ok()
        assert space.itself() is None


def test_who_may_read_what_is_encrypted_has_the_true_values(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path / "captures"))
    to = ("--include-secrets", "--recipient", str(identity.to_public()))
    there.run("capture", "create", "-n", broken.space.name, *to).ok()
    _without_keys(there, tmp_path)
    with another(cluster) as space:
        chosen = ("--name", space.name, "--only", "cache", "--verdict-timeout", "1s", "-o", "json")
        ended = there.run("reproduce", "latest", "--identity", str(tmp_path / "identity"), *chosen)
        # What failed is left out.
        assert ended.code == 3, ended.err
        assert value_of(space, "shop", "cache-password") == CACHE
        assert redis(space, CACHE, "get", "cart:7") == "two lamps"
        outcomes = {item["name"]: item["outcome"] for item in ended.data["report"]}
        assert outcomes["fixture/cache"] == "reproduced"
        assert outcomes["deployment.apps/shop"] == "unavailable"


def _without_keys(there: Tool, folder: Path) -> None:
    """Who has lost the key, the store's own too, gets all but what it opens; a wrong one is said."""
    shutil.rmtree(folder / "captures" / "keys")
    dry = ("reproduce", "latest", "--name", "never", "--dry-run", "-o", "json")
    planned = there.run(*dry).ok().data["plan"]
    assert planned["fill"] == []
    assert {name: "--identity" in why for name, why in planned["unfilled"].items()} == {"db": True, "cache": True}
    (folder / "wrong").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    there.run(*dry, "--identity", str(folder / "wrong")).failed(1, "cannot be decrypted")


async def test_a_test_that_failed_runs_again_when_the_user_says_so(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    line = "error: no lamp in the cart"
    command = ["sh", "-c", f"test -n \"$SANDBOX_CACHE_URL\" && echo '{line}'; exit 4"]
    failed = Finding("TestFailed", "exit code 4", "sh", exit_code=4, log_tail=(line,))
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        await capture(
            connection, broken.space.name, store=Store.open(str(tmp_path)), reason="", command=command,
            progress=PlainReporter(), options=Options(findings=[failed]),
        )  # fmt: skip
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    with another(cluster) as space:
        chosen = ("--name", space.name, "--only", "cache", "--verdict-timeout", "2s", "-o", "json")
        ended = there.run("reproduce", "latest", "--run-command", *chosen).ok()
        assert ended.data["verdict"]["evidence"] == [line]


async def test_a_test_that_hangs_when_it_runs_again_is_ended(
    keeper: Tool, broken: Broken, cluster: ClusterInfo, tmp_path: Path
) -> None:
    marker = f"77{uuid.uuid4().int % 10**9}"
    failed = Finding("TestFailed", "exit code 4", "sh", exit_code=4, log_tail=("error: no lamp",))
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        await capture(
            connection, broken.space.name, store=Store.open(str(tmp_path)), reason="", progress=PlainReporter(),
            command=["sh", "-c", f"sleep {marker} & wait"], options=Options(findings=[failed]),
        )  # fmt: skip
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    with another(cluster) as space:
        bounds = ("--verdict-timeout", "2s", "--command-timeout", "2s")
        ended = there.run(
            "reproduce", "latest", "--run-command", "--name", space.name, "--only", "cache", *bounds, "-o", "json"
        )
        assert ended.code == 3, ended.err
        assert ended.data["verdict"]["verdict"] == "different failure"
        assert "did not end within 2 s" in ended.data["verdict"]["found"]
    assert not any(marker.encode() in line for line in _command_lines())


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


async def test_what_this_cluster_does_not_know_is_left_out_and_said(
    keeper: Tool, cluster: ClusterInfo, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    writer = BundleWriter(store)
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": 7}}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}}
    for title, manifest in (("widgets.example.com", widget), ("configmaps", settings)):
        listed = {"kind": "List", "items": [manifest]}
        await writer.add(f"objects/{title}.json", json.dumps(listed).encode(), JSON_TYPE)
    now = datetime.now(UTC)
    entry = await writer.seal(Document(started_at=now, ended_at=now, namespace="elsewhere"))
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    planned = there.run("reproduce", entry.id, "--name", "never", "--dry-run", "-o", "json").ok().data
    assert "not brought back" in planned["plan"]["left_out"]["widget.example.com/one"]
    assert "settings" in {manifest["metadata"]["name"] for manifest in planned["manifests"]}


HOST_PATH = pod_spec(container("example.com/x@sha256:" + "a" * 64), volumes=[{"name": "h", "hostPath": {"path": "/"}}])


@pytest.mark.parametrize(
    ("brought", "said"),
    [
        (deployment("evil", HOST_PATH), "hostPath /"),
        (claim("huge", resources={"requests": {"storage": "900Ti"}}), "requests.storage"),
    ],
)
async def test_guardrails_bound_what_a_hostile_capture_brings(
    keeper: Tool, cluster: ClusterInfo, tmp_path: Path, brought: Manifest, said: str
) -> None:
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"}}
    store = Store.open(str(tmp_path))
    writer = BundleWriter(store)
    objects = {"kind": "List", "items": [brought, binding, {"kind": "Pod"}, 7]}
    await writer.add("objects/deployments.apps.json", json.dumps(objects).encode(), JSON_TYPE)
    now = datetime.now(UTC)
    entry = await writer.seal(Document(started_at=now, ended_at=now, namespace="kube-system"))
    there = keeper.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path))
    with another(cluster) as space:
        there.run("reproduce", entry.id, "--name", space.name).failed(4, said)
        assert space.itself() is None
