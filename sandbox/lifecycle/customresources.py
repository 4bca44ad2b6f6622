"""Custom resources of a sandbox that ends: deleted while its namespace still holds what their operator needs for it.

Only kinds that the platform team lists. Finalizers are their operators' to take off, never ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import Resource, all_resources
from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef

# Of one sandbox in one pass: whoever owns it may fill it with them.
_MOST: Final = 500
_AT_ONCE: Final = 4
_ASK_EVERY_S: Final = 0.5
# How many of many are named.
_NAMED: Final = 3


@dataclass
class CustomResources:
    """The custom resources of listed kinds in a namespace.

    Attributes:
        found: those that are there.
        refused: what could not be listed or deleted, and why.
    """

    cluster: Cluster
    found: list[Manifest] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def delete(self) -> None:
        """Delete those that are not being deleted yet; what that is refused for is no longer waited for.

        Raises:
            Unreachable: the cluster does not answer.
        """
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(item: Manifest) -> bool:
            async with at_once:
                return "deletionTimestamp" in item["metadata"] or await self._delete(item)

        accepted = await asyncio.gather(*(one(item) for item in self.found))
        self.found = [item for item, is_accepted in zip(self.found, accepted, strict=True) if is_accepted]

    async def wait(self, seconds: float) -> None:
        """Wait until they are gone, or for so long; :attr:`found` are then those that are left.

        Raises:
            SandboxError: the cluster does not say.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.found = await self._left()
            if not self.found or time.monotonic() > deadline:
                return
            await asyncio.sleep(_ASK_EVERY_S)

    def ending_since(self) -> datetime | None:
        """When the first of them was deleted; None where none is being deleted."""
        ends = [item["metadata"].get("deletionTimestamp") for item in self.found]
        return min((from_rfc3339(end) for end in ends if end), default=None)

    def names(self) -> str:
        """Them as kubectl writes them, with the finalizers that hold them."""
        more = f" and {len(self.found) - _NAMED} others" if len(self.found) > _NAMED else ""
        return ", ".join(map(_named, self.found[:_NAMED])) + more

    async def _delete(self, item: Manifest) -> bool:
        try:
            await objects.delete(self.cluster, ObjectRef.of(item), uid=item["metadata"]["uid"])
        except Unreachable:
            raise
        except SandboxError as error:
            self.refused.append(f"{ObjectRef.of(item)} is not deleted before the namespace: {error}")
            return False
        return True

    async def _left(self) -> list[Manifest]:
        wanted = {item["metadata"]["uid"] for item in self.found}
        kinds = {(item["apiVersion"], item["kind"], item["metadata"]["namespace"]) for item in self.found}
        return [
            item
            for api_version, kind, namespace in sorted(kinds)
            async for item in objects.list_(self.cluster, api_version, kind, namespace, metadata_only=True)
            if item["metadata"]["uid"] in wanted
        ]


async def find(cluster: Cluster, namespace: str, kinds: Set[str]) -> CustomResources:
    """The custom resources of these kinds (``resource.group``) in a namespace. A kind that is not served has none.

    Raises:
        Unreachable: the cluster does not answer.
        SandboxError: it does not say which kinds it has.
    """
    made = CustomResources(cluster)
    for resource in await all_resources(cluster):
        name = f"{resource.plural}.{resource.group}"
        if name not in kinds or not resource.namespaced:
            continue
        try:
            made.found += await _list(cluster, resource, namespace, _MOST - len(made.found))
        except Unreachable:
            raise
        except SandboxError as error:
            made.refused.append(f"{name} are not deleted before the namespace: {error}")
    return made


async def _list(cluster: Cluster, resource: Resource, namespace: str, most: int) -> list[Manifest]:
    found: list[Manifest] = []
    if most > 0:
        async for item in objects.list_(cluster, resource.api_version, resource.kind, namespace, metadata_only=True):
            found.append(item)
            if len(found) == most:
                break
    return found


def _named(item: Manifest) -> str:
    finalizers = item["metadata"].get("finalizers")
    return f"{ObjectRef.of(item)}" + (f" (finalizers {', '.join(finalizers)})" if finalizers else "")
