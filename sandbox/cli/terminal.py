"""This process's own terminal, lent to a command in a container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

_CHUNK = 64 * 1024


async def stdin_chunks() -> AsyncIterator[bytes]:
    """What comes on standard input, as it comes.

    A thread that reads a terminal cannot be stopped: the process would wait for one more Enter when the
    command has ended. So the event loop waits for the file; only what it cannot wait for (a plain file, which
    never blocks) is read in a thread.
    """
    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except OSError:
        while data := await asyncio.to_thread(os.read, descriptor, _CHUNK):
            yield data
        return
    try:
        while True:
            await readable.wait()
            readable.clear()
            data = os.read(descriptor, _CHUNK)
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key, Ctrl-C too, goes to the command; afterwards the terminal is as it was."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def terminal_sizes() -> AsyncIterator[tuple[int, int]]:
    """The terminal's size in columns and rows: now, and whenever it changes."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    changed.set()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            size = os.get_terminal_size(sys.stdin.fileno())
            yield size.columns, size.lines
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
