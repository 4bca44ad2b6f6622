"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from sandbox.cluster import keptlocks
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model.errors import InvalidInput, SandboxError
from sandbox.model.record import Lock
from sandbox.model.yamlguard import check_plain
from sandbox.project.platform import Platform
from sandbox.store.locks import newest_lock, url_of
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


async def find_lock(cluster: Cluster, platform: Platform, own: str | None, namespaces: Sequence[str]) -> str:
    """The URL of the lock of a deleted sandbox, the newest that is kept: in a store, or in the cluster.

    Args:
        own: the user's own store; None: the one in their data folder.
        namespaces: that the sandbox may have had.

    Raises:
        InvalidInput: none is kept; says where it was looked for.
    """
    stores = [Store.open(url) for url in dict.fromkeys((platform.capture_store, own)) if url or url is own]
    found: list[tuple[float, str]] = []
    problems: list[str] = []
    for namespace in namespaces:
        for store in stores:
            try:
                entry = await newest_lock(store, namespace)
            except SandboxError as error:
                problems.append(f"{store.url}: {error}")
                continue
            if entry is not None:
                found.append((entry.modified.timestamp() if entry.modified else 0.0, url_of(store, entry.path)))
        try:
            kept = await keptlocks.newest(cluster, namespace)
        except Forbidden:
            # Only where the chart is, developers may look, and is there anything.
            continue
        if kept is not None:
            found.append((kept[0].timestamp(), keptlocks.URL + kept[1]))
    if not found:
        raise InvalidInput(
            f"no lock of a deleted sandbox {namespaces[0]} is kept, and there is no such file",
            why="\n".join(problems) or "looked in " + ", ".join([*(store.url for store in stores), cluster.context]),
            hint="locks are kept for a while after `sandbox down` and the clean-up; give a file or a URL otherwise",
        )
    return max(found)[1]


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
