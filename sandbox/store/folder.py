"""A store in a folder, safe against crashes and against links that lead out of it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sandbox.model.errors import OperationFailed, Refused, SandboxError
from sandbox.store.store import Backend, NotStored, Stored

# Of files that are being written. Entries never begin with a dot, so that they are never taken for one.
_TEMPORARY = ".writing-"


class Folder(Backend):
    """Entries are files; folders come and stay."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, content: bytes | Path, *, move: bool, only_new: bool = False) -> bool:
        with self._explained("write", path):
            target = self._root / path
            # Only its owner reads a store, unless the folder was made beforehand, for more people.
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._inside(target.parent)
            temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
            try:
                _write(temporary, content, move=move)
                if only_new:
                    # Unlike a rename, a link never takes another's place.
                    os.link(temporary, target)
                else:
                    temporary.replace(target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync(target.parent)
            return True

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._explained("read", path):
            with self._opened(path) as file:
                return os.pread(file, length, offset)

    def stat(self, path: str) -> Stored | None:
        with self._explained("read", path):
            try:
                with self._opened(path) as file:
                    return _stored(path, os.fstat(file))
            except FileNotFoundError:
                return None

    def entries(self, prefix: str) -> list[Stored]:
        with self._explained("list", prefix or "it"):
            start = self._root / prefix.rpartition("/")[0]
            return [found for found in self._walk(start) if found.path.startswith(prefix)]

    def remove(self, path: str) -> bool:
        with self._explained("remove", path):
            self._inside((self._root / path).parent)
            try:
                (self._root / path).unlink()
            except FileNotFoundError:
                return False
            _sync((self._root / path).parent)
            return True

    def remove_leftovers(self, older_than: datetime) -> int:
        count = 0
        for folder, folders, files in os.walk(self._root):
            for name in [name for name in (*folders, *files) if name.startswith(_TEMPORARY)]:
                path = Path(folder) / name
                with suppress(FileNotFoundError):
                    if path.lstat().st_mtime < older_than.timestamp():
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                        count += 1
            folders[:] = [name for name in folders if not name.startswith(".")]
        return count

    def _walk(self, start: Path) -> Iterator[Stored]:
        for folder, folders, files in os.walk(start):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(folder) / name
                # What goes while we look is gone; links are nobody's entries.
                with suppress(FileNotFoundError):
                    if not name.startswith(".") and not path.is_symlink():
                        yield _stored(path.relative_to(self._root).as_posix(), path.stat())

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        self._inside((self._root / path).parent)
        file = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a file")
            yield file
        finally:
            os.close(file)

    def _inside(self, folder: Path) -> None:
        """Refuse a folder that a link takes out of the store."""
        if not folder.resolve().is_relative_to(self._root.resolve()):
            raise Refused(f"a link in {self._root} leads out of the store", why=f"{folder} is {folder.resolve()}")

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except SandboxError:
            raise
        except FileNotFoundError as error:
            raise NotStored(f"the store has no {path}", why=f"in {self._root}") from error
        except OSError as error:
            raise _explanation(error, f"cannot {verb} {path} in the store {self._root}") from error


def _explanation(error: OSError, what: str) -> SandboxError:
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperationFailed(what, why=why, hint="make room (`sandbox capture prune`), or choose another --store")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refused(what, why=why, hint="choose a store that you may write, with --store")
    if error.errno == errno.ELOOP:
        return Refused(what, why="it is a symbolic link, which no store makes")
    return OperationFailed(what, why=why)


def _write(target: Path, content: bytes | Path, *, move: bool) -> None:
    if isinstance(content, Path) and move:
        with suppress(OSError):
            content.replace(target)
    if not target.exists():
        if isinstance(content, Path):
            shutil.copyfile(content, target, follow_symlinks=True)
        else:
            target.write_bytes(content)
    _sync(target)


def _sync(path: Path) -> None:
    """Have it on the disk before anything is built on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stored(path: str, found: os.stat_result) -> Stored:
    return Stored(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
