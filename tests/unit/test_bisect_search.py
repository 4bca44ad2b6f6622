"""Delta debugging over made-up tests: what it finds, in how many rounds, and that it always ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.bisect.search import Answer, Changes, Search, split, together

Judge = Callable[[Changes], Answer]


def units(count: int) -> list[Changes]:
    return [frozenset({f"s{number}"}) for number in range(count)]


def guilty(*numbers: int) -> Judge:
    """It fails where all of these changes are made, and passes otherwise."""
    wanted = {f"s{number}" for number in numbers}
    return lambda changes: "fail" if wanted <= changes else "pass"


def search(judge: Judge, *, width: int = 1) -> Search:
    async def ask(changes: Changes) -> Answer:
        return judge(changes)

    return Search(ask, width=width)


def minimal(made: Search, given_units: Sequence[Changes]) -> Changes:
    return together(asyncio.run(made.minimal(given_units)))


@pytest.mark.parametrize(
    ("count", "numbers"),
    [(1, [0]), (2, [1]), (8, [0]), (8, [7]), (8, [3]), (8, [0, 7]), (8, [2, 3]), (5, [0, 2, 4]), (3, [0, 1, 2])],
)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_exactly_the_guilty_changes_are_found(count: int, numbers: list[int], width: int) -> None:
    assert minimal(search(guilty(*numbers), width=width), units(count)) == {f"s{n}" for n in numbers}


@pytest.mark.parametrize("number", range(8))
def test_one_of_eight_takes_three_rounds_of_two(number: int) -> None:
    made = search(guilty(number), width=2)
    minimal(made, units(8))
    assert (made.rounds, made.asked) == (3, 6)


def test_one_of_eight_takes_at_most_six_tests_one_by_one() -> None:
    for number in range(8):
        made = search(guilty(number))
        minimal(made, units(8))
        assert made.asked <= 6


def test_units_of_several_changes_stay_together() -> None:
    pairs = [frozenset({"web/images", "web/configuration"}), frozenset({"api/images"}), frozenset({"db/images"})]
    made = search(lambda changes: "fail" if "web/configuration" in changes else "pass")
    assert minimal(made, pairs) == {"web/images", "web/configuration"}


def test_what_is_known_is_not_asked_again() -> None:
    first = search(guilty(2, 5), width=2)
    found = minimal(first, units(8))

    async def ask(_changes: Changes) -> Answer:
        raise AssertionError("asked again")

    again = Search(ask, width=2, answers=first.answers)
    assert minimal(again, units(8)) == found
    assert again.rounds == 0


def test_what_was_answered_before_an_interruption_counts() -> None:
    known: dict[Changes, Answer] = {}

    async def ask(changes: Changes) -> Answer:
        if len(known) == 3:
            raise KeyError("killed")
        known[changes] = guilty(7)(changes)
        return known[changes]

    interrupted = Search(ask)
    with pytest.raises(KeyError):
        asyncio.run(interrupted.minimal(units(8)))
    assert interrupted.answers == known
    rest = search(guilty(7))
    rest.answers.update(known)
    assert minimal(rest, units(8)) == {"s7"}
    assert rest.asked == 6 - 3


def test_unresolved_is_not_failing() -> None:
    # Change 1 needs change 0; without it nothing starts.
    def judge(changes: Changes) -> Answer:
        if "s1" in changes and "s0" not in changes:
            return "unresolved"
        return "fail" if "s1" in changes else "pass"

    assert minimal(search(judge), units(4)) == {"s0", "s1"}


def test_no_more_tests_at_once_than_there_may_be() -> None:
    running, most = 0, 0

    async def ask(changes: Changes) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return guilty(1, 6)(changes)

    asyncio.run(Search(ask, width=3).minimal(units(8)))
    assert most == 3


@given(st.integers(1, 40), st.integers(1, 60))
def test_split_keeps_order_and_leaves_no_part_empty(count: int, parts: int) -> None:
    made = split(units(count), min(parts, count))
    assert [unit for part in made for unit in part] == units(count)
    assert all(made)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_any_set_that_fails_together_is_found(case: tuple[int, set[int]]) -> None:
    count, numbers = case
    assert minimal(search(guilty(*numbers), width=2), units(count)) == {f"s{n}" for n in numbers}


@given(st.integers(1, 10), st.integers(1, 4), st.binary(min_size=1, max_size=4))
def test_it_ends_whatever_is_answered_and_what_it_finds_is_minimal(count: int, width: int, seed: bytes) -> None:
    """Answers neither monotone nor consistent with anything but themselves."""
    everything = together(units(count))

    def judge(changes: Changes) -> Answer:
        if changes == everything:
            return "fail"
        drawn = hashlib.sha256(seed + ",".join(sorted(changes)).encode()).digest()[0]
        answers: tuple[Answer, ...] = ("pass", "fail", "unresolved", "pass")
        return answers[drawn % 4]

    made = search(judge, width=width)
    made.answers = {everything: "fail", frozenset(): "pass"}
    found = minimal(made, units(count))
    assert found
    assert made.answers[found] == "fail"
    for change in found:
        assert made.answers[found - {change}] != "fail"
    # The bound of the paper: n² + 3n.
    assert made.asked <= count * count + 3 * count
