"""From the objects of a capture to what is going to be in a sandbox."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.model import Document, Item, Signature, Why
from sandbox.model.errors import InvalidInput, Unreachable
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest
from sandbox.model.record import ServiceLock
from sandbox.provision.plan import ServicePlan
from sandbox.reproduce.captured import Captured, is_object
from sandbox.reproduce.images import Pin, found_in_registries, pins, ran
from sandbox.reproduce.plan import Blueprint, Choices, blueprint
from sandbox.reproduce.portable import Surroundings
from sandbox.reproduce.replacement import Replacement
from sandbox.reproduce.report import Facts, Line, differences, fidelity
from sandbox.reproduce.secrets import Values
from sandbox.reproduce.verdict import Wanted, _other, _same, cleaner, of_command, wanted

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"
NEWER = f"sha256:{'b' * 64}"


def of(kind: str, name: str, api: str = "v1", **more: Any) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "uid": f"{kind}-{name}"}, **more}


def workload(name: str, image: str, *uses: str, kind: str = "Deployment") -> Manifest:
    sources = [{"configMapRef": {"name": used}} for used in uses]
    spec = {"containers": [{"name": "main", "image": image, "envFrom": sources}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    return of(kind, name, "apps/v1", spec={"selector": {"matchLabels": {"app": name}}, "template": template})


def pod(app: str, image: str, image_id: str, created: str = "1", waiting: str = "") -> Manifest:
    metadata = {
        "name": f"{app}-1-{created}",
        "uid": f"pod-{app}-{created}",
        "creationTimestamp": created,
        "labels": {"pod-template-hash": "1"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": f"{app}-1", "uid": f"rs-{app}", "controller": True}],
    }
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    status = {"containerStatuses": [{"name": "main", "imageID": image_id, "state": state}]}
    spec = {"containers": [{"name": "main", "image": image}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def fixture(name: str, **more: Any) -> Fixture:
    return Fixture.model_validate({"name": name, "kind": "redis", "status": "ok", "workload": name, **more})


def captured(*objects: Manifest, pods: tuple[Manifest, ...] = (), **more: Any) -> Captured:
    document = Document(started_at=NOW, ended_at=NOW, namespace="qa", **more.pop("document", {}))
    sets = [
        of("ReplicaSet", f"{m['metadata']['name']}-1", "apps/v1") | {
            "metadata": {
                "name": f"{m['metadata']['name']}-1",
                "uid": f"rs-{m['metadata']['name']}",
                "ownerReferences": [{"uid": m["metadata"]["uid"]}],
            }
        }
        for m in objects
        if m["kind"] == "Deployment"
    ]  # fmt: skip
    return Captured(document=document, objects=(*objects, *sets), pods=pods, **more)


def planned(found: Captured, choices: Choices | None = None, **more: Any) -> Blueprint:
    return blueprint(found, Values(b"seed"), Surroundings("again", host="again.local"), choices or Choices(), **more)


def kinds(plan: Blueprint, service: str) -> set[str]:
    return {f"{m['kind']}/{m['metadata']['name']}" for m in plan.services[service].manifests}


BY_DIGEST = f"example.com/shop/web@{DIGEST}"
SYSTEM = captured(
    workload("web", BY_DIGEST, "web", "both"),
    workload("api", BY_DIGEST, "both"),
    of("ConfigMap", "web", data={"a": "b"}),
    of("ConfigMap", "both"),
    of("ConfigMap", "nobody"),
    of("Service", "web", spec={"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}),
)


def test_objects_belong_to_the_only_service_that_uses_them() -> None:
    plan = planned(SYSTEM)
    assert kinds(plan, "web") == {"Deployment/web", "ConfigMap/web", "Service/web"}
    assert kinds(plan, "api") == {"Deployment/api"}
    assert kinds(plan, "shared") == {"ConfigMap/both", "ConfigMap/nobody"}
    assert dict(plan.services["web"].ports) == {"http": 80}
    assert all(m["metadata"]["labels"]["sandbox.dev/service"] for m in plan.manifests)


def test_only_some_services() -> None:
    plan = planned(SYSTEM, Choices(only=("api",)))
    assert set(plan.services) == {"api", "shared"}
    assert "--only" in plan.left_out["deployment.apps/web"]
    with pytest.raises(InvalidInput, match="no service wep") as refused:
        planned(SYSTEM, Choices(only=("wep",)))
    assert "api, web" in refused.value.hint


def test_nothing_to_bring_back() -> None:
    with pytest.raises(InvalidInput, match="nothing that could be brought back"):
        planned(captured(of("ResourceQuota", "few")))


# -- images


def test_images_are_those_that_ran_by_digest() -> None:
    running = [pod("web", "shop:1", f"docker-pullable://example.com/shop@{DIGEST}"),
               pod("web", "shop:1", f"example.com/shop@{NEWER}", created="2")]  # fmt: skip
    [pin] = planned(captured(workload("web", "shop:1"), pods=tuple(running))).pins
    assert (pin.reference, pin.why) == (f"example.com/shop@{NEWER}", "")


@pytest.mark.parametrize(
    ("image", "status", "allow", "reference", "why"),
    [
        ("shop:1", None, False, "", "digest is not known"),
        ("shop:1", None, True, "shop:1", "--allow-tags"),
        ("shop:1", ("", "ImagePullBackOff"), False, "shop:1", "could not be pulled then either"),
        ("shop:1", (f"{DIGEST}", ""), False, "", "only its node had it"),
        (BY_DIGEST, None, False, BY_DIGEST, ""),
    ],
)
def test_a_tag_is_never_taken_silently(
    image: str, status: tuple[str, str] | None, allow: bool, reference: str, why: str
) -> None:
    pods = [pod("web", image, status[0], waiting=status[1])] if status else []
    [pin] = pins(workload("web", image), ran(pods), allow_tags=allow)
    assert pin.reference == reference
    assert why in pin.why


@pytest.mark.parametrize(
    ("there", "allow", "reference", "why"),
    [
        ({BY_DIGEST}, False, BY_DIGEST, ""),
        ({f"mirror.local/x/shop/web@{DIGEST}"}, False, f"mirror.local/x/shop/web@{DIGEST}", "mirror"),
        (set(), False, "", "gone from its registry"),
        ({"example.com/shop/web:1"}, False, "", "gone from its registry"),
        ({"example.com/shop/web:1"}, True, "example.com/shop/web:1", "--allow-tags"),
        (None, False, BY_DIGEST, ""),
    ],
)
async def test_an_image_that_is_gone(there: set[str] | None, allow: bool, reference: str, why: str) -> None:
    async def ask(wanted: str) -> str | None:
        if there is None:
            raise Unreachable("no answer")
        return DIGEST if wanted in there else None

    pin = Pin("web", "main", "example.com/shop/web:1", DIGEST, BY_DIGEST)
    found = (await found_in_registries([pin], ask, mirror="mirror.local/x", allow_tags=allow))[pin]
    assert found.reference == reference
    assert why in found.why


def test_a_workload_without_its_image_is_left_out() -> None:
    gone = Pin("web", "main", BY_DIGEST, DIGEST, BY_DIGEST)
    plan = planned(SYSTEM, images={gone: replace(gone, reference="", why="it is gone")})
    assert "it is gone" in plan.left_out["deployment.apps/web"]
    assert kinds(plan, "web") == {"ConfigMap/web", "Service/web"}


# -- data


@pytest.mark.parametrize(
    ("made", "choices", "why"),
    [
        (fixture("db"), Choices(), None),
        (fixture("db", status="truncated", why="too large"), Choices(), "too large"),
        (fixture("db"), Choices(data=False), "--no-data"),
        (fixture("db", workload="other"), Choices(), "not in the sandbox"),
    ],
)
def test_what_is_filled(made: Fixture, choices: Choices, why: str | None) -> None:
    plan = planned(captured(workload("db", BY_DIGEST), fixtures=(made,)), choices)
    assert [store.service for store in plan.stores] == ([] if why else ["db"])
    assert why is None or why in plan.unfilled["db"]


def test_encrypted_contents_need_an_identity() -> None:
    found = captured(
        workload("db", BY_DIGEST), fixtures=(fixture("db"),), encrypted_fixtures=frozenset({"fixtures/db"})
    )
    assert "--identity" in planned(found).unfilled["db"]
    assert planned(found, Choices(identity=True)).stores


# -- what a bundle may bring


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {"kind": "Pod"},
        {"apiVersion": "v1", "kind": "Pod", "metadata": []},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "../x"}},
        {"apiVersion": "../v1", "kind": "Pod", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "pod/../secret", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": []}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": "all"},
    ],
)
def test_what_has_not_the_form_of_an_object_is_none(item: Any) -> None:
    assert not is_object(item)


# -- the report


def facts(*objects: Manifest, **more: Any) -> Facts:
    return Facts(objects, more.pop("restored", {}), {}, more.pop("tools", {}), "small")


def lines(found: list[Line]) -> dict[str, tuple[str, str]]:
    return {line.name: (line.outcome, line.why) for line in found}


def test_the_report_is_of_what_is_there() -> None:
    plan = planned(SYSTEM)
    there = [m for m in plan.manifests if m["metadata"]["name"] != "both"]
    changed = [
        {**m, "data": {"a": "c"}} if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "web" else m for m in there
    ]
    found = lines(fidelity(SYSTEM, plan, facts(*changed)))
    assert found["deployment.apps/web"] == ("reproduced", "")
    assert found["service/web"] == ("reproduced", "")
    assert found["configmap/web"] == ("substituted", "differs, which was not meant: data.a")
    assert found["configmap/both"][0] == "unavailable"
    assert found["image/web/main"] == ("reproduced", "")


def test_gaps_of_the_capture_and_other_versions_are_in_the_report() -> None:
    item = Item(name="objects/secrets.json", area="secrets", status="denied", why="no", started_at=NOW, ended_at=NOW)
    found = replace(SYSTEM, document=SYSTEM.document.model_copy(
        update={"items": (item,), "tools": {"helm": "v3"}, "server_version": "v1.30.0"}))  # fmt: skip
    told = lines(fidelity(found, planned(found), facts(tools={"helm": "v4", "kubernetes": "v1.30.0"})))
    assert told["objects/secrets.json"] == ("unavailable", "the capture is denied here: no")
    assert told["version/helm"] == ("substituted", "v4 instead of v3")
    assert told["version/kubernetes"] == ("reproduced", "v1.30.0")


def test_data_counts_as_reproduced_only_when_it_was_compared() -> None:
    found = captured(workload("db", BY_DIGEST), fixtures=(fixture("db"),))
    assert lines(fidelity(found, planned(found), facts()))["fixture/db"][0] == "unavailable"
    assert lines(fidelity(found, planned(found), facts(restored={"db": ""})))["fixture/db"][0] == "reproduced"


@pytest.mark.parametrize(
    ("a", "b", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {}}, {}, []),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ["a[0].b"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": 0}, {}, ["a"]),
        ({"a": False}, {}, ["a"]),
    ],
)
def test_differences(a: Any, b: Any, paths: list[str]) -> None:
    assert differences(a, b) == paths


# -- the verdict


def finding(*log: str, **more: Any) -> Finding:
    plain = {"reason": "CrashLoopBackOff", "message": "", "object": "pod/web-1", "service": "web", "pod": "web-1"}
    return Finding(**{**plain, "container": "main", "exit_code": 3, "log_tail": log, **more})


def failed_test(*log: str) -> Finding:
    return finding(*log, reason="TestFailed", service="", container="", pod="", exit_code=1)


def document(*findings: Finding, **more: Any) -> Document:
    whys = tuple(Why.of(one) for one in findings)
    return Document(started_at=NOW, ended_at=NOW, namespace="qa", findings=whys, **more)


TARGET = wanted(document(finding("error: no table orders")))


@pytest.mark.parametrize(
    ("live", "verdict"),
    [
        ([finding("error: no table orders")], "same failure"),
        ([finding("error: other"), finding("error: no table orders", reason="Error")], "same failure"),
        ([finding("error: no table orders", exit_code=1)], "different failure"),
        ([finding("error: no such host")], "different failure"),
        # The log is only not there yet.
        ([finding()], "different failure"),
        ([], "no failure"),
    ],
)
def test_verdicts(live: list[Finding], verdict: str) -> None:
    found = _same(live, TARGET) or _other(live, TARGET, all_run=not live)
    assert found.verdict == verdict


def test_what_is_secret_or_new_is_the_same_again() -> None:
    clean = cleaner([("new-value-1234", "0" * 16)], ("qa", "again"))
    assert clean("login new-value-1234 at db.again.svc") == f"login redacted-{'0' * 16} at db.qa.svc"


def test_what_nobody_sees_is_not_looked_for() -> None:
    test = finding("expected 3 rows", reason="TestFailed", service="", container="", pod="", exit_code=1)
    assert wanted(document(test, finding("boom"))).of_command
    assert wanted(document(finding("x", reason="SmokeTestFailed"), finding("error: boom"))).signature is not None
    assert wanted(document(finding("x", reason="DeploymentFailed"))).signature is None
    assert wanted(document()) == Wanted(None, "")


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        (
            finding("expected 3 rows: failed", reason="TestFailed", service="", container="", exit_code=1),
            "same failure",
        ),
        (finding("cannot connect", reason="TestFailed", service="", container="", exit_code=1), "different failure"),
        (None, "no failure"),
    ],
)
def test_verdicts_of_a_command(failed: Finding | None, verdict: str) -> None:
    signature = Signature(service="", reason="TestFailed", exit_code=1, log=("expected <n> rows: failed",))
    target = Wanted(signature, "the test failed", of_command=True)
    assert of_command(failed, target, str, command=["test"]).verdict == verdict


# -- services at another commit, and contents from before a deployment


def at_another_commit(*manifests: Manifest, hooks: tuple[Manifest, ...] = ()) -> Replacement:
    rendered = [{**m, "metadata": {"name": m["metadata"]["name"]}} for m in manifests]
    lock = ServiceLock(kind="manifests", repo="r", ref="fix", commit="c" * 40, input_digest="i", manifest_digest="m")
    plan = ServicePlan(name="web", lock=lock, manifests=rendered, hooks=list(hooks))
    return Replacement(plan, "r", "fix", "c" * 40, "Mend it")


def test_a_service_at_another_commit_keeps_what_it_holds_and_finds() -> None:
    job = of("Job", "migrate", "batch/v1", spec={"template": {"spec": {"containers": []}}})
    job["metadata"]["labels"] = {"sandbox.dev/service": "web"}
    token = of("Secret", "web", data={"token": "hmac-0123456789abcdef"})
    found = captured(
        workload("web", BY_DIGEST, "web", "by-hand"),
        workload("api", BY_DIGEST),
        of("ConfigMap", "web", data={"a": "old"}),
        of("ConfigMap", "by-hand", data={"b": "kept"}),
        job,
        secrets=(token,),
    )
    rendered = (
        workload("web", f"example.com/web@{NEWER}", "web"),
        of("ConfigMap", "web", data={"a": "new"}),
        of("Secret", "web", stringData={"token": "made up", "more": "brought"}),
        of("NetworkPolicy", "web", "networking.k8s.io/v1"),
    )
    other = at_another_commit(*rendered, hooks=(of("Job", "migrate", "batch/v1"),))
    plan = planned(found, replacements={"web": other})
    made = {f"{m['kind']}/{m['metadata']['name']}": m for m in plan.manifests}
    assert made["ConfigMap/web"]["data"] == {"a": "new"}
    assert made["ConfigMap/by-hand"]["data"] == {"b": "kept"}
    assert base64.b64decode(made["Secret/web"]["data"]["token"]) != b"made up"
    assert base64.b64decode(made["Secret/web"]["data"]["more"]) == b"brought"
    assert "NetworkPolicy/web" not in made
    assert "Job/migrate" not in made
    assert plan.left_out["job.batch/migrate"] == "replaced by cccccccccccc: Mend it, whose own runs instead"
    assert plan.services["web"].lock.commit == "c" * 40
    live = list(made.values())
    told = {line.name: line for line in fidelity(found, plan, facts(*live))}
    assert told["source/web"].why == "replaced by cccccccccccc: Mend it"
    assert told["deployment.apps/web"] == Line(
        "object", "deployment.apps/web", "substituted", "replaced by cccccccccccc: Mend it"
    )
    # It is read back: what somebody else put there is not what was meant.
    changed = [{**m, "spec": workload("web", "other")["spec"]} if m is made["Deployment/web"] else m for m in live]
    again = {line.name: line.why for line in fidelity(found, plan, facts(*changed))}
    assert "image of main: other, which was not meant" in again["deployment.apps/web"]


def test_contents_from_before_the_deployment() -> None:
    db, cache = workload("db", BY_DIGEST), workload("cache", BY_DIGEST)
    early = fixture("db", started_at="2026-05-01T10:00:00.500Z")
    young, old = (of(
        "Job", name, "batch/v1", spec={"template": {"spec": {"containers": []}}},
        status={"conditions": [{"type": "Complete", "status": "True"}]},
    ) for name in ("young", "old"))  # fmt: skip
    young["metadata"]["creationTimestamp"] = "2026-05-01T10:00:00Z"
    old["metadata"]["creationTimestamp"] = "2026-05-01T09:59:58Z"
    found = captured(db, cache, young, old, fixtures=(fixture("db"), fixture("cache")), before=(early,))
    plan = planned(found, Choices(before=True))
    assert {store.fixture.name: store.root for store in plan.stores} == {"db": "before", "cache": "fixtures"}
    assert "job.batch/old" in plan.left_out
    assert "job.batch/young" not in plan.left_out
    assert "job.batch/young" in planned(found).left_out
    notes = {store.fixture.name: store.note for store in plan.stores}
    assert "before the deployment (2026-05-01T10:00:00.500Z)" in notes["db"]
    assert "nothing of it was taken before" in notes["cache"]


def test_contents_from_before_that_nobody_took_are_unavailable() -> None:
    found = captured(workload("db", BY_DIGEST), fixtures=(fixture("db"),))
    plan = planned(found, Choices(before=True))
    [line] = [line for line in fidelity(found, plan, facts()) if line.name == "fixture/db"]
    assert line.outcome == "unavailable"
    assert "nothing was taken before" in line.why


def test_what_was_evicted_or_pending_is_started_anew_and_not_copied() -> None:
    evicted = pod("web", BY_DIGEST, "", created="1")
    evicted["status"] = {"phase": "Failed", "reason": "Evicted"}
    pending = pod("web", BY_DIGEST, "", created="2", waiting="ContainerCreating")
    plan = planned(captured(workload("web", BY_DIGEST), pods=(evicted, pending)))
    assert kinds(plan, "web") == {"Deployment/web"}
    assert [pin.digest for pin in plan.pins] == [DIGEST]
