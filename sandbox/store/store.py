"""A capture store: bytes under relative paths, addressed by URL.

A folder (a path or ``file://``; by default one in the user's data folder) is our own code: what it holds is
complete (temporary file, fsync, rename), whenever the process is killed. ``s3://`` is obstore's; everything else
(``gs://``, ``abfs://`` …) is fsspec's (https://filesystem-spec.readthedocs.io), with the packages that each needs.
Object stores put an object as a whole or not at all; on other remote file systems a temporary name is moved.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.store.paths import checked, checked_prefix

_CHUNK = 4 * 1024 * 1024


class NotStored(OperationFailed):
    """The store has nothing under a path."""


@dataclass(frozen=True)
class Stored:
    """One entry: its path, size in bytes, and when it was last written (UTC; None where the store does not say)."""

    path: str
    size: int
    modified: datetime | None = None


class Backend(ABC):
    """What a kind of store must do; blocking, called in threads. Paths are checked already."""

    @abstractmethod
    def put(self, path: str, content: bytes | Path, *, move: bool, only_new: bool = False) -> bool:
        """Write an entry; with ``only_new`` not over another. Whether it was written."""

    @abstractmethod
    def read(self, path: str, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; empty at the end. Raises NotStored."""

    @abstractmethod
    def stat(self, path: str) -> Stored | None: ...

    @abstractmethod
    def entries(self, prefix: str) -> list[Stored]: ...

    @abstractmethod
    def remove(self, path: str) -> bool: ...

    @abstractmethod
    def remove_leftovers(self, older_than: datetime) -> int: ...


class Store:
    """A store. Nothing is held open between calls; calls may run side by side.

    Attributes:
        url: where it is, without anything secret; what another machine needs to find it (unless ``is_local``).
        is_local: it is a folder of this machine.
        folder: that folder; None for others. Files made below it can be moved into the store without a copy.
    """

    def __init__(self, url: str, backend: Backend, folder: Path | None) -> None:
        self.url = url
        self.folder = folder
        self._backend = backend

    @classmethod
    def open(cls, url: str | None = None) -> Store:
        """The store at a URL or path; nothing is read or made yet.

        Args:
            url: None: the folder ``captures`` in the user's data folder (``~/.local/share/sandbox`` on Linux).

        Raises:
            InvalidInput: no such kind of store, its package is not installed, or the URL holds a password.
        """
        if url is None:
            import platformdirs

            url = str(platformdirs.user_data_path("sandbox") / "captures")
        protocol, colons, rest = url.partition("://")
        if not colons or protocol == "file":
            from sandbox.store.folder import Folder

            folder = _folder(rest if colons else url)
            return cls(f"file://{folder}", Folder(folder), folder)
        if protocol in ("s3", "s3a"):
            from sandbox.store.s3 import S3

            return cls(url.rstrip("/"), S3(url), None)
        from sandbox.store.remote import Remote

        return cls(url.rstrip("/"), Remote(url), None)

    @property
    def is_local(self) -> bool:
        return self.folder is not None

    async def put(self, path: str, content: bytes | Path, *, move: bool = False) -> None:
        """Write an entry as a whole: readers see the old one or the new one, also after a crash.

        Args:
            content: bytes, or a file to read them from.
            move: the file may be taken away (only saves a copy, and only in a folder).

        Raises:
            OperationFailed: no space left, or the store refuses.
            Refused: no permission.
            Unreachable: the store does not answer.
        """
        await asyncio.to_thread(self._backend.put, checked(path), content, move=move)

    async def put_if_absent(self, path: str, content: bytes | Path, *, move: bool = False) -> bool:
        """Write an entry unless it is there; whether it was written.

        In a folder exactly one of several writers wins; elsewhere the last may, so read it back where that matters.

        Raises:
            as :meth:`put`.
        """
        if await self.exists(path):
            return False
        return await asyncio.to_thread(self._backend.put, checked(path), content, move=move, only_new=True)

    async def get(self, path: str, *, at_most: int | None = None) -> bytes:
        """An entry's bytes.

        Args:
            at_most: bytes that it may have; None: any number.

        Raises:
            NotStored: there is none.
            OperationFailed: it has more than ``at_most``.
        """
        data = bytearray()
        async for chunk in self.stream(path):
            data += chunk
            if at_most is not None and len(data) > at_most:
                raise OperationFailed(f"{path} is larger than it may be", why=f"more than {at_most} bytes")
        return bytes(data)

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """An entry's bytes, some megabytes at a time.

        Raises:
            NotStored: there is none.
        """
        path, offset = checked(path), 0
        while chunk := await asyncio.to_thread(self._backend.read, path, offset, _CHUNK):
            yield chunk
            offset += len(chunk)

    async def exists(self, path: str) -> bool:
        return await self.stat(path) is not None

    async def stat(self, path: str) -> Stored | None:
        """Size and time of an entry; None where there is none."""
        return await asyncio.to_thread(self._backend.stat, checked(path))

    async def names(self, prefix: str = "") -> list[str]:
        """Paths of all entries below a prefix that ends with ``/`` (or of all entries), sorted."""
        return [entry.path for entry in await self.entries(prefix)]

    async def entries(self, prefix: str = "") -> list[Stored]:
        """All entries below a prefix that ends with ``/`` (or all there are), by path."""
        found = await asyncio.to_thread(self._backend.entries, checked_prefix(prefix))
        return sorted(found, key=lambda entry: entry.path)

    async def remove(self, path: str) -> bool:
        """Remove an entry; whether there was one."""
        return await asyncio.to_thread(self._backend.remove, checked(path))

    async def remove_leftovers(self, older_than: datetime) -> int:
        """Remove what killed writers left half written before a time; how many."""
        return await asyncio.to_thread(self._backend.remove_leftovers, older_than)


def _folder(text: str) -> Path:
    if not text or "\0" in text:
        raise InvalidInput("the store has no path", hint="such as /srv/captures, file:///srv/captures or s3://bucket/x")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise InvalidInput(f"{text!r} is in the home folder of nobody") from None
