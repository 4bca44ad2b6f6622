"""Rounds of the clean-up: one pass over each of several clusters, once or again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.cluster.client import Cluster
from sandbox.cluster.platform import read_platform
from sandbox.lifecycle.cleanup import Found, Memory, Policy, Sweep
from sandbox.lifecycle.locks import InCluster, InStore, Keeper
from sandbox.lifecycle.report import Pass, Tell
from sandbox.lifecycle.verdict import Rules
from sandbox.model.errors import InvalidInput, OperationFailed, SandboxError
from sandbox.project.platform import parse_platform
from sandbox.project.settings import load_settings
from sandbox.store.store import Store

if TYPE_CHECKING:
    from sandbox.lifecycle.metrics import Metrics

# What a sandbox may put outside of its namespace where no platform configuration says it.
DEFAULT_KINDS = ("ClusterRole.rbac.authorization.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io")


@dataclass(frozen=True)
class Place:
    """A cluster: a kubeconfig's context (None: its current one)."""

    context: str | None = None
    kubeconfig: Path | None = None

    def __str__(self) -> str:
        return self.context or (self.kubeconfig.name if self.kubeconfig else "the current context")


@dataclass(frozen=True)
class Wishes:
    """What the caller asked for; where None, each cluster's platform configuration decides.

    Attributes:
        cluster_scoped: kinds (``Kind.group``), besides those that the platform's profiles list.
        custom_resources: kinds (``resource.group``), besides those that the platform lists.
        store: URL of the capture store that locks go to.
    """

    selector: str = ""
    dry_run: bool = False
    warn_before: timedelta | None = None
    stuck_after: timedelta = timedelta(minutes=10)
    janitor: tuple[str, ...] = ()
    cluster_scoped: tuple[str, ...] = ()
    custom_resources: tuple[str, ...] = ()
    store: str | None = None
    alert_url: str | None = None


@dataclass
class Round:
    """How a round went: the passes that came to their end, and why others did not."""

    passes: list[Pass] = field(default_factory=list)
    failures: dict[Place, SandboxError] = field(default_factory=dict)


# Is asked with the names of what is due before anything is done.
Confirm = Callable[[Sequence[str]], None]


class Rounds:
    """Goes over clusters; remembers between rounds what need not be asked again."""

    def __init__(self, places: Sequence[Place], wishes: Wishes, tell: Tell) -> None:
        self._places = places
        self._wishes = wishes
        self._tell = tell
        self._memories: dict[Place, Memory] = {place: Memory() for place in places}

    async def once(self, confirm: Confirm | None = None) -> Round:
        """One pass over each cluster, side by side; one that fails stops no other.

        Raises:
            what ``confirm`` raises.
        """
        done = Round()
        async with AsyncExitStack() as open_clusters:
            looks = await asyncio.gather(*(self._look(place, done, open_clusters) for place in self._places))
            looked = [look for look in looks if look is not None]
            due = [name for _, _, found in looked for name in found.due()]
            if confirm is not None and due:
                confirm(due)
            await asyncio.gather(*(self._act(*look, done) for look in looked))
        return done

    async def forever(self, every: timedelta, note: Callable[[Round], None], metrics: Metrics | None) -> None:
        """A round at once, then one every so often (from begin to begin), until it is cancelled."""
        while True:
            began = time.monotonic()
            done = await self.once()
            if metrics is not None:
                for one in done.passes:
                    metrics.note(one)
                for place in done.failures:
                    metrics.note_failure(str(place))
            note(done)
            await asyncio.sleep(max(0.0, every.total_seconds() - (time.monotonic() - began)))

    async def _look(
        self, place: Place, done: Round, open_clusters: AsyncExitStack
    ) -> tuple[Place, Sweep, Found] | None:
        try:
            cluster = await open_clusters.enter_async_context(Cluster.connect(place.context, place.kubeconfig))
            sweep = Sweep(cluster, await self._policy(cluster), self._tell, self._memories[place])
            return place, sweep, await sweep.look()
        except SandboxError as error:
            done.failures[place] = error
            return None

    async def _act(self, place: Place, sweep: Sweep, found: Found, done: Round) -> None:
        try:
            done.passes.append(await sweep.act(found))
        except SandboxError as error:
            done.failures[place] = error

    async def _policy(self, cluster: Cluster) -> Policy:
        wishes = self._wishes
        text = await read_platform(cluster)
        try:
            platform = parse_platform(text)
        except InvalidInput as error:
            # It says where locks are kept and what may be deleted; a deletion by other rules could not be taken back.
            raise OperationFailed(
                f"the platform configuration of {cluster.context} cannot be read, so nothing is deleted there",
                why=str(error),
                hint="mend the values of the chart and `helm upgrade` it",
            ) from None
        listed = {kind for profile in platform.profiles.values() for kind in profile.allowed_cluster_scoped}
        return Policy(
            rules=Rules(wishes.warn_before or platform.warning_time, wishes.stuck_after, wishes.janitor),
            selector=wishes.selector,
            dry_run=wishes.dry_run,
            cluster_scoped=frozenset(listed | set(wishes.cluster_scoped or (() if listed else DEFAULT_KINDS))),
            custom_resources=platform.cleanup.kinds | set(wishes.custom_resources),
            limits=platform.limits,
            profiles=platform.profiles,
            locks=self._keeper(cluster, platform.capture_store, has_platform=text is not None),
            retention=platform.retention,
            alert_url=wishes.alert_url,
            needs_record=text is None,
        )

    def _keeper(self, cluster: Cluster, decided: str | None, *, has_platform: bool) -> Keeper:
        """Where locks go: to the store that was asked for or that the platform team decided on; without one, a
        platform's stay in its cluster, where its developers find them, and others in this user's own store."""
        url = self._wishes.store or decided
        if url is None and has_platform:
            return InCluster(cluster)
        return InStore(Store.open(url or load_settings().capture_store))
