"""The contents of databases and caches, by :mod:`sandbox.capture.fixtures`, into the bundle."""

from __future__ import annotations

import asyncio
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
from sandbox.capture.keys import encrypt_file, masking_key
from sandbox.project.config import Fixtures

# Where a bundle has them: as they were when it was captured, and before the deployment that failed.
FIXTURES, BEFORE = "fixtures", "before"
# Of the time that is left, for storing what was dumped.
_FOR_STORING = 0.1


@dataclass
class Wanted:
    """What is to be dumped, and how.

    Attributes:
        declared: the project's ``fixtures:``.
        recipients: age's; without any, contents go into stores of this machine only.
        allow_write: a Job may read the volume of a store that is down; None: nobody can allow it.
    """

    declared: Fixtures
    limits: Limits
    recipients: Sequence[Any] = ()
    allow_write: bool | None = None


@dataclass(frozen=True)
class Before:
    """What stores held before a deployment, as it was dumped then: whole and unmasked."""

    folder: Path
    fixtures: tuple[Fixture, ...]


@dataclass
class Data:
    """What was dumped, as plain data; ``before``: before the deployment that failed."""

    fixtures: list[dict[str, Any]] = field(default_factory=list)
    before: list[dict[str, Any]] = field(default_factory=list)


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
                hmac_key=masking_key(key),
                allow_write=wanted.allow_write,
            )
            look.count = len(fixtures)
            if not fixtures:
                look.end("absent", "no database or cache was found or declared")
        store = _Storing(collection, Path(place), wanted.recipients)
        await gathered(store.one(FIXTURES, fixture, found.fixtures) for fixture in fixtures)


async def collect_before(collection: Collection, before: Before, wanted: Wanted, found: Data) -> None:
    """Keep what stores held before the deployment that failed; it goes back to its place from its own files."""
    why = ""
    if not collection.store.is_local and not wanted.recipients:
        why = "contents of databases go to a remote store encrypted only: name a recipient"
    elif wanted.declared.mask:
        why = "it was dumped to be put back as it was; fixtures.mask lets nothing be stored unmasked"
    if why:
        async with collection.looking_at(BEFORE, "fixtures") as look:
            look.end("denied", why)
        return
    with tempfile.TemporaryDirectory(prefix="sandbox-") as place:
        store = _Storing(collection, before.folder, wanted.recipients, encrypted=Path(place))
        await gathered(store.one(BEFORE, fixture, found.before) for fixture in before.fixtures)


@dataclass(frozen=True)
class _Storing:
    """Puts fixtures into the bundle.

    Attributes:
        folder: where their files are.
        encrypted: where encrypted ones are made, when theirs are not to be touched; None: they are moved.
    """

    collection: Collection
    folder: Path
    recipients: Sequence[Any]
    encrypted: Path | None = None

    async def one(self, root: str, fixture: Fixture, described: list[dict[str, Any]]) -> None:
        """Store a fixture under a path of the bundle, and add its description without what is secret."""
        async with self.collection.looking_at(f"{root}/{fixture.name}", "fixtures") as look:
            for part in fixture.parts:
                title, source = f"{root}/{part.path}", self.folder / part.path
                media_type, move = part.media_type, self.encrypted is None
                if self.recipients:
                    title, media_type = f"{title}.age", f"{media_type}+age"
                    source, move = await self._encrypted(source), True
                look.size += await self.collection.put(title, source, media_type, move=move)
            look.count = len(fixture.parts)
            look.end(fixture.status, fixture.why)
            redactor = await asyncio.shield(self.collection.secrecy)
            described.append(redactor.in_data(fixture.model_dump(mode="json"), names=True))

    async def _encrypted(self, source: Path) -> Path:
        target = (self.encrypted or self.folder) / f"{source.relative_to(self.folder)}.age"
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(encrypt_file, source, target, self.recipients)
        return target
