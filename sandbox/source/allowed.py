"""What a commit may have run or fetched when it is exported, because the user allowed it by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.source import Commit
from sandbox.source import remote
from sandbox.source.command import OBJECTS, REFS, run_git
from sandbox.source.repository import find_repository
from sandbox.source.store import ObjectStore, borrowed
from sandbox.source.tree import Entry, read_entries, write_tree
from sandbox.source.urls import absolute_address, is_local, parse_address

Say = Callable[[str], None]


def apply_filters(
    store: ObjectStore,
    commit: Commit,
    entries: Sequence[Entry],
    destination: Path,
    allow: Iterable[str],
    *,
    storage: Path | None = None,
) -> None:
    """Run the allowed smudge filters on the written files that ``.gitattributes`` gives to them.

    The command is the user's own (``git config --global filter.NAME.smudge``), never the repository's.

    Args:
        storage: git folder of the repository, where git-lfs keeps what it has.

    Raises:
        InvalidInput: an allowed filter has no command.
        OperationFailed: a filter failed.
    """
    names = {name.removeprefix("filter:") for name in allow if name.startswith("filter:")}
    files = {entry.path: entry for entry in entries if not entry.is_link and not entry.is_submodule}
    if not names or not files:
        return
    for path, name in _filtered(store, list(files), destination):
        if name in names:
            _smudge(store, commit, files[path], name, destination, storage)


def _filtered(store: ObjectStore, paths: list[str], destination: Path) -> list[tuple[str, str]]:
    """The files with a filter attribute, and its name. Attributes are read from the written files."""
    stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
    answer = run_git(
        ["check-attr", "-z", "--stdin", "filter"],
        OBJECTS,
        folder=destination,
        environment=_placed(store, destination),
        stdin=stdin,
    ).stdout
    fields = [os.fsdecode(field) for field in answer.split(b"\0")[:-1]]
    return [
        (path, value)
        for path, _, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True)
        if value not in ("unspecified", "set", "unset")
    ]


def _placed(store: ObjectStore, destination: Path) -> dict[str, str]:
    return {**store.environment, "GIT_WORK_TREE": str(destination)}


def _smudge(
    store: ObjectStore, commit: Commit, entry: Entry, name: str, destination: Path, storage: Path | None
) -> None:
    asked = run_git(["config", "--get", f"filter.{name}.smudge"], REFS, folder=Path("/"), check=False)
    if not asked.text:
        raise InvalidInput(
            f"the git filter {name} is allowed, and your git configuration has no filter.{name}.smudge",
            hint=f"install it (git config --global filter.{name}.smudge …), or do not allow filter:{name}",
        )
    settings = [f"filter.{name}.smudge={asked.text}", f"filter.{name}.required=true"]
    if storage is not None:
        settings.append(f"lfs.storage={storage / 'lfs'}")
    if not is_local(commit.repo):
        settings.append(f"remote.origin.url={commit.repo}")
    options = [option for setting in settings for option in ("-c", setting)]
    done = run_git(
        [*options, "cat-file", "--filters", f"--path={entry.path}", entry.sha],
        OBJECTS,
        folder=destination,
        environment=_placed(store, destination),
        check=False,
    )
    if done.returncode != 0:
        raise OperationFailed(f"the git filter {name} failed for {entry.path}", why=done.stderr)
    with (destination / entry.path).open("r+b") as file:
        file.write(done.stdout)
        file.truncate()


def write_submodules(
    store: ObjectStore,
    commit: Commit,
    entries: Sequence[Entry],
    destination: Path,
    allow: Iterable[str],
    say: Say,
) -> None:
    """Write the files of the allowed submodules into their folders; theirs are not looked at.

    Raises:
        InvalidInput: an allowed one is not there, or has no address.
    """
    allowed = {name.removeprefix("submodule:") for name in allow if name.startswith("submodule:")}
    for entry in entries:
        if not entry.is_submodule:
            continue
        if entry.path not in allowed:
            say(f"the submodule {entry.path} is not allowed (submodule:{entry.path}) and stays empty")
            continue
        address = parse_address(absolute_address(_submodule_url(store, commit.sha, entry.path), commit.repo))
        if address.path is None:
            source = remote.fetch_commit(address, entry.sha, say)
            write_tree(source, read_entries(source, entry.sha), destination / entry.path)
            continue
        if not is_local(commit.repo):
            raise InvalidInput(f"the submodule {entry.path} of {commit.repo} names a path of this machine")
        repository = find_repository(address.path)
        with borrowed(repository.objects, repository.object_format) as source:
            write_tree(source, read_entries(source, entry.sha), destination / entry.path)


def _submodule_url(store: ObjectStore, sha: str, path: str) -> str:
    listed = store.run(
        ["config", "--null", f"--blob={sha}:.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$"], check=False
    ).text
    values = dict(entry.partition("\n")[::2] for entry in listed.split("\0") if entry)
    for key, value in values.items():
        if key.endswith(".path") and value == path:
            url = values.get(f"{key.removesuffix('.path')}.url")
            if url:
                return url
    raise InvalidInput(f".gitmodules has no address for the submodule {path}")
