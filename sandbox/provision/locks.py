"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock

# A lock names versions, it does not carry them.
_MOST_BYTES = 8 * 1024 * 1024


def read_lock(path: Path) -> Lock:
    """Read a lock file (JSON).

    Raises:
        InvalidInput: not there, not a lock, or edited by hand.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path}: too large for a lock")
        lock = Lock.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{path}: is not a lock",
            why=f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}",
            hint="make one with `sandbox lock`",
        ) from None
    lock.verify()
    return lock


def write_lock(lock: Lock) -> str:
    """The text of a lock file."""
    return lock.model_dump_json(indent=2) + "\n"
