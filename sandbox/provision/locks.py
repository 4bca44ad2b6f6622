"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from sandbox.cluster import keptlocks
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model.errors import InvalidInput, Refused, SandboxError
from sandbox.model.owner import Owner
from sandbox.model.record import Lock
from sandbox.model.yamlguard import check_plain
from sandbox.project.platform import Platform
from sandbox.store.locks import kept_locks, url_of
from sandbox.store.store import NotStored, Store

# A lock names versions, it does not carry them.
_MOST_BYTES = 8 * 1024 * 1024


# The C parser is fast where there is one.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


async def fetch_lock(cluster: Cluster, source: Path | str) -> Lock:
    """Read a lock from a file, or from a URL: in a store, or where a cluster's clean-up keeps it.

    Raises:
        InvalidInput: not a lock, or edited by hand.
        OperationFailed, Unreachable: the store does not give it.
    """
    if isinstance(source, Path):
        return await asyncio.to_thread(read_lock, source)
    if source.startswith(keptlocks.URL):
        found = await keptlocks.read(cluster, source.removeprefix(keptlocks.URL))
        if found is None:
            raise InvalidInput(f"there is no lock {source} in {cluster.context}", hint="locks are kept for a while")
        return parse_lock(found, source)
    folder, _, name = source.rpartition("/")
    try:
        data = await Store.open(folder).get(name, at_most=_MOST_BYTES)
    except NotStored as error:
        raise InvalidInput(f"there is no lock {source}", why=str(error), hint="locks are kept for a while") from None
    return parse_lock(data, source)


@dataclass(frozen=True)
class KeptLock:
    """The lock of a deleted sandbox: when it was kept (seconds since 1970), its URL, and whose the sandbox was."""

    at: float
    url: str
    owner: Owner


async def find_lock(
    cluster: Cluster, platform: Platform, own: str | None, namespaces: Sequence[str], users: Collection[str]
) -> KeptLock:
    """The lock of a deleted sandbox, the newest of these users' that is kept: in a store, or in the cluster.

    A name is anybody's once its sandbox is gone, and a lock says whose code is deployed. A group's counts for nobody:
    each of its members may have written it.

    Args:
        own: the user's own store; None: the one in their data folder.
        namespaces: that the sandbox may have had.
        users: whose sandbox it may have been, by their full names.

    Raises:
        InvalidInput: none is kept; says where it was looked for.
        Refused: only others' are kept.
    """
    stores = [Store.open(url) for url in dict.fromkeys((platform.capture_store, own)) if url or url is own]
    found: list[KeptLock] = []
    problems: list[str] = []
    for namespace in namespaces:
        for store in stores:
            try:
                entries = await kept_locks(store, namespace)
            except SandboxError as error:
                problems.append(f"{store.url}: {error}")
                continue
            for entry, owner in entries:
                at = entry.modified.timestamp() if entry.modified else 0.0
                found.append(KeptLock(at, url_of(store, entry.path), owner))
        try:
            kept = await keptlocks.kept_of(cluster, namespace)
        except Forbidden:
            # Only where the chart is, developers may look, and is there anything.
            continue
        found += [KeptLock(at.timestamp(), keptlocks.URL + name, owner) for at, name, owner in kept]
    if not found:
        raise InvalidInput(
            f"no lock of a deleted sandbox {namespaces[0]} is kept, and there is no such file",
            why="\n".join(problems) or "looked in " + ", ".join([*(store.url for store in stores), cluster.context]),
            hint="locks are kept for a while after `sandbox down` and the clean-up; give a file or a URL otherwise",
        )
    theirs = [lock for lock in found if lock.owner.user and lock.owner.user in users]
    if not theirs:
        other = max(found, key=_kept_at)
        raise Refused(
            f"the lock that is kept of a deleted sandbox {namespaces[0]} is not yours",
            why=f"it is of {other.owner}, and a lock says whose code is deployed",
            hint=f"where you trust it: --lock {shlex.quote(other.url)}",
        )
    return max(theirs, key=_kept_at)


def _kept_at(lock: KeptLock) -> tuple[float, str]:
    return lock.at, lock.url


def read_lock(path: Path) -> Lock:
    """Read a lock file (JSON or YAML).

    Raises:
        InvalidInput: not there, not a lock, or edited by hand.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path}: too large for a lock")
        return parse_lock(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or str(error)) from None


def parse_lock(data: bytes, shown_as: str) -> Lock:
    """Read a lock.

    Args:
        shown_as: what errors call it.

    Raises:
        InvalidInput: not a lock, or edited by hand.
    """
    try:
        # JSON is YAML too; `sandbox get lock` prints either.
        check_plain(data)
        lock = Lock.model_validate(yaml.load(data, Loader=_Loader))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{shown_as}: is not a lock",
            why=f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}",
            hint="make one with `sandbox lock`",
        ) from None
    # Also numbers and dates that there are not.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{shown_as}: is not a lock", why=str(error), hint="make one with `sandbox lock`") from None
    lock.verify()
    return lock


def write_lock(lock: Lock) -> str:
    """The text of a lock file."""
    return lock.model_dump_json(indent=2) + "\n"
