from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.durations import (
    format_duration,
    from_rfc3339,
    parse_duration,
    relative,
    short_duration,
    to_rfc3339,
)
from sandbox.model.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("8h", 28_800),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1d12h", 129_600),
        (" 90s ", 90),
        ("0d1h", 3600),
    ],
)
def test_reads_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "0h", "8", "h", "-8h", "8 h", "1h1d", "1.5h", "8H", "100y", "٣h", "9" * 5000 + "h", "99999999w"]
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=36_500 * 86_400))
def test_written_durations_read_the_same(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


def test_short_durations_have_two_units() -> None:
    assert short_duration(timedelta(days=1, hours=12, minutes=5)) == "1d12h"
    assert short_duration(timedelta(0)) == "0s"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (timedelta(hours=12, seconds=-2), "12h"),
        (timedelta(days=2, seconds=-20), "2d"),
        (timedelta(weeks=2, minutes=-1), "2w"),
        (timedelta(minutes=30, seconds=-1), "30m"),
        (timedelta(minutes=9, seconds=59.6), "10m"),
        (timedelta(minutes=4, seconds=30), "4m30s"),
        (timedelta(hours=1, minutes=59, seconds=29), "1h59m"),
    ],
)
def test_short_durations_are_rounded_and_not_cut_off(given: timedelta, shown: str) -> None:
    assert short_duration(given) == shown
    assert short_duration(-given) == shown


def test_relative_times() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert relative(now + timedelta(hours=8), now) == "in 8h"
    assert relative(now - timedelta(seconds=200), now) == "3m20s ago"


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=5, minutes=30))), min_value=datetime(1, 1, 2)))
def test_times_survive_as_rfc3339(when: datetime) -> None:
    assert from_rfc3339(to_rfc3339(when)) == when.replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "tomorrow", "2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z"])
def test_refuses_times_without_zone_or_sense(text: str) -> None:
    with pytest.raises(InvalidInput):
        from_rfc3339(text)


def test_years_are_padded_and_long_texts_shown_in_short() -> None:
    assert to_rfc3339(datetime(33, 4, 3, tzinfo=UTC)) == "0033-04-03T00:00:00Z"
    with pytest.raises(InvalidInput) as refused:
        from_rfc3339("x" * 100_000)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "has_hint"), [("2y", True), ("100 y", False), ("100y", True), ("3mo", True), ("2", False)]
)
def test_units_that_there_are_not_are_told_of_weeks(text: str, has_hint: bool) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_duration(text)
    assert ("a year is 52w" in refused.value.hint) == has_hint
