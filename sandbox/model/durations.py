"""Durations as people write them (``30m``, ``8h``, ``1d12h``) and times as they read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from sandbox.model.errors import InvalidInput

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SHAPE = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
# From how many seconds on, to what they are rounded to be shown.
_ROUNDED = ((_SECONDS["w"], _SECONDS["d"]), (_SECONDS["d"], _SECONDS["h"]), (10 * _SECONDS["m"], _SECONDS["m"]), (0, 1))
# timedelta overflows beyond this; nobody means more than a century.
_LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Read ``30m``, ``8h``, ``2d``, ``1w`` or a combination such as ``1d12h``.

    Raises:
        InvalidInput: not of that form, zero, or over a century.
    """
    match = _SHAPE.fullmatch(text.strip())
    if not match or not any(match.groups()):
        years = (
            " (weeks are the longest unit: a year is 52w)"
            if re.fullmatch(r"\d+(y|mo)\w*", text.strip().lower())
            else ""
        )
        raise InvalidInput(
            f"{text!r} is not a duration", hint=f"write it as 30m, 8h, 2d, 1w or combined as 1d12h{years}"
        )
    # Python refuses to turn more than 4,300 digits into a number; ten are more than a century in seconds.
    if any(len(digits) > 10 for digits in match.groups() if digits):
        raise InvalidInput(f"the duration {text[:20]!r}… is too long", hint="a century at most")
    seconds = sum(int(n or 0) * unit for n, unit in zip(match.groups(), _SECONDS.values(), strict=True))
    if seconds == 0:
        raise InvalidInput(f"the duration {text!r} is zero", hint="such as 30m or 8h")
    if seconds > _LONGEST.total_seconds():
        raise InvalidInput(f"the duration {text!r} is too long", hint="a century at most")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration so that :func:`parse_duration` reads the same (whole seconds); ``0s`` for none."""
    seconds = int(duration.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts = []
    for unit, size in _SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")


def short_duration(duration: timedelta) -> str:
    """Write a duration roughly, in its two largest units (``1d12h``, ``4m30s``; minutes only from ten on), rounded."""
    seconds = abs(duration).total_seconds()
    # What is said right after somebody asked for 12h is 12h, and not 11h59m.
    finest = next(size for least, size in _ROUNDED if seconds >= least)
    full = re.findall(r"\d+[wdhms]", format_duration(timedelta(seconds=int(seconds / finest + 0.5) * finest)))
    return "".join(full[:2]) or "0s"


def relative(when: datetime, now: datetime) -> str:
    """Say a time relative to ``now``: ``in 7h59m`` or ``3m20s ago``."""
    gap = when - now
    return f"in {short_duration(gap)}" if gap >= timedelta() else f"{short_duration(gap)} ago"


def to_rfc3339(when: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC, whole seconds, as Kubernetes does."""
    # strftime does not pad years before 1000 everywhere.
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def from_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 time; one without a zone is refused.

    Raises:
        InvalidInput: not RFC 3339, or no zone.
    """
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            raise InvalidInput(f"the time {_shown(text)} has no zone", hint="such as 2030-01-31T18:00:00Z")
        # On the first and last day there is, another zone may have no such time.
        return when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{_shown(text)} is not an RFC 3339 time", hint="such as 2030-01-31T18:00:00Z") from None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}…"
