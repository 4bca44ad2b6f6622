"""What the user of ``bisect`` asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True)
class BisectRequest:
    """What the user asked for; None where they left the choice to the project's or the product's defaults.

    Attributes:
        good, bad: names of the two states.
        command: the test; empty: whether services become ready.
        name: what the sandboxes are called, with a number each.
        parallel: how many sandboxes at most; None: two, as far as there is room.
        parts: take the guilty services apart.
        data: the contents of the bad state's databases and caches.
        identity: file with an age identity, for true values of Secrets and for contents that are encrypted.
        allow_tags: an image whose digest is gone or unknown may be taken by its tag.
        fresh: forget what earlier runs found out.
        timeout: how long services may take to become ready, and a database to be filled.
        state: folder of files about searches.
    """

    good: str
    bad: str
    command: tuple[str, ...]
    folder: Path
    state: Path
    name: str | None = None
    quota: str | None = None
    ttl: str | None = None
    owner: str | None = None
    parallel: int | None = None
    parts: bool = True
    data: bool = True
    identity: Path | None = None
    allow_tags: bool = False
    fresh: bool = False
    command_timeout: timedelta = timedelta(minutes=10)
    timeout: timedelta = timedelta(minutes=5)
