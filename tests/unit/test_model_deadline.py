"""When sandboxes end, and when their owners are warned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model import labels
from sandbox.model.deadline import LEAST_TTL, Deadline, deadline, is_final, parse_ttl, pin_end, warn_at
from sandbox.model.durations import format_duration, from_rfc3339, to_rfc3339
from sandbox.model.errors import InvalidInput
from sandbox.model.sandbox import Phase, Sandbox

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def times(expires: str | None = None, pinned: str | None = None, latest: str | None = None) -> dict[str, str]:
    given = {labels.EXPIRES_AT: expires, labels.PINNED_UNTIL: pinned, labels.MAX_EXPIRES_AT: latest}
    return {name: text for name, text in given.items() if text is not None}


def at(hour: int) -> str:
    return f"2030-01-31T{hour:02}:00:00Z"


@pytest.mark.parametrize(
    ("expires", "pinned", "latest", "hour", "by_pin"),
    [
        (at(12), None, None, 12, False),
        (at(12), at(15), None, 15, True),
        (at(12), at(9), None, 12, False),
        (at(12), at(12), None, 12, False),
        (at(12), None, at(10), 10, False),
        (at(12), at(18), at(15), 15, True),
        (at(12), at(9), at(15), 12, False),
        ("2030-01-31T14:00:00+02:00", None, None, 12, False),
        ("2030-01-31T07:30:00-04:30", None, None, 12, False),
        ("2030-01-31T12:00:00.000000Z", None, None, 12, False),
    ],
)
def test_the_end_of_a_sandbox(expires: str, pinned: str | None, latest: str | None, hour: int, by_pin: bool) -> None:
    end = deadline(times(expires, pinned, latest))

    assert end == Deadline(datetime(2030, 1, 31, hour, tzinfo=UTC), pinned=by_pin)
    assert end.passed(NOON) == (hour <= 12)


BAD = [
    "",
    "soon",
    "never",
    "0",
    "8h",
    "2030-01-31",
    "2030-01-31T12:00:00",
    "2030-02-31T12:00:00Z",
    "1893499200",
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+12:00",
    "2030-01-31T12:00:00Z; drop",
]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("which", ["expires", "pinned", "latest"])
def test_where_a_time_cannot_be_read_nothing_is_guessed(which: str, text: str) -> None:
    end = deadline(times(**{"expires": at(1), which: text}))

    assert end.at is None
    assert not end.passed(datetime.max.replace(tzinfo=UTC))
    assert "sandbox.dev/" in end.problem


def test_without_an_expiry_nothing_is_guessed_either() -> None:
    for others in ({}, times(pinned=at(1)), times(latest=at(1))):
        end = deadline(others)
        assert end.at is None
        assert labels.EXPIRES_AT in end.problem


TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda when: when.replace(microsecond=0)
)


@given(TIMES, st.none() | TIMES, st.none() | TIMES)
def test_the_end_is_never_after_the_latest_and_never_before_expiry_and_pin_without_one(
    expires: datetime, pinned: datetime | None, latest: datetime | None
) -> None:
    written = [to_rfc3339(when) if when else None for when in (expires, pinned, latest)]
    end = deadline(times(*written)).at

    assert end is not None
    wanted = max(expires, pinned or expires)
    assert end == (wanted if latest is None else min(wanted, latest))


@given(st.dictionaries(st.sampled_from(list(times("", "", ""))), st.text(max_size=30)))
def test_no_text_makes_it_fall_over(given: dict[str, str]) -> None:
    end = deadline(given)

    assert (end.at is None) == bool(end.problem)


@pytest.mark.parametrize(
    ("ttl", "minutes"),
    [("8h", 30), ("1h", 30), ("40m", 20), ("10m", 5), ("1d12h", 30), ("", 30), ("0", 30), ("forever", 30), ("0s", 30)],
)
def test_owners_are_warned_before_but_not_before_half_of_the_time(ttl: str, minutes: int) -> None:
    assert warn_at(NOON, ttl, timedelta(minutes=30)) == NOON - timedelta(minutes=minutes)


@given(TIMES, st.timedeltas(timedelta(seconds=1), timedelta(days=400)), st.timedeltas(timedelta(0), timedelta(days=9)))
def test_a_warning_comes_before_the_end_and_after_half_of_the_time(
    end: datetime, ttl: timedelta, before: timedelta
) -> None:
    ttl = timedelta(seconds=int(ttl.total_seconds()))
    when = warn_at(end, format_duration(ttl), before)

    assert end - ttl / 2 <= when <= end
    assert when >= end - before


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("2030-02-01", datetime(2030, 2, 1, 23, 59, 59, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2030-01-31T14:00:00+01:00", datetime(2030, 1, 31, 13, tzinfo=UTC)),
        ("2031-01-30", datetime(2031, 1, 30, 23, 59, 59, tzinfo=UTC)),
        ("3d", datetime(2030, 2, 3, 12, tzinfo=UTC)),
        ("90m", datetime(2030, 1, 31, 13, 30, tzinfo=UTC)),
    ],
)
def test_until_when_something_is_pinned(text: str, until: datetime) -> None:
    assert pin_end(text, NOON) == until


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2030-01-30", "has passed"),
        ("2030-01-31T12:00:00Z", "has passed"),
        ("2031-02-01", "more than a year"),
        ("9999-12-31", "more than a year"),
        ("100y", "neither a date"),
        ("tomorrow", "neither a date"),
        ("2030-01-31T12:00:00", "with its zone"),
        ("53w", "more than a year"),
        ("31.01.2030", "neither a date"),
    ],
)
def test_what_nothing_is_pinned_until(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        pin_end(text, NOON)


def test_a_sandbox_says_what_keeps_it() -> None:
    note = {**times(at(12), at(18)), labels.PIN_REASON: "demo", labels.NAMESPACE: "a"}
    found = Sandbox.of({"metadata": {"name": "a", "annotations": note}}, "c")

    assert found.expires_at == found.pinned_until == datetime(2030, 1, 31, 18, tzinfo=UTC)
    assert found.pin_reason == "demo"
    ended = Sandbox.of({"metadata": {"name": "a", "annotations": {**note, labels.PINNED_UNTIL: at(3)}}}, "c")
    assert (ended.pinned_until, ended.pin_reason) == (None, "")
    assert ended.expires_at == datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("latest", "final"), [(None, False), (at(3), True), (at(4), False), ("soon", False)])
def test_once_its_latest_end_has_passed_nothing_keeps_it(latest: str | None, final: bool) -> None:
    assert is_final(times(at(1), at(9), latest), from_rfc3339(at(3))) == final


@pytest.mark.parametrize(
    ("text", "phase"), [("Ready", "Ready"), ("Terminating", "Unknown"), ("Unknown", "Unknown"), ("Dancing", "Unknown")]
)
def test_only_a_deletion_timestamp_says_that_it_ends(text: str, phase: str) -> None:
    metadata = {"name": "a", "annotations": {labels.PHASE: text}}
    assert Sandbox.of({"metadata": metadata}, "c").phase == phase
    ending = {**metadata, "deletionTimestamp": at(3)}
    assert Sandbox.of({"metadata": ending}, "c").phase is Phase.TERMINATING


def test_nobody_means_a_life_of_seconds() -> None:
    assert parse_ttl("5m") == LEAST_TTL
    for text in ("10s", "4m59s"):
        with pytest.raises(InvalidInput, match="too short"):
            parse_ttl(text)
