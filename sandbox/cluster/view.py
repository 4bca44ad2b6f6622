"""A live copy of some kinds of objects in one namespace, shared by all who wait there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model.objects import Manifest

_Kind = tuple[str, str]


class NamespaceView:
    """Objects as the server last told, by kind. Made by :func:`namespace_view`.

    Attributes:
        revision: counts the changes.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._objects: dict[_Kind, dict[str, Manifest]] = {}
        self._watches: dict[_Kind, asyncio.Task[None]] = {}
        self._synced: dict[_Kind, asyncio.Event] = {}
        self._lists: dict[_Kind, asyncio.Task[None]] = {}
        self._next_lists: dict[_Kind, asyncio.Task[None]] = {}
        self._deleted: set[str] = set()
        self._change = asyncio.Event()
        self.revision = 0

    async def follow(self, api_version: str, kind: str) -> None:
        """Have a kind in the view, as fresh as the server has it now.

        Raises:
            FromServer: it may not be listed.
        """
        key = (api_version, kind)
        if key not in self._watches:
            self._objects[key] = {}
            self._synced[key] = asyncio.Event()
            self._watches[key] = asyncio.create_task(self._watch(key))
            await self._until_synced(key)
            return
        await self._until_synced(key)
        # The watch may lag behind what its new follower just applied: what that wrote must not look older than it is.
        await self._list_again(key)

    def of(self, api_version: str, kind: str) -> Iterator[Manifest]:
        """All objects of a kind that is followed; none of any other."""
        return iter(tuple(self._objects.get((api_version, kind), {}).values()))

    def named(self, api_version: str, kind: str, name: str) -> Manifest | None:
        """One object of a kind that is followed."""
        return next((item for item in self.of(api_version, kind) if item["metadata"]["name"] == name), None)

    async def changed(self, since: int, timeout: float) -> None:
        """Wait until something changed after ``revision`` was ``since``, at most ``timeout`` seconds.

        Raises:
            FromServer: a watch broke for good.
        """
        if self.revision == since:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._change.wait()
        for task in self._watches.values():
            if task.done():
                task.result()

    async def close(self) -> None:
        """End all watches and lists."""
        tasks = (*self._watches.values(), *self._lists.values(), *self._next_lists.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_synced(self, key: _Kind) -> None:
        watch = self._watches[key]
        synced = asyncio.ensure_future(self._synced[key].wait())
        try:
            await asyncio.wait((synced, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            synced.cancel()
        if watch.done():
            # It ends by an error only; the next one to ask tries again.
            if self._watches.get(key) is watch:
                del self._watches[key]
            watch.result()

    async def _list_again(self, key: _Kind) -> None:
        """List a kind once more; whoever asks while a list is under way shares the next one with all who do."""
        following = self._next_lists.get(key)
        if following is None:
            following = asyncio.create_task(self._list_after(key, self._lists.get(key)))
            self._next_lists[key] = following
        # Shielded: one of several waiting being cancelled must not cancel the list for all.
        await asyncio.shield(following)

    async def _list_after(self, key: _Kind, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._lists[key] = self._next_lists.pop(key)
        async for item in objects.list_(self._cluster, *key, self._namespace):
            self._take(key, item)

    async def _watch(self, key: _Kind) -> None:
        async for event, item in objects.watch(self._cluster, *key, self._namespace):
            if event == "SYNCED":
                self._synced[key].set()
            elif event == "DELETED":
                self._deleted.add(item["metadata"]["uid"])
                self._objects[key].pop(item["metadata"]["uid"], None)
            else:
                self._take(key, item)
            self.revision += 1
            # A new event for those who wait from now on: setting and clearing one would leave the busy out.
            changed, self._change = self._change, asyncio.Event()
            changed.set()

    def _take(self, key: _Kind, item: Manifest) -> None:
        """Put an object in unless the view has it newer (versions of one kind count up, KEP-5504)."""
        metadata = item["metadata"]
        known = self._objects[key].get(metadata["uid"])
        newer = known is None or _version(known) <= _version(item)
        if newer and metadata["uid"] not in self._deleted:
            # As long as the object itself, and nobody here reads them.
            metadata.pop("managedFields", None)
            self._objects[key][metadata["uid"]] = item


def _version(item: Manifest) -> int:
    """The version as a number; 0, so that the last one wins, from servers that count in their own way."""
    version = str(item["metadata"].get("resourceVersion"))
    return int(version) if version.isdecimal() else 0


_SHARED: WeakKeyDictionary[Cluster, dict[str, tuple[NamespaceView, int]]] = WeakKeyDictionary()


@asynccontextmanager
async def namespace_view(cluster: Cluster, namespace: str) -> AsyncIterator[NamespaceView]:
    """The view of a namespace: one a connection, however many ask; its watches end with the last of them."""
    shared = _SHARED.setdefault(cluster, {})
    view, users = shared.get(namespace) or (NamespaceView(cluster, namespace), 0)
    shared[namespace] = (view, users + 1)
    try:
        yield view
    finally:
        view, users = shared[namespace]
        if users > 1:
            shared[namespace] = (view, users - 1)
        else:
            del shared[namespace]
            await view.close()
