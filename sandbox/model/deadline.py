"""When a sandbox ends: the one function that says so, and when its owner is to be warned.

Whatever shows, changes or enforces an expiry asks here, so that no two places can come to different ends
(evaluating expiry, pin and limit apart from one another is how clean-ups delete twice).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.model import labels
from sandbox.model.durations import format_duration, from_rfc3339, parse_duration
from sandbox.model.errors import InvalidInput

# Less than a deployment takes, or the clean-up's next pass: nobody means that.
LEAST_TTL = timedelta(minutes=5)
# A pin ends, and nobody plans further than this.
LONGEST_PIN = timedelta(days=365)


@dataclass(frozen=True)
class Deadline:
    """When a sandbox ends.

    Attributes:
        at: aware, UTC; None: nobody can say, so nobody may delete it (``problem`` says why).
        pinned: whether a pin is what keeps it until then.
    """

    at: datetime | None
    pinned: bool = False
    problem: str = ""

    def passed(self, now: datetime) -> bool:
        """Whether the sandbox is due; never for one whose end is not known."""
        return self.at is not None and self.at <= now


def deadline(annotations: Mapping[str, str]) -> Deadline:
    """The end of a sandbox, from the annotations of its namespace.

    The later of ``expires-at`` and ``pinned-until``, but never after ``max-expires-at``. Where one of them cannot
    be read, or there is no ``expires-at``, nothing is guessed.
    """
    times: dict[str, datetime] = {}
    for name in (labels.EXPIRES_AT, labels.PINNED_UNTIL, labels.MAX_EXPIRES_AT):
        if name not in annotations:
            continue
        try:
            times[name] = from_rfc3339(annotations[name])
        except InvalidInput as error:
            return Deadline(None, problem=f"{name}: {error.what}")
    if labels.EXPIRES_AT not in times:
        return Deadline(None, problem=f"it carries no {labels.EXPIRES_AT}")
    expires = times[labels.EXPIRES_AT]
    pin = times.get(labels.PINNED_UNTIL, expires)
    end = max(expires, pin)
    return Deadline(min(end, times.get(labels.MAX_EXPIRES_AT, end)), pinned=pin > expires)


def is_final(annotations: Mapping[str, str], now: datetime) -> bool:
    """Whether ``max-expires-at`` has passed: no extension and no pin keeps the sandbox any more."""
    try:
        return from_rfc3339(annotations.get(labels.MAX_EXPIRES_AT, "")) <= now
    except InvalidInput:
        return False


def warn_at(end: datetime, ttl: str, warn_before: timedelta) -> datetime:
    """When to warn the owner of a sandbox: ``warn_before`` its end, but not before half of its time to live.

    Args:
        ttl: the annotation's text; what cannot be read says nothing.
    """
    try:
        span = parse_duration(ttl)
    except InvalidInput:
        span = warn_before * 2
    return end - min(warn_before, span / 2)


def parse_ttl(text: str) -> timedelta:
    """Read a time to live.

    Raises:
        InvalidInput: no duration, or less than five minutes.
    """
    ttl = parse_duration(text)
    if ttl < LEAST_TTL:
        raise InvalidInput(
            f"a time to live of {text} is too short",
            why="the clean-up would delete the sandbox before anybody has looked at it",
            hint=f"{format_duration(LEAST_TTL)} at the least; `sandbox down` ends a sandbox now",
        )
    return ttl


def pin_end(text: str, now: datetime) -> datetime:
    """Read until when something is pinned: a date (its last second, UTC), a duration from now, an RFC 3339 time.

    Raises:
        InvalidInput: none of them, in the past, or more than a year ahead.
    """
    until = _end_of_day(text) or _after(text, now) or _time(text)
    if until is None:
        raise InvalidInput(
            f"{text[:100]!r} is neither a date, a duration nor a time with its zone",
            hint="a duration (3d, 2w), a date (YYYY-MM-DD: its end, UTC) or a time (YYYY-MM-DDTHH:MM:SSZ)",
        )
    if until <= now:
        raise InvalidInput(f"{text} has passed", hint="pin until a time to come")
    if until > now + LONGEST_PIN:
        raise InvalidInput(
            f"{text} is more than a year ahead", hint="a pin ends; it can be renewed when the time comes"
        )
    return until


def _end_of_day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1, seconds=-1)
    except (ValueError, OverflowError):
        return None


def _after(text: str, now: datetime) -> datetime | None:
    try:
        return now + parse_duration(text)
    except (InvalidInput, OverflowError):
        return None


def _time(text: str) -> datetime | None:
    try:
        return from_rfc3339(text)
    except InvalidInput:
        return None
