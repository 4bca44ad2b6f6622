"""Writing a commit's files, from its blobs: no checkout, so no hooks, filters, attributes or submodules.

A tree is somebody else's: its names may climb out (``../x``), aim at ``.git``, be links to other places, or
be so many that they never end. What is written stays below the destination; what cannot is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.source.command import OBJECTS, GitFailed, start_git
from sandbox.source.store import ObjectStore

MOST_FILES: Final = 200_000
MOST_BYTES: Final = 4 * 1024**3
_LONGEST_PATH = 4_000
_LONGEST_TARGET = 4_095
_CHUNK = 1024 * 1024

# What some file system or other takes for `.git` (git's own verify_path: NTFS short names, trailing dots and
# spaces, HFS+'s ignored characters).
_DOT_GIT = re.compile(r"\.git[. ]*|git~[0-9]+[. ]*", re.IGNORECASE)
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


@dataclass(frozen=True)
class Entry:
    """A file, symbolic link (mode 120000) or submodule (160000) of a tree."""

    mode: str
    sha: str
    size: int
    path: str

    @property
    def is_link(self) -> bool:
        return self.mode == "120000"

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"


def read_entries(store: ObjectStore, tree: str) -> list[Entry]:
    """All entries of a tree, checked.

    Raises:
        Refused: a name that would leave the tree or aim at ``.git``; more files or bytes than bounds allow.
        OperationFailed: objects are missing.
    """
    entries: list[Entry] = []
    total = 0
    arguments = ["ls-tree", "-r", "-z", "-l", "--full-tree", tree]
    with start_git(arguments, OBJECTS, folder=store.git_dir, environment=store.environment) as process:
        for record in _records(process.stdout):
            entry = _entry(record)
            _check_path(entry.path)
            entries.append(entry)
            total += entry.size
            # A few kilobytes of trees that hold each other can spell out billions of files.
            if len(entries) > MOST_FILES or total > MOST_BYTES:
                raise Refused(
                    f"the tree of {tree[:12]} is too large to deploy",
                    why=f"it has more than {MOST_FILES} files or {MOST_BYTES // 1024**3} GiB",
                )
        completed = process.finish()
    if completed.returncode != 0:
        raise _missing_objects(tree, completed.stderr)
    return entries


@contextlib.contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """A folder that is empty or not there yet, to be filled; when that fails, nothing stays in it.

    Raises:
        InvalidInput: it is not empty.
        OperationFailed: the disk says no (full, for example).
    """
    existed = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise _cannot_write(folder, error) from None
    if not is_empty:
        raise InvalidInput(f"the folder {folder} is not empty")
    try:
        yield
    except BaseException as error:
        _empty(folder, remove=not existed)
        if isinstance(error, OSError):
            raise _cannot_write(folder, error) from None
        raise


def write_tree(store: ObjectStore, entries: Sequence[Entry], destination: Path) -> None:
    """Write entries below a folder that is there and empty (:func:`fresh_folder`).

    Raises:
        Refused: a symbolic link out of the tree, or two entries in one place.
        OperationFailed: an object is missing.
        OSError: the disk says no.
    """
    _write_all(store, entries, destination.resolve())


def _write_all(store: ObjectStore, entries: Sequence[Entry], root: Path) -> None:
    made: set[str] = set()
    files = [entry for entry in entries if not entry.is_link and not entry.is_submodule]
    links = [entry for entry in entries if entry.is_link]
    for entry in entries:
        _make_folders(root, entry.path if entry.is_submodule else entry.path.rpartition("/")[0], made)
    with _blobs(store, [*files, *links]) as read_blob:
        for entry in files:
            _write_file(root, entry, read_blob(entry))
        # Links last: no file can be written through one.
        targets = {entry.path: _target(entry, read_blob(entry)) for entry in links}
    for path, target in targets.items():
        _make_link(root, path, target)
    for path, target in targets.items():
        if not Path(os.path.realpath(root / path)).is_relative_to(root):
            raise Refused(
                f"the symbolic link {path!r} leads out of the repository",
                why=f"its target is {target!r}",
                hint="replace it by the file itself",
            )


def _make_folders(root: Path, folder: str, made: set[str]) -> None:
    if folder in made:
        return
    made.add(folder)
    try:
        (root / folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise Refused(f"the tree has both a file and a folder {folder!r}") from None


def _write_file(root: Path, entry: Entry, chunks: Iterator[bytes]) -> None:
    mode = 0o755 if entry.mode == "100755" else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Plain text, not Path: with thousands of files that is a third of the time.
        descriptor = os.open(f"{root}/{entry.path}", flags, mode)
    except FileExistsError:
        raise Refused(f"the tree has two files {entry.path!r} (or names that are the same to this disk)") from None
    try:
        for chunk in chunks:
            _write_whole(descriptor, chunk)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _target(entry: Entry, chunks: Iterator[bytes]) -> str:
    target = b"".join(chunks)
    if not target or len(target) > _LONGEST_TARGET or b"\0" in target:
        raise Refused(f"the symbolic link {entry.path!r} has no possible target")
    return os.fsdecode(target)


def _make_link(root: Path, path: str, target: str) -> None:
    try:
        (root / path).symlink_to(target)
    except FileExistsError:
        raise Refused(f"the tree has a symbolic link and something else at {path!r}") from None


@contextlib.contextmanager
def _blobs(store: ObjectStore, entries: Sequence[Entry]) -> Iterator[_BlobReader]:
    stdin = b"".join(entry.sha.encode() + b"\n" for entry in entries)
    arguments = ["cat-file", "--batch", "--buffer"]
    with start_git(arguments, OBJECTS, folder=store.git_dir, environment=store.environment, stdin=stdin) as process:
        yield _BlobReader(process.stdout)
        process.finish()


class _BlobReader:
    """Reads the blobs that ``cat-file --batch`` writes, in the order they were asked for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __call__(self, entry: Entry) -> Iterator[bytes]:
        header = self._stream.readline(200).decode(errors="replace").split()
        if len(header) != 3 or header[:2] != [entry.sha, "blob"]:
            raise _missing_objects(entry.path, " ".join(header) or "git ended")
        left = int(header[2])
        while left:
            chunk = self._stream.read(min(left, _CHUNK))
            if not chunk:
                raise _missing_objects(entry.path, "git ended")
            left -= len(chunk)
            yield chunk
        self._stream.read(1)


def _records(stream: IO[bytes]) -> Iterator[bytes]:
    """The NUL-terminated records of a stream."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *records, rest = (rest + chunk).split(b"\0")
        yield from records


def _entry(record: bytes) -> Entry:
    facts, _, path = record.partition(b"\t")
    mode, _, sha, size = facts.split()
    if size == b"BAD":
        raise _missing_objects(os.fsdecode(path), f"the object {sha.decode()} is missing")
    return Entry(mode.decode(), sha.decode(), int(size) if size != b"-" else 0, os.fsdecode(path))


def _check_path(path: str) -> None:
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or _DOT_GIT.fullmatch(_HFS_IGNORED.sub("", part)):
            raise Refused(
                f"the tree has the path {path!r}, which no checkout may have",
                hint="the repository is damaged or hostile",
            )
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise Refused(f"the tree has a path of more than {_LONGEST_PATH} bytes: {path[:60]!r}…")


def _missing_objects(what: str, said: str) -> OperationFailed:
    return GitFailed(
        f"{what} cannot be read from the repository",
        why=said,
        hint="where the clone is partial or damaged: `git fetch --refetch`, or name the repository with --repo",
    )


def _cannot_write(destination: Path, error: OSError) -> OperationFailed:
    hint = "make room on that disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return OperationFailed(f"the files cannot be written to {destination}", why=error.strerror or str(error), hint=hint)


def _empty(folder: Path, *, remove: bool) -> None:
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if remove:
        shutil.rmtree(folder, ignore_errors=True)
