"""The locks of deleted sandboxes in the capture store, kept for a while: ``sandbox up --lock`` brings them back."""

from __future__ import annotations

from datetime import datetime, timedelta

from sandbox.model.record import LOCKS_FOLDER
from sandbox.store.store import Store


async def keep_lock(store: Store, namespace: str, uid: str, text: str) -> str:
    """Save a lock; where it is, as ``up --lock`` takes it.

    Raises:
        SandboxError: the store cannot.
    """
    path = f"{LOCKS_FOLDER}{namespace}-{uid}.yaml"
    await store.put(path, text.encode())
    return f"{store.url.rstrip('/')}/{path}"


async def forget_locks(store: Store, retention: timedelta, now: datetime) -> int:
    """Remove the locks that were saved longer ago than ``retention``; how many.

    Raises:
        SandboxError: the store cannot.
    """
    # A store that does not say when something was written keeps it.
    entries = await store.entries(LOCKS_FOLDER)
    old = [entry for entry in entries if entry.modified is not None and entry.modified < now - retention]
    return sum([await store.remove(entry.path) for entry in old])
