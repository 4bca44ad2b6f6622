"""The commits between two, where a repository that holds both is at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import SandboxError
from sandbox.model.source import Commit
from sandbox.source.repository import Repository, find_repository
from sandbox.source.store import ObjectStore, borrowed
from sandbox.source.urls import is_local

MOST = 50
_SHA = re.compile(r"[0-9a-f]{7,64}")


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

    Nothing is fetched: asked are the repository around a folder, and the one of the address where that is on this
    machine.

    Args:
        older, newer: SHAs, short ones too; equal ones have nothing between them.
        repo: address, as a lock has it.
    """
    # What a capture says is not trusted: it becomes git's argument.
    if not (_SHA.fullmatch(older) and _SHA.fullmatch(newer)):
        return History(unread="its commit is not known on both sides")
    if older == newer:
        return History()
    for repository in _at_hand(repo, folder):
        with borrowed(repository.objects, repository.object_format) as objects:
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


def _at_hand(repo: str, folder: Path) -> Iterator[Repository]:
    local = [Path(repo.removeprefix("file://"))] if repo and is_local(repo) else []
    for place in (folder, *local):
        try:
            yield find_repository(place)
        except SandboxError:
            continue
