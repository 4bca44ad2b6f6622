"""A store behind any other URL that fsspec knows (``s3://``, ``gs://``, ``abfs://``, ``sftp://`` …)."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput, Refused, SandboxError, Unreachable
from sandbox.store.addressed import OBJECT_STORES, Addressed
from sandbox.store.store import Stored

_TEMPORARY = ".writing-"


class Remote(Addressed):
    """Entries are fsspec's files below the URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._fs: Any = None
        self._root = ""

    def put(self, path: str, content: bytes | Path, *, move: bool, only_new: bool = False) -> bool:
        with self._explained("write", path):
            fs, target = self._at(path)
            if self._parts.scheme in OBJECT_STORES:
                _upload(fs, target, content)
                return True
            parent = target.rpartition("/")[0]
            fs.makedirs(parent, exist_ok=True)
            temporary = f"{parent}/{_TEMPORARY}{uuid.uuid4().hex}"
            try:
                _upload(fs, temporary, content)
                fs.mv(temporary, target)
            except BaseException:
                with suppress(Exception):
                    fs.rm_file(temporary)
                raise
            return True

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._explained("read", path):
            fs, target = self._at(path)
            try:
                return bytes(fs.cat_file(target, start=offset, end=offset + length))
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:
                # Object stores answer a range behind the end with an error (416) instead of nothing.
                if offset >= int(fs.info(target)["size"]):
                    return b""
                raise

    def stat(self, path: str) -> Stored | None:
        with self._explained("read", path):
            fs, target = self._at(path)
            # A process that writes and one that reads must not see each other's past.
            fs.invalidate_cache()
            try:
                return self._stored(fs.info(target))
            except FileNotFoundError:
                return None

    def entries(self, prefix: str) -> list[Stored]:
        with self._explained("list", prefix or "it"):
            fs, _ = self._at("")
            folder = prefix.rpartition("/")[0]
            fs.invalidate_cache()
            try:
                found = fs.find(f"{self._root}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
            stored = [self._stored(info) for info in found.values() if info.get("type", "file") == "file"]
            return [entry for entry in stored if entry.path.startswith(prefix) and not _is_temporary(entry.path)]

    def remove(self, path: str) -> bool:
        with self._explained("remove", path):
            fs, target = self._at(path)
            fs.invalidate_cache()
            try:
                fs.info(target)
                fs.rm_file(target)
            except FileNotFoundError:
                return False
            return True

    def remove_leftovers(self, older_than: datetime) -> int:
        if self._parts.scheme in OBJECT_STORES:
            return 0
        count = 0
        with self._explained("clean", "it"):
            fs, _ = self._at("")
            for info in fs.find(self._root, detail=True).values():
                entry = self._stored(info)
                old = entry.modified is not None and entry.modified < older_than
                if old and _is_temporary(entry.path):
                    fs.rm_file(f"{self._root}/{entry.path}")
                    count += 1
        return count

    def _at(self, path: str) -> tuple[Any, str]:
        if self._fs is None:
            from fsspec.core import url_to_fs

            try:
                # skip_instance_cache: instances are bound to the event loop they were made in.
                self._fs, root = url_to_fs(self._url, skip_instance_cache=True, use_listings_cache=False)
            except ImportError as error:
                raise InvalidInput(
                    f"stores at {self._parts.scheme}:// need a package that is not installed", why=str(error)
                ) from error
            self._root = root.rstrip("/")
        return self._fs, f"{self._root}/{path}"

    def _stored(self, info: dict[str, Any]) -> Stored:
        name = str(info["name"]).removeprefix(self._root).lstrip("/")
        return Stored(name, int(info.get("size") or 0), _modified(info))

    def _told(self, what: str, error: Exception) -> SandboxError | None:
        if isinstance(error, FileNotFoundError):
            return None
        if isinstance(error, PermissionError):
            return Refused(what, why=str(error), hint="which credentials are used, and may they do this?")
        # Each of fsspec's file systems raises its own library's errors.
        return Unreachable(what, why=f"{type(error).__name__}: {error}"[:500])


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(_TEMPORARY)


def _upload(fs: Any, target: str, content: bytes | Path) -> None:
    if isinstance(content, Path):
        fs.put_file(str(content), target)
    else:
        fs.pipe_file(target, content)


def _modified(info: dict[str, Any]) -> datetime | None:
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
