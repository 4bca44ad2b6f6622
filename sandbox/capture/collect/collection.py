"""What all collectors share: the clock, the bounds, the secrets to keep out, and the list of what was looked at.

A collector never fails a capture: whatever keeps it from its item becomes the item's status, in the words of whoever
refused (:func:`looking_at`). Nothing is stored before the secrets are known (:meth:`Collection.secrecy`).
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.capture.bundle import JSON_TYPE, LOG_TYPE, BundleWriter
from sandbox.capture.model import Item, Status
from sandbox.capture.secrecy import Redactor
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden, NotFound, Unauthorized
from sandbox.model.errors import SandboxError
from sandbox.store.store import Store

_LONGEST_WHY = 500


@dataclass(frozen=True)
class Bounds:
    """How much is taken, so that one noisy thing cannot fill the store or the time.

    Attributes:
        log: bytes of one log of one container, its end; the beginning is left out.
        kind: bytes of all objects of one kind.
        requests, logs: how many are under way at once.
    """

    log: int = 5 * 1024 * 1024
    kind: int = 32 * 1024 * 1024
    requests: int = 12
    logs: int = 8


@dataclass
class Look:
    """One item under way; a collector says here how it went, or leaves it at ``ok``."""

    status: Status = "ok"
    why: str = ""
    count: int | None = None
    size: int = 0

    def end(self, status: Status, why: str = "") -> None:
        self.status, self.why = status, why


class StoreFailed(Exception):
    """The store does not take what was collected; that ends the capture, with ``error``."""

    def __init__(self, error: SandboxError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Collection:
    """One capture under way.

    Attributes:
        until: time of the event loop's clock when collecting must be over.
        secrecy: becomes known when the Secrets were read.
    """

    cluster: Cluster
    namespace: str
    store: Store
    writer: BundleWriter
    until: float
    bounds: Bounds
    secrecy: asyncio.Future[Redactor]
    items: list[Item] = field(default_factory=list)
    requests: asyncio.Semaphore = field(init=False)
    logs: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.requests = asyncio.Semaphore(self.bounds.requests)
        self.logs = asyncio.Semaphore(self.bounds.logs)

    @asynccontextmanager
    async def looking_at(self, name: str, area: str, *, until: float | None = None) -> AsyncIterator[Look]:
        """Time an item and turn what goes wrong inside into its status.

        Raises:
            StoreFailed: what was found cannot be stored.
        """
        look, started = Look(), datetime.now(UTC)
        try:
            async with asyncio.timeout_at(until or self.until):
                yield look
        except TimeoutError:
            look.end("timeout", "not done when the time was up")
        except (Forbidden, Unauthorized) as error:
            look.end("denied", error.why or str(error))
        except NotFound as error:
            look.end("absent", error.why or str(error))
        except SandboxError as error:
            look.end("failed", str(error))
        except (StoreFailed, asyncio.CancelledError):
            raise
        except Exception as error:
            # What a cluster holds is not ours to trust: one object that is not as it should be costs one item.
            look.end("failed", f"{type(error).__name__}: {error}")
        if look.status in ("timeout", "denied", "failed"):
            look.size = 0
        self._note(name, area, look, started)

    def _note(self, name: str, area: str, look: Look, started: datetime) -> None:
        why = look.why[:_LONGEST_WHY]
        if self.secrecy.done() and not self.secrecy.cancelled():
            why = self.secrecy.result().in_text(why)
        elif look.status in ("failed", "truncated"):
            # Such texts may quote what they refuse, and the secrets are not known.
            why = "its message is left out: the Secrets could not be read"
        self.items.append(
            Item(
                name=name,
                area=area,
                status=look.status,
                why=why,
                started_at=started,
                ended_at=datetime.now(UTC),
                count=look.count,
                size=look.size,
            )
        )

    async def store_json(self, title: str, value: Any, look: Look, *, media_type: str = JSON_TYPE) -> None:
        """Store data as JSON, without secrets, when these are known."""
        redactor = await asyncio.shield(self.secrecy)
        data = await asyncio.to_thread(_json_without, redactor, value)
        look.size += await self.put(title, data, media_type)

    async def store_safe(self, title: str, data: bytes, media_type: str, look: Look) -> None:
        """Store bytes that hold no secret."""
        look.size += await self.put(title, data, media_type)

    async def store_log(self, title: str, data: bytes, look: Look) -> bytes:
        """Store a log, gzipped, without secrets; the log as it was stored."""
        redactor = await asyncio.shield(self.secrecy)

        def clean() -> tuple[bytes, bytes]:
            safe = redactor.in_bytes(data)
            # The same log gives the same blob: no time in it.
            return safe, gzip.compress(safe, compresslevel=1, mtime=0)

        safe, packed = await asyncio.to_thread(clean)
        look.size += await self.put(title, packed, LOG_TYPE)
        return safe

    async def put(self, title: str, content: bytes | Path, media_type: str, *, move: bool = False) -> int:
        """Store a blob, which holds no secret; its size.

        Raises:
            StoreFailed: the store does not take it.
        """
        try:
            layer = await self.writer.add(title, content, media_type, move=move)
        except SandboxError as error:
            raise StoreFailed(error) from error
        return layer.size


async def gathered(work: Iterable[Awaitable[None]]) -> None:
    """Run collectors side by side; the first that cannot store ends all.

    Raises:
        StoreFailed: as the collectors.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _json_without(redactor: Redactor, value: Any) -> bytes:
    data = as_json(value)
    # Most objects hold no secret: going through all their texts one by one is only for those that do.
    return data if redactor.in_bytes(data) == data else as_json(redactor.in_data(value))


def as_json(value: Any) -> bytes:
    """JSON in one line, keys as they come."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str).encode(errors="backslashreplace")
