"""Databases that crash at each start: their contents are read from a copy of their volumes, by Jobs that go again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from sandbox.model import labels
from sandbox.model.objects import Manifest
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.datastores import PASSWORD, base_image, postgres, redis
from tests.e2e.projects import Ended, Namespace, Tool
from tests.e2e.workloads import claim, container, pod_spec

_ROWS = """
CREATE TABLE orders (id int PRIMARY KEY, state text);
INSERT INTO orders SELECT n, CASE n WHEN 7 THEN 'paid twice' ELSE 'paid' END FROM generate_series(1, 100) n;
"""


class Down:
    """A namespace with a PostgreSQL and a Redis that hold data and do not start any more."""

    def __init__(self, tool: Tool, space: Namespace, image: str) -> None:
        self.tool, self.space, self.image = tool, space, image

    def start(self, *, broken: bool) -> None:
        """Start both on their volumes; killed rather than ended, whatever they were doing."""
        self.space.kubectl("delete", "pod", "db", "cache", "--ignore-not-found", "--force", "--grace-period=0")
        wrong = ("-c", "no_such_setting=1") if broken else ()
        unknown = ("--no-such-directive", "1") if broken else ()
        keeps = ("--dir", "/data", "--appendonly", "yes")
        pods = [
            _on_volume(postgres("db", self.image, *wrong, volumeMounts=_mounted("/var/lib/postgresql"))),
            _on_volume(redis("cache", self.image, *keeps, *unknown, volumeMounts=_mounted("/data"))),
        ]
        self.space.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def capture(self, *arguments: str) -> Ended:
        return self.tool.run("capture", "create", "-n", self.space.name, "--no-images", "-o", "json", *arguments)

    def fixtures(self, identifier: str) -> dict[str, dict[str, Any]]:
        data = self.tool.run("capture", "show", identifier, "-o", "json").ok().data
        return {fixture["name"]: fixture for fixture in data["fixtures"]}

    def jobs(self) -> set[str]:
        return self.space.names("jobs")


def _mounted(path: str) -> list[Manifest]:
    return [{"name": "data", "mountPath": path}]


def _on_volume(pod: Manifest) -> Manifest:
    name = pod["metadata"]["name"]
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
    return pod


@pytest.fixture(scope="module")
def down(cluster: ClusterInfo, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Down]:
    space = Namespace(cluster, f"test-{uuid.uuid4().hex[:10]}")
    kubectl(cluster, "create", "namespace", space.name)
    keeper = tool.with_environment(SANDBOX_CAPTURE_STORE=str(tmp_path_factory.mktemp("captures")))
    made = Down(keeper, space, base_image(cluster))
    claims = {"apiVersion": "v1", "kind": "List", "items": [claim("db"), claim("cache")]}
    space.kubectl("apply", "-f", "-", stdin=json.dumps(claims))
    made.start(broken=False)
    space.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    within = ("exec", "-i", "-n", space.name)
    kubectl(cluster, *within, "db", "--", "psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", stdin=_ROWS)
    cli = ("redis-cli", "-a", PASSWORD, "--no-auth-warning")
    kubectl(cluster, *within, "cache", "--", *cli, "HSET", "cart:7", "lamp", "2")
    kubectl(cluster, *within, "cache", "--", *cli, "SET", "session", "x", "EX", "86400")
    made.start(broken=True)
    until(lambda: _both_crash(space) or None, "both crash")
    yield made
    kubectl(cluster, "delete", "namespace", space.name, "--wait=false")


def _both_crash(space: Namespace) -> bool:
    statuses = [s for pod in space.list("pods") for s in pod.get("status", {}).get("containerStatuses", ())]
    return len(statuses) == 2 and all(
        {"waiting", "terminated"} & s["state"].keys() and s["restartCount"] for s in statuses
    )


def test_without_being_allowed_to_it_makes_nothing_and_says_what_would_help(down: Down) -> None:
    before = down.space.versions().keys()

    fixtures = down.fixtures(down.capture().ok().data["id"])

    assert {name: fixture["status"] for name, fixture in fixtures.items()} == {"db": "failed", "cache": "failed"}
    for fixture in fixtures.values():
        assert "with --allow-write a Job reads its volume" in fixture["why"]
    assert down.space.versions().keys() == before


def test_rows_and_keys_are_read_from_copies_of_the_volumes(down: Down) -> None:
    taken = down.capture("--allow-write").ok().data["id"]

    fixtures = down.fixtures(taken)
    assert {name: (f["status"], f["why"]) for name, f in fixtures.items()} == {"db": ("ok", ""), "cache": ("ok", "")}
    for fixture in fixtures.values():
        assert "of a copy of its volume, since its server is down: " in fixture["notes"][0]
    assert fixtures["cache"]["facts"]["databases"]["0"] == {"keys": 2, "expiring": 1}
    # The rows themselves, by PostgreSQL's own tool.
    [archive] = [part["sha256"] for part in fixtures["db"]["parts"] if part["role"] == "archive"]
    assert "7\tpaid twice" in _as_sql(down, archive)
    until(lambda: not down.jobs() or None, "the Jobs are gone", 30)
    # What was made for it is nothing of the environment.
    document = down.tool.run("capture", "show", taken, "-o", "json").ok().data
    assert {service["name"] for service in document["services"]} == {"db", "cache"}


def _as_sql(down: Down, blob: str) -> str:
    """What ``pg_restore`` makes of an archive, in a pod of the same image."""
    path = f"{down.tool.overrides['SANDBOX_CAPTURE_STORE']}/blobs/sha256/{blob}"
    spec = pod_spec(container(down.image, command=["sleep", "600"]))
    reader = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": spec}
    down.space.kubectl("apply", "-f", "-", stdin=json.dumps(reader))
    down.space.kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=60s")
    try:
        down.space.kubectl("cp", path, "reader:/tmp/archive")
        return kubectl(
            down.space.cluster, "exec", "-n", down.space.name, "reader", "--", "pg_restore", "-f", "-", "/tmp/archive"
        )
    finally:
        down.space.kubectl("delete", "pod", "reader", "--force", "--grace-period=0")


def test_what_a_killed_capture_left_goes_with_the_next_who_reads_there(down: Down, tmp_path: Path) -> None:
    running = down.tool.start("capture", "create", "-n", down.space.name, "--no-images", "--allow-write")
    left = until(lambda: down.jobs() or None, "a Job is made")
    running.kill()
    [job, *_] = [job for job in down.space.list("jobs") if job["metadata"]["name"] in left]
    assert job["metadata"]["labels"][labels.VOLUME_COPY] in ("db", "cache")
    # Nobody would have to come: it ends and goes by itself.
    assert job["spec"]["activeDeadlineSeconds"] < 300
    assert job["spec"]["ttlSecondsAfterFinished"] == 0

    export = ("data", "export", "-n", down.space.name, "--to", str(tmp_path / "copy"), "--only", "db", "-o", "json")
    down.tool.run(*export).failed(1, "with --allow-write a Job reads its volume")
    [exported] = down.tool.run(*export, "--allow-write").ok().data

    assert (exported["name"], exported["status"]) == ("db", "ok")
    until(lambda: not down.jobs() or None, "the Jobs are gone", 30)


def test_a_quota_that_has_no_room_for_the_job_is_kept_and_said(down: Down) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    down.space.kubectl("apply", "-f", "-", stdin=json.dumps(quota))
    until(lambda: down.space.get("resourcequota", "few").get("status", {}).get("used") or None, "the quota counts")
    try:
        fixtures = down.fixtures(down.capture("--allow-write").ok().data["id"])
    finally:
        down.space.kubectl("delete", "resourcequota", "few")
    assert {fixture["status"] for fixture in fixtures.values()} == {"failed"}
    for fixture in fixtures.values():
        assert "exceeded quota: few" in fixture["why"]
    until(lambda: not down.jobs() or None, "the Jobs are gone", 30)
