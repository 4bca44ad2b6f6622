"""What the clean-up makes of one namespace, by what its metadata says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sandbox.lifecycle.janitor import TTL, is_covered, janitor_deadline
from sandbox.model import labels
from sandbox.model.deadline import Deadline, deadline, warn_at
from sandbox.model.durations import from_rfc3339, short_duration
from sandbox.model.errors import InvalidInput
from sandbox.model.sandbox import is_sandbox


class Fate(StrEnum):
    """What is to happen to a namespace."""

    IGNORE = "ignore"
    """It is none of ours."""
    KEEP = "keep"
    WARN = "warn"
    """It ends soon; its owner is to know."""
    DUE = "due"
    FLAG = "flag"
    """It looks like ours and something is wrong with it; it is not deleted."""
    ENDING = "ending"
    """It is being deleted."""
    STUCK = "stuck"
    """It has been being deleted for too long."""


@dataclass(frozen=True)
class Rules:
    """What the clean-up goes by.

    Attributes:
        warn_before: how long before its end an owner is warned (:func:`sandbox.model.deadline.warn_at`).
        stuck_after: how long being deleted may take.
        janitor: patterns of names of namespaces whose kube-janitor annotations count; empty: of none.
    """

    warn_before: timedelta
    stuck_after: timedelta
    janitor: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A fate, and why; ``deadline`` where there is one. ``managed``: ours, not kube-janitor's."""

    fate: Fate
    why: str = ""
    deadline: datetime | None = None
    managed: bool = True


def judge(namespace: Mapping[str, Any], now: datetime, rules: Rules) -> Verdict:
    """What is to happen to a namespace.

    Args:
        now: the server's time.
    """
    metadata = namespace["metadata"]
    managed = (metadata.get("labels") or {}).get(labels.MANAGED_BY) == labels.MANAGED_BY_VALUE
    if not managed:
        return _judge_janitors(metadata, now, rules)
    if began := metadata.get("deletionTimestamp"):
        return _judge_ending(began, now, rules)
    if not is_sandbox(namespace):
        return Verdict(Fate.FLAG, f"it carries our label and not its own name in {labels.NAMESPACE}: a copy?")
    note = metadata.get("annotations") or {}
    return _by_deadline(deadline(note), note.get(labels.TTL, ""), now, rules)


def _judge_janitors(metadata: Mapping[str, Any], now: datetime, rules: Rules) -> Verdict:
    if not is_covered(metadata["name"], rules.janitor):
        return Verdict(Fate.IGNORE, managed=False)
    end = janitor_deadline(metadata)
    if end is None:
        return Verdict(Fate.IGNORE, managed=False)
    if began := metadata.get("deletionTimestamp"):
        found = _judge_ending(began, now, rules)
    else:
        found = _by_deadline(end, (metadata.get("annotations") or {}).get(TTL, ""), now, rules)
    return Verdict(found.fate, found.why, found.deadline, managed=False)


def _by_deadline(end: Deadline, ttl: str, now: datetime, rules: Rules) -> Verdict:
    if end.at is None:
        return Verdict(Fate.FLAG, f"nobody can say when it ends: {end.problem}")
    if end.passed(now):
        return Verdict(Fate.DUE, f"it expired {short_duration(now - end.at)} ago", end.at)
    if now >= warn_at(end.at, ttl, rules.warn_before):
        return Verdict(Fate.WARN, f"it expires in {short_duration(end.at - now)}", end.at)
    return Verdict(Fate.KEEP, deadline=end.at)


def _judge_ending(began: str, now: datetime, rules: Rules) -> Verdict:
    try:
        lasted = now - from_rfc3339(began)
    except InvalidInput:
        return Verdict(Fate.ENDING)
    if lasted < rules.stuck_after:
        return Verdict(Fate.ENDING)
    return Verdict(Fate.STUCK, f"it has been being deleted for {short_duration(lasted)}")


def over_limit(counts: Mapping[str, Sequence[str]], limit: int | None, what: str) -> list[tuple[str, str]]:
    """Who has more sandboxes than the platform allows: (who, in words).

    Args:
        counts: the sandboxes of each owner or project.
        what: owner or project.
    """
    return [
        (who, f"{what} {who} has {len(names)} sandboxes, {limit} are allowed: {', '.join(sorted(names))}")
        for who, names in sorted(counts.items())
        if limit is not None and len(names) > limit
    ]
