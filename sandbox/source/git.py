"""Any ref of any repository to a commit, and a commit to files. All calls are synchronous and bounded.

Call them through :func:`sandbox.source.command.in_thread`, which ends git when the caller is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sandbox.model.errors import InvalidInput
from sandbox.model.source import Commit
from sandbox.source import remote
from sandbox.source.allowed import apply_filters, write_submodules
from sandbox.source.repository import (
    Repository,
    branch_names,
    find_repository,
    head_branch,
    resolve_in,
)
from sandbox.source.snapshot import work_tree
from sandbox.source.store import ObjectStore, borrowed
from sandbox.source.tree import fresh_folder, read_entries, write_tree
from sandbox.source.urls import parse_address

Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Says nothing."""


def resolve(folder: Path, ref: str | None, *, say: Say = _silent) -> Commit:
    """The commit that a ref means in the repository of a folder.

    Args:
        folder: anywhere in the work tree.
        ref: branch, tag, SHA, short SHA, ``HEAD~2``, ``origin/x``, ``refs/…``; None means what is checked out,
            and then ``changed_files`` says what differs from it.
        say: is told where a name means several things.

    Raises:
        InvalidInput: no repository, no commit, or a ref that names none.
    """
    return resolve_with_root(folder, ref, say=say)[1]


def resolve_with_root(folder: Path, ref: str | None, *, say: Say = _silent) -> tuple[Path, Commit]:
    """The root of the work tree that a folder is in, and the commit, as :func:`resolve`; git is asked once for both."""
    repository = _with_work_tree(folder)
    assert repository.root is not None
    commit = resolve_in(repository, ref, say)
    if ref is not None:
        return repository.root, commit
    with work_tree(repository) as tree:
        return repository.root, replace(commit, changed_files=tree.changed_files(commit.sha))


def resolve_remote(url: str, ref: str | None, *, say: Say = _silent) -> Commit:
    """The commit that a ref means in the repository at an address; what it leads to is fetched into a cache.

    A repository of this machine (a path, or ``file://``) is read where it is.

    Raises:
        InvalidInput: not an address, or a ref that names no commit.
        Refused: a transport that is not allowed.
        Unreachable: the repository cannot be read.
    """
    address = parse_address(url)
    if address.path is None:
        return remote.resolve_at(address, ref, say)
    commit = resolve_in(find_repository(address.path), ref, say)
    return replace(commit, repo=address.shown, pushed=True)


def export(
    commit: Commit,
    folder_or_url: str | Path,
    destination: Path,
    *,
    dirty: bool = False,
    allow: frozenset[str] = frozenset(),
    say: Say = _silent,
) -> Commit:
    """Write a commit's files below a folder that is empty or not there yet.

    Nothing of the repository runs: no hooks, no filters, no attributes, no submodules (their folders stay empty).

    Args:
        folder_or_url: a folder of the repository (Path), or its address (str), as it was resolved.
        dirty: write the work tree as it is instead, untracked files included.
        allow: ``filter:NAME`` (with the command of the user's own git configuration) and ``submodule:PATH``.

    Returns:
        the commit; of a dirty tree with ``dirty``, ``patch`` and ``changed_files``.

    Raises:
        Refused: the tree would write outside the folder, or is too large.
        OperationFailed: it cannot be read or written.
        InvalidInput: the folder is not empty; ``dirty`` for something that is not checked out.
    """
    address = parse_address(folder_or_url) if isinstance(folder_or_url, str) else None
    with fresh_folder(destination):
        if address is not None and address.path is None:
            if dirty:
                raise InvalidInput("only a work tree on this machine can be dirty", hint="leave --dirty or --repo out")
            store = remote.fetch_commit(address, commit.sha, say)
            _write(store, commit, destination, allow, say, storage=None)
            return commit
        repository = find_repository(address.path if address is not None and address.path else Path(folder_or_url))
        if dirty:
            return _export_work_tree(repository, commit, destination)
        with borrowed(repository.objects, repository.object_format) as store:
            _write(store, commit, destination, allow, say, storage=repository.common_dir)
        return commit


def _write(
    store: ObjectStore, commit: Commit, destination: Path, allow: frozenset[str], say: Say, *, storage: Path | None
) -> None:
    entries = read_entries(store, commit.sha)
    write_tree(store, entries, destination)
    apply_filters(store, commit, entries, destination, allow, storage=storage)
    write_submodules(store, commit, entries, destination, allow, say)


def _export_work_tree(repository: Repository, commit: Commit, destination: Path) -> Commit:
    if repository.root is None:
        raise InvalidInput("a bare repository has no work tree that could be dirty", hint="leave --dirty out")
    head = repository.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).text
    if head != commit.sha:
        raise InvalidInput(
            "--dirty deploys what is checked out, and that is another commit",
            why=f"{commit.ref} is {commit.short}, checked out is {head[:12]}",
            hint="leave --ref out, or check it out",
        )
    with work_tree(repository) as tree:
        snapshot = tree.tree()
        changed = tree.changed_files(commit.sha)
        write_tree(tree.store, read_entries(tree.store, snapshot), destination)
        if not changed:
            return replace(commit, changed_files=())
        return replace(commit, dirty=True, patch=tree.patch(commit.sha, snapshot), changed_files=changed)


def repository_root(path: Path) -> Path:
    """The root of the work tree that a path is in.

    Raises:
        InvalidInput: it is in none.
    """
    root = _with_work_tree(path if path.is_dir() else path.parent).root
    assert root is not None
    return root


def current_branch(folder: Path) -> str | None:
    """The branch that is checked out; None where HEAD is detached.

    Raises:
        InvalidInput: the folder is in no repository.
    """
    return head_branch(find_repository(folder))


def branches(folder: Path) -> list[str]:
    """Local branches, then remote-tracking ones (``origin/x``).

    Raises:
        InvalidInput: the folder is in no repository.
    """
    return branch_names(find_repository(folder))


def _with_work_tree(folder: Path) -> Repository:
    repository = find_repository(folder)
    if repository.root is None:
        raise InvalidInput(
            f"{folder} is in a git repository without a work tree",
            hint="go into a work tree, or name the repository with --repo",
        )
    return repository
