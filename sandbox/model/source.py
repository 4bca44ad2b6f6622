"""A commit, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Commit:
    """One commit of one repository, and what was asked for to get it.

    Attributes:
        repo: remote URL without credentials, or the repository's folder where it has no remote.
        ref: what the user asked for (branch, tag, SHA, expression), or the current branch.
        branch: the branch's short name when the ref is one, else None (a detached HEAD, a tag, a SHA).
        sha: all 40 (or 64) hexadecimal digits.
        author: ``Name <e-mail>``.
        committed_at: aware time.
        pushed: whether a remote-tracking branch or tag contains it; None where that is unknown.
        dirty: whether the tree that is deployed differs from the commit (``--dirty``).
        patch: the difference, as ``git diff --binary`` writes it, of a dirty tree; untracked files included.
        changed_files: paths that differ from the commit in the working tree, dirty deployment or not.
    """

    repo: str
    ref: str
    branch: str | None
    sha: str
    author: str
    subject: str
    committed_at: datetime
    pushed: bool | None = None
    dirty: bool = False
    patch: bytes | None = None
    changed_files: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        return self.sha[:12]
