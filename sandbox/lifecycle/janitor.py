"""kube-janitor's annotations on namespaces, so that its users can move. Pure.

Source of the rules: https://codeberg.org/hjacobs/kube-janitor (README, ``helper.py``): ``janitor/ttl`` counts from
the creation (``60s``, ``5m``, ``8h``, ``7d``, ``2w``, ``forever``), ``janitor/expires`` is a time in UTC in one of
three forms. It looks at each of the two alone; here they give one deadline, the earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from sandbox.model.deadline import Deadline
from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import InvalidInput

TTL: Final = "janitor/ttl"
EXPIRES: Final = "janitor/expires"

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_TTL_SHAPE = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_EXPIRES_SHAPES = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
# Whatever a pattern says.
_NEVER = ("kube-*", "default", "sandbox-system")


def check_patterns(patterns: Sequence[str]) -> None:
    """Refuse patterns that would take in what may never be deleted by a mistake.

    Raises:
        InvalidInput: there is none, or one that matches any name.
    """
    if not patterns:
        raise InvalidInput("--janitor-annotations needs --janitor-namespaces", hint="such as 'pr-*,preview-*'")
    for pattern in patterns:
        if not pattern.strip("*?"):
            raise InvalidInput(f"the pattern {pattern!r} matches every namespace", hint="such as 'pr-*'")


def is_covered(name: str, patterns: Sequence[str]) -> bool:
    """Whether a namespace is one whose janitor annotations count."""
    if any(fnmatchcase(name, pattern) for pattern in _NEVER):
        return False
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def janitor_deadline(metadata: Mapping[str, Any]) -> Deadline | None:
    """When a namespace ends by its janitor annotations; None where it has none, or lives forever."""
    note = metadata.get("annotations") or {}
    ends: list[datetime] = []
    try:
        if TTL in note and note[TTL].lower() != "forever":
            ends.append(from_rfc3339(metadata.get("creationTimestamp") or "") + _ttl(note[TTL]))
        if EXPIRES in note:
            ends.append(_expires(note[EXPIRES]))
    except (InvalidInput, OverflowError) as error:
        return Deadline(None, problem=str(error))
    return Deadline(min(ends)) if ends else None


def _ttl(text: str) -> timedelta:
    match = _TTL_SHAPE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{TTL} {text!r} does not match format (e.g. 60s, 5m, 8h, 7d, 2w)")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _expires(text: str) -> datetime:
    for shape in _EXPIRES_SHAPES:
        try:
            return datetime.strptime(text, shape).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise InvalidInput(
        f"{EXPIRES} {text!r} does not match format 2019-02-25T09:26:14Z, 2019-02-25T09:26, or 2019-02-25"
    )
