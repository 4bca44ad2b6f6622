"""Waiting in tests: always bounded, always saying for what."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(check: Callable[[], T | None], what: str, bound: float = 120.0, every: float = 0.1) -> T:
    """Ask again until a check returns something; fails the test after the bound (seconds)."""
    deadline = time.monotonic() + bound
    while (found := check()) is None:
        assert time.monotonic() < deadline, f"not within {bound:.0f} s: {what}"
        time.sleep(every)
    return found
