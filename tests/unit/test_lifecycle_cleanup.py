"""The clean-up against owners who want to keep their sandboxes for ever, on a cluster that is pretended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.cluster.errors import Conflict, Forbidden, Invalid, ServerUnavailable
from sandbox.lifecycle import cleanup
from sandbox.lifecycle.cleanup import Policy, Sweep
from sandbox.lifecycle.report import Action, Line
from sandbox.lifecycle.verdict import Rules
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.objects import Manifest, ObjectRef

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
