"""Which namespaces may be deleted as sandboxes, and what is said of those that do not end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.model.deletion import check_ours, ending_for, pod_reasons, restore_command, stuck_reasons
from sandbox.model.errors import Refused
from sandbox.model.owner import Owner
from sandbox.model.sandbox import Sandbox


def namespace(
    *, phase: str = "Ready", own_name: str = "shop", managed: bool = True, created_at: str = "2030-01-01T00:00:10Z"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "shop",
            "uid": "uid-1",
            "creationTimestamp": "2030-01-01T00:00:30Z",
            "labels": {"app.kubernetes.io/managed-by": "sandbox"} if managed else {},
            "annotations": {
                "sandbox.dev/namespace": own_name,
                "sandbox.dev/phase": phase,
                "sandbox.dev/created-at": created_at,
            },
        }
    }


@pytest.mark.parametrize("created_at", ["2030-01-01T00:00:30Z", "2030-01-01T00:01:30Z", "2029-12-31T23:59:30Z"])
def test_a_sandbox_with_its_record_may_be_deleted(created_at: str) -> None:
    check_ours(namespace(created_at=created_at), "uid-1")


def test_a_killed_up_may_be_deleted() -> None:
    check_ours(namespace(phase="Provisioning"), None)


@pytest.mark.parametrize(
    ("found", "record_uid", "why"),
    [
        (namespace(managed=False), "uid-1", "label"),
        (namespace(own_name="other"), "uid-1", "own name"),
        (namespace(), None, "copy"),
        (namespace(phase="Sleeping"), None, "copy"),
        (namespace(), "uid-2", "uid-2"),
        (namespace(), "", "UID"),
        (namespace(phase="Provisioning"), "uid-2", "uid-2"),
        (namespace(created_at="2029-12-31T23:59:29Z"), "uid-1", "created-at"),
        (namespace(created_at="2030-01-01T00:01:31Z"), "uid-1", "created-at"),
        (namespace(created_at=""), "uid-1", "created-at"),
        (namespace(created_at="yesterday", phase="Provisioning"), None, "created-at"),
    ],
)
def test_what_only_looks_like_a_sandbox_is_not_deleted(found: dict[str, Any], record_uid: str | None, why: str) -> None:
    with pytest.raises(Refused) as refused:
        check_ours(found, record_uid)
    assert why in refused.value.why


def test_without_a_record_where_admission_says_what_a_sandbox_is() -> None:
    check_ours(namespace(), None, needs_record=False)
    with pytest.raises(Refused, match="another namespace"):
        check_ours(namespace(), "uid-2", needs_record=False)
    with pytest.raises(Refused, match="was not created when it says"):
        check_ours(namespace(created_at="2029-12-31T23:59:29Z"), None, needs_record=False)


def test_that_it_ends_is_not_believed_of_an_annotation() -> None:
    with pytest.raises(Refused, match="no record"):
        check_ours(namespace(phase="Terminating"), None)


def test_stuck_namespaces_say_why() -> None:
    condition = {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "foo.io/x in 1 resource"}
    assert stuck_reasons({"status": {"conditions": [condition]}}) == [
        "NamespaceFinalizersRemaining: foo.io/x in 1 resource"
    ]
    assert stuck_reasons({}) == []


def test_how_long_a_namespace_has_been_ending() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert ending_for({"metadata": {"deletionTimestamp": "2029-12-31T23:59:30Z"}}, now) == timedelta(seconds=30)
    assert ending_for({"metadata": {}}, now) == timedelta()


@pytest.mark.parametrize(
    ("owner", "more"), [(Owner(user="dana@example.com"), ""), (Owner(group="shop team"), " --owner-group 'shop team'")]
)
def test_what_brings_a_sandbox_back_names_its_profile_and_its_group(owner: Owner, more: str) -> None:
    sandbox = Sandbox.of(namespace(), "c")
    asked = f"sandbox up --lock file:///l.yaml --name {sandbox.name}"
    assert restore_command("file:///l.yaml", sandbox, owner) == asked + more
    assert "--quota small" in restore_command("l", replace(sandbox, quota_profile="small"), owner)


def test_pods_that_hold_their_namespace_say_what_they_wait_for() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    ends: dict[str, str | None] = {"new": None, "grace": "2030-01-01T00:00:30Z", "lost": "2029-12-31T23:59:00Z"}
    pods = [{"metadata": {"name": name, "deletionTimestamp": end}} for name, end in ends.items()]
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"], "deletionTimestamp": ends["grace"]}}

    assert pod_reasons(pods, now) == [
        "pod/new is not being deleted yet",
        "pod/grace has until 2030-01-01T00:00:30Z (in 30s) to end, its grace period",
        "pod/lost was to end by 2029-12-31T23:59:00Z (1m ago), and its node does not say that it has",
    ]
    assert pod_reasons([*pods, held], now)[0] == "pod/held is held by its finalizers: example.com/hold"
    assert pod_reasons([*pods, held], now)[-1] == "and 1 more pods"
    assert pod_reasons([], now) == []
