"""What differs between two captures."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox.capture.bundle import Bundle, BundleWriter, open_bundle
from sandbox.capture.difference import (
    OF_THE_COMMIT,
    Difference,
    Side,
    compared,
    difference,
    lacks,
    side_of_lock,
    side_of_record,
)
from sandbox.capture.model import Document, Image, QuotaLine, Redaction, Service, Why
from sandbox.capture.services import image_of
from sandbox.model.record import ImageLock, Lock, Record, ServiceLock, ServiceRecord
from sandbox.store.store import Store

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


async def bundle(store: Store, files: dict[str, Any] | None = None, **facts: Any) -> Bundle:
    writer = BundleWriter(store)
    for title, data in (files or {}).items():
        await writer.add(title, json.dumps(data).encode(), "application/json")
    facts.setdefault("started_at", AT)
    entry = await writer.seal(Document(ended_at=AT, namespace="shop", **facts))
    return await open_bundle(store, entry)


def listed(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "List", "items": list(objects)}


def named(name: str, **contents: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": name}, "status": {"x": name}, **contents}


async def test_nothing_differs_from_itself(store: Store) -> None:
    files = {"objects/configmaps.json": listed(named("settings", data={"a": "1"}))}
    one = await bundle(store, files, services=(Service(name="web", commit="abc1234"),))
    assert await difference(one, one) == []


async def test_services_images_and_charts(store: Store) -> None:
    def web(**facts: Any) -> Service:
        images = (Image(container="main", named="registry/web:1", digest=facts.pop("digest", DIGEST)),)
        return Service(name="web", chart="web", images=images, **facts)

    one = await bundle(
        store, services=(web(commit="abc1234", chart_version="1.0.0"), Service(name="gone", commit="1" * 40))
    )
    other = await bundle(
        store,
        services=(web(commit="def5678", chart_version="1.1.0", digest=f"sha256:{'b' * 64}"), Service(name="new")),
        findings=(Why(reason="CrashLoopBackOff", object="pod/web-1", service="web"),),
    )
    assert await difference(one, other) == [
        Difference("failure", "", "", "nothing was found to be failing", "service web · pod/web-1: CrashLoopBackOff"),
        Difference("service", "gone", "", "1" * 12, ""),
        Difference("service", "new", "", "", "there"),
        Difference("service", "web", "commit", "abc1234", "def5678"),
        Difference("chart", "web", "", "web 1.0.0", "web 1.1.0"),
        Difference("image", "web", "main", f"registry/web:1 {DIGEST}", f"registry/web:1 sha256:{'b' * 64}"),
    ]


async def test_values_configuration_and_objects_by_their_names(store: Store) -> None:
    def deployment(image: str, level: str) -> dict[str, Any]:
        env = [{"name": "LEVEL", "value": level}, {"name": "SAME", "value": "x"}]
        return named("web", spec={"template": {"spec": {"containers": [{"name": "main", "image": image, "env": env}]}}})

    def files(image: str, level: str, replicas: int) -> dict[str, Any]:
        return {
            "helm/web/2/values.json": {"replicas": replicas, "nested": {"a": [1, 2]}},
            "helm/web/1/values.json": {"replicas": 99},
            "objects/configmaps.json": listed(named("settings", data={"level": level, "same": "x"})),
            "objects/deployments.apps.json": listed(deployment(image, level)),
            "objects/services.json": listed(named("web", spec={"clusterIP": image, "type": "ClusterIP"})),
            "objects/endpointslices.discovery.k8s.io.json": listed(named("web-abc", endpoints=[image])),
        }

    found = await difference(
        await bundle(store, files("web:1", "info", 1)), await bundle(store, files("web:2", "debug", 3))
    )
    inside = "spec.template.spec.containers.main"
    assert found == [
        Difference("values", "web", "replicas", "1", "3"),
        Difference("config", "settings", "level", "info", "debug"),
        Difference("object", "deployments.apps/web", f"{inside}.env.LEVEL.value", "info", "debug"),
        Difference("object", "deployments.apps/web", f"{inside}.image", "web:1", "web:2"),
    ]


async def test_secrets_are_compared_by_their_fingerprints_and_only_with_one_key(store: Store) -> None:
    def files(fingerprint: str) -> dict[str, Any]:
        return {"objects/secrets.json": listed(named("db", data={"password": fingerprint, "user": "hmac-1"}))}

    one = await bundle(store, files("hmac-2"), redaction=Redaction(key_id="k"))
    other = await bundle(store, files("hmac-3"), redaction=Redaction(key_id="k"))
    assert await difference(one, other) == [Difference("secret", "db", "password", "hmac-2", "hmac-3")]
    foreign = await bundle(store, files("hmac-3"), redaction=Redaction(key_id="x"))
    assert await difference(one, foreign) == []


async def test_quota_tools_and_data(store: Store) -> None:
    def facts(pods: str, version: str, server: str) -> dict[str, Any]:
        fixture = {
            "name": "db",
            "kind": "postgresql",
            "status": "ok",
            "server_version": server,
            "facts": {"databases": {}},
        }
        quota = (QuotaLine(quota="few", resource="pods", used=pods, hard=pods),)
        return {"quota": quota, "tools": {"helm": version}, "server_version": "v1", "fixtures": (fixture,)}

    one, other = (
        await bundle(store, **facts("10", "v3.1.0", "16.1")),
        await bundle(store, **facts("20", "v4.0.0", "17.0")),
    )
    assert await difference(one, other) == [
        Difference("quota", "few pods", "hard", "10", "20"),
        Difference("data", "db", "server", "16.1", "17.0"),
        Difference("tool", "helm", "", "v3.1.0", "v4.0.0"),
    ]


@pytest.mark.parametrize(
    ("named_as", "image_id", "repository", "digest"),
    [
        ("web:1", f"docker.io/library/web@{DIGEST}", "docker.io/library/web", DIGEST),
        ("r.example/web:1", f"docker-pullable://r.example/web@{DIGEST}", "r.example/web", DIGEST),
        # Only the node has it: no registry knows this id.
        ("web:dev", DIGEST, "", ""),
        # Nothing has run yet: what was asked for.
        (f"r.example/web:1@{DIGEST}", "", "r.example/web", DIGEST),
        ("web:1", "", "", ""),
        ("web:1", f"NOT an image@{DIGEST}", "", DIGEST),
    ],
)
def test_an_image_is_known_by_the_digest_that_ran(named_as: str, image_id: str, repository: str, digest: str) -> None:
    image = image_of("main", named_as, image_id)
    assert (image.repository, image.digest) == (repository, digest)


# -- records, locks and commits


def deployed(image: str = "r:5000/web", tag: str = "src-1234567890", **more: Any) -> Record:
    digest = f"{image}:{tag}@{DIGEST}"
    spec = {"template": {"spec": {"containers": [{"name": "main", "image": digest, "env": []}]}}}
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "web"}, "data": {"a": "hmac-1"}}
    manifest = {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": spec}
    locked = ImageLock(name="shop/web", repository=image, tag=tag, digest=DIGEST)
    lock = ServiceLock(
        kind="chart", repo="r", ref="main", commit="1" * 40, images=(locked,), input_digest="i", manifest_digest="m"
    )
    whole = Lock(project="shop", env="qa", services={"web": lock}, created_at=AT, tools=more.pop("tools", {}))
    values = {"image": {"repository": image, "tag": f"{tag}@{DIGEST}"}, **more}
    service = ServiceRecord(lock=lock, manifests=[manifest, secret], values=values, inventory=[])
    return Record(number=1, at=AT, by="", namespace_uid="", outcome="deployed", lock=whole, services={"web": service})


def rendered(**more: Any) -> Side:
    """The same commit, with images that are not built."""
    made = deployed(OF_THE_COMMIT.repository, OF_THE_COMMIT.tag, **more)
    plain = made.model_dump(mode="json")
    text = json.dumps(plain).replace(DIGEST, OF_THE_COMMIT.digest)
    return side_of_record(Record.model_validate_json(text), key_id="", of_commits=True)


def test_a_record_and_its_commit_do_not_differ_by_images_and_made_up_secrets() -> None:
    there = side_of_record(deployed(), key_id="k")
    assert compared(there, rendered()) == []
    assert "not built" in lacks(there, rendered())
    assert [(d.area, d.path) for d in compared(there, rendered(replicas=3))] == [("values", "replicas")]


def test_fingerprints_count_where_one_key_made_them() -> None:
    other = deployed()
    other.services["web"].manifests[1]["data"] = {"a": "hmac-2", "b": "hmac-3"}
    one, two = side_of_record(deployed(), key_id="k"), side_of_record(other, key_id="k")
    assert [(d.area, d.path) for d in compared(one, two)] == [("secret", "a"), ("secret", "b")]
    foreign = side_of_record(other, key_id="l")
    assert [(d.area, d.path) for d in compared(one, foreign)] == [("secret", "b")]


def test_a_lock_knows_versions_only() -> None:
    one = deployed()
    newer = one.services["web"].lock.model_copy(update={"commit": "2" * 40})
    lock = side_of_lock(one.lock.model_copy(update={"services": {"web": newer}}), "lock x")
    here = side_of_record(one, key_id="")
    assert [(d.area, d.where, d.path) for d in compared(here, lock)] == [("service", "web", "commit")]
    assert lacks(here, lock) == "values and objects are not known of lock x"
