"""A folder for exported trees and unpacked charts that goes when the command ends, however it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox.cluster.providers.places import cache_dir
from sandbox.model.errors import OperationFailed


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder, private to this process; leftovers of processes that were killed are removed.

    Raises:
        OperationFailed: it cannot be made (no permission, no space).
    """
    parent = _parent()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    except OSError as error:
        raise OperationFailed(
            f"no working folder can be made in {parent}", why=str(error), hint="set SANDBOX_CACHE_DIR to another place"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kept_folder(kind: str, name: str) -> Path:
    """A folder beside it that stays when the command ends; not made yet."""
    return cache_dir() / kind / name


def _parent() -> Path:
    return cache_dir() / "work"


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
