"""What a search ends with: the guilty changes, whose commits they are, and what differs there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandbox.bisect.changes import Change, Comparison
from sandbox.bisect.moments import Moment
from sandbox.bisect.outcome import Outcome
from sandbox.bisect.state import Tested
from sandbox.capture.difference import Difference, compared
from sandbox.model.record import ServiceLock
from sandbox.model.sandbox import Sandbox
from sandbox.source.history import History, between

_OF_SERVICES = ("service", "chart", "image", "values")
_IMAGE = re.compile(r"ontainers\.[^.]+\.image$")
_CONFIGURATION = re.compile(r"ontainers\.[^.]+\.env(From)?\b|template\.metadata\.annotations\b")


@dataclass(frozen=True)
class Guilty:
    """One change without which it was not seen to fail.

    Attributes:
        good, bad: the service on both sides; None: it is not there, or the object is none's.
        without: what became of the test that left out this change alone.
        differences: as ``sandbox diff`` shows them, of its service or object.
    """

    change: Change
    good: ServiceLock | None
    bad: ServiceLock | None
    history: History
    differences: tuple[Difference, ...]
    without: Outcome | None = None


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        changes: names of all that differed.
        failure: what the guilty changes lead to.
        rounds, tests: of all runs of this search; ``asked``: how many tests were of this one.
        sandbox: with the guilty changes, left for looking.
        removed: names of the other sandboxes, which are being deleted.
    """

    good: str
    bad: str
    command: tuple[str, ...]
    changes: tuple[str, ...]
    guilty: tuple[Guilty, ...]
    failure: Outcome
    rounds: int
    tests: tuple[Tested, ...]
    asked: int
    unresolved: int
    sandbox: Sandbox
    removed: tuple[str, ...] = ()


def guilty(changes: Sequence[Change], comparison: Comparison, good: Moment, bad: Moment, folder: Path) -> list[Guilty]:
    """The guilty changes with what is known of them; without their tests."""
    differences = compared(good.side, bad.side)
    found = []
    for change in changes:
        locks = [plan.lock if plan else None for plan in comparison.versions(change)]
        before, after = locks if change.service else (None, None)
        history = _history(before, after, folder) if change.service else History()
        found.append(Guilty(change, before, after, history, tuple(_of(change, differences))))
    return found


def _history(before: ServiceLock | None, after: ServiceLock | None, folder: Path) -> History:
    if before is None or after is None:
        return History(unread="the service is only on one side")
    return between(before.commit, after.commit, repo=after.repo, folder=folder)


def _of(change: Change, differences: Iterable[Difference]) -> Iterable[Difference]:
    """The differences that a change consists of, or comes with."""
    names = [one.partition("/") for one in change.objects]
    for one in differences:
        if one.area in _OF_SERVICES:
            if (
                change.service
                and one.where == change.service
                and (one.area != "image" or change.part in ("images", ""))
            ):
                yield one
        elif one.area in ("config", "secret"):
            kind = {"config": "configmap", "secret": "secret"}[one.area]
            if any(k == kind and name == one.where for k, _, name in names):
                yield one
        elif one.area == "object":
            # A record says deployment.apps/web, a capture deployments.apps/web.
            listed, _, called = one.where.partition("/")
            if any(name == called and _same_kind(listed, k) for k, _, name in names) and _within(change, one.path):
                yield one


def _within(change: Change, path: str) -> bool:
    """Whether a place in a workload is in the part of it that a change is of."""
    part = "images" if _IMAGE.search(path) else "configuration" if _CONFIGURATION.search(path) else "manifests"
    return not path or change.part in (part, "")


def _same_kind(listed: str, kind: str) -> bool:
    plural, singular = listed.partition(".")[0], kind.partition(".")[0]
    return plural in (singular, f"{singular}s", f"{singular}es", f"{singular[:-1]}ies")


def as_data(found: Found) -> dict[str, Any]:
    """For machines."""
    return {
        "good": found.good,
        "bad": found.bad,
        "command": list(found.command),
        "changes": list(found.changes),
        "guilty": [_guilty_data(one) for one in found.guilty],
        "failure": _outcome_data(found.failure),
        "rounds": found.rounds,
        "tests": [_test_data(test) for test in found.tests],
        "asked": found.asked,
        "unresolved": found.unresolved,
        "sandbox": found.sandbox,
        "removed": list(found.removed),
    }


def _guilty_data(one: Guilty) -> dict[str, Any]:
    return {
        "change": one.change.name,
        "service": one.change.service,
        "part": one.change.part,
        "objects": list(one.change.objects),
        "good": _lock_data(one.good),
        "bad": _lock_data(one.bad),
        "commits": [
            {"sha": c.sha, "author": c.author, "subject": c.subject, "at": c.committed_at} for c in one.history.commits
        ],
        "more_commits": one.history.more,
        "commits_unread": one.history.unread,
        "without": _outcome_data(one.without) if one.without else None,
        "differences": [asdict(difference) for difference in one.differences],
    }


def _lock_data(lock: ServiceLock | None) -> dict[str, Any] | None:
    if lock is None:
        return None
    images = {image.name: image.digest for image in lock.images}
    return {"repo": lock.repo, "ref": lock.ref, "commit": lock.commit, "images": images}


def _test_data(test: Tested) -> dict[str, Any]:
    return {
        "changes": list(test.changes),
        "outcome": test.outcome.kind,
        "line": test.outcome.line,
        "sandbox": test.sandbox,
        "seconds": test.seconds,
        "in_place": test.in_place,
    }


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    return {"kind": outcome.kind, "line": outcome.line, "evidence": list(outcome.evidence)}
