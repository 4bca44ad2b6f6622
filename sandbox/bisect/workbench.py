"""What all sandboxes of one search have in common: the two states, their images, and contents of databases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sandbox.bisect.changes import Comparison, State
from sandbox.bisect.moments import Moment
from sandbox.bisect.request import BisectRequest
from sandbox.cluster import discovery, objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.images.registry import digest_of
from sandbox.model.errors import Refused
from sandbox.project.config import Fixtures
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.planning import Planner
from sandbox.reproduce import data
from sandbox.reproduce.images import Pin, found_in_registries
from sandbox.reproduce.plan import Blueprint, Choices, DataStore, blueprint
from sandbox.reproduce.portable import Surroundings
from sandbox.reproduce.secrets import Values, values_of

# Stands for the namespace and the seed of a sandbox where only names and differences count.
_NOWHERE = "bisect"


@dataclass(frozen=True)
class Planned:
    """Both states as they would be in one namespace, and everything between them.

    Attributes:
        values: that stand for what is secret.
        stores: what is filled before services start.
    """

    comparison: Comparison
    values: Values
    stores: tuple[DataStore, ...]
    good: Blueprint
    bad: Blueprint


@dataclass
class Workbench:
    """What all sandboxes of one search have in common.

    Attributes:
        declared: the ``fixtures:`` of the project around the command, if it is theirs.
    """

    planner: Planner
    request: BisectRequest
    good: Moment
    bad: Moment
    profile: QuotaProfile
    ttl: timedelta
    project: str
    declared: Fixtures = field(default_factory=Fixtures)
    _images: tuple[Mapping[Pin, Pin], Mapping[Pin, Pin]] = ({}, {})
    _kinds: frozenset[tuple[str, str]] = frozenset()
    _classes: frozenset[str] | None = None
    _unpacked: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        return self.planner.cluster

    async def look_around(self) -> None:
        """What the cluster serves, and where the images of both states are to be had.

        Raises:
            Refused: some of them are gone.
        """
        self._kinds = frozenset((r.api_version, r.kind) for r in await discovery.all_resources(self.cluster))
        try:
            classes = objects.list_(self.cluster, "storage.k8s.io/v1", "StorageClass")
            self._classes = frozenset([item["metadata"]["name"] async for item in classes])
        except Forbidden:
            self._classes = None
        draft = await self.planned(_NOWHERE, _NOWHERE.encode())
        mirror = self.planner.platform.registry
        found = [
            await found_in_registries(side.pins, digest_of, mirror=mirror, allow_tags=self._choices(moment).allow_tags)
            for side, moment in ((draft.good, self.good), (draft.bad, self.bad))
        ]
        self._images = (found[0], found[1])

    async def planned(self, namespace: str, seed: bytes, host: str = "") -> Planned:
        """Both states in a namespace.

        Args:
            seed: of the values that are made up there.
            host: of its Ingresses.
        """
        place = Surroundings(namespace, host, self._classes, lambda version, kind: (version, kind) in self._kinds)
        before, after = self.good.captured, self.bad.captured
        known = values_of(seed, before.secrets, before.true_secrets)
        values = values_of(seed, after.secrets, after.true_secrets, known.known)
        sides = [
            await asyncio.to_thread(
                blueprint, moment.captured, values, place, self._choices(moment), self._images[number]
            )
            for number, moment in enumerate((self.good, self.bad))
        ]
        states = [State.of(side, moment.key_id) for side, moment in zip(sides, (self.good, self.bad), strict=True)]
        comparison = await asyncio.to_thread(Comparison, *states)
        return Planned(comparison, values, sides[1].stores, sides[0], sides[1])

    async def comparison(self) -> Comparison:
        """What differs, by names that are the same for every sandbox.

        Raises:
            Refused: the images of one of the states are not to be had.
        """
        planned = await self.planned(_NOWHERE, _NOWHERE.encode())
        for moment, side in ((self.good, planned.good), (self.bad, planned.bad)):
            gone = {name: why for name, why in side.left_out.items() if why.startswith("image of ")}
            if gone:
                raise Refused(
                    f"images of {moment.title} are not to be had",
                    why="\n".join(f"{name}: {why}" for name, why in gone.items()),
                    hint="--allow-tags takes whatever their tags are now",
                )
        for name, why in planned.bad.unfilled.items() if self.request.data else ():
            self.planner.reporter.warn(f"{name} is not filled: {why}")
        return planned.comparison

    def _choices(self, moment: Moment) -> Choices:
        """What is brought back of a state: of a record also what it names by tags, as no pod says what they were."""
        live = self.good.live and self.bad.live
        return Choices(
            data=self.request.data and moment is self.bad,
            identity=bool(moment.captured.true_secrets) or self.request.identity is not None,
            allow_tags=self.request.allow_tags or not moment.live,
            # Both in the same form: otherwise the server's defaults would be differences.
            as_deployed=not live,
        )

    async def unpack(self, store: DataStore) -> Path:
        """The folder with a fixture's files; they are unpacked once, for all sandboxes."""
        name = store.fixture.name
        folder = self.planner.workspace / "fixtures"
        if name not in self._unpacked:
            assert self.bad.bundle is not None
            work = data.unpack(self.bad.bundle, store.root, store.fixture, folder, self.request.identity)
            self._unpacked[name] = asyncio.ensure_future(work)
        await asyncio.shield(self._unpacked[name])
        return folder
