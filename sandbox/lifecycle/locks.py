"""Where a clean-up keeps the locks of what it deletes: in a capture store, else in the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sandbox.cluster import keptlocks
from sandbox.cluster.client import Cluster
from sandbox.model.owner import Owner
from sandbox.store.locks import forget_locks, keep_lock
from sandbox.store.store import Store


class Keeper(Protocol):
    """A place for locks."""

    async def keep(self, namespace: str, uid: str, text: str, owner: Owner) -> str:
        """Save a lock, and whose it is; where it is, as ``up --lock`` takes it."""

    async def forget(self, retention: timedelta, now: datetime) -> int:
        """Remove the locks that were kept for longer; how many."""


@dataclass(frozen=True)
class InStore:
    """A capture store."""

    store: Store

    async def keep(self, namespace: str, uid: str, text: str, owner: Owner) -> str:
        return await keep_lock(self.store, namespace, uid, text, owner)

    async def forget(self, retention: timedelta, now: datetime) -> int:
        return await forget_locks(self.store, retention, now)


@dataclass(frozen=True)
class InCluster:
    """ConfigMaps in the namespace that the chart makes for them."""

    cluster: Cluster

    async def keep(self, namespace: str, uid: str, text: str, owner: Owner) -> str:
        return await keptlocks.keep(self.cluster, namespace, uid, text, owner)

    async def forget(self, retention: timedelta, now: datetime) -> int:
        return await keptlocks.forget(self.cluster, retention, now)
