"""The locks of deleted sandboxes in a store, kept for a while: ``sandbox up --lock`` brings them back."""

from __future__ import annotations

from datetime import datetime, timedelta

from sandbox.model.record import LOCKS_FOLDER
from sandbox.store.store import Store, Stored

# For how long, where no platform team says it.
RETENTION = timedelta(days=7)
# Of a namespace's UID and what stands around it.
_UID = 36


async def keep_lock(store: Store, namespace: str, uid: str, text: str) -> str:
    """Save a lock; where it is, as ``up --lock`` takes it.

    Raises:
        SandboxError: the store cannot.
    """
    path = f"{LOCKS_FOLDER}{namespace}-{uid}.yaml"
    await store.put(path, text.encode())
    return url_of(store, path)


async def forget_locks(store: Store, retention: timedelta, now: datetime) -> int:
    """Remove the locks that were saved longer ago than ``retention``; how many.

    Raises:
        SandboxError: the store cannot.
    """
    # A store that does not say when something was written keeps it.
    entries = await store.entries(LOCKS_FOLDER)
    old = [entry for entry in entries if entry.modified is not None and entry.modified < now - retention]
    return sum([await store.remove(entry.path) for entry in old])


async def newest_lock(store: Store, namespace: str) -> Stored | None:
    """The lock of the sandbox of this namespace that was deleted last; None where none is kept.

    Raises:
        SandboxError: the store cannot be read.
    """
    prefix = f"{LOCKS_FOLDER}{namespace}-"
    found = [
        entry
        for entry in await store.entries(LOCKS_FOLDER)
        if entry.path.startswith(prefix) and len(entry.path.removeprefix(prefix).removesuffix(".yaml")) == _UID
    ]
    return max(found, key=lambda entry: entry.modified.timestamp() if entry.modified else 0.0, default=None)


def url_of(store: Store, path: str) -> str:
    """An entry as ``up --lock`` takes it."""
    return f"{store.url.rstrip('/')}/{path}"
