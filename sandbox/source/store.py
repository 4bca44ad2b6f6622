"""Reading a repository's objects through a git folder of our own, whose configuration nobody else writes."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from sandbox.model.errors import OperationFailed
from sandbox.model.source import Commit
from sandbox.source.command import OBJECTS, Completed, Mode, run_git

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class ObjectStore:
    """A git folder of our own, with objects of its own or (``info/alternates``) of a repository."""

    git_dir: Path

    def run(
        self,
        arguments: Sequence[str],
        *,
        mode: Mode = OBJECTS,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        check: bool = True,
        folder: Path | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run git on it; see :func:`sandbox.source.command.run_git`."""
        variables = {**self.environment, **(environment or {})}
        return run_git(
            arguments,
            mode,
            folder=folder or self.git_dir,
            environment=variables,
            stdin=stdin,
            check=check,
            timeout=timeout,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make git use it."""
        return {"GIT_DIR": str(self.git_dir)}

    def resolve(self, expressions: Sequence[str]) -> list[str | None]:
        """The object name of each expression; None where it names nothing, or several."""
        return parse_batch_check(expressions, self.run(["cat-file", "--batch-check"], stdin=_lines(expressions)))

    def has_tree_of(self, sha: str) -> bool:
        """Whether a commit and its root tree are here."""
        return self.resolve([f"{sha}^{{tree}}"])[0] is not None

    def commit(self, sha: str, *, repo: str, ref: str, branch: str | None, pushed: bool | None) -> Commit:
        """The facts of a commit that is here."""
        raw = self.run(["cat-file", "commit", sha]).stdout
        headers, _, message = raw.partition(b"\n\n")
        encoding = _header(headers, b"encoding").decode(errors="replace") or "utf-8"
        author, _ = _person(_text(_header(headers, b"author"), encoding))
        _, committed_at = _person(_text(_header(headers, b"committer"), encoding))
        subject = " ".join(_text(message, encoding).strip().partition("\n\n")[0].split())
        return Commit(
            repo=repo,
            ref=ref,
            branch=branch,
            sha=sha,
            author=author,
            subject=subject[:500],
            committed_at=committed_at,
            pushed=pushed,
        )


def create_git_dir(place: Path, *, object_format: str = "sha1", objects_of: Path | None = None) -> ObjectStore:
    """Make an empty git folder without hooks, templates or anybody's settings.

    Args:
        object_format: ``sha1`` or ``sha256``.
        objects_of: an ``objects`` folder to read from, besides its own.
    """
    (place / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "info").mkdir(exist_ok=True)
    extension = "" if object_format == "sha1" else f"[extensions]\n\tobjectFormat = {object_format}\n"
    version = 0 if object_format == "sha1" else 1
    (place / "config").write_text(f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n{extension}")
    if objects_of is not None:
        if "\n" in str(objects_of):
            raise OperationFailed(f"the folder {str(objects_of)!r} has a line break in its name")
        (place / "objects" / "info" / "alternates").write_text(f"{objects_of}\n")
    # Last: without it, git does not see a repository.
    (place / "HEAD").write_text("ref: refs/heads/none\n")
    return ObjectStore(place)


@contextlib.contextmanager
def borrowed(objects: Path, object_format: str) -> Iterator[ObjectStore]:
    """A store in a temporary folder that reads another repository's objects."""
    with tempfile.TemporaryDirectory(prefix="sandbox-git-") as folder:
        yield create_git_dir(Path(folder) / "git", object_format=object_format, objects_of=objects)


def parse_batch_check(expressions: Sequence[str], completed: Completed) -> list[str | None]:
    """The object names in what ``cat-file --batch-check`` wrote, one for each expression."""
    lines = completed.stdout.split(b"\n")[:-1]
    if len(lines) != len(expressions):
        raise OperationFailed("git cat-file answered something else than it was asked", why=completed.stderr)
    words = [line.decode(errors="replace").split(" ") for line in lines]
    return [word[0] if len(word) == 3 and _SHA.fullmatch(word[0]) else None for word in words]


def _lines(expressions: Sequence[str]) -> bytes:
    return b"".join(expression.encode(errors="surrogateescape") + b"\n" for expression in expressions)


def _header(headers: bytes, name: bytes) -> bytes:
    for line in headers.split(b"\n"):
        if line.startswith(name + b" "):
            return line[len(name) + 1 :]
    return b""


def _text(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding, errors="replace")
    except LookupError:
        text = raw.decode(errors="replace")
    # It is printed: nothing in it may steer a terminal.
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def _person(line: str) -> tuple[str, datetime]:
    """``Name <e-mail>`` and the time of an author or committer line."""
    match = re.fullmatch(r"(.*>) (-?\d{1,12}) ([+-])(\d{2})(\d{2})", line)
    if not match:
        return line[:200], datetime.fromtimestamp(0, UTC)
    who, seconds, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        return who[:200], datetime.fromtimestamp(int(seconds), timezone(offset))
    except (ValueError, OverflowError, OSError):
        return who[:200], datetime.fromtimestamp(0, UTC)
