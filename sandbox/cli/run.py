"""The one place where the command line enters asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end.

    The first SIGINT or SIGTERM cancels it, so that it can end its subprocesses and say where it
    stands; a second one stops at once.

    Raises:
        KeyboardInterrupt: a signal ended it (exit code 130).
    """
    with asyncio.Runner() as runner:
        return runner.run(_until_signal(main))


async def _until_signal(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        if interrupted:
            for number in _STOPPING:
                loop.remove_signal_handler(number)
            signal.raise_signal(signal.SIGINT)
            return
        interrupted = True
        if sys.stderr.isatty():
            sys.stderr.write("\nstopping; press Ctrl-C again to stop at once\n")
        task.cancel()

    for number in _STOPPING:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in _STOPPING:
            # Gone already when a second signal came.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)
