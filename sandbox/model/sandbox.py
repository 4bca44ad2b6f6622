"""A sandbox as its namespace tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sandbox.model import labels
from sandbox.model.deadline import deadline
from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import InvalidInput


class Phase(StrEnum):
    """Where a sandbox is in its life, as the namespace's annotation says."""

    PROVISIONING = "Provisioning"
    READY = "Ready"
    FAILED = "Failed"
    SLEEPING = "Sleeping"
    EXPIRING = "Expiring"
    # Not written by us: the namespace has a deletion timestamp.
    TERMINATING = "Terminating"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Sandbox:
    """One ephemeral environment = one namespace. Times are aware, UTC; None where missing or unreadable.

    Attributes:
        expires_at: when it ends, pin and longest lifetime counted in (:func:`sandbox.model.deadline.deadline`).
        expiry_problem: why nobody knows when it ends.
        pinned_until: what keeps it, where that is a pin; ``pin_reason`` says why.
        max_expires_at: what no extension and no pin gets past.
        shared: it is an environment instead: nobody's own, and without an end.
    """

    name: str
    namespace: str
    context: str
    owner: str
    project: str
    phase: Phase
    repo: str
    ref: str
    commit: str
    quota_profile: str
    ttl: str
    created_at: datetime | None
    expires_at: datetime | None
    uid: str
    expiry_problem: str = ""
    pinned_until: datetime | None = None
    pin_reason: str = ""
    max_expires_at: datetime | None = None
    shared: bool = False

    @classmethod
    def of(cls, namespace: Mapping[str, Any], context: str) -> Sandbox:
        """Read a Namespace object; what is missing is empty or None, never an error."""
        metadata = namespace["metadata"]
        note = metadata.get("annotations") or {}
        label = metadata.get("labels") or {}
        end = deadline(note)
        return cls(
            name=label.get(labels.NAME) or metadata["name"],
            namespace=metadata["name"],
            context=context,
            owner=note.get(labels.OWNER_USER) or note.get(labels.OWNER_GROUP) or label.get(labels.OWNER, ""),
            project=label.get(labels.PROJECT, ""),
            phase=_phase(metadata, note.get(labels.PHASE, "")),
            repo=note.get(labels.REPO, ""),
            ref=note.get(labels.REF, ""),
            commit=note.get(labels.COMMIT, ""),
            quota_profile=note.get(labels.QUOTA_PROFILE, ""),
            ttl=note.get(labels.TTL, ""),
            created_at=_time(metadata.get("creationTimestamp", "")),
            expires_at=end.at,
            uid=metadata.get("uid", ""),
            expiry_problem=end.problem,
            pinned_until=end.at if end.pinned else None,
            pin_reason=note.get(labels.PIN_REASON, "") if end.pinned else "",
            max_expires_at=_time(note.get(labels.MAX_EXPIRES_AT, "")),
        )


def is_sandbox(namespace: Mapping[str, Any]) -> bool:
    """Whether a Namespace claims to be a sandbox: our label, and it names itself. Not yet a right to delete it."""
    metadata = namespace["metadata"]
    return (metadata.get("labels") or {}).get(labels.MANAGED_BY) == labels.MANAGED_BY_VALUE and (
        metadata.get("annotations") or {}
    ).get(labels.NAMESPACE) == metadata["name"]


def _phase(metadata: Mapping[str, Any], text: str) -> Phase:
    if metadata.get("deletionTimestamp"):
        return Phase.TERMINATING
    try:
        phase = Phase(text)
    except ValueError:
        return Phase.UNKNOWN
    # Whoever may write annotations must not make others believe that it ends.
    return Phase.UNKNOWN if phase is Phase.TERMINATING else phase


def _time(text: str) -> datetime | None:
    try:
        return from_rfc3339(text)
    except InvalidInput:
        return None
