"""The locks of deleted sandboxes in a store, kept for a while: ``sandbox up --lock`` brings them back."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from urllib.parse import quote, unquote

from sandbox.model.owner import Owner
from sandbox.model.record import LOCKS_FOLDER
from sandbox.store.store import Store, Stored

# For how long, where no platform team says it.
RETENTION = timedelta(days=7)
# The namespace's name, its UID, and whose it was.
_ENTRY = re.compile(
    r"([a-z0-9-]+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.(user|group)\.(.+))?\.yaml", re.DOTALL
)
# A part of a path takes 200 characters, and 63 are the namespace's.
_LONGEST_OWNER = 80


async def keep_lock(store: Store, namespace: str, uid: str, text: str, owner: Owner) -> str:
    """Save a lock; where it is, as ``up --lock`` takes it.

    Args:
        owner: whose the namespace is, by the namespace itself: the lock's text is whatever its owner wrote.

    Raises:
        SandboxError: the store cannot.
    """
    path = f"{LOCKS_FOLDER}{namespace}-{uid}{_suffix(owner)}.yaml"
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


async def kept_locks(store: Store) -> list[tuple[Stored, str, Owner]]:
    """The locks of sandboxes that were deleted, the namespace of each, and whose it was.

    Raises:
        SandboxError: the store cannot be read.
    """
    return [
        (entry, match[1], _owner(match))
        for entry in await store.entries(LOCKS_FOLDER)
        if (match := _ENTRY.fullmatch(entry.path.removeprefix(LOCKS_FOLDER)))
    ]


def url_of(store: Store, path: str) -> str:
    """An entry as ``up --lock`` takes it."""
    return f"{store.url.rstrip('/')}/{path}"


def _suffix(owner: Owner) -> str:
    """Whose it is, as it may stand in a path; nobody's where the name is too long for one."""
    name = quote(owner.user or owner.group, safe="@").replace("~", "%7E").replace("%", "=")
    return f".{'user' if owner.user else 'group'}.{name}" if 0 < len(name) <= _LONGEST_OWNER else ""


def _owner(match: re.Match[str]) -> Owner:
    kind, name = match[2], match[3]
    if kind is None:
        return Owner()
    plain = unquote(name.replace("=", "%"))
    return Owner(user=plain) if kind == "user" else Owner(group=plain)
