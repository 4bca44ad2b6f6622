"""When a sandbox ends: the one function that says so, and when its owner is to be warned.

Whatever shows, changes or enforces an expiry asks here, so that no two places can come to different ends
(evaluating expiry, pin and limit apart from one another is how clean-ups delete twice).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.model import labels
from sandbox.model.durations import from_rfc3339, parse_duration
from sandbox.model.errors import InvalidInput

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


def pin_end(text: str, now: datetime) -> datetime:
    """Read until when something is pinned: an RFC 3339 time, or a date (its last second, UTC).

    Raises:
        InvalidInput: neither of them, in the past, or more than a year ahead.
    """
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        until = day + timedelta(days=1, seconds=-1)
    except (ValueError, OverflowError):
        until = from_rfc3339(text)
    if until <= now:
        raise InvalidInput(f"{text} has passed", hint="pin until a time to come")
    if until > now + LONGEST_PIN:
        raise InvalidInput(
            f"{text} is more than a year ahead", hint="a pin ends; it can be renewed when the time comes"
        )
    return until
