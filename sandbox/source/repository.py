"""A repository on this machine: where it is, its refs, its branches. Read only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sandbox.model.errors import InvalidInput
from sandbox.model.source import Commit
from sandbox.source.command import REFS, Completed, GitFailed, run_git
from sandbox.source.refs import check_ref, is_plain_name, unknown_ref
from sandbox.source.store import borrowed, parse_batch_check
from sandbox.source.urls import public_address

Say = Callable[[str], None]


@dataclass(frozen=True)
class Repository:
    """Where a repository is.

    Attributes:
        root: of the work tree; None for a bare one.
        git_dir: of this work tree (``.git``, or ``.git/worktrees/…``).
        common_dir: what all its work trees share.
        object_format: ``sha1`` or ``sha256``.
        is_shallow: its history was cut when it was cloned.
    """

    root: Path | None
    git_dir: Path
    common_dir: Path
    object_format: str
    is_shallow: bool

    @property
    def objects(self) -> Path:
        return self.common_dir / "objects"

    @property
    def address(self) -> str:
        """Its folder, where it has no remote."""
        return str(self.root or self.git_dir)

    @cached_property
    def configuration(self) -> Sequence[tuple[str, str | None]]:
        """Keys (``remote.*.url`` and ``core.*``, in lower case where git's are) and values, as they follow each other.

        None stands for a key without a value.
        """
        listed = self.run("config", "--null", "--get-regexp", r"^(remote\..*\.url|core\.[^.]*)$", check=False)
        entries = (entry.partition("\n") for entry in listed.text.split("\0") if entry)
        return [(key, value if separator else None) for key, separator, value in entries]

    def run(self, *arguments: str, stdin: bytes = b"", check: bool = True, timeout: float | None = None) -> Completed:
        """Run a git command that only reads refs and objects."""
        variables = {"GIT_DIR": str(self.git_dir)}
        folder = self.root or self.git_dir
        return run_git(arguments, REFS, folder=folder, environment=variables, stdin=stdin, check=check, timeout=timeout)


def find_repository(folder: Path) -> Repository:
    """The repository that a folder is in.

    Raises:
        InvalidInput: it is in none, git does not trust its owner, or its configuration puts the work tree elsewhere.
    """
    if not folder.is_dir():
        raise InvalidInput(f"the folder {folder} does not exist")
    facts = ["--git-dir", "--git-common-dir", "--show-object-format", "--is-shallow-repository"]
    # The last fails where there is no work tree.
    asked = ["rev-parse", "--path-format=absolute", *facts, "--show-toplevel"]
    found = run_git(asked, REFS, folder=folder, check=False)
    if found.returncode != 0:
        found = run_git(asked[:-1], REFS, folder=folder, check=False)
    if found.returncode != 0:
        raise _not_a_repository(folder, found.stderr)
    git_dir, common_dir, object_format, shallow, *told = found.text.split("\n")[:5]
    root = None
    if told:
        root = _work_tree(folder)
        # With core.worktree, a hostile repository could pass the user's home off as its own files.
        if Path(told[0]).resolve() != root:
            raise InvalidInput(
                f"the repository in {root} says that its work tree is elsewhere",
                why=f"core.worktree is {told[0]}",
                hint="remove core.worktree from its configuration, or name the repository with --repo",
            )
    return Repository(root, Path(git_dir), Path(common_dir), object_format, shallow == "true")


def _work_tree(folder: Path) -> Path:
    for place in (folder.resolve(), *folder.resolve().parents):
        if (place / ".git").exists():
            return place
    raise InvalidInput(f"{folder} is in a git repository without a work tree", hint="name it with --repo")


def _not_a_repository(folder: Path, said: str) -> InvalidInput:
    if "dubious ownership" in said:
        match = re.search(r"safe\.directory (.+)$", said, re.MULTILINE)
        place = match[1].strip() if match else str(folder)
        return InvalidInput(
            f"git does not trust the repository in {folder}",
            why=said,
            hint=f"if you do: git config --global --add safe.directory {place}",
        )
    if "not a git repository" in said:
        return InvalidInput(
            f"{folder} is not in a git repository", why=said, hint="run it in a clone, or name a repository with --repo"
        )
    return InvalidInput(f"the git repository of {folder} cannot be read", why=said)


def head_branch(repository: Repository) -> str | None:
    """The branch that is checked out; None where HEAD is detached."""
    name = repository.run("symbolic-ref", "--quiet", "HEAD", check=False).text
    return name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None


def remote_address(repository: Repository) -> str | None:
    """The address of ``origin``, or of the only (else first) remote, without credentials; None without remotes."""
    remotes: dict[str, str] = {}
    for key, value in repository.configuration:
        if value and key.startswith("remote."):
            remotes.setdefault(key.removeprefix("remote.").removesuffix(".url"), value)
    if not remotes:
        return None
    address = remotes.get("origin") or next(iter(remotes.values()))
    return public_address(address, repository.root or repository.git_dir)


def branch_names(repository: Repository) -> list[str]:
    """Local branches, then remote-tracking ones (``origin/x``), each by name."""
    listed = repository.run("for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes").text.splitlines()
    local = [name.removeprefix("refs/heads/") for name in listed if name.startswith("refs/heads/")]
    tracking = [name.removeprefix("refs/remotes/") for name in listed if name.startswith("refs/remotes/")]
    return [*sorted(local), *sorted(name for name in tracking if not name.endswith("/HEAD"))]


def tag_names(repository: Repository) -> list[str]:
    """All tags, by name."""
    listed = repository.run("for-each-ref", "--format=%(refname)", "refs/tags").text.splitlines()
    return sorted(name.removeprefix("refs/tags/") for name in listed)


def resolve_in(repository: Repository, ref: str | None, say: Say) -> Commit:
    """Resolve a ref in a repository on this machine; None means what is checked out.

    A branch wins over a tag of the same name, a local branch over a remote-tracking one.

    Raises:
        InvalidInput: the ref names no commit (near names are told), or there is no commit at all.
    """
    branch = head_branch(repository)
    if ref is None:
        sha = _resolve(repository, ["HEAD^{commit}"])[0]
        if sha is None:
            raise InvalidInput(
                f"the repository in {repository.address} has no commit" + (f" on {branch}" if branch else ""),
                hint="commit something first",
            )
        return _commit(repository, sha, branch or sha[:12], branch)
    check_ref(ref)
    sha, name = _find(repository, ref, say)
    return _commit(repository, sha, ref, name)


def _find(repository: Repository, ref: str, say: Say) -> tuple[str, str | None]:
    """The commit, and the branch's short name where the ref is one."""
    places = [f"refs/heads/{ref}", f"refs/tags/{ref}", ref, f"refs/remotes/{ref}", f"refs/remotes/origin/{ref}"]
    plain = is_plain_name(ref)
    # `:/text` takes all that follows for its text, and always means a commit.
    expressions = [place if place.startswith(":/") else f"{place}^{{commit}}" for place in places]
    head, tag, as_git, tracking, origin = _resolve(repository, expressions)
    if head is not None and tag is not None and tag != head:
        say(f"{ref} is a branch and a tag: the branch is taken (the tag is refs/tags/{ref})")
    if head is not None:
        return head, ref if plain else None
    if tag is not None:
        return tag, None
    if tracking is not None:
        return tracking, ref.partition("/")[2] if plain else None
    if as_git is not None:
        is_branch = plain and ref.startswith("refs/heads/")
        return as_git, ref.removeprefix("refs/heads/") if is_branch else None
    if origin is not None:
        say(f"there is no local branch {ref}: origin/{ref} is taken, as it was last fetched")
        return origin, ref if plain else None
    asked = repository.run("rev-parse", "--verify", f"{ref}^{{commit}}", check=False).stderr
    if "ambiguous" in asked:
        raise InvalidInput(f"{ref!r} names several objects", why=asked, hint="write more of the SHA")
    known = [*branch_names(repository), *tag_names(repository)]
    fetch = "`git fetch` brings what is new"
    more = "; this clone is shallow, `git fetch --unshallow` brings its history" if repository.is_shallow else ""
    raise unknown_ref(ref, repository.address, known, hint=fetch + more)


def _resolve(repository: Repository, expressions: list[str]) -> list[str | None]:
    stdin = b"".join(expression.encode(errors="surrogateescape") + b"\n" for expression in expressions)
    return parse_batch_check(expressions, repository.run("cat-file", "--batch-check", stdin=stdin))


def _commit(repository: Repository, sha: str, ref: str, branch: str | None) -> Commit:
    remote = remote_address(repository)
    with borrowed(repository.objects, repository.object_format) as store:
        return store.commit(
            sha, repo=remote or repository.address, ref=ref, branch=branch, pushed=_is_pushed(repository, sha)
        )


def _is_pushed(repository: Repository, sha: str) -> bool | None:
    """Whether a remote-tracking branch (or, with remotes, a tag) holds the commit; None without any."""
    tracking = repository.run("for-each-ref", "--count=1", "--format=%(refname)", "refs/remotes").text
    if not tracking:
        return None
    try:
        holding = repository.run(
            "for-each-ref", "--count=1", "--format=%(refname)", f"--contains={sha}", "refs/remotes", "refs/tags",
            timeout=20,
        )  # fmt: skip
    except GitFailed:
        # A very long history; it is a mark in the record, not worth more waiting.
        return None
    return bool(holding.text)
