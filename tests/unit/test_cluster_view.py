"""cluster/view.py: whoever waits for a change can be cancelled at any moment; lists are shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.view import NamespaceView
from sandbox.model.objects import Manifest


@pytest.mark.parametrize("ticks", range(6))
async def test_a_cancellation_in_the_moment_of_a_change_is_not_lost(ticks: int) -> None:
    view = NamespaceView(cast(Cluster, None), "ns")

    async def wait_for_ever() -> None:
        while True:
            await view.changed(view.revision, 60)

    waiting = asyncio.create_task(wait_for_ever())
    for _ in range(3):
        await asyncio.sleep(0)
    # As the watch does it when the server tells of a change.
    changed, view._change = view._change, asyncio.Event()
    changed.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait([waiting], timeout=5)
    assert done, "the task went on after it was cancelled"
    assert waiting.cancelled()


async def test_many_followers_at_once_share_lists_that_began_after_they_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []
    asked = 0
    gate, listing = asyncio.Event(), asyncio.Event()

    async def watch(*_: Any) -> AsyncIterator[tuple[str, Manifest]]:
        yield "SYNCED", {}
        await asyncio.Event().wait()

    async def list_(*_: Any) -> AsyncIterator[Manifest]:
        began.append(asked)
        listing.set()
        await gate.wait()
        yield {"metadata": {"uid": "1", "resourceVersion": str(len(began))}}

    monkeypatch.setattr(objects, "watch", watch)
    monkeypatch.setattr(objects, "list_", list_)
    view = NamespaceView(cast(Cluster, None), "ns")
    await view.follow("v1", "Pod")

    async def follow() -> None:
        nonlocal asked
        asked += 1
        mine = asked
        await view.follow("v1", "Pod")
        assert any(number >= mine for number in began)

    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(follow())
            await listing.wait()
            others = [group.create_task(follow()) for _ in range(9)]
            await asyncio.sleep(0)
            others[0].cancel()
            gate.set()
    assert first.done()
    assert began == [1, 10]
    assert [pod["metadata"]["resourceVersion"] for pod in view.of("v1", "Pod")] == ["2"]
    await view.close()
