"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

import asyncio
import difflib
import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from sandbox.cluster import keptlocks
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.cluster.platform import read_platform
from sandbox.model.errors import InvalidInput, Refused, SandboxError
from sandbox.model.owner import Owner
from sandbox.model.record import Lock
from sandbox.model.yamlguard import check_plain
from sandbox.project.platform import Platform, parse_platform
from sandbox.project.settings import load_settings
from sandbox.store.locks import kept_locks, url_of
from sandbox.store.store import NotStored, Store

# A lock names versions, it does not carry them.
_MOST_BYTES = 8 * 1024 * 1024
# Seconds for what only makes a message better.
_SOON = 5.0


# The C parser is fast where there is one.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


def is_name(lock: Path | str | None) -> bool:
    """Whether a lock is asked for by the name of the deleted sandbox, and not by where it is."""
    return isinstance(lock, str) and "://" not in lock


def namespaces_of(name: str, prefix: str) -> list[str]:
    """The namespaces that a deleted sandbox of this name may have had, or that is one of them; the last is as given."""
    return list(dict.fromkeys((prefix + name, name)))


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
    """The lock of a deleted sandbox: when it was kept (seconds since 1970), where, of which namespace, and whose."""

    at: float
    url: str
    namespace: str
    owner: Owner


@dataclass(frozen=True)
class LockPlaces:
    """Where the locks of deleted sandboxes may be: stores, and the cluster.

    Attributes:
        own: the user's own store; None: the one in their data folder.
    """

    cluster: Cluster
    platform: Platform
    own: str | None

    def stores(self) -> list[Store]:
        urls = dict.fromkeys((self.platform.capture_store, self.own))
        return [Store.open(url) for url in urls if url or url is self.own]

    async def kept(self, namespaces: Sequence[str] = ()) -> tuple[list[KeptLock], list[str]]:
        """The locks that are kept of these namespaces (none: of all), and what could not be read."""
        found: list[KeptLock] = []
        problems: list[str] = []
        for store in self.stores():
            try:
                entries = await kept_locks(store)
            except SandboxError as error:
                problems.append(f"{store.url}: {error}")
                continue
            for entry, namespace, owner in entries:
                if not namespaces or namespace in namespaces:
                    at = entry.modified.timestamp() if entry.modified else 0.0
                    found.append(KeptLock(at, url_of(store, entry.path), namespace, owner))
        # Only where the chart is, developers may look, and is there anything.
        with suppress(Forbidden):
            for kept in await keptlocks.kept_of(self.cluster, namespaces):
                found.append(KeptLock(kept.at.timestamp(), keptlocks.URL + kept.name, kept.namespace, kept.owner))
        return found, problems


async def find_lock(places: LockPlaces, namespaces: Sequence[str], users: Collection[str]) -> KeptLock:
    """The lock of a deleted sandbox, the newest of these users' that is kept: in a store, or in the cluster.

    A name is anybody's once its sandbox is gone, and a lock says whose code is deployed. A group's counts for nobody:
    each of its members may have written it.

    Args:
        namespaces: that the sandbox may have had; the last one is its name.
        users: whose sandbox it may have been, by their full names.

    Raises:
        InvalidInput: none is kept; says where it was looked for, and which there are that are called nearly so.
        Refused: only others' are kept.
    """
    found, problems = await places.kept(namespaces)
    name = namespaces[-1]
    if not found:
        looked = ", ".join([*(store.url for store in places.stores()), places.cluster.context])
        near = await _near(places, namespaces, users)
        raise InvalidInput(
            f"no lock of a deleted sandbox {name} is kept, and there is no such file",
            why="\n".join(problems) or f"looked in {looked}",
            hint=f"did you mean {near}?"
            if near
            else "locks are kept for a while after `sandbox down` and the clean-up; give a file or a URL otherwise",
        )
    theirs = [lock for lock in found if lock.owner.user and lock.owner.user in users]
    if not theirs:
        other = max(found, key=_kept_at)
        raise Refused(
            f"the lock that is kept of a deleted sandbox {name} is not yours",
            why=f"it is of {other.owner}, and a lock says whose code is deployed",
            hint=f"where you trust it: --lock {shlex.quote(other.url)}",
        )
    return max(theirs, key=_kept_at)


async def _near(places: LockPlaces, namespaces: Sequence[str], users: Collection[str]) -> str:
    """Names nearly like this one of which these users' locks are kept."""
    # The first is the second behind the prefix, where there is one.
    prefix = namespaces[0].removesuffix(namespaces[-1])
    found, _ = await places.kept()
    known = {lock.namespace.removeprefix(prefix) for lock in found if lock.owner.user in users}
    return " or ".join(difflib.get_close_matches(namespaces[-1], sorted(known), cutoff=0.5))


async def was_deleted(cluster: Cluster, name: str, prefix: str) -> bool:
    """Whether a sandbox of this user's of this name was deleted and its lock is kept, as far as one can say soon.

    Args:
        prefix: of namespaces, where the platform has none of its own.
    """
    try:
        async with asyncio.timeout(_SOON):
            platform = parse_platform(await read_platform(cluster))
            places = LockPlaces(cluster, platform, load_settings().capture_store)
            namespaces = namespaces_of(name, platform.namespace_prefix or prefix)
            user = (await cluster.whoami()).username
            found, _ = await places.kept(namespaces)
    except (SandboxError, TimeoutError):
        return False
    return any(lock.owner.user == user for lock in found)


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
