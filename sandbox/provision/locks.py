"""Lock files: reading them back, which is where an edited one is noticed."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock

# A lock names versions, it does not carry them.
_MOST_BYTES = 8 * 1024 * 1024


# Without aliases a file cannot unfold into more than it is; the C parser is fast where there is one.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


def read_lock(path: Path) -> Lock:
    """Read a lock file (JSON).

    Raises:
        InvalidInput: not there, not a lock, or edited by hand.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path}: too large for a lock")
        # JSON is YAML too; `sandbox get lock` prints either.
        lock = Lock.model_validate(yaml.load(path.read_bytes(), Loader=_Loader))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or str(error)) from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path}: is not a lock", why=str(error), hint="make one with `sandbox lock`") from None
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
