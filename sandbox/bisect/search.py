"""Delta debugging: of many changes a smallest set that makes a test fail. Who answers, and how, is the caller's.

The algorithm is ddmin of A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
Transactions on Software Engineering 28(2), 2002. What it finds is 1-minimal: it fails, and without any one of its
parts it was not seen to fail. With one guilty change among n it is a binary search; a failure that needs several
changes together is found too. Nothing has to be monotone or consistent for it to end.

Tests that do not depend on each other are asked side by side, ``width`` at a time: that is a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

Answer = Literal["pass", "fail", "unresolved"]
Changes = frozenset[str]
"""Names of changes that are made; all others are not."""

Ask = Callable[[Changes], Awaitable[Answer]]


class Search:
    """A search, and what was answered so far; no question is asked twice.

    Attributes:
        answers: of this run and of earlier ones.
        rounds: in which something was asked, in this run.
        asked: tests of this run.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        width: int = 1,
        answers: Mapping[Changes, Answer] | None = None,
        on_round: Callable[[int, Sequence[Changes]], None] = lambda _number, _questions: None,
    ) -> None:
        """
        Args:
            ask: makes exactly these changes and tests; may be called again before it has returned.
            width: how many tests may run at the same time, at least 1.
            answers: that are known already.
            on_round: told the number of each round, from 1, and what is going to be asked.
        """
        self._ask = ask
        self._width = max(1, width)
        self._on_round = on_round
        self.answers: dict[Changes, Answer] = dict(answers or {})
        self.rounds = 0
        self.asked = 0

    async def ask_all(self, questions: Iterable[Changes]) -> list[Answer]:
        """The answer to each question; as many side by side as there may be."""
        wanted = list(questions)
        unknown = [one for one in dict.fromkeys(wanted) if one not in self.answers]
        for start in range(0, len(unknown), self._width):
            await self._round(unknown[start : start + self._width])
        return [self.answers[one] for one in wanted]

    async def _round(self, questions: Sequence[Changes]) -> None:
        self.rounds += 1
        self._on_round(self.rounds, questions)
        await side_by_side(self._one(question) for question in questions)

    async def _one(self, question: Changes) -> None:
        # What is answered counts at once, whatever becomes of its neighbours.
        self.asked += 1
        self.answers[question] = await self._ask(question)

    async def minimal(self, units: Sequence[Changes]) -> list[Changes]:
        """A 1-minimal part of some units, of which all together fail and none at all passes.

        Args:
            units: what is kept or left out as a whole.

        Returns:
            Those that are left, in the order in which they were given; none of none.
        """
        left, grain = list(units), self._first_grain(units)
        while len(left) > 1:
            parts = split(left, grain)
            found = await self._first_failing(parts)
            if found is not None:
                left, grain = found, self._first_grain(found)
                continue
            if len(parts) > 2:
                found = await self._first_failing([_without(left, part) for part in parts])
                if found is not None:
                    left, grain = found, min(len(found), max(2, grain - 1))
                    continue
            if grain >= len(left):
                break
            grain = min(len(left), 2 * grain)
        return left

    def _first_grain(self, units: Sequence[Changes]) -> int:
        """Into how many parts a set is split at first: two, or as many as can be tested in one round."""
        return min(len(units), max(2, self._width))

    async def _first_failing(self, candidates: Sequence[list[Changes]]) -> list[Changes] | None:
        """The first of some sets that fails; those after it may stay unasked."""
        questions = [together(candidate) for candidate in candidates]
        for candidate, question in zip(candidates, questions, strict=True):
            if self.answers.get(question) == "fail":
                return candidate
        pending = [pair for pair in zip(candidates, questions, strict=True) if pair[1] not in self.answers]
        for start in range(0, len(pending), self._width):
            batch = pending[start : start + self._width]
            answers = await self.ask_all(question for _, question in batch)
            for (candidate, _), answer in zip(batch, answers, strict=True):
                if answer == "fail":
                    return candidate
        return None


async def side_by_side(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first error ends the others, and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


def split(units: Sequence[Changes], count: int) -> list[list[Changes]]:
    """Units in so many parts of about the same size, none of them empty if there are enough."""
    bounds = [len(units) * number // count for number in range(count + 1)]
    return [list(units[a:b]) for a, b in pairwise(bounds)]


def together(units: Iterable[Changes]) -> Changes:
    """The changes of some units."""
    return frozenset().union(*units)


def _without(units: Sequence[Changes], part: Sequence[Changes]) -> list[Changes]:
    return [unit for unit in units if unit not in part]
