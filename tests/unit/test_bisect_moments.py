"""The two states of a search, read of what was captured."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandbox.bisect.moments import Moment, _as_captured
from sandbox.capture.difference import Side
from sandbox.capture.model import Document, Why
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest, ObjectRef, digest
from sandbox.model.record import HttpSmokeRecord, InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.reproduce.captured import Captured
from sandbox.reproduce.plan import Choices, blueprint
from sandbox.reproduce.portable import Surroundings
from sandbox.reproduce.secrets import values_of

NOW = datetime(2026, 7, 1, tzinfo=UTC)
SMOKE = HttpSmokeRecord(path="/", port="http", status=200)


def job(name: str, condition: str) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "status": {"conditions": [{"type": condition, "status": "True"}]},
    }


def pod_of(owner: str) -> Manifest:
    references = [{"uid": f"uid-{owner}"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{owner}-x", "ownerReferences": references}}


def record(*manifests: Manifest, service: str = "web") -> Record:
    lock = ServiceLock(
        kind="manifests", repo="r", ref="main", commit="c", input_digest=digest(manifests), manifest_digest=""
    )
    inventory = [InventoryItem.of(ObjectRef.of(m)) for m in manifests]
    services = {service: ServiceRecord(lock=lock, manifests=list(manifests), inventory=inventory, smoke=SMOKE)}
    made = Lock(project="shop", env="qa", services={service: lock}, created_at=NOW)
    return Record(number=1, at=NOW, by="", namespace_uid="", outcome="deployed", lock=made, services=services)


def moment(captured: Captured) -> Moment:
    return Moment("a moment", captured, Side("a moment", {}))


def test_jobs_that_had_failed_and_their_pods_are_left_out() -> None:
    captured = Captured(
        Document(started_at=NOW, ended_at=NOW, namespace="qa"),
        objects=(job("bad", "Failed"), job("done", "Complete")),
        pods=(pod_of("bad"), pod_of("done")),
    )
    found, names = moment(captured).without_failed_jobs()
    assert names == ["job.batch/bad"]
    assert [m["metadata"]["name"] for m in (*found.captured.objects, *found.captured.pods)] == ["done", "done-x"]


@pytest.mark.parametrize(
    ("reason", "service", "smoke"),
    [("SmokeTestFailed", "web", ("web", SMOKE)), ("SmokeTestFailed", "api", None), ("TestFailed", "web", None)],
)
def test_the_smoke_test_that_failed(reason: str, service: str, smoke: tuple[str, HttpSmokeRecord] | None) -> None:
    why = Why.of(Finding(reason, "it failed", "service/web", service))
    document = Document(started_at=NOW, ended_at=NOW, namespace="qa", findings=(why,))
    assert moment(Captured(document, record=record())).smoke == smoke


def test_a_record_is_brought_back_with_its_services_and_true_secrets() -> None:
    secret: Manifest = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": {"password": "of-the-record"},
    }  # fmt: skip
    config: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}}
    hidden = {**secret, "stringData": {"password": "hmac-0123456789abcdef"}}
    captured = _as_captured(record(config, secret), record(config, hidden), "qa", "key")
    values = values_of(b"seed", captured.secrets, captured.true_secrets)
    planned = blueprint(captured, values, Surroundings("x"), Choices(identity=True, allow_tags=True))
    assert set(planned.services) == {"web"}
    [made] = [m for m in planned.manifests if m["kind"] == "Secret"]
    assert values.of("0123456789abcdef") == "of-the-record"
    assert made["data"] == {"password": "b2YtdGhlLXJlY29yZA=="}
    assert made["metadata"]["namespace"] == "x"
