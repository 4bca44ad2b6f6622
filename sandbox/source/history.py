"""The commits between two, where a repository that holds both is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import SandboxError
from sandbox.model.source import Commit
from sandbox.source.remote import cache_folder, cache_of
from sandbox.source.repository import Repository, find_repository
from sandbox.source.store import ObjectStore, borrowed
from sandbox.source.urls import is_local, parse_address

MOST = 50


@dataclass(frozen=True)
class History:
    """What lies between two commits.

    Attributes:
        commits: newest first, at most :data:`MOST`.
        more: how many others there are.
        unread: why nothing is known; empty: it is.
    """

    commits: tuple[Commit, ...] = ()
    more: int = 0
    unread: str = ""


def between(older: str, newer: str, *, repo: str, folder: Path) -> History:
    """The commits that lead to one commit and not to another.

    Nothing is fetched: asked are the repository around a folder, the one of the address where that is on this
    machine, and what was fetched from there before.

    Args:
        older, newer: SHAs; equal ones have nothing between them.
        repo: address, as a lock has it.
    """
    if not older or not newer:
        return History(unread="its commit is not known on both sides")
    if older == newer:
        return History()
    for store in _at_hand(repo, folder):
        with store as objects:
            if objects.has_tree_of(older) and objects.has_tree_of(newer):
                return _between(objects, older, newer, repo)
    return History(unread=f"{repo or 'its repository'} is not at hand with {older[:12]} and {newer[:12]}")


def _between(objects: ObjectStore, older: str, newer: str, repo: str) -> History:
    listed = objects.run(["rev-list", newer, f"^{older}"], check=False)
    if listed.returncode != 0:
        return History(unread=listed.stderr or "git cannot list them")
    shas = listed.text.split()
    found = (objects.commit(sha, repo=repo, ref=sha[:12], branch=None, pushed=None) for sha in shas[:MOST])
    return History(tuple(found), max(0, len(shas) - MOST))


class _Borrowed:
    """A repository of somebody's, read through a git folder of our own."""

    def __init__(self, repository: Repository) -> None:
        self._context = borrowed(repository.objects, repository.object_format)

    def __enter__(self) -> ObjectStore:
        return self._context.__enter__()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


class _Cached:
    """What was fetched before."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __enter__(self) -> ObjectStore:
        return self._store

    def __exit__(self, *error: object) -> None:
        pass


def _at_hand(repo: str, folder: Path) -> Iterator[_Borrowed | _Cached]:
    local = [Path(repo.removeprefix("file://"))] if repo and is_local(repo) else []
    for place in (folder, *local):
        try:
            yield _Borrowed(find_repository(place))
        except SandboxError:
            continue
    if repo and cache_folder().is_dir():
        try:
            yield _Cached(cache_of(parse_address(repo)))
        except SandboxError:
            return
