"""What the core says while it works, without knowing who listens.

The command line shows it as a live list of steps, a TUI could show it in a widget, tests collect it.
It is talk, never data: nothing may depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """One step under way."""

    def detail(self, text: str) -> None:
        """Say where the step stands, such as ``web: 1 of 2 replicas ready``; the newest replaces the one before."""


class Reporter(Protocol):
    """Listens to the steps of an operation. Steps may be nested and may run side by side in asyncio tasks."""

    def step(self, title: str) -> AbstractContextManager[Step]:
        """Announce a step; leaving the context ends it, an exception marks it as failed."""

    def info(self, text: str) -> None:
        """Say something worth knowing."""

    def warn(self, text: str) -> None:
        """Say something that the user should look at."""

    def command(self, argv: Sequence[str]) -> None:
        """Tell the git, helm or kubectl command that does the same; shown with ``-v``. Never holds a secret."""
