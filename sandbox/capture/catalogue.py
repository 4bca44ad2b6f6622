"""The captures of a store: list, find, pin, remove, and clean up what nobody refers to."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.capture.bundle import (
    Damaged,
    Entry,
    Layer,
    blob_path,
    entry_path,
    read_blob,
    read_entry,
    read_manifest,
    write_index,
)
from sandbox.model.durations import from_rfc3339, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.store.store import NotStored, Store

_LARGEST_ENTRY = 64 * 1024
_LARGEST_MANIFEST = 4 * 1024 * 1024
_AT_ONCE = 16
# Younger blobs may belong to a capture that is being written: it refreshes those that it shares (bundle.py).
GARBAGE_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Pin:
    """Somebody wants a capture kept until a time."""

    until: datetime
    by: str = ""
    why: str = ""


@dataclass(frozen=True)
class Listed:
    """A capture in a store, and its pin where it has one that has not expired."""

    entry: Entry
    pin: Pin | None = None


@dataclass(frozen=True)
class Freed:
    """What a clean-up removed."""

    captures: tuple[str, ...] = ()
    blobs: int = 0
    bytes: int = 0


async def entries(store: Store) -> tuple[list[Listed], list[str]]:
    """All captures, oldest first, and what is wrong with entries that cannot be read.

    Raises:
        Unreachable, Refused: the store cannot be read.
    """
    names, pins = await asyncio.gather(store.names("captures/"), store.names("pins/"))
    pinned = {_id_of(name) for name in pins}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(path: str) -> Listed | str | None:
        name = _id_of(path)
        async with gate:
            try:
                entry = read_entry(name, await store.get(path, at_most=_LARGEST_ENTRY))
                return Listed(entry, await _pin(store, name) if name in pinned else None)
            except NotStored:
                # Removed meanwhile.
                return None
            except (Damaged, OperationFailed) as error:
                return str(error)

    found = await asyncio.gather(*(one(path) for path in names))
    listed = [item for item in found if isinstance(item, Listed)]
    return (
        sorted(listed, key=lambda item: (item.entry.created_at, item.entry.id)),
        [item for item in found if isinstance(item, str)],
    )


async def find(store: Store, wanted: str) -> Entry:
    """The capture of an id, or of the only one that begins so; ``latest``: the newest.

    Raises:
        NotStored: there is none; names near ones.
        InvalidInput: several begin so.
    """
    listed, _ = await entries(store)
    if wanted == "latest" and listed:
        return listed[-1].entry
    matching = [item.entry for item in listed if item.entry.id.startswith(wanted)] if wanted else []
    exact = [entry for entry in matching if entry.id == wanted]
    if len(matching) == 1 or exact:
        return (exact or matching)[0]
    if matching:
        raise InvalidInput(
            f"{len(matching)} captures begin with {wanted}",
            why=", ".join(entry.id for entry in matching[:10]),
            hint="say more of its id",
        )
    known = ", ".join(item.entry.id for item in listed[-5:])
    raise NotStored(
        f"there is no capture {wanted!r} in {store.url}",
        hint=f"the newest there: {known}" if known else "it holds no captures; another one with --store?",
    )


async def remove(store: Store, identifiers: Iterable[str], *, unpin: bool = False) -> Freed:
    """Remove captures, then what nobody refers to any more.

    Raises:
        Refused: one is pinned, and ``unpin`` is not given; then none is removed.
    """
    wanted = list(identifiers)
    for name in wanted:
        pin = await _pin(store, name)
        if pin and pin.until > datetime.now(UTC) and not unpin:
            raise Refused(
                f"capture {name} is pinned until {to_rfc3339(pin.until)}",
                why=pin.why or f"by {pin.by or 'somebody'}",
                hint=f"`sandbox capture unpin {name}` first",
            )
    removed = [name for name in wanted if await store.remove(entry_path(name))]
    for name in wanted:
        await store.remove(_pin_path(name))
    await write_index(store)
    freed = await collect_garbage(store)
    return Freed(tuple(removed), freed.blobs, freed.bytes)


def surplus(listed: Sequence[Listed], *, keep: int | None, older_than: timedelta | None, now: datetime) -> list[Entry]:
    """The captures that retention removes: of each place all but the ``keep`` newest, and those that are too old.

    With both, only those go that both name. Pinned ones stay, and are not counted.
    """
    by_place: defaultdict[str, list[Entry]] = defaultdict(list)
    for item in sorted(listed, key=lambda item: item.entry.created_at, reverse=True):
        if item.pin is None or item.pin.until <= now:
            by_place[item.entry.place].append(item.entry)
    going = []
    for found in by_place.values():
        for position, entry in enumerate(found):
            over = keep is None or position >= keep
            old = older_than is None or now - entry.created_at > older_than
            if over and old and not (keep is None and older_than is None):
                going.append(entry)
    return sorted(going, key=lambda entry: entry.created_at)


async def pin(store: Store, name: str, pinned: Pin) -> None:
    """Keep a capture until a time, whatever retention says."""
    text = {"until": to_rfc3339(pinned.until), "by": pinned.by, "why": pinned.why}
    await store.put(_pin_path(name), json.dumps(text).encode())


async def unpin(store: Store, name: str) -> bool:
    """Let go of a capture; whether it was pinned."""
    return await store.remove(_pin_path(name))


async def collect_garbage(store: Store) -> Freed:
    """Remove blobs that no capture refers to and that are older than an hour.

    Raises:
        Damaged: the manifest of a capture cannot be read, so nobody knows what it refers to.
    """
    before = datetime.now(UTC) - GARBAGE_AFTER
    await store.remove_leftovers(before)
    # Blobs are looked at first: what is listed while we look is not among them.
    stored = [entry for entry in await store.entries("blobs/") if entry.modified is None or entry.modified < before]
    if not stored:
        return Freed()
    used = await _referenced(store)
    blobs, size = 0, 0
    for entry in stored:
        if entry.path in used or entry.modified is None:
            continue
        # Once more: a capture that shares it may have written it anew since.
        now = await store.stat(entry.path)
        if now and now.modified and now.modified < before and await store.remove(entry.path):
            blobs, size = blobs + 1, size + entry.size
    return Freed((), blobs, size)


async def _referenced(store: Store) -> set[str]:
    listed, wrong = await entries(store)
    if wrong:
        raise Damaged(
            "it cannot be told which blobs are in use",
            why="\n".join(wrong[:5]),
            hint="`sandbox capture verify` names what is damaged; `sandbox capture rm` removes it",
        )
    used: set[str] = set()
    for item in listed:
        manifest = Layer("manifest", "", item.entry.digest, item.entry.size)
        used.add(blob_path(item.entry.digest))
        try:
            config, layers = read_manifest(await read_blob(store, manifest, at_most=_LARGEST_MANIFEST))
        except (NotStored, Damaged) as error:
            raise Damaged(
                f"it cannot be told which blobs capture {item.entry.id} uses",
                why=str(error),
                hint=f"`sandbox capture rm {item.entry.id}` removes it",
            ) from None
        used |= {blob_path(layer.digest) for layer in (config, *layers.values())}
    return used


async def _pin(store: Store, name: str) -> Pin | None:
    try:
        plain = json.loads(await store.get(_pin_path(name), at_most=_LARGEST_ENTRY))
        return Pin(from_rfc3339(plain["until"]), str(plain.get("by") or ""), str(plain.get("why") or ""))
    except NotStored:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput):
        # Somebody wanted it kept; until when cannot be read.
        return Pin(datetime.max.replace(tzinfo=UTC), why="the pin cannot be read")


def _pin_path(name: str) -> str:
    return f"pins/{name}.json"


def _id_of(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")
