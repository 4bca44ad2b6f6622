"""The page of a capture: what happened when, where it is drawn, and what is cut."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.capture.bundle import BundleWriter, Entry, blob_path, open_bundle
from sandbox.capture.model import Document, QuotaLine, Service, Why
from sandbox.capture.report import contents as contents_module
from sandbox.capture.report.contents import Contents, read_contents
from sandbox.capture.report.page import page, render, visible
from sandbox.capture.report.picture import LABELS, WIDTH, draw
from sandbox.capture.report.timeline import Happenings, Timeline, timeline
from sandbox.store.store import Store

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
CAPTURED = (AT, AT + timedelta(seconds=5))


def text(seconds: float) -> str:
    return (AT + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def happened(**given: Any) -> Timeline:
    empty: dict[str, Any] = {key: [] for key in ("pods", "events", "replica_sets", "releases", "records")}
    return timeline(Happenings(**{**empty, "services": {}, **given}), CAPTURED)


def pod(name: str, owner: tuple[str, str] | None = None, **container: Any) -> dict[str, Any]:
    owners = [{"kind": owner[0], "name": owner[1]}] if owner else []
    return {
        "metadata": {"name": name, "ownerReferences": owners},
        "status": {"containerStatuses": [{"name": "main", **container}]},
    }


def ended(begin: float, end: float, code: int = 1) -> dict[str, Any]:
    return {"terminated": {"startedAt": text(begin), "finishedAt": text(end), "exitCode": code, "reason": "Error"}}


def replica_set(name: str, deployment: str, at: float) -> dict[str, Any]:
    owners = [{"kind": "Deployment", "name": deployment}]
    return {"metadata": {"name": name, "creationTimestamp": text(at), "ownerReferences": owners}}


def test_runs_of_a_container_are_told_with_the_wait_between_them() -> None:
    crashing = pod("orders-1-x", lastState=ended(-40, -30), state={"waiting": {"reason": "CrashLoopBackOff"}})
    found = happened(pods=[crashing], services={"orders": ["pod/orders-1-x"]})
    assert [(s.state, s.lane) for s in found.spans] == [("crashed", "orders"), ("waiting", "orders")]
    assert found.spans[0].title == "orders-1-x, container main: Error, exit code 1"
    assert (found.spans[1].begin, found.spans[1].end) == (AT - timedelta(seconds=30), AT)


@pytest.mark.parametrize(
    ("about", "lane"),
    [
        (("Deployment", "orders"), "orders"),
        (("ReplicaSet", "orders-1"), "orders"),
        (("Pod", "orders-1-x"), "orders"),
        # Gone, and called after what made it.
        (("Pod", "orders-0-gone"), "orders"),
        (("Pod", "orders-api-1-gone"), "api"),
        (("PersistentVolumeClaim", "orders-data"), ""),
        (("Pod", "stranger"), ""),
    ],
)
def test_an_event_is_of_the_service_whose_object_it_is_about(about: tuple[str, str], lane: str) -> None:
    event = {"type": "Warning", "lastTimestamp": text(-5), "involvedObject": {"kind": about[0], "name": about[1]}}
    found = happened(
        pods=[pod("orders-1-x", ("ReplicaSet", "orders-1"))],
        replica_sets=[replica_set("orders-1", "orders", -20)],
        events=[event],
        services={"orders": ["deployment.apps/orders"], "api": ["deployment.apps/orders-api"]},
    )
    assert [mark.lane for mark in found.marks if mark.kind == "warning"] == [lane]


def test_the_picture_begins_with_the_last_deployment() -> None:
    old = {"type": "Normal", "lastTimestamp": text(-3000), "involvedObject": {"kind": "Pod", "name": "web-1-x"}}
    web = pod("web-1-x", state={"running": {"startedAt": text(-90_000)}})
    before = happened(pods=[web], events=[old])
    assert before.begin < AT - timedelta(seconds=3000)
    found = happened(
        pods=[web],
        events=[old],
        replica_sets=[replica_set("web-1", "web", -2000), replica_set("web-2", "web", -100)],
        releases=[{"name": "orders", "revision": 2, "updated": text(-130)}],
    )
    assert AT - timedelta(seconds=150) < found.begin < AT - timedelta(seconds=130)
    assert [mark.title for mark in found.marks] == [
        "Helm release orders, revision 2 (None-None): None",
        "rollout of deployment/web, revision ?",
    ]
    # What runs since long ago is drawn from the edge on.
    assert found.spans[0].begin == found.begin


def test_lanes_with_trouble_come_first_and_nobodys_last() -> None:
    warning = {"type": "Warning", "lastTimestamp": text(-5), "involvedObject": {"kind": "Quota", "name": "q"}}
    found = happened(
        pods=[pod("a", state={"running": {"startedAt": text(-9)}}), pod("b", state=ended(-9, -5))],
        events=[warning],
        services={"first": ["pod/a"], "second": ["pod/b"]},
    )
    assert found.lanes == ("second", "first", "")


seconds = st.floats(-100_000, 100_000)


@given(st.lists(st.tuples(seconds, seconds, st.integers(0, 2)), max_size=8), st.lists(seconds, max_size=8))
def test_everything_is_drawn_inside_the_picture(runs: list[tuple[float, float, int]], moments: list[float]) -> None:
    pods = [pod(f"p{n}", state=ended(begin, end, code)) for n, (begin, end, code) in enumerate(runs)]
    events = [{"lastTimestamp": text(at), "involvedObject": {"kind": "Pod", "name": "p0"}} for at in moments]
    drawn = draw(happened(pods=pods, events=events))
    for bar in (*drawn.bars, drawn.captured):
        assert LABELS <= bar.x <= WIDTH
        assert bar.width > 0
        assert 0 <= bar.y <= drawn.height
    assert all(LABELS <= point.x <= WIDTH and 0 <= point.y <= drawn.height for point in drawn.points)
    assert len(drawn.ticks) <= 12


keys = st.sampled_from(["metadata", "status", "containerStatuses", "state", "items", "name"]) | st.text()
scalars = st.none() | st.booleans() | st.integers() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)


@settings(max_examples=40)
@given(anything)
async def test_nothing_in_a_bundle_makes_the_page_fail(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    store = Store.open(str(tmp_path_factory.mktemp("captures")))
    writer = BundleWriter(store)
    for title in ("pods.json", "events.json", "objects/replicasets.apps.json"):
        await writer.add(title, json.dumps({"items": [value, {"metadata": value, "status": value}]}).encode(), "x/y")
    for number in (1, 2):
        await writer.add(f"records/{number}.json", json.dumps({"number": value, "services": value}).encode(), "x/y")
        await writer.add(f"helm/web/{number}/release.json", json.dumps(value).encode(), "x/y")
    entry = await writer.seal(Document(started_at=AT, ended_at=AT, namespace="shop"))
    assert "</html>" in await page(await open_bundle(store, entry))


class _Texts(HTMLParser):
    """What a page shows: its elements and their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@settings(max_examples=40)
@given(st.text(min_size=1))
def test_text_is_shown_and_never_read_as_anything_else(written: str) -> None:
    def document(text: str) -> Document:
        return Document(
            started_at=AT,
            ended_at=AT,
            namespace="shop",
            reason=text,
            findings=(Why(reason="Error", message=text),),
            services=(Service(name=text, repo=text, ref=text),),
            quota=(QuotaLine(quota="q", resource=text, used="1", hard="2"),),
            tools={text: text},
        )

    entry = Entry(
        id="x", digest="", size=0, namespace="shop", environment="", project="", owner="", by="", reason="",
        headline="", partial=False, total=0, commits=(), created_at=AT,
    )  # fmt: skip
    nothing = Contents(happened(), (), 0, (), 0, (), ())
    plain = _Texts()
    plain.feed(render(entry, document("x"), nothing))
    parsed = _Texts()
    parsed.feed(render(entry, document(written), nothing))
    assert parsed.elements == plain.elements
    if shown := visible(written).strip():
        assert shown in "".join(parsed.texts)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\r\nb\tc\n", "a\nb\tc\n"),
        ("over\rwritten", "over\\u000dwritten"),
        ("nul\x00", "nul\\u0000"),
        ("turned \u202eround", "turned \\u202eround"),
        ("Grüße 😀", "Grüße 😀"),
    ],
)
def test_what_one_cannot_see_is_written_out(written: str, shown: str) -> None:
    assert visible(written) == shown


async def test_logs_of_what_failed_come_first_and_only_the_end_of_long_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "_LONGEST_LOG", 20)
    monkeypatch.setattr(contents_module, "_ALL_LOGS", 45)
    store = Store.open(str(tmp_path))
    writer = BundleWriter(store)
    long = "".join(f"line {number}\n" for number in range(10))
    for name in ("a/main", "b/main", "b/main.previous", "c/main"):
        await writer.add(f"logs/{name}.log.gz", gzip.compress(long.encode(), mtime=0), "application/gzip")
    findings = (Why(reason="Error", pod="b", container="main"),)
    entry = await writer.seal(Document(started_at=AT, ended_at=AT, namespace="shop", findings=findings))
    found = await read_contents(await open_bundle(store, entry))
    assert [(log.pod, log.previous, log.failed) for log in found.logs] == [
        ("b", True, True),
        ("b", False, True),
        ("a", False, False),
        ("c", False, False),
    ][: len(found.logs)]
    assert (found.logs[0].text, found.logs[0].cut) == ("line 8\nline 9\n", 56)
    assert len(found.logs) + found.logs_left_out == 4
    assert found.logs_left_out == 0 or sum(len(log.text) for log in found.logs) > 25


async def test_a_damaged_item_costs_that_item_and_is_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    writer = BundleWriter(store)
    layer = await writer.add("pods.json", b'{"items": []}', "application/json")
    await writer.add("events.json", b'{"items": [{"reason": "BackOff"}]}', "application/json")
    entry = await writer.seal(Document(started_at=AT, ended_at=AT, namespace="shop"))
    bundle = await open_bundle(store, entry)
    (tmp_path / blob_path(layer.digest)).write_bytes(b'{"items": [}}')
    found = await read_contents(bundle)
    assert [event.reason for event in found.events] == ["BackOff"]
    assert [problem for problem in found.problems if "pods.json" in problem]
    assert "pods.json of the capture is damaged" in await page(bundle)


async def test_what_changed_is_shown_of_releases_and_records(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    writer = BundleWriter(store)
    for number, image in ((3, "web:1"), (4, "web:2")):
        manifest = {"kind": "Deployment", "spec": {"image": image, "replicas": 1}}
        record = {"number": number, "services": {"web": {"manifests": [manifest]}, "same": {"manifests": [{"a": 1}]}}}
        await writer.add(f"records/{number}.json", json.dumps(record).encode(), "application/json")
        release = {"name": "api", "revision": number}
        await writer.add(f"helm/api/{number}/release.json", json.dumps(release).encode(), "application/json")
        await writer.add(f"helm/api/{number}/manifest.yaml", f"image: {image}\n".encode(), "application/yaml")
    entry = await writer.seal(Document(started_at=AT, ended_at=AT, namespace="shop"))
    changes = (await read_contents(await open_bundle(store, entry))).changes
    assert [change.what for change in changes] == [
        "Helm release api: manifest, revision 3 to 4",
        "service web: manifests, deployment 3 to 4",
    ]
    assert changes[0].lines == ("@@ -1 +1 @@", "-image: web:1", "+image: web:2")
    assert {"-  image: web:1", "+  image: web:2"} < set(changes[1].lines)
