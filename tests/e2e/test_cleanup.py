"""`sandbox cleanup` on a real API server. Every sweep is told to look at the test's own sandboxes only (``-l``)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sandbox.cluster.client import Cluster
from sandbox.cluster.kubeconfig import find
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.providers import ClusterInfo
from sandbox.lifecycle import cleanup, summaries
from sandbox.lifecycle.cleanup import Policy, Sweep
from sandbox.lifecycle.expiry import extend
from sandbox.lifecycle.report import Action, Line
from sandbox.lifecycle.verdict import Rules
from sandbox.model import labels
from sandbox.model.durations import from_rfc3339, to_rfc3339
from sandbox.model.errors import OperationFailed
from sandbox.model.sandbox import Sandbox
from sandbox.project.platform import Limits
from sandbox.project.quotas import QuotaProfile
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.faulty import Fault, faulty
from tests.e2e.handmade import LOCK, Group, definition, group_on
from tests.e2e.preloaded import Preloaded
from tests.e2e.projects import Ended, Tool
from tests.e2e.proxy import proxied

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
CLUSTER_ROLES = frozenset({"ClusterRole.rbac.authorization.k8s.io"})
RULES = Rules(warn_before=30 * MINUTE, stuck_after=10 * MINUTE)


@pytest.fixture(scope="module")
def tool(control_plane: ClusterInfo, preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, on the cluster without nodes."""
    return Tool(control_plane, tmp_path_factory.mktemp("home"), preloaded)


@pytest.fixture
def group(control_plane: ClusterInfo) -> Iterator[Group]:
    with group_on(control_plane) as made:
        yield made


def sweep(tool: Tool, group: Group, *arguments: str) -> Ended:
    return tool.run("cleanup", "--yes", "-l", group.selector, "-o", "json", *arguments)


def lines(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def of(ended: Ended, action: str) -> list[dict[str, Any]]:
    return [line for line in lines(ended) if line["action"] == action]


def names(ended: Ended, action: str) -> set[str]:
    return {line["namespace"] for line in of(ended, action)}


def events(group: Group, name: str, reason: str) -> list[dict[str, Any]]:
    items = api_of(group.cluster).list("events", name)
    return [item for item in items if item["reason"] == reason]


def hold(group: Group, name: str) -> None:
    """Keep a namespace from ending: an object in it has a finalizer of nobody."""
    metadata = {"name": "held", "namespace": name, "finalizers": ["example.com/hold"]}
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(held))


def let_go(group: Group, name: str) -> None:
    patch = '{"metadata":{"finalizers":null}}'
    kubectl(group.cluster, "-n", name, "patch", "configmap", "held", "--type=merge", "-p", patch)


# -- what is deleted, and what is not ---------------------------------------------------------------------------


def test_only_what_has_expired_is_deleted(tool: Tool, group: Group) -> None:
    tomorrow, yesterday = (to_rfc3339(datetime.now(UTC) + days * 24 * HOUR) for days in (1, -1))
    # In an hour, written as clocks there show it: read without its zone, it would have passed.
    honolulu = (datetime.now(UTC) + HOUR).astimezone(timezone(-10 * HOUR)).isoformat(timespec="seconds")
    # An hour ago, although its digits are of tomorrow.
    auckland = (datetime.now(UTC) - HOUR).astimezone(timezone(13 * HOUR)).isoformat(timespec="seconds")
    expired = group.name("expired")
    group.make(expired, -HOUR)
    group.make(group.name("pin-over"), -HOUR, annotations={labels.PINNED_UNTIL: yesterday})
    group.make(group.name("past-latest"), HOUR, annotations={labels.MAX_EXPIRES_AT: yesterday})
    group.make(group.name("killed-up"), -HOUR, annotations={labels.PHASE: "Provisioning"}, record=False)
    group.make(group.name("for-erin"), -HOUR, owner="erin@example.com", annotations={labels.CREATED_BY: "ci"})
    group.make(group.name("zone-over"), None, annotations={labels.EXPIRES_AT: auckland})
    due = group.alive()
    group.make(group.name("alive"), 8 * HOUR)
    group.make(group.name("pinned"), -HOUR, annotations={labels.PINNED_UNTIL: tomorrow})
    group.make(group.name("zone"), None, annotations={labels.EXPIRES_AT: honolulu})

    dry = sweep(tool, group, "--dry-run").failed(3)
    assert names(dry, "would-delete") == due
    assert due < group.alive()
    done = sweep(tool, group).failed(0)
    assert names(done, "deleted") == due
    assert not due & group.alive()
    assert group.alive() == {group.name(kind) for kind in ("alive", "pinned", "zone")}
    (line,) = [line for line in of(done, "deleted") if line["namespace"] == group.name("for-erin")]
    assert line["owner"] == "erin@example.com"
    assert from_rfc3339(line["deadline"]) < from_rfc3339(line["time"])
    assert (line["uid"], line["context"], line["project"]) == (line["uid"], group.cluster.context, group.project)
    again = sweep(tool, group).failed(0)
    assert names(again, "deleted") == set()
    (summary,) = of(again, "pass")
    assert summary["phases"]["Ready"] == 3


FLAGGED: Mapping[str, dict[str, Any]] = {
    "no-expiry": {"left": None},
    "bad-expiry": {"annotations": {labels.EXPIRES_AT: "soon"}},
    "no-zone": {"annotations": {labels.EXPIRES_AT: "2020-01-01T00:00:00"}},
    "ttl-zero": {"left": None, "annotations": {labels.TTL: "0"}},
    "ttl-century": {"left": None, "annotations": {labels.TTL: "100y"}},
    "bad-pin": {"left": -HOUR, "annotations": {labels.PINNED_UNTIL: "forever"}},
    "bad-latest": {"left": -HOUR, "annotations": {labels.MAX_EXPIRES_AT: "1"}},
    "no-record": {"left": -HOUR, "record": False},
    "other-record": {"left": -HOUR, "record_data": {"namespaceUID": "11111111-2222-3333-4444-555555555555"}},
    "empty-record": {"left": -HOUR, "record_data": {"namespaceUID": ""}},
    "other-name": {"left": -HOUR, "annotations": {labels.NAMESPACE: "another"}},
    "created-long-ago": {"left": -HOUR, "annotations": {labels.CREATED_AT: "2020-01-01T00:00:00Z"}},
    "created-unsaid": {"left": -HOUR, "annotations": {labels.CREATED_AT: None}},
}


def test_what_is_odd_is_flagged_and_never_deleted(tool: Tool, group: Group) -> None:
    for kind, facts in FLAGGED.items():
        group.make(group.name(kind), **facts)
    everything = group.alive()

    for arguments in (("--dry-run",), ()):
        ended = sweep(tool, group, *arguments).failed(3)
        assert names(ended, "flagged") == everything
        assert names(ended, "deleted") == set()
        assert all(line["why"] for line in of(ended, "flagged"))

    assert group.alive() == everything


def test_what_is_not_labelled_is_no_business_of_the_clean_up(tool: Tool, group: Group) -> None:
    group.make(group.name("plain"), -HOUR, label={labels.MANAGED_BY: "helm"})

    assert of(sweep(tool, group).failed(0), "pass")[0]["sandboxes"] == 0
    assert group.alive() == {group.name("plain")}


def test_without_yes_and_a_terminal_nothing_is_deleted(tool: Tool, group: Group) -> None:
    group.make(group.name("expired"), -HOUR)

    tool.run("cleanup", "-l", group.selector).failed(2, "--yes", group.name("expired"))
    tool.run("cleanup", "-l", group.selector, "--every", "5m").failed(2, "--yes")

    assert group.alive() == {group.name("expired")}


# -- warnings ---------------------------------------------------------------------------------------------------


class _Hook(BaseHTTPRequestHandler):
    taken: list[dict[str, Any]]
    answer = 200

    def do_POST(self) -> None:
        self.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, type[_Hook]]]:
    """A server that takes alerts: its URL, and what it took."""

    class Hook(_Hook):
        taken: list[dict[str, Any]] = []  # noqa: RUF012

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-token", Hook
    server.shutdown()
    server.server_close()


def test_owners_are_warned_once_for_each_end(tool: Tool, group: Group, hook: tuple[str, type[_Hook]]) -> None:
    url, taken = hook[0], hook[1].taken
    soon, short, later = group.name("soon"), group.name("short"), group.name("later")
    group.make(soon, 20 * MINUTE)
    # Half of its time is not over, so it is not told yet.
    group.make(short, 20 * MINUTE, annotations={labels.TTL: "30m"})
    group.make(later, 40 * MINUTE)
    tool = tool.with_environment(SANDBOX_ALERT_URL=url)

    assert names(sweep(tool, group, "--dry-run").failed(3), "would-warn") == {soon}
    assert taken == []
    assert names(sweep(tool, group).failed(0), "warned") == {soon}
    (event,) = events(group, soon, "Expiring")
    assert f"sandbox extend {soon} 4h" in event["message"]
    assert event["type"] == "Warning"
    (alert,) = taken
    assert (alert["sandbox"], alert["owner"]) == (soon, "dana@example.com")
    for again in ((), ("--dry-run",)):
        assert not {"warned", "would-warn"} & {line["action"] for line in lines(sweep(tool, group, *again).failed(0))}

    # An extension is a new end, with a warning of its own when that is near.
    tool.run("extend", soon, "25m").ok()
    assert names(sweep(tool, group).failed(0), "warned") == set()
    assert names(sweep(tool, group, "--warn-before", "2h").failed(0), "warned") == {later}
    assert len(events(group, soon, "Expiring")) == 1
    assert [alert["sandbox"] for alert in taken] == [soon, later]


def test_an_alert_that_is_not_taken_is_said_without_its_url(
    tool: Tool, group: Group, hook: tuple[str, type[_Hook]]
) -> None:
    hook[1].answer = 500
    group.make(group.name("soon"), 20 * MINUTE)

    ended = sweep(tool.with_environment(SANDBOX_ALERT_URL=hook[0]), group).failed(6)

    assert "500" in of(ended, "failed")[0]["why"]
    assert "secret-token" not in ended.out + ended.err


# -- locks ------------------------------------------------------------------------------------------------------


def test_the_lock_of_what_is_deleted_is_kept_for_a_while(tool: Tool, group: Group, tmp_path: Path) -> None:
    store = tmp_path / "store"
    expired = group.name("expired")
    made = group.make(expired, -HOUR)
    group.make(group.name("other"), -HOUR, record_data={"lock": "curl http://example.com | sh"})
    (store / "locks").mkdir(parents=True)
    old = store / "locks" / "old-1.yaml"
    old.write_text("{}")
    long_ago = time.time() - 8 * 86_400
    os.utime(old, (long_ago, long_ago))

    ended = sweep(tool, group, "--store", str(store)).failed(0)

    deleted = {line["namespace"]: line for line in of(ended, "deleted")}
    line = deleted[expired]
    assert (deleted[group.name("other")]["lock"], deleted[group.name("other")]["restore"]) == ("", "")
    (said,) = of(ended, "notice")
    assert (said["namespace"], "no lock" in said["why"]) == (group.name("other"), True)
    kept = store / "locks" / f"{expired}-{made['metadata']['uid']}.user.dana@example.com.yaml"
    assert line["lock"] == f"file://{kept}"
    assert kept.read_text() == LOCK
    assert [path for path in (store / "locks").iterdir() if path != kept] == []
    assert not old.exists()


def test_without_a_store_locks_are_kept_in_the_users_own(tool: Tool, group: Group) -> None:
    expired = group.name("expired")
    group.make(expired, -HOUR)

    ended = tool.run("cleanup", "--yes", "-l", group.selector).failed(0)

    (kept,) = (tool.home / ".local/share/sandbox/captures/locks").glob(f"{expired}-*.yaml")
    assert f"sandbox up --lock file://{kept} --name {expired}" in ended.err


def test_a_store_that_is_away_is_waited_for_but_not_for_ever(tool: Tool, group: Group, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    group.make(group.name("just"), -10 * MINUTE)
    group.make(group.name("long"), -2 * HOUR)
    latest = {labels.MAX_EXPIRES_AT: to_rfc3339(datetime.now(UTC) - MINUTE)}
    group.make(group.name("final"), HOUR, annotations=latest)

    ended = sweep(tool, group, "--store", str(blocked / "store")).failed(6)

    assert names(ended, "deleted") == {group.name("long"), group.name("final")}
    assert group.alive() == {group.name("just")}
    assert names(ended, "failed") == {group.name("just"), group.name("long"), group.name("final")}


# -- outside of the namespace -----------------------------------------------------------------------------------


def cluster_role(group: Group, name: str, namespace: str, **metadata: Any) -> str:
    """A ClusterRole that is marked as a sandbox's; its UID."""
    marks = {"labels": {labels.SERVICE: "web"}, "annotations": {labels.NAMESPACE: namespace}, **metadata}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, **marks},
        "rules": [],
    }
    made = kubectl(group.cluster, "create", "-f", "-", "-o", "json", stdin=json.dumps(role))
    return str(json.loads(made)["metadata"]["uid"])


def outside(kind: str, name: str, uid: str, group: str = "rbac.authorization.k8s.io") -> dict[str, str]:
    return {"group": group, "version": "v1", "kind": kind, "name": name, "uid": uid}


def test_outside_only_what_is_surely_its_own_is_deleted(tool: Tool, group: Group) -> None:
    expired = group.name("expired")
    roles = {kind: f"{group.project}-{kind}" for kind in ("own", "reborn", "unmarked", "others", "unlisted")}
    own = cluster_role(group, roles["own"], expired)
    cluster_role(group, roles["reborn"], expired)
    unmarked = cluster_role(group, roles["unmarked"], expired, labels={}, annotations={})
    others = cluster_role(group, roles["others"], "another-sandbox")
    recorded = [
        outside("ClusterRole", roles["own"], own),
        outside("ClusterRole", roles["reborn"], "11111111-2222-3333-4444-555555555555"),
        outside("ClusterRole", roles["unmarked"], unmarked),
        outside("ClusterRole", roles["others"], others),
        outside("ClusterRole", "cluster-admin", ""),
        outside("ClusterRole", "never-made", "x"),
        outside("Namespace", "default", "x", group=""),
    ]
    group.make(expired, -HOUR, record_data={"outside": json.dumps(recorded)})
    try:
        ended = sweep(tool, group).failed(6)

        assert names(ended, "deleted") == {expired}
        left = json.loads(kubectl(group.cluster, "get", "clusterroles", "-o", "json"))["items"]
        there = {item["metadata"]["name"] for item in left}
        assert roles["own"] not in there
        assert {roles["reborn"], roles["unmarked"], roles["others"], "cluster-admin"} <= there
        said = " ".join(line["why"] for line in of(ended, "failed"))
        assert all(name in said for name in ("reborn", "unmarked", "others", "cluster-admin", "namespace/default"))
    finally:
        kubectl(group.cluster, "delete", "clusterroles", "--ignore-not-found", *roles.values())


def test_once_its_end_has_begun_an_extension_comes_too_late(tool: Tool, group: Group) -> None:
    name = group.name("claimed")
    group.make(name, -HOUR, annotations={labels.PHASE: "Expiring"})

    tool.run("extend", name, "4h").failed(1, "too late")
    assert names(sweep(tool, group).failed(0), "deleted") == {name}


def test_volumes_that_stay_are_said_and_stay(tool: Tool, group: Group) -> None:
    expired, alive = group.name("expired"), group.name("alive")
    group.make(expired, -HOUR)
    group.make(alive, HOUR)
    volumes = {
        f"{expired}-keep": (expired, "data", "Retain"),
        f"{expired}-drop": (expired, "scratch", "Delete"),
        f"{expired}-free": (expired, "nobodys", "Retain"),
        f"{alive}-keep": (alive, "data", "Retain"),
    }
    for name, (namespace, claim, reclaim) in volumes.items():
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": reclaim,
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": f"/tmp/{name}"},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(volume))
        if claim != "nobodys":
            asked: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name}
            asked["resources"] = {"requests": {"storage": "1Gi"}}
            wanted = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": asked}
            kubectl(group.cluster, "create", "-n", namespace, "-f", "-", stdin=json.dumps(wanted))
            kubectl(group.cluster, "wait", "--for=jsonpath={.status.phase}=Bound", f"pv/{name}", "--timeout=60s")
    try:
        (said,) = of(sweep(tool, group).failed(0), "notice")

        assert said["why"].endswith(f"reclaim policy is Retain: {expired}-keep (of {expired}/data)")
        assert kubectl(group.cluster, "get", "pv", f"{expired}-keep", "-o", "name").strip()
    finally:
        kubectl(group.cluster, "delete", "pv", "--wait=false", "--ignore-not-found", *volumes)


# -- custom resources -------------------------------------------------------------------------------------------


@pytest.fixture
def things(control_plane: ClusterInfo, group: Group) -> Iterator[str]:
    """A kind of custom resource, as kubectl names it."""
    api = f"{group.project}.example.com"
    kubectl(control_plane, "create", "-f", "-", stdin=json.dumps(definition(api)))
    kubectl(control_plane, "wait", "--for=condition=Established", "--timeout=60s", f"crd/things.{api}")
    resources = ("api-resources", f"--api-group={api}", "--cached=false", "-o", "name")
    until(lambda: kubectl(control_plane, *resources).strip() or None, "it is served", 60)
    yield f"things.{api}"
    kubectl(control_plane, "delete", "crd", f"things.{api}", "--wait=false")


def make_thing(group: Group, things: str, namespace: str, finalizers: list[str]) -> None:
    thing = {
        "apiVersion": f"{things.partition('.')[2]}/v1",
        "kind": "Thing",
        "metadata": {"name": "web", "namespace": namespace, "finalizers": finalizers},
    }
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(thing))


def finish_thing(group: Group, things: str, namespace: str) -> None:
    """What its operator does at the end."""
    patch = '{"metadata":{"finalizers":null}}'
    kubectl(group.cluster, "-n", namespace, "patch", things, "web", "--type=merge", "-p", patch)


def test_custom_resources_end_before_their_namespace(tool: Tool, group: Group, things: str) -> None:
    free, held, late, alive = (group.name(kind) for kind in ("free", "held", "late", "alive"))
    for name, left in ((free, -MINUTE), (held, -MINUTE), (late, -2 * HOUR), (alive, HOUR)):
        group.make(name, left)
        make_thing(group, things, name, [] if name == free else ["example.com/operator"])

    first = sweep(tool, group, "--custom-resources", things).failed(6)

    # The operator has not finished: its namespace waits for it; not for ever.
    assert names(first, "deleted") == {free, late}
    (spared,) = of(first, "spared")
    assert (spared["namespace"], f"thing.{things.partition('.')[2]}/web" in spared["why"]) == (held, True)
    assert group.annotations(held)[labels.PHASE] == "Expiring"
    tool.run("extend", held, "4h").failed(1, "too late")
    (stuck,) = of(first, "stuck")
    assert (stuck["namespace"], "finalizers example.com/operator" in stuck["why"]) == (late, True)
    marked = json.loads(kubectl(group.cluster, "get", things, "-A", "-o", "json"))["items"]
    ends = {item["metadata"]["namespace"]: "deletionTimestamp" in item["metadata"] for item in marked}
    assert (ends[held], ends[late], ends[alive]) == (True, True, False)

    for name in (held, late):
        finish_thing(group, things, name)
    assert names(sweep(tool, group, "--custom-resources", things).failed(0), "deleted") == {held}
    finish_thing(group, things, alive)


def test_only_custom_resources_can_be_named(tool: Tool, group: Group) -> None:
    for name in ("secrets", "deployments.apps", "*.example.com"):
        sweep(tool, group, "--custom-resources", name).failed(2, "postgresqls.acid.zalan.do")


# -- races and faults -------------------------------------------------------------------------------------------


def policy(group: Group, **more: Any) -> Policy:
    return Policy(rules=RULES, selector=group.selector, **more)


class _Paced(Cluster):
    """Lets others come between its requests: whoever waits for a number goes on when so many have left."""

    sent = 0
    progress: asyncio.Condition

    @asynccontextmanager
    async def open(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        await self.let_on(1)
        async with super().open(method, path, **more) as response:
            yield response

    async def let_on(self, number: int) -> None:
        async with self.progress:
            self.sent += number
            self.progress.notify_all()

    async def until(self, number: int) -> None:
        async with self.progress:
            await self.progress.wait_for(lambda: self.sent >= number)


async def test_an_extension_wins_or_says_that_it_lost_a_hundred_times(group: Group) -> None:
    count = 100
    made = await asyncio.to_thread(group.make_many, count, -HOUR)
    told: list[Line] = []
    extended: set[str] = set()
    late: dict[str, str] = {}
    where = group.cluster
    async with _Paced(find(where.context, where.kubeconfig)) as one:
        one.progress = asyncio.Condition()
        async with Cluster.connect(where.context, where.kubeconfig) as other:
            pass_ = Sweep(one, policy(group), told.append)
            found = await pass_.look()
            assert len(found.due()) == count
            begun = one.sent

            async def clean_up() -> None:
                await pass_.act(found)
                # Of some nothing more was asked: they were extended before.
                await one.let_on(2 * count)

            async def prolong(number: int, turn: int) -> None:
                # All over what the sweep does, an event and a deletion for each: some come before and some after it.
                await one.until(begun + 2 * turn)
                sandbox = Sandbox.of(made[number], other.context)
                try:
                    moved = await extend(other, sandbox, 4 * HOUR)
                    assert moved.changed
                    extended.add(sandbox.namespace)
                except OperationFailed as error:
                    late[sandbox.namespace] = error.what

            order = [number * 37 % count for number in range(count)]
            await asyncio.gather(clean_up(), *(prolong(number, turn) for turn, number in enumerate(order)))
    deleted = {line.namespace for line in told if line.action is Action.DELETED}
    spared = {line.namespace for line in told if line.action is Action.SPARED}

    assert len(extended) + len(late) == count
    assert not extended & deleted, "success and deletion"
    assert deleted == set(late)
    assert all("too late" in text for text in late.values())
    assert spared == extended
    assert await asyncio.to_thread(group.alive) == extended
    # A race in which only one side ever runs would show nothing.
    assert extended
    assert late


async def test_nothing_is_deleted_in_the_middle_of_a_deployment(group: Group) -> None:
    provisioning = {labels.PHASE: "Provisioning"}
    late = {"deploying": -MINUTE, "sleeping": -MINUTE, "dead": -MINUTE, "stubborn": -2 * HOUR, "final": -MINUTE}
    more: dict[str, dict[str, str]] = dict.fromkeys(late, provisioning)
    more["sleeping"] = {labels.PHASE: "Ready"}
    more["final"] = provisioning | {labels.MAX_EXPIRES_AT: to_rfc3339(datetime.now(UTC) - MINUTE)}
    for kind, left in late.items():
        await asyncio.to_thread(group.make, group.name(kind), left, annotations=more[kind])
    told: list[Line] = []
    where = group.cluster

    async with Cluster.connect(where.context, where.kubeconfig) as connection, AsyncExitStack() as held:
        for kind in ("deploying", "sleeping", "stubborn", "final"):
            await held.enter_async_context(deployment_lease(connection, group.name(kind)))
        sweep = Sweep(connection, policy(group), told.append)
        done = await sweep.act(await sweep.look())

    (spared,) = [line for line in told if line.action is Action.SPARED]
    assert spared.namespace == group.name("deploying")
    assert "being deployed" in spared.why
    assert done.overdue >= 60
    deleted = {line.namespace for line in told if line.action is Action.DELETED}
    assert deleted == {group.name(kind) for kind in late} - {group.name("deploying")}


class _Asking(Cluster):
    """Remembers what it asked for."""

    asked: list[str]

    @asynccontextmanager
    async def open(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        self.asked.append(f"{method} {path}")
        async with super().open(method, path, **more) as response:
            yield response


@pytest.mark.parametrize("may_list", [True, False])
async def test_many_records_are_read_by_a_list_where_that_is_allowed(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_list: bool
) -> None:
    monkeypatch.setattr(summaries, "_MANY", 3)
    monkeypatch.setattr(summaries, "_PAGE", 2)
    # Of other tests, which share the cluster.
    monkeypatch.setattr(summaries, "_OTHERS", 10_000)
    rules = [LOOK, {**RECORDS, "verbs": ["get", *(["list"] if may_list else [])]}, EVENTS, DELETE]
    path = await asyncio.to_thread(as_account, group, tmp_path / "account", *rules)
    try:
        await asyncio.to_thread(group.make_many, 4, -HOUR)
        await asyncio.to_thread(group.make, group.name("copy"), -HOUR, record_data={"namespaceUID": "another"})
        await asyncio.to_thread(group.make, group.name("bare"), -HOUR, record=False)
        told: list[Line] = []
        async with _Asking(find(group.cluster.context, path)) as connection:
            connection.asked = []
            pass_ = Sweep(connection, policy(group), told.append)
            await pass_.act(await pass_.look())

        assert {line.namespace for line in told if line.action is Action.DELETED} == {group.name(n) for n in range(4)}
        flagged = {line.namespace for line in told if line.action is Action.FLAGGED}
        assert flagged == {group.name("copy"), group.name("bare")}
        # Of the one without a record nobody knows that until it is asked for.
        one_by_one = {"bare"} if may_list else {"bare", "copy", *range(4)}
        asked = {request for request in connection.asked if request.endswith("/configmaps/sandbox-record")}
        assert asked == {f"GET /api/v1/namespaces/{group.name(n)}/configmaps/sandbox-record" for n in one_by_one}
        # All that goes before a deletion is done before the first one.
        verbs = [request.partition(" ")[0] for request in connection.asked]
        assert verbs[-4:] == ["DELETE"] * 4
        assert "DELETE" not in verbs[:-4]
    finally:
        names = f"clusterrole/{group.project}", f"clusterrolebinding/{group.project}"
        await asyncio.to_thread(kubectl, group.cluster, "delete", *names)


async def test_two_clean_ups_at_once_delete_each_once(group: Group) -> None:
    await asyncio.to_thread(group.make_many, 30, -HOUR)
    told: list[Line] = []
    where = group.cluster

    async def one() -> None:
        async with Cluster.connect(where.context, where.kubeconfig) as connection:
            pass_ = Sweep(connection, policy(group), told.append)
            await pass_.act(await pass_.look())

    await asyncio.gather(one(), one(), one())

    deleted = [line.namespace for line in told if line.action is Action.DELETED]
    assert sorted(deleted) == sorted(set(deleted)) == sorted(group.name(number) for number in range(30))
    assert not [line for line in told if line.action is Action.FAILED]
    assert await asyncio.to_thread(group.alive) == set()


@pytest.mark.parametrize("hours", [-7, 7])
async def test_the_servers_clock_decides(group: Group, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    await asyncio.to_thread(group.make, group.name("expired"), -HOUR)
    await asyncio.to_thread(group.make, group.name("alive"), HOUR)
    monkeypatch.setattr(cleanup, "own_time", lambda: datetime.now(UTC) + hours * HOUR)
    told: list[Line] = []
    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        pass_ = Sweep(connection, policy(group), told.append)
        await pass_.act(await pass_.look())

    assert [line.namespace for line in told if line.action is Action.DELETED] == [group.name("expired")]
    way = "ahead" if hours > 0 else "behind"
    assert any(way in line.why for line in told if line.action is Action.NOTICE)


async def test_clocks_that_are_days_apart_delete_nothing(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(group.make, group.name("expired"), -HOUR)
    monkeypatch.setattr(cleanup, "own_time", lambda: datetime.now(UTC) - 50 * HOUR)
    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        with pytest.raises(OperationFailed, match="clocks"):
            await Sweep(connection, policy(group), print).look()


def test_one_that_is_stuck_stops_none_of_a_hundred(tool: Tool, group: Group) -> None:
    group.make_many(100, -HOUR)
    hold(group, group.name(50))
    try:
        assert len(names(sweep(tool, group).failed(0), "deleted")) == 100

        def reasons() -> dict[str, Any] | None:
            ended = sweep(tool, group, "--stuck-after", "1s")
            stuck = of(ended, "stuck")
            only = [line for line in stuck if "example.com/hold" in line["why"]]
            if {line["namespace"] for line in stuck} != {group.name(50)} or not only:
                return None
            assert ended.code == 6
            return only[0]

        line = until(reasons, "only the held one is left, with its conditions", 120, every=2)
        assert "NamespaceContentRemaining" in line["why"]
        assert "NamespaceFinalizersRemaining" in line["why"]
        # Deleted just now is not stuck.
        assert sweep(tool, group, "--stuck-after", "1h").code == 0
    finally:
        let_go(group, group.name(50))


def test_a_pod_that_holds_its_namespace_is_named(tool: Tool, group: Group, tmp_path: Path) -> None:
    """While Kubernetes waits for pods, which end first, its conditions say nothing."""
    name = group.name("held")
    group.make(name, -HOUR)
    metadata = {"name": "web", "namespace": name, "finalizers": ["example.com/hold"]}
    spec = {"containers": [{"name": "main", "image": "registry.invalid/none:1"}]}
    held = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    accounts = ("-n", name, "get", "serviceaccount", "default", "--ignore-not-found", "-o", "name")
    until(lambda: kubectl(group.cluster, *accounts).strip() or None, "there is an account for pods", 30)
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(held))
    try:
        assert names(sweep(tool, group).failed(0), "deleted") == {name}

        def explained() -> str | None:
            stuck = of(sweep(tool, group, "--stuck-after", "1s"), "stuck")
            return next((line["why"] for line in stuck if "example.com/hold" in line["why"]), None)

        assert "pod/web is held by its finalizers: example.com/hold" in until(
            explained, "the pod is named", 60, every=1
        )
        # Whoever may not list pods is told where to look.
        path = as_account(group, tmp_path / "account", LOOK, RECORDS, EVENTS, DELETE)
        (line,) = of(sweep(through(tool, path), group, "--stuck-after", "1s").failed(6), "stuck")
        assert f"kubectl get pods -n {name}" in line["why"]
    finally:
        free = '{"metadata":{"finalizers":null}}'
        kubectl(group.cluster, "-n", name, "patch", "pod", "web", "--type=merge", "-p", free)
        kubectl(group.cluster, "delete", "clusterrole,clusterrolebinding", group.project, "--ignore-not-found")


@pytest.mark.parametrize("moment", ["told", "deleted"])
def test_killed_in_the_middle_and_run_again_it_converges(tool: Tool, group: Group, tmp_path: Path, moment: str) -> None:
    group.make_many(60, -HOUR)
    store = tmp_path / "store"
    running = tool.start("cleanup", "--yes", "-l", group.selector, "-o", "json", "--store", str(store))

    def begun() -> bool | None:
        if moment == "told":
            return True if list(store.glob("locks/*.yaml")) else None
        return True if len(group.alive()) < 60 else None

    until(begun, "it is in the middle of its work", 30, every=0.01)
    running.kill()
    left = group.alive()

    ended = sweep(tool, group, "--store", str(store)).failed(0)

    assert names(ended, "deleted") == left
    assert group.alive() == set()
    assert len(list(store.glob("locks/*.yaml"))) == 60


# -- kube-janitor -----------------------------------------------------------------------------------------------


def plain_namespace(group: Group, name: str, **annotations: str) -> None:
    metadata = {"name": name, "labels": {labels.PROJECT: group.project}, "annotations": annotations}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(namespace))


def test_the_annotations_of_kube_janitor_count_where_a_pattern_says_so(tool: Tool, group: Group) -> None:
    covered, other = f"pr-{group.project}", f"dev-{group.project}"
    past, future = "2020-01-01", "2099-01-01T00:00"
    for prefix in (covered, other):
        plain_namespace(group, f"{prefix}-past", **{"janitor/expires": past})
        plain_namespace(group, f"{prefix}-bad", **{"janitor/ttl": "1y"})
    plain_namespace(group, f"{covered}-future", **{"janitor/expires": future, "janitor/ttl": "7d"})
    plain_namespace(group, f"{covered}-forever", **{"janitor/ttl": "forever"})
    plain_namespace(group, f"{covered}-plain")
    ours = group.name("ours")
    group.make(ours, 8 * HOUR, annotations={"janitor/expires": past})
    before = group.alive()

    assert group.alive() == before
    sweep(tool, group).failed(0)
    assert group.alive() == before
    sweep(tool, group, "--janitor-annotations").failed(2, "--janitor-namespaces")
    sweep(tool, group, "--janitor-annotations", "--janitor-namespaces", "*").failed(2, "every namespace")
    sweep(tool, group, "--janitor-namespaces", "pr-*").failed(2, "--janitor-annotations")
    ended = sweep(tool, group, "--janitor-annotations", "--janitor-namespaces", f"pr-{group.project}*").failed(3)

    assert names(ended, "deleted") == {f"{covered}-past"}
    assert names(ended, "flagged") == {f"{covered}-bad"}
    assert before - group.alive() == {f"{covered}-past"}


# -- a server that refuses, fails, or goes away -----------------------------------------------------------------


def through(tool: Tool, kubeconfig: Path) -> Tool:
    return tool.with_environment(KUBECONFIG=str(kubeconfig))


def test_an_api_that_fails_now_and_then_delays_and_spoils_nothing(tool: Tool, group: Group, tmp_path: Path) -> None:
    group.make_many(40, -HOUR)
    group.make(group.name("alive"), 8 * HOUR)
    group.make(group.name("soon"), 20 * MINUTE)
    sequence: list[Fault | None] = ["lost", 409, "dropped", 429, None, 500, 503, None]

    def faults(method: str, path: str, number: int) -> Fault | None:
        # The first try of each goes wrong, in turns.
        digits = path.removeprefix("/api/v1/namespaces/").partition("/")[0].rpartition("-")[2]
        turn = int(digits) if digits.isdecimal() else 0
        if number > 1 or (method == "POST" and turn % 5):
            return None
        if method == "POST":
            return 429
        fault = sequence[(turn + (method == "GET") * 3) % len(sequence)]
        # A GET has nothing to conflict with.
        return None if method == "GET" and fault == 409 else fault

    path = tmp_path / "faulty"
    with faulty(group.cluster, path, faults) as proxy:
        ended = sweep(through(tool, path), group).failed(0)

    assert {"lost", 409, "dropped", 429, 500, 503} <= set(proxy.met)
    assert group.alive() == {group.name("alive"), group.name("soon")}
    # Of an answer that was lost, nobody knows whose deletion it was.
    assert names(ended, "deleted") | names(ended, "spared") == {group.name(number) for number in range(40)}
    assert len(events(group, group.name("soon"), "Expiring")) == 1


def test_one_that_the_server_never_deletes_stops_no_other(tool: Tool, group: Group, tmp_path: Path) -> None:
    group.make_many(5, -HOUR)
    bad = group.name(3)

    def faults(method: str, path: str, number: int) -> Fault | None:
        return 500 if method == "DELETE" and path.endswith(f"/{bad}") else None

    path = tmp_path / "faulty"
    with faulty(group.cluster, path, faults):
        ended = sweep(through(tool, path), group).failed(6)

    (line,) = of(ended, "failed")
    assert line["namespace"] == bad
    assert "injected 500" in line["why"]
    assert group.alive() == {bad}


def test_a_server_that_goes_away_is_said_and_a_second_run_converges(tool: Tool, group: Group, tmp_path: Path) -> None:
    group.make_many(80, -HOUR)
    path = tmp_path / "proxied"
    # What goes before a deletion sends some 1.3 KB, and the connections' handshakes together some 40 KB: it ends in the
    # middle of that, or soon after.
    with proxied(group.cluster, path, lets_through=80_000) as proxy:
        command = ("cleanup", "--yes", "-l", group.selector, "-o", "json")
        ended = through(tool, path).run(*command).failed(5, f"127.0.0.1:{proxy.port}")
    gone = names(ended, "deleted")
    left = group.alive()
    assert left
    assert gone <= {group.name(number) for number in range(80)} - left

    assert names(sweep(tool, group).failed(0), "deleted") == left
    assert group.alive() == set()


def as_account(group: Group, path: Path, *rules: dict[str, Any]) -> Path:
    """A kubeconfig of a ServiceAccount with these rights in the whole cluster."""
    name, where = group.project, group.name("account")
    group.make(where, 8 * HOUR)
    kubectl(group.cluster, "create", "serviceaccount", name, "-n", where)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": list(rules),
    }
    kubectl(group.cluster, "create", "-f", "-", stdin=json.dumps(role))
    account = f"--serviceaccount={where}:{name}"
    kubectl(group.cluster, "create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    token = kubectl(group.cluster, "create", "token", name, "-n", where).strip()
    content = yaml.safe_load(group.cluster.kubeconfig.read_text())
    (context,) = [c for c in content["contexts"] if c["name"] == group.cluster.context]
    context["context"]["user"] = "account"
    content |= {"contexts": [context], "users": [{"name": "account", "user": {"token": token}}]}
    path.write_text(yaml.safe_dump(content | {"current-context": group.cluster.context}))
    return path


NAMESPACES = {"apiGroups": [""], "resources": ["namespaces"]}
LOOK = {**NAMESPACES, "verbs": ["get", "list"]}
RECORDS = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["sandbox-record"], "verbs": ["get"]}
EVENTS = {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}
DELETE = {**NAMESPACES, "verbs": ["delete"]}


@pytest.mark.parametrize(
    ("rules", "code", "verb"),
    [
        ([], 4, 'cannot list resource "namespaces"'),
        ([LOOK], 4, "the rights to get configmaps/sandbox-record, create events, delete namespaces in all namespaces"),
        ([LOOK, RECORDS], 4, "the rights to create events, delete namespaces in all namespaces"),
        ([LOOK, RECORDS, EVENTS], 4, "the rights to delete namespaces in all namespaces"),
        ([LOOK, RECORDS, EVENTS, DELETE], 0, ""),
    ],
)
def test_a_right_that_is_missing_is_named(
    tool: Tool, group: Group, tmp_path: Path, rules: list[dict[str, Any]], code: int, verb: str
) -> None:
    path = as_account(group, tmp_path / "account", *rules)
    try:
        group.make(group.name("expired"), -HOUR)

        ended = sweep(through(tool, path), group).failed(code)

        assert verb in ended.err
        assert names(ended, "failed") == set()
        assert (group.name("expired") in group.alive()) == (code != 0)
        # Asked before anything is done.
        assert code == 0 or not events(group, group.name("expired"), "Expired")
    finally:
        kubectl(group.cluster, "delete", "clusterrole,clusterrolebinding", group.project)


def test_an_object_that_it_may_not_read_stops_no_deletion(tool: Tool, group: Group, tmp_path: Path) -> None:
    path = as_account(group, tmp_path / "account", LOOK, RECORDS, EVENTS, DELETE)
    try:
        items = [outside("ClusterRole", name, "x") for name in ("cluster-admin", "view")]
        group.make(group.name("expired"), -HOUR, record_data={"outside": json.dumps(items)})

        ended = sweep(through(tool, path), group).failed(6)

        assert names(ended, "deleted") == {group.name("expired")}
        (line,) = of(ended, "failed")
        assert 'cannot get resource "clusterroles"' in line["why"]
        assert "2 objects outside stay" in line["why"]
    finally:
        kubectl(group.cluster, "delete", "clusterrole,clusterrolebinding", group.project)


# -- owners who want to keep theirs for ever --------------------------------------------------------------------


class _Kept:
    """A sandbox past its latest end, with a ClusterRole outside, of an owner who wants to keep it."""

    def __init__(self, group: Group) -> None:
        self.group, self.name, self.role = group, group.name("kept"), f"{group.project}-own"
        uid = cluster_role(group, self.role, self.name)
        note = {labels.MAX_EXPIRES_AT: to_rfc3339(datetime.now(UTC) - MINUTE), labels.PHASE: ""}
        record = {"outside": json.dumps([outside("ClusterRole", self.role, uid)])}
        self.made = group.make(self.name, -HOUR, annotations=note, record_data=record)

    def changes_all_the_time(self) -> None:
        """It is another version by now, and would be at each try."""
        kubectl(self.group.cluster, "annotate", "namespace", self.name, "sandbox.dev/repo=changed")

    def leaves_no_room(self) -> None:
        """The API server allows 256 KiB of keys and values together, so the clean-up cannot mark it."""
        taken = sum(len(key) + len(text) for key, text in self.made["metadata"]["annotations"].items())
        patch = {"metadata": {"annotations": {"sandbox.dev/ref": "x" * (256 * 1024 - taken - len("sandbox.dev/ref"))}}}
        words = ("patch", "namespace", self.name, "--type=merge", "--patch-file=/dev/stdin")
        kubectl(self.group.cluster, *words, stdin=json.dumps(patch))


@pytest.mark.parametrize("way", [_Kept.changes_all_the_time, _Kept.leaves_no_room])
async def test_nothing_is_kept_past_its_latest_end(group: Group, way: Callable[[_Kept], None]) -> None:
    kept = await asyncio.to_thread(_Kept, group)
    told: list[Line] = []
    where = group.cluster
    try:
        async with Cluster.connect(where.context, where.kubeconfig) as connection:
            pass_ = Sweep(connection, policy(group, cluster_scoped=CLUSTER_ROLES), told.append)
            found = await pass_.look()
            await asyncio.to_thread(way, kept)
            await pass_.act(found)

        assert [line.namespace for line in told if line.action is Action.DELETED] == [kept.name]
        assert not [line for line in told if line.action in (Action.FAILED, Action.SPARED)]
        assert await asyncio.to_thread(group.alive) == set()
        assert not await asyncio.to_thread(kubectl, where, "get", "clusterrole", kept.role, "--ignore-not-found")
    finally:
        await asyncio.to_thread(kubectl, where, "delete", "clusterrole", kept.role, "--ignore-not-found")


async def test_without_a_record_it_goes_where_admission_says_what_a_sandbox_is(group: Group) -> None:
    await asyncio.to_thread(group.make, group.name("bare"), -HOUR, record=False)
    long_ago = {labels.CREATED_AT: "2020-01-01T00:00:00Z"}
    await asyncio.to_thread(group.make, group.name("copy"), -HOUR, record=False, annotations=long_ago)
    told: list[Line] = []
    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        pass_ = Sweep(connection, policy(group, needs_record=False), told.append)
        await pass_.act(await pass_.look())

    assert [line.namespace for line in told if line.action is Action.FLAGGED] == [group.name("copy")]
    assert await asyncio.to_thread(group.alive) == {group.name("copy")}


# -- limits, periods, several clusters --------------------------------------------------------------------------


PROFILE = QuotaProfile.model_validate(
    {
        "apiVersion": "sandbox.dev/v1",
        "kind": "QuotaProfile",
        "name": "tiny",
        "resourceQuota": {"pods": "1"},
        "maxPerOwner": 1,
        "maxPerProject": 2,
    }
)


async def test_who_has_more_than_the_platform_allows_is_flagged(group: Group) -> None:
    for number in range(3):
        tiny = {labels.QUOTA_PROFILE: "tiny"}
        await asyncio.to_thread(group.make, group.name(number), 8 * HOUR, annotations=tiny)
    await asyncio.to_thread(group.make, group.name("erin"), 8 * HOUR, owner="erin@example.com")
    told: list[Line] = []
    async with Cluster.connect(group.cluster.context, group.cluster.kubeconfig) as connection:
        limits = Limits(sandboxes_per_owner=2, sandboxes_per_project=4)
        profiles = {"tiny": PROFILE}
        pass_ = Sweep(connection, policy(group, limits=limits, profiles=profiles), told.append)
        await pass_.act(await pass_.look())

    line, *of_profile = [line for line in told if line.action is Action.FLAGGED]
    assert "dana@example.com has 3 sandboxes, 2 are allowed" in line.why
    assert group.name(0) in line.why
    assert [line.why.partition(":")[0] for line in of_profile] == ["quota profile tiny"] * 2
    assert "owner dana@example.com has 3 sandboxes, 1 are allowed" in of_profile[0].why
    assert f"project {group.project} has 3 sandboxes, 2 are allowed" in of_profile[1].why


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_again_and_again_with_metrics_until_it_is_stopped(tool: Tool, group: Group) -> None:
    group.make(group.name("alive"), 8 * HOUR)
    port = free_port()
    arguments = ("--every", "1s", "--metrics-port", str(port), "-l", group.selector)
    running = tool.start("cleanup", "--yes", "-o", "json", *arguments)
    running.read_until("1 sandboxes")
    group.make(group.name("later"), -HOUR)

    until(lambda: True if group.alive() == {group.name("alive")} else None, "a later pass deletes it", 30)

    where = f'context="{group.cluster.context}"'
    wanted = {f"sandbox_cleanup_deleted_total{{{where}}} 1.0", f'sandbox_sandboxes{{{where},phase="Ready"}} 1.0'}

    def told() -> bool | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return True if wanted <= set(answer.read().decode().splitlines()) else None

    until(told, "the metrics tell of it", 30)
    running.process.send_signal(signal.SIGTERM)
    ended = running.wait(20).failed(130, "interrupted")
    assert names(ended, "deleted") == {group.name("later")}


def test_a_cluster_that_is_away_stops_no_other(tool: Tool, group: Group, tmp_path: Path) -> None:
    folder = tmp_path / "clusters"
    folder.mkdir()
    content = yaml.safe_load(group.cluster.kubeconfig.read_text())
    here = yaml.safe_dump(content | {"current-context": group.cluster.context})
    (folder / "here.yaml").write_text(here)
    with faulty(group.cluster, folder / "away.yaml", lambda *_: None):
        # Its port is closed again when the command runs.
        pass
    group.make(group.name("expired"), -HOUR)
    arguments = ("--yes", "-l", group.selector, "-o", "json", "--kubeconfig-dir", str(folder))

    ended = replace(tool, overrides={"SANDBOX_CONTEXT": ""}).run("cleanup", *arguments).failed(6, "away.yaml", "1 of 2")

    assert names(ended, "deleted") == {group.name("expired")}
    tool.run("cleanup", "--contexts", f"{group.cluster.context},nowhere").failed(2, "nowhere")
