"""File locks between processes, waited for with a bound and without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox.model.errors import Busy

_POLL = 0.1  # seconds


@asynccontextmanager
async def held(path: Path, what: str, *, bound: float, progress: Callable[[str], None]) -> AsyncIterator[None]:
    """Hold a file lock. The kernel drops it when the process dies.

    Args:
        what: what the lock is for, in messages: "building the embedded cluster".
        bound: seconds to wait for another process.

    Raises:
        Busy: another process held it for the whole bound.
    """
    # Here, because all that start a tool import this module, to look where the tools are.
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(path)
    deadline = asyncio.get_running_loop().time() + bound
    said = False
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if asyncio.get_running_loop().time() >= deadline:
                raise Busy(f"another process is still {what}", why=f"it has held {path} for {bound:.0f} s") from None
            if not said:
                progress(f"waiting for another process that is {what} (at most {bound:.0f} s)")
                said = True
            await asyncio.sleep(_POLL)
    try:
        yield
    finally:
        lock.release()
