"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from pydantic import ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock
from sandbox.model.yamlguard import check_plain
from sandbox.store.store import NotStored, Store

# A lock names versions, it does not carry them.
_MOST_BYTES = 8 * 1024 * 1024


# The C parser is fast where there is one.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


async def fetch_lock(source: Path | str) -> Lock:
    """Read a lock from a file, or from a URL in a store.

    Raises:
        InvalidInput: not a lock, or edited by hand.
        OperationFailed, Unreachable: the store does not give it.
    """
    if isinstance(source, Path):
        return await asyncio.to_thread(read_lock, source)
    folder, _, name = source.rpartition("/")
    try:
        data = await Store.open(folder).get(name, at_most=_MOST_BYTES)
    except NotStored as error:
        raise InvalidInput(f"there is no lock {source}", why=str(error), hint="locks are kept for a while") from None
    return parse_lock(data, source)


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
