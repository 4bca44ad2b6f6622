"""``sandbox bisect``: which of the changes between two states makes a test fail."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from sandbox import __version__
from sandbox.bisect import moments, report, state
from sandbox.bisect.changes import Comparison, ordered, titles
from sandbox.bisect.lane import Lane
from sandbox.bisect.moments import Choice, Moment
from sandbox.bisect.outcome import Outcome
from sandbox.bisect.report import Found, Guilty
from sandbox.bisect.request import BisectRequest
from sandbox.bisect.search import Answer, Changes, Search, side_by_side, together
from sandbox.bisect.state import Tested
from sandbox.bisect.workbench import Workbench
from sandbox.capture.sides import Surroundings
from sandbox.cluster import tools
from sandbox.cluster.client import Cluster
from sandbox.model.deadline import parse_ttl
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.objects import digest
from sandbox.project.config import Fixtures, Project
from sandbox.project.quotas import choose_profile
from sandbox.provision.down import down
from sandbox.provision.environment import project_around
from sandbox.provision.planning import Planner, check_ttl
from sandbox.provision.profiles import known_profiles
from sandbox.provision.reporter import Reporter
from sandbox.provision.request import UpRequest
from sandbox.provision.target import Target
from sandbox.provision.workspace import workspace
from sandbox.reproduce.reproduce import DEFAULT_QUOTA, DEFAULT_TTL
from sandbox.reproduce.verdict import wanted
from sandbox.store.store import Store

_NONE: Changes = frozenset()
# Two tests side by side make a binary search of n changes one of log2(n) rounds.
_PARALLEL = 2


async def bisect(
    target: Target, store: Callable[[], Awaitable[Store]], request: BisectRequest, reporter: Reporter
) -> Found:
    """Find a smallest set of changes between two states with which a test fails.

    Args:
        store: of captures; asked for where something may be in it.

    Raises:
        InvalidInput: there is no such state, nothing differs, or nobody says what the failure is.
        OperationFailed: the good state does not pass, or the bad one does not fail.
        Refused: a guardrail stands in the way.
        Unreachable: cluster or store do not answer.
        Busy: the same search is under way.
    """
    if request.ttl:
        parse_ttl(request.ttl)
    with workspace() as folder:
        async with Cluster.connect(target.context, target.kubeconfig) as cluster:
            planner = Planner(cluster, target, folder, reporter)
            place = Surroundings(target, request.folder, folder, store, reporter)
            bench = await _workbench(planner, place, request)
            comparison = await bench.comparison()
            return await _Work(bench, comparison, reporter).carry_out()


async def _workbench(planner: Planner, place: Surroundings, request: BisectRequest) -> Workbench:
    """The two states, and what was decided about the sandboxes."""
    await planner.read_platform(UpRequest(quota=request.quota))
    project = await asyncio.to_thread(project_around, request.folder)
    found, kubernetes = await asyncio.gather(asyncio.to_thread(tools.tool_versions), planner.cluster.version())
    planner.tools = {"sandbox": __version__, **found, "kubernetes": kubernetes}
    with planner.reporter.step(f"Read {request.good} and {request.bad}"):
        good = await moments.find(place, request.good, Choice(request.identity, False, None))
        declared = project.fixtures if project else None
        bad = await moments.find(place, request.bad, Choice(request.identity, request.data, declared))
    good, left = good.without_failed_jobs()
    if left:
        planner.reporter.info(f"not part of {good.title}, as it had failed there: {', '.join(left)}")
    _check_oracle(request, bad)
    called = bad.captured.document.project or good.captured.document.project
    own = project if project is not None and called in ("", project.project) else None
    bench = _settled(planner, request, good, bad, own, called)
    await bench.look_around()
    return bench


def _settled(
    planner: Planner, request: BisectRequest, good: Moment, bad: Moment, project: Project | None, called: str
) -> Workbench:
    """What the user left open: the project's defaults, where the command runs in its working tree."""
    defaults = project.defaults if project else None
    profiles = known_profiles(planner.settings, request.folder, planner.platform, say=planner.reporter.info)
    profile = choose_profile(request.quota or (defaults.quota if defaults else DEFAULT_QUOTA), profiles)
    ttl = parse_ttl(request.ttl or (defaults.ttl if defaults else DEFAULT_TTL))
    check_ttl(ttl, profile)
    name = called or (project.project if project else bad.captured.document.namespace)
    return Workbench(planner, request, good, bad, profile, ttl, name, project.fixtures if project else Fixtures())


def _check_oracle(request: BisectRequest, bad: Moment) -> None:
    """Refuse where nobody says what the failure is.

    Raises:
        InvalidInput: no command was given, and what failed was a test that nobody knows.
    """
    document = bad.captured.document
    target = wanted(document)
    if request.command or not (target.of_command or (target.smoke_of and bad.smoke is None)):
        return
    command = shlex.join(document.command) or "CMD"
    raise InvalidInput(
        f"{bad.title} failed by a test, which has to be given",
        why=target.line,
        hint=f"sandbox bisect {request.good} {request.bad} -- {command}",
    )


class _Work:
    """One search, from its first test to the sandbox that is left."""

    def __init__(self, bench: Workbench, comparison: Comparison, reporter: Reporter) -> None:
        """
        Raises:
            InvalidInput: nothing differs.
        """
        self._bench = bench
        self._request = bench.request
        self._comparison = comparison
        self._reporter = reporter
        self._all: Changes = frozenset(comparison.changes)
        if not self._all:
            raise InvalidInput(
                f"nothing that is deployed differs between {bench.good.title} and {bench.bad.title}",
                why="services, images and configuration are the same; contents of databases are not compared here",
                hint="`sandbox diff` shows what else does",
            )
        states = [comparison.digest(), bench.good.digest, bench.bad.digest, self._request.data]
        # Another test of the same states goes into the same sandboxes.
        self._states = _key(states)
        self._key = _key([*states, self._request.command, self._request.allow_tags])
        self._path = self._request.state / "bisect" / f"{self._key}.json"
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._released = asyncio.Condition()
        self._asked_now = 0

    async def carry_out(self) -> Found:
        self._load()
        try:
            return await self._search()
        except asyncio.CancelledError:
            self._reporter.info("what was answered is kept: the same command goes on from there")
            raise

    async def _search(self) -> Found:
        await self._open_lanes()
        await self._check_ends()
        search = Search(self._ask, width=len(self._lanes), answers=self._answers(), on_round=self._say_round)
        units = ordered(self._comparison.units)
        coarse = await search.minimal(units)
        if not self._request.parts:
            return await self._end(search, together(coarse))
        # Hierarchical delta debugging (Misherghi and Su, ICSE 2006): first services, then the parts of the guilty ones.
        parts = [frozenset({name}) for unit in coarse for name in sorted(unit)]
        return await self._end(search, together(await search.minimal(parts)))

    # -- what is known

    def _load(self) -> None:
        known = None if self._request.fresh else state.load(self._path, self._key)
        if known is not None and known.tested:
            self._reporter.info(f"going on: {len(known.tested)} tests are answered already (--fresh asks them again)")
        self._state = known or state.State(
            key=self._key,
            good=self._bench.good.title,
            bad=self._bench.bad.title,
            command=self._request.command,
        )

    def _answers(self) -> dict[Changes, Answer]:
        """Of what was tested before, by what the bad state was seen to do."""
        bad = self._state.outcomes[self._all]
        return {made: outcome.answer(bad) for made, outcome in self._state.outcomes.items()}

    async def _check_ends(self) -> None:
        """The first round: the good state has to pass, the bad one to fail.

        Raises:
            OperationFailed: it is otherwise.
        """
        known = self._state.outcomes
        missing = [made for made in (_NONE, self._all) if made not in known]
        if missing:
            self._say_round(1, missing)
            # With one sandbox they wait for it.
            await side_by_side(self._test_end(made) for made in missing)
        good, bad = self._state.outcomes[_NONE], self._state.outcomes[self._all]
        if good.kind != "passed":
            raise OperationFailed(
                f"the good state does not pass: {self._bench.good.title}",
                why="\n".join((good.said, *good.evidence)),
                hint="both are tested with the contents of the bad state's databases (--no-data: with none)"
                f"; {await self._left()}",
            )
        if bad.kind in ("passed", "skipped"):
            raise OperationFailed(
                f"the bad state does not fail: {self._bench.bad.title}",
                why=bad.said,
                hint=f"what makes it fail may not be in a namespace; {await self._left()}",
            )

    async def _left(self) -> str:
        """What is there when the search ends before it began, in words."""
        for lane in self._lanes:
            await lane.rest()
        names = " ".join(lane.name for lane in self._lanes)
        return f"the sandboxes stay for a look (`sandbox down {names}` removes them), and --fresh tests anew"

    # -- sandboxes

    async def _open_lanes(self) -> None:
        """As many sandboxes as are wanted and allowed; the states are held against the guardrails first.

        Raises:
            Refused: not even one is.
        """
        wanted = self._request.parallel or _PARALLEL
        for number in range(1, max(1, wanted) + 1):
            lane = Lane(self._bench, self._states, number)
            try:
                await lane.open(self._reporter)
                if number == 1:
                    with self._reporter.step("Preflight"):
                        for made in (_NONE, self._all):
                            for warning in await lane.check(made):
                                self._reporter.warn(warning)
                await lane.make()
            except Refused as error:
                if number == 1 or self._request.parallel:
                    raise
                self._reporter.info(f"one test after the other in {len(self._lanes)} sandbox: {error.what}")
                break
            self._lanes.append(lane)
        self._free = list(self._lanes)

    @asynccontextmanager
    async def _lane(self, made: Changes) -> AsyncIterator[Lane]:
        """A sandbox that is free, the one that needs the fewest changes."""
        async with self._released:
            await self._released.wait_for(lambda: bool(self._free))
            distances = [await lane.distance(made) for lane in self._free]
            lane = self._free.pop(distances.index(min(distances)))
        try:
            yield lane
        finally:
            async with self._released:
                self._free.append(lane)
                self._released.notify()

    # -- tests

    async def _ask(self, made: Changes) -> Answer:
        return (await self._test(made)).answer(self._state.outcomes[self._all])

    async def _test(self, made: Changes) -> Outcome:
        """Test a state, and write down at once what became of it."""
        self._asked_now += 1
        async with self._lane(made) as lane:
            with self._reporter.step(f"{self._called(made)} in {lane.name}") as step:
                begun = time.monotonic()
                outcome = await lane.test(made, step)
                took = round(time.monotonic() - begun, 2)
                self._state.tested.append(
                    Tested(
                        changes=tuple(sorted(made)),
                        outcome=outcome,
                        sandbox=lane.name,
                        seconds=took,
                        in_place=lane.in_place,
                    )
                )
                await asyncio.to_thread(state.save, self._path, self._state)
            self._reporter.info(f"{self._called(made)}: {outcome.said}")
        return outcome

    async def _test_end(self, made: Changes) -> None:
        await self._test(made)

    def _called(self, made: Changes) -> str:
        """A state in words."""
        if not made:
            return "good"
        if made == self._all:
            return "bad"
        units = self._comparison.units
        whole = [name for name, unit in units.items() if unit <= made]
        rest = made - together(units[name] for name in whole)
        return f"good with {titles([*whole, *rest])}"

    def _say_round(self, _number: int, questions: Sequence[Changes]) -> None:
        self._state.rounds += 1
        tried = " | ".join(self._called(made) for made in questions)
        self._reporter.info(f"round {self._state.rounds}: {tried}")

    # -- its end

    async def _end(self, search: Search, found: Changes) -> Found:
        outcomes = self._state.outcomes
        failure = outcomes[found]
        async with self._lane(found) as lane:
            with self._reporter.step(f"Leave {self._called(found)} in {lane.name}") as step:
                sandbox = await lane.leave(found, f"{titles(found)} made it fail: {failure.said}", step)
        others = [other for other in self._lanes if other is not lane]
        removed = [other.name for other in others if await other.is_there()]
        await down(self._bench.planner.target, removed, reporter=self._reporter, wait=False)
        answers: Mapping[Changes, Answer] = search.answers
        return Found(
            good=self._bench.good.title,
            bad=self._bench.bad.title,
            command=self._request.command,
            changes=tuple(sorted(self._all)),
            guilty=tuple(await self._guilty(found)),
            failure=failure,
            rounds=self._state.rounds,
            tests=tuple(self._state.tested),
            asked=self._asked_now,
            unresolved=sum(1 for answer in answers.values() if answer == "unresolved"),
            sandbox=sandbox,
            removed=tuple(removed),
        )

    async def _guilty(self, found: Changes) -> list[Guilty]:
        changes = [self._comparison.changes[name] for name in sorted(found)]
        known = await asyncio.to_thread(
            report.guilty, changes, self._comparison, self._bench.good, self._bench.bad, self._request.folder
        )
        outcomes = self._state.outcomes
        return [replace(one, without=outcomes.get(found - {one.change.name})) for one in known]


def _key(value: object) -> str:
    return digest(value).removeprefix("sha256:")[:32]
