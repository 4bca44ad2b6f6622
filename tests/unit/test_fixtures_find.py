"""Which containers are stores, and as what their fixtures are known."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.capture.fixtures.find import Missing, find, image_name, workload_of
from sandbox.capture.fixtures.store import DataStore, store_of, stores
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest
from sandbox.project.config import Fixtures

KINDS: dict[str, DataStore] = stores()
RUNNING: Manifest = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def container(name: str, image: str, port: int | None = None, *variables: str) -> Manifest:
    ports = [{"containerPort": port}] if port else []
    return {"name": name, "image": image, "ports": ports, "env": [{"name": v, "value": "x"} for v in variables]}


def pod(name: str, *containers: Manifest, owner: tuple[str, str] | None = None, **more: Any) -> Manifest:
    metadata: Manifest = {"name": name, "labels": more.pop("labels", {}), **more.pop("metadata", {})}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    state = more.pop("state", RUNNING)
    statuses = [{"name": c["name"], "state": state} for c in containers]
    return {
        "metadata": metadata,
        "spec": {"containers": list(containers)},
        "status": {"phase": more.pop("phase", "Running"), "containerStatuses": statuses},
    }


def declared(**stores_: Any) -> Fixtures:
    return Fixtures.model_validate({"stores": stores_}, strict=False)


@pytest.mark.parametrize(
    ("made", "labels", "kind"),
    [
        (container("db", "docker.io/library/postgres:15-bookworm"), {}, "postgresql"),
        (container("db", "registry:5000/team/postgis"), {}, "postgresql"),
        (container("db", "bitnami/postgresql@sha256:0123"), {}, "postgresql"),
        (container("db", "acme/ledger:1", 5432), {"app.kubernetes.io/name": "postgres"}, "postgresql"),
        (container("db", "acme/ledger:1", 5432, "POSTGRES_PASSWORD"), {}, "postgresql"),
        (container("db", "acme/ledger:1", 5432), {}, None),
        (container("db", "acme/ledger:1", 80, "POSTGRES_PASSWORD"), {}, None),
        (container("db", "mysql:8.4"), {}, "mysql"),
        (container("db", "docker.io/bitnami/mariadb:11"), {}, "mysql"),
        (container("db", "acme/books", 3306, "MYSQL_DATABASE"), {}, "mysql"),
        (container("db", "acme/books", 3306), {}, None),
        (container("cache", "redis:7"), {}, "redis"),
        (container("cache", "ghcr.io/valkey-io/valkey:8.0"), {}, "redis"),
        (container("cache", "acme/carts", 6379), {"app.kubernetes.io/name": "redis"}, "redis"),
        (container("cache", "acme/carts", 6379, "REDIS_PASSWORD"), {}, "redis"),
        (container("metrics", "redis:7"), {}, None),
        (container("main", "prometheuscommunity/postgres-exporter:0.15"), {}, None),
        (container("main", "edoburu/pgbouncer", 5432, "POSTGRES_DB"), {}, None),
        (container("web", "acme/web:1", 8080), {"app.kubernetes.io/name": "postgres"}, None),
    ],
)
def test_what_a_store_is_recognised_by(made: Manifest, labels: dict[str, str], kind: str | None) -> None:
    found, missing = find([pod("p", made, labels=labels)], Fixtures(), KINDS)
    assert [one.kind for one in found] == ([kind] if kind else [])
    assert missing == []


def test_fixtures_are_named_by_workload_and_by_pod_where_there_are_several() -> None:
    labels = {"pod-template-hash": "5d8f9"}
    pods = [
        pod("cache-5d8f9-x2x", container("main", "redis"), owner=("ReplicaSet", "cache-5d8f9"), labels=labels),
        pod("db-0", container("main", "postgres"), owner=("StatefulSet", "db")),
        pod("db-1", container("main", "postgres"), owner=("StatefulSet", "db")),
        pod("both", container("one", "redis"), container("two", "postgres")),
        pod("gone", container("main", "redis"), phase="Succeeded"),
        pod("going", container("main", "redis"), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ]
    found, _ = find(pods, Fixtures(), KINDS)
    assert [(one.name, one.kind, one.workload) for one in found] == [
        ("both-one", "redis", "both"),
        ("both-two", "postgresql", "both"),
        ("cache", "redis", "cache"),
        ("db-0", "postgresql", "db"),
        ("db-1", "postgresql", "db"),
    ]


def test_what_is_declared_wins_over_what_is_recognised() -> None:
    pods = [
        pod("ledger-0", container("side", "acme/side"), container("main", "acme/db"), owner=("StatefulSet", "ledger")),
        pod("cache-0", container("main", "redis"), owner=("StatefulSet", "cache")),
    ]
    stores_ = declared(
        money={"workload": "ledger", "container": "main", "kind": "postgresql", "user": "app"},
        cache={"skip": True},
        gone={"kind": "redis"},
        ledger={},
    )
    found, missing = find(pods, stores_, KINDS)
    assert [(one.name, one.pod, one.container, one.kind, one.declared.skip) for one in found] == [
        ("cache", "cache-0", "main", "redis", True),
        ("money", "ledger-0", "main", "postgresql", False),
    ]
    assert missing == [
        Missing("gone", "redis", "no pod of gone is there"),
        Missing(
            "ledger", "",
            "none of the containers side, main is a store that is known (mysql, postgresql, redis); name its `kind`",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "waiting: CrashLoopBackOff: back-off 5m0s",
        ),
        ({"terminated": {"reason": "OOMKilled"}}, "terminated: OOMKilled"),
        ({}, "no state yet"),
    ],
)
def test_a_store_that_does_not_run_says_why(state: Manifest, said: str) -> None:
    [found], _ = find([pod("db", container("main", "postgres"), state=state)], Fixtures(), KINDS)
    assert said in found.trouble


def test_a_pod_that_was_never_started() -> None:
    waiting = pod("db", container("main", "postgres"), phase="Pending")
    del waiting["status"]["containerStatuses"]
    [found], _ = find([waiting], Fixtures(), KINDS)
    assert found.trouble == "the pod is Pending: its container was never started"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("postgres", "postgres"),
        ("host:5000/a/b:1.2", "b"),
        ("host:5000/a/b@sha256:ab", "b"),
        ("A/Redis:7@sha256:ab", "redis"),
        ("", ""),
    ],
)
def test_the_name_of_an_image(image: str, name: str) -> None:
    assert image_name({"image": image}) == name


def test_the_workload_of_a_pod_of_its_own() -> None:
    assert workload_of(pod("alone", container("a", "b"))) == "alone"


def test_a_kind_that_is_not_installed() -> None:
    with pytest.raises(InvalidInput, match="no kind of store 'mongodb'"):
        store_of("mongodb")
