"""Which namespaces may be deleted as sandboxes, and what holds those that do not end. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sandbox.model import labels
from sandbox.model.durations import from_rfc3339, relative, to_rfc3339
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import Manifest
from sandbox.model.owner import Owner
from sandbox.model.sandbox import Phase, Sandbox, is_sandbox

# The annotation `created-at` is the server's time as the creating client saw it.
_CREATED_WITHIN: Final = timedelta(seconds=60)
# What the control plane says of a namespace that does not end.
_STUCK_CONDITIONS: Final = (
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceContentRemaining",
    "NamespaceFinalizersRemaining",
)

# How many pods of many are named.
_NAMED: Final = 3


def check_ours(namespace: Manifest, record_uid: str | None, *, needs_record: bool = True) -> None:
    """Refuse to delete a namespace that only looks like a sandbox.

    Ours carries our label and names itself, its record holds its UID (or it has no record and is still being
    provisioned: a killed `up`), and it was created when it says so.

    Args:
        record_uid: the namespace UID that its record holds; None: it has no record.
        needs_record: whether it must have one; not where admission lets nobody but its maker write what else
            is checked here, so that no copy passes.

    Raises:
        Refused: saying what does not fit.
    """
    metadata = namespace["metadata"]
    name, uid = metadata["name"], metadata["uid"]
    hint = f"if it really is to go: kubectl delete namespace {name}"
    if not is_sandbox(namespace):
        raise Refused(f"the namespace {name} is not a sandbox", why="it lacks our label or its own name", hint=hint)
    if record_uid is None:
        if needs_record and Sandbox.of(namespace, "").phase not in (Phase.PROVISIONING, Phase.TERMINATING):
            raise Refused(f"the namespace {name} has no record of a deployment", why="it may be a copy", hint=hint)
    elif record_uid != uid:
        raise Refused(
            f"the record in {name} is of another namespace",
            why=f"it holds the UID {record_uid}, the namespace has {uid}",
            hint=hint,
        )
    if not _created_as_it_says(metadata):
        raise Refused(
            f"the namespace {name} was not created when it says",
            why=f"{labels.CREATED_AT} is {(metadata.get('annotations') or {}).get(labels.CREATED_AT, 'missing')}, "
            f"it was created at {metadata.get('creationTimestamp')}",
            hint=hint,
        )


def _created_as_it_says(metadata: Manifest) -> bool:
    try:
        said = from_rfc3339((metadata.get("annotations") or {}).get(labels.CREATED_AT, ""))
        created = from_rfc3339(metadata.get("creationTimestamp") or "")
    except InvalidInput:
        return False
    return abs(created - said) <= _CREATED_WITHIN


def ending_for(namespace: Manifest, now: datetime) -> timedelta:
    """For how long a namespace has been being deleted; none where it is not, or does not say since when.

    Args:
        now: the server's time.
    """
    try:
        return now - from_rfc3339(namespace["metadata"].get("deletionTimestamp") or "")
    except InvalidInput:
        return timedelta()


def stuck_reasons(namespace: Manifest) -> list[str]:
    """Why a namespace does not end, in the control plane's words; empty where it says nothing."""
    conditions = (namespace.get("status") or {}).get("conditions") or []
    return [
        f"{condition['type']}: {condition.get('message', '')}"
        for condition in conditions
        if condition.get("type") in _STUCK_CONDITIONS and condition.get("status") == "True"
    ]


def pod_reasons(pods: Sequence[Manifest], now: datetime) -> list[str]:
    """What pods of a namespace that is being deleted wait for; those that nobody will end by themselves come first.

    Args:
        pods: of their metadata only is read.
        now: the server's time.
    """
    held = [pod for pod in pods if pod["metadata"].get("finalizers")]
    others = [pod for pod in pods if not pod["metadata"].get("finalizers")]
    lines = [f"pod/{pod['metadata']['name']} {_why_it_stays(pod['metadata'], now)}" for pod in [*held, *others]]
    more = [f"and {len(lines) - _NAMED} more pods"] if len(lines) > _NAMED else []
    return lines[:_NAMED] + more


def _why_it_stays(metadata: Manifest, now: datetime) -> str:
    if finalizers := metadata.get("finalizers"):
        return f"is held by its finalizers: {', '.join(map(str, finalizers))}"
    try:
        # The API server writes down when it is to have ended, its grace period included.
        end = from_rfc3339(metadata.get("deletionTimestamp") or "")
    except InvalidInput:
        return "is not being deleted yet"
    if end > now:
        return f"has until {to_rfc3339(end)} ({relative(end, now)}) to end, its grace period"
    return f"was to end by {to_rfc3339(end)} ({relative(end, now)}), and its node does not say that it has"


def restore_command(lock: str, sandbox: Sandbox, owner: Owner) -> str:
    """What brings a deleted sandbox back, as the one that it was.

    Args:
        lock: where its lock is kept.
        owner: a user brings their own back; a group's is said to be one.
    """
    words = ["sandbox", "up", "--lock", lock, "--name", sandbox.name]
    words += ["--quota", sandbox.quota_profile] if sandbox.quota_profile else []
    words += ["--owner-group", owner.group] if owner.group else []
    return shlex.join(words)
