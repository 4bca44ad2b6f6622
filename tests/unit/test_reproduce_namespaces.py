"""Names of a namespace are replaced where they certainly are ones; the rest is listed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.objects import Manifest
from sandbox.reproduce.namespaces import Renaming

SERVICES = {"db", "cache", "db-read"}
RENAMING = Renaming("qa", "again", SERVICES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("db.qa", "db.again"),
        ("db.qa.svc", "db.again.svc"),
        ("db.qa.svc.cluster.local:5432", "db.again.svc.cluster.local:5432"),
        ("db-0.db.qa.svc.cluster.local", "db-0.db.again.svc.cluster.local"),
        ("http://cache.qa/x?to=db-read.qa.svc", "http://cache.again/x?to=db-read.again.svc"),
        ("ask db.qa.", "ask db.again."),
        # Not names of a Service here.
        ("db.qa.example.com", "db.qa.example.com"),
        ("web.qa.svc", "web.qa.svc"),
        ("mydb.qa", "mydb.qa"),
        ("db.qa-2.svc", "db.qa-2.svc"),
        ("db.qa2", "db.qa2"),
        ("the qa team", "the qa team"),
        ("db.prod.svc", "db.prod.svc"),
    ],
)
def test_hosts_of_services_are_replaced_and_nothing_else(before: str, after: str) -> None:
    assert RENAMING.in_text(before) == after


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("welcome to qa", ["welcome to qa"]),
        ("db.prod.svc.cluster.local", ["db.prod.svc"]),
        ("quality", []),
        ("db.again.svc", []),
    ],
)
def test_what_may_be_meant_is_listed(text: str, mentions: list[str]) -> None:
    assert RENAMING.mentions(text) == mentions


def test_fields_are_replaced_by_what_they_mean() -> None:
    env = [{"name": "POD_NAMESPACE", "value": "qa"}, {"name": "TEAM", "value": "qa"}, {"name": "DB", "value": "db.qa"}]
    container = {"name": "main", "image": "registry/qa:1", "env": env, "args": ["--cache=cache.qa.svc"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": [container]}}
    done = RENAMING.of(pod)
    [made] = done.manifest["spec"]["containers"]
    assert [v["value"] for v in made["env"]] == ["again", "qa", "db.again"]
    assert made["args"] == ["--cache=cache.again.svc"]
    assert made["image"] == "registry/qa:1"
    assert [m.path for m in done.unresolved] == ["spec.containers[0].env[1].value"]
    assert {m.after for m in done.done} == {"again", "db.again", "cache.again"}


def test_subjects_of_bindings_follow() -> None:
    subjects = [{"kind": "ServiceAccount", "name": "a", "namespace": "qa"}, {"kind": "User", "name": "dana"}]
    binding: Manifest = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}}
    made = RENAMING.of({**binding, "subjects": subjects}).manifest
    assert made["subjects"][0]["namespace"] == "again"


@given(text=st.text(max_size=60))
def test_into_the_same_namespace_nothing_changes(text: str) -> None:
    assert Renaming("qa", "qa", SERVICES).in_text(text) == text


@given(words=st.lists(st.sampled_from(["db", "qa", ".", "svc", "-", " ", "x", ":5432", "again"]), max_size=12))
def test_replacing_twice_is_replacing_once(words: list[str]) -> None:
    once = RENAMING.in_text("".join(words))
    assert RENAMING.in_text(once) == once
