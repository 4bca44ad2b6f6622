"""The clean-up against owners who want to keep their sandboxes for ever, on a cluster that is pretended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.cluster.errors import Conflict, Forbidden, Invalid, ServerUnavailable
from sandbox.lifecycle import cleanup, summaries
from sandbox.lifecycle.cleanup import Policy, Sweep
from sandbox.lifecycle.report import Action, Line
from sandbox.lifecycle.verdict import Rules
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.owner import Owner

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LISTED = "ClusterRole.rbac.authorization.k8s.io"
FINAL = {labels.MAX_EXPIRES_AT: to_rfc3339(NOW - HOUR)}


class _Pretended:
    """One sandbox and what it put outside; stands for the cluster and for the module that talks to it."""

    context = "c"

    def __init__(self, **annotations: str) -> None:
        created = to_rfc3339(NOW - 9 * HOUR)
        self.namespace: Manifest = {
            "metadata": {
                "name": "shop",
                "uid": "u",
                "resourceVersion": "1",
                "creationTimestamp": created,
                "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE},
                "annotations": {
                    labels.NAMESPACE: "shop",
                    labels.CREATED_AT: created,
                    labels.PHASE: "Ready",
                    labels.EXPIRES_AT: to_rfc3339(NOW - HOUR),
                    **annotations,
                },
            }
        }
        self.record: dict[str, str] | None = {"namespaceUID": "u", "outside": "[]"}
        self.missing: set[tuple[str, str]] = set()
        self.outside: dict[str, Manifest | Exception] = {}
        self.deleted: list[str] = []
        self.patched = 0
        self.patch_error: Exception | None = None
        # Whether somebody changes it all the time.
        self.restless = False
        self.limits: list[int] = []

    def put(self, count: int, kind: str = "ClusterRole", found: Exception | None = None) -> None:
        """Let the record name objects; those that raise an error, or are the sandbox's own."""
        assert self.record is not None
        items = json.loads(self.record["outside"])
        group = "rbac.authorization.k8s.io"
        for number in range(count):
            name = f"{kind}-{len(items)}".lower()
            items.append({"group": group, "version": "v1", "kind": kind, "name": name, "uid": f"u{number}"})
            marks = {"labels": {labels.SERVICE: "web"}, "annotations": {labels.NAMESPACE: "shop"}}
            self.outside[name] = found or {"metadata": {"name": name, "uid": f"u{number}", **marks}}
        self.record["outside"] = json.dumps(items)

    async def server_time(self) -> datetime:
        return NOW

    def known_time(self) -> datetime:
        return NOW

    async def request(self, *_: Any, **__: Any) -> None:
        return None

    async def can_i(self, verb: str, _: str, resource: str, **__: Any) -> bool:
        return (verb, resource) not in self.missing

    async def list_(self, *_: Any, limit: int, **__: Any) -> AsyncIterator[Manifest]:
        self.limits.append(limit)
        yield json.loads(json.dumps(self.namespace))

    async def get(self, _: Any, ref: ObjectRef) -> Manifest | None:
        if ref.kind == "Namespace":
            return self.namespace
        if ref.kind == "ConfigMap":
            return {"data": self.record} if self.record is not None else None
        found = self.outside.get(ref.name)
        if isinstance(found, Exception):
            raise found
        return found

    async def patch_merge(self, _: Any, ref: ObjectRef, patch: Manifest, *, resource_version: str) -> Manifest:
        if self.patch_error is not None:
            raise self.patch_error
        self._check(resource_version)
        self.patched += 1
        self.namespace["metadata"]["annotations"].update(patch["metadata"]["annotations"])
        return self.namespace

    async def delete(self, _: Any, ref: ObjectRef, *, uid: str, resource_version: str | None = None) -> bool:
        if ref.kind == "Namespace":
            self._check(resource_version)
        self.deleted.append(ref.name)
        return True

    def _check(self, version: str | None) -> None:
        metadata = self.namespace["metadata"]
        if self.restless:
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        if version is not None and version != metadata["resourceVersion"]:
            raise Conflict("it changed")


async def no_volumes(*_: Any) -> dict[str, list[str]]:
    return {}


async def swept(pretended: _Pretended, monkeypatch: pytest.MonkeyPatch, **policy: Any) -> list[Line]:
    async def on_namespace(*_: Any, **__: Any) -> bool:
        return True

    monkeypatch.setattr(cleanup, "retained", no_volumes)
    monkeypatch.setattr(cleanup, "objects", pretended)
    monkeypatch.setattr(cleanup, "on_namespace", on_namespace)
    monkeypatch.setattr(summaries, "objects", pretended)
    monkeypatch.setattr(cleanup, "own_time", lambda: NOW)
    told: list[Line] = []
    rules = Rules(warn_before=HOUR / 2, stuck_after=HOUR)
    cluster: Any = pretended
    sweep = Sweep(cluster, Policy(rules, cluster_scoped=frozenset({LISTED}), **policy), told.append)
    await sweep.act(await sweep.look())
    return [line for line in told if line.action is not Action.NOTICE]


def said(told: list[Line], action: Action) -> list[str]:
    return [line.why for line in told if line.action is action]


@pytest.mark.parametrize("error", [Forbidden("not yours"), KeyError("resources"), Conflict("another one")])
async def test_what_it_may_not_read_outside_stops_no_deletion(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pretended = _Pretended()
    pretended.put(499, found=error)
    pretended.put(1)

    told = await swept(pretended, monkeypatch)

    assert pretended.deleted == ["clusterrole-499", "shop"]
    (line,) = said(told, Action.FAILED)
    assert line.startswith("499 objects outside stay (clusterrole.rbac.authorization.k8s.io/clusterrole-0, ")


async def test_a_server_that_does_not_answer_is_no_matter_of_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = _Pretended()
    pretended.put(1, found=ServerUnavailable("away"))

    assert said(await swept(pretended, monkeypatch), Action.FAILED) == ["away"]
    assert pretended.deleted == []


async def test_what_is_not_listed_is_told_in_one_line_and_needs_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = _Pretended()
    pretended.put(400, "StorageClass")
    pretended.put(100, "Node")
    pretended.patch_error = Invalid("annotations: Too long")

    told = await swept(pretended, monkeypatch)

    assert pretended.deleted == ["shop"]
    (line,) = said(told, Action.FAILED)
    assert line.startswith("500 objects outside stay (storageclass.rbac.authorization.k8s.io/storageclass-0, ")
    assert line.count("/storageclass-") == 3
    assert len(line) < 400


@pytest.mark.parametrize("error", [Invalid("annotations: Too long"), Conflict("it changed")])
async def test_a_claim_that_is_refused_holds_until_the_latest_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    early, late = _Pretended(), _Pretended(**FINAL)
    for pretended in (early, late):
        pretended.put(1)
        pretended.patch_error = error

    assert said(await swept(early, monkeypatch), Action.FAILED)
    assert early.deleted == []
    assert said(await swept(late, monkeypatch), Action.FAILED) == []
    assert late.deleted == ["clusterrole-0", "shop"]


async def test_changing_it_all_the_time_keeps_it_until_its_latest_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = _Pretended(), _Pretended(**FINAL)
    early.restless = late.restless = True
    for pretended in (early, late):
        pretended.put(2, "Node")

    told = said(await swept(early, monkeypatch), Action.FAILED)
    # The tries of one pass say once what stays outside.
    assert [line for line in told if "others change it" in line] == told[1:]
    assert early.deleted == []
    await swept(late, monkeypatch)
    assert late.deleted == ["shop"]


async def test_what_has_no_record_goes_where_admission_says_what_a_sandbox_is(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, governed, copied = _Pretended(), _Pretended(), _Pretended(**{labels.CREATED_AT: to_rfc3339(NOW - 20 * HOUR)})
    for pretended in (alone, governed, copied):
        pretended.record = None

    assert said(await swept(alone, monkeypatch), Action.FLAGGED)
    assert said(await swept(governed, monkeypatch, needs_record=False), Action.DELETED)
    assert said(await swept(copied, monkeypatch, needs_record=False), Action.FLAGGED)
    assert (alone.deleted, governed.deleted, copied.deleted) == ([], ["shop"], [])


@pytest.mark.parametrize(
    ("left", "dry_run", "missing", "why"),
    [
        (-HOUR, False, {("delete", "namespaces"), ("create", "events")}, "create events, delete namespaces in all"),
        (-HOUR, True, {("delete", "namespaces")}, ""),
        (-HOUR, True, {("get", "configmaps")}, "get configmaps/sandbox-record in all"),
        (HOUR / 3, False, {("delete", "namespaces")}, ""),
        (HOUR / 3, False, {("create", "events")}, "create events in all"),
        (9 * HOUR, False, {("delete", "namespaces"), ("create", "events")}, ""),
    ],
)
async def test_rights_are_asked_for_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, left: timedelta, dry_run: bool, missing: set[tuple[str, str]], why: str
) -> None:
    pretended = _Pretended(**{labels.EXPIRES_AT: to_rfc3339(NOW + left)})
    pretended.missing = missing
    if not why:
        await swept(pretended, monkeypatch, dry_run=dry_run)
        return

    with pytest.raises(Refused, match="you may not clean up c") as refused:
        await swept(pretended, monkeypatch, dry_run=dry_run)
    assert why in refused.value.why
    assert pretended.deleted == []


class _Keeper:
    def __init__(self) -> None:
        self.kept: list[str] = []

    async def keep(self, namespace: str, uid: str, text: str, owner: Owner) -> str:
        self.kept.append(text)
        return "file:///lock.yaml"

    async def forget(self, retention: timedelta, now: datetime) -> int:
        return 0


@pytest.mark.parametrize(
    ("text", "kept"), [('{"apiVersion": "sandbox.dev/v1", "kind": "Lock"}', True), ("hunter2", False), ("", False)]
)
async def test_what_is_no_lock_is_not_kept_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str, kept: bool
) -> None:
    pretended, keeper = _Pretended(**{labels.OWNER_GROUP: "shop-team"}), _Keeper()
    assert pretended.record is not None
    pretended.record["lock"] = text

    (line,) = await swept(pretended, monkeypatch, locks=keeper)

    assert (line.action, pretended.deleted, keeper.kept) == (Action.DELETED, ["shop"], [text] if kept else [])
    assert line.restore.endswith("--owner-group shop-team") == kept


async def test_those_that_are_slow_to_get_ready_hold_up_no_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass may be killed before all are ready, each time again."""
    monkeypatch.setattr(cleanup, "_WAVE_S", 0.0)
    monkeypatch.setattr(cleanup, "_AT_ONCE", 1)
    many = _Many(3)

    await swept(many, monkeypatch)

    # One was got ready, and was deleted before the next.
    assert many.steps == ["read 0", "delete 0", "read 1", "delete 1", "read 2", "delete 2"]


async def test_what_is_held_in_memory_of_locks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_MANY", 1)
    monkeypatch.setattr(cleanup, "_WAVE_LOCKS", 10)
    many = _Many(5, lock="12345")

    await swept(many, monkeypatch)

    # By two: the first list is told of before the next is asked for.
    deleted = [step for step in many.steps if step.startswith("delete")]
    assert sorted(deleted) == [f"delete {number}" for number in range(5)]
    assert many.steps.index("delete 0") < many.steps.index("listed 2")


class _Many(_Pretended):
    """Several of them, and in which order what happened to them."""

    def __init__(self, count: int, lock: str = "") -> None:
        super().__init__()
        self.count = count
        self.lock = lock
        self.steps: list[str] = []

    def _one(self, number: int) -> Manifest:
        made: Manifest = json.loads(json.dumps(self.namespace).replace('"shop"', f'"{number}"'))
        return made

    async def list_(self, *asked: Any, limit: int, **_: Any) -> AsyncIterator[Manifest]:
        for number in range(self.count):
            if "Namespace" in asked:
                yield self._one(number)
            else:
                self.steps.append(f"listed {number}")
                metadata = {"name": labels.RECORD_NAME, "namespace": str(number)}
                yield {"metadata": metadata, "data": {"namespaceUID": "u", "lock": self.lock}}

    async def get(self, _: Any, ref: ObjectRef) -> Manifest | None:
        self.steps.append(f"read {ref.namespace}")
        return {"data": self.record}

    async def delete(self, _: Any, ref: ObjectRef, *, uid: str, resource_version: str | None = None) -> bool:
        self.steps.append(f"delete {ref.name}")
        return True


@pytest.mark.parametrize(
    ("wanted", "known", "expected"), [(99, 99, False), (100, 100, True), (100, 1100, True), (100, 1101, False)]
)
def test_a_list_of_records_is_for_many_of_them(wanted: int, known: int, expected: bool) -> None:
    assert summaries.is_worth_a_list(wanted, known) is expected


async def test_a_list_that_shows_mostly_others_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    many = _Many(100)
    monkeypatch.setattr(summaries, "objects", many)
    cluster: Any = many

    found = [item async for item, _ in summaries.listed(cluster, {"5": "five", "99": "the last"})]

    assert found == ["five"]
    assert len(many.steps) < 30


async def test_annotations_of_others_are_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = _Pretended(**{labels.OWNER_USER: "dana" * 10_000, "example.com/large": "x" * 200_000})
    pretended.namespace["metadata"]["managedFields"] = ["x" * 100_000]
    monkeypatch.setattr(cleanup, "retained", no_volumes)
    monkeypatch.setattr(cleanup, "objects", pretended)
    monkeypatch.setattr(cleanup, "own_time", lambda: NOW)
    cluster: Any = pretended

    found = await Sweep(cluster, Policy(Rules(HOUR, HOUR)), lambda _: None).look()

    assert found.due() == ["shop"]
    assert len(str(found)) < 5_000
    assert pretended.limits == [100]
