"""The contents of databases and caches, by :mod:`sandbox.capture.fixtures`, into the bundle."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.capture.collect.collection import Collection, gathered
from sandbox.capture.collect.running import Running
from sandbox.capture.fixtures.dump import dump_fixtures
from sandbox.capture.fixtures.model import Fixture, Limits
from sandbox.capture.keys import encrypt_file
from sandbox.project.config import Fixtures

# Of the time that is left, for storing what was dumped.
_FOR_STORING = 0.1


@dataclass
class Wanted:
    """What is to be dumped, and how.

    Attributes:
        declared: the project's ``fixtures:``.
        recipients: age's; without any, contents go into stores of this machine only.
    """

    declared: Fixtures
    limits: Limits
    recipients: Sequence[Any] = ()


@dataclass
class Data:
    """What was dumped, as plain data."""

    fixtures: list[dict[str, Any]] = field(default_factory=list)


async def collect_fixtures(collection: Collection, running: Running, wanted: Wanted, key: bytes, found: Data) -> None:
    """Dump every store that is found or declared; each is an item."""
    await running.pods_known.wait()
    if not collection.store.is_local and not wanted.recipients:
        async with collection.looking_at("fixtures", "fixtures") as look:
            look.end("denied", "contents of databases go to a remote store encrypted only: name a recipient")
        return
    folder = collection.store.folder
    if folder:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # In the store's own file system: what was dumped is moved, not copied.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as place:
        fixtures: list[Fixture] = []
        async with collection.looking_at("fixtures", "fixtures") as look:
            left = collection.until - asyncio.get_running_loop().time()
            fixtures = await dump_fixtures(
                collection.cluster,
                collection.namespace,
                running.pods,
                wanted.declared,
                Path(place),
                limits=wanted.limits,
                deadline=time.monotonic() + left * (1 - _FOR_STORING),
                hmac_key=hmac.new(key, b"masking", hashlib.sha256).digest(),
            )
            look.count = len(fixtures)
            if not fixtures:
                look.end("absent", "no database or cache was found or declared")
        await gathered(_store(collection, fixture, Path(place), wanted.recipients, found) for fixture in fixtures)


async def _store(
    collection: Collection, fixture: Fixture, folder: Path, recipients: Sequence[Any], found: Data
) -> None:
    async with collection.looking_at(f"fixtures/{fixture.name}", "fixtures") as look:
        for part in fixture.parts:
            title, source = f"fixtures/{part.path}", folder / part.path
            media_type = part.media_type
            if recipients:
                title, media_type = f"{title}.age", f"{media_type}+age"
                encrypted = source.with_name(f"{source.name}.age")
                await asyncio.to_thread(encrypt_file, source, encrypted, recipients)
                source = encrypted
            look.size += await collection.put(title, source, media_type, move=True)
        look.count = len(fixture.parts)
        look.end(fixture.status, fixture.why)
        redactor = await asyncio.shield(collection.secrecy)
        found.fixtures.append(redactor.in_data(fixture.model_dump(mode="json"), names=True))
