"""cluster/view.py: whoever waits for a change can be cancelled at any moment."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sandbox.cluster.client import Cluster
from sandbox.cluster.view import NamespaceView


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
