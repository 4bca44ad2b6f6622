"""A work tree as it is, changes and untracked files included, as a git tree in a store of our own.

Nothing is written to the repository, and no filter of its configuration runs: `git status` and `git diff`
would run its clean filters and fsmonitor. The index is copied, so that unchanged files are not read again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.model.errors import Refused
from sandbox.source.command import OBJECTS, REFS, run_git
from sandbox.source.repository import Repository
from sandbox.source.store import ObjectStore, create_git_dir

# What differs from the commit and would go into a patch; a record holds far less.
MOST_CHANGED_BYTES: Final = 256 * 1024**2
MOST_PATCH_BYTES: Final = 64 * 1024**2
_LARGEST_INDEX = 512 * 1024**2
# Settings about the files themselves; none of them can run anything.
_FILE_SETTINGS = (
    "core.fileMode",
    "core.autocrlf",
    "core.eol",
    "core.symlinks",
    "core.ignoreCase",
    "core.precomposeUnicode",
)


@dataclass(frozen=True)
class WorkTree:
    """A repository's work tree, looked at through a store of our own with a copy of its index."""

    repository: Repository
    store: ObjectStore
    root: Path
    settings: tuple[str, ...]

    def changed_files(self, commit: str) -> tuple[str, ...]:
        """Paths that differ from a commit, staged or not, and untracked ones that are not ignored."""
        staged = self._list("diff-index", "--cached", "--name-only", "-z", "--no-renames", commit)
        return tuple(sorted({*staged, *self._unstaged()}))

    def tree(self) -> str:
        """Write the work tree's files as a tree; its name.

        Raises:
            Refused: a merge is not finished, or what has changed is too large.
        """
        unmerged = sorted({path.partition("\t")[2] for path in self._list("ls-files", "-u", "-z")})
        if unmerged:
            raise Refused(
                "the work tree is in the middle of a merge",
                why=f"not resolved: {', '.join(unmerged[:8])}",
                hint="resolve and commit it, or leave --dirty out",
            )
        changed = self._unstaged()
        self._check_size(changed)
        paths = b"".join(os.fsencode(path) + b"\0" for path in changed)
        self._run("update-index", "-z", "--add", "--remove", "--stdin", stdin=paths)
        return self._run("write-tree").decode().strip()

    def patch(self, commit: str, tree: str) -> bytes:
        """What leads from a commit to a tree, as ``git diff --binary`` writes it; ``git apply`` takes it.

        Raises:
            Refused: it is too large.
        """
        patch = self._run(
            "diff-tree",
            "-p",
            "--binary",
            "--full-index",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            commit,
            tree,
        )
        if len(patch) > MOST_PATCH_BYTES:
            raise Refused(
                f"the difference from the commit is {len(patch) // 1024**2} MiB large",
                why=f"a dirty tree is recorded as its patch, of at most {MOST_PATCH_BYTES // 1024**2} MiB",
                hint="commit large files, or add them to .gitignore",
            )
        return patch

    def _unstaged(self) -> list[str]:
        modified = self._list("diff-files", "--name-only", "-z", "--no-renames")
        untracked = self._list("ls-files", "-z", "--others", "--exclude-standard")
        # A path that ends in a slash is another repository inside this one: a submodule to be, not files.
        found = {*modified, *(path for path in untracked if not path.endswith("/"))}
        return sorted(found - self._submodules()) if found else []

    def _submodules(self) -> set[str]:
        listed = (entry.partition("\t") for entry in self._list("ls-files", "-s", "-z"))
        return {path for facts, _, path in listed if facts.startswith("160000 ")}

    def _check_size(self, paths: Sequence[str]) -> None:
        sizes = {path: _size(self.root / path) for path in paths}
        if sum(sizes.values()) > MOST_CHANGED_BYTES:
            largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
            said = ", ".join(f"{path} ({sizes[path] // 1024**2} MiB)" for path in largest)
            raise Refused(
                f"what differs from the commit is {sum(sizes.values()) // 1024**2} MiB large",
                why=f"the largest are {said}",
                hint="commit it, or add what is no source to .gitignore",
            )

    def _list(self, *arguments: str) -> list[str]:
        return [os.fsdecode(path) for path in self._run(*arguments).split(b"\0") if path]

    def _run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        options = [option for setting in self.settings for option in ("-c", setting)]
        variables = {**self.store.environment, "GIT_WORK_TREE": str(self.root)}
        return run_git([*options, *arguments], OBJECTS, folder=self.root, environment=variables, stdin=stdin).stdout


@contextlib.contextmanager
def work_tree(repository: Repository) -> Iterator[WorkTree]:
    """The work tree of a repository that has one."""
    assert repository.root is not None
    with tempfile.TemporaryDirectory(prefix="sandbox-git-") as folder:
        store = create_git_dir(
            Path(folder) / "git", object_format=repository.object_format, objects_of=repository.objects
        )
        for name in ("exclude", "attributes", "sparse-checkout"):
            _copy(repository.common_dir / "info" / name, store.git_dir / "info" / name)
        tree = WorkTree(repository, store, repository.root, tuple(_settings(repository)))
        _bring_index(tree)
        yield tree


def _bring_index(tree: WorkTree) -> None:
    index = tree.store.git_dir / "index"
    for shared in tree.repository.git_dir.glob("sharedindex.*"):
        _copy(shared, tree.store.git_dir / shared.name)
    copied = _copy(tree.repository.git_dir / "index", index)
    # Tells apart what changed from what was only touched; --ignore-submodules: theirs is not looked into.
    refresh = ["update-index", "-q", "--refresh", "--unmerged", "--ignore-submodules"]
    variables = {**tree.store.environment, "GIT_WORK_TREE": str(tree.root)}
    if copied and _refresh(refresh, tree, variables) in (0, 1):
        return
    index.unlink(missing_ok=True)
    head = tree.repository.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).text
    if head:
        run_git(["read-tree", head], OBJECTS, folder=tree.root, environment=variables)
        _refresh(refresh, tree, variables)


def _refresh(arguments: Sequence[str], tree: WorkTree, variables: dict[str, str]) -> int:
    """Its exit code: 1 says that something needs an update, which is no failure."""
    options = [option for setting in tree.settings for option in ("-c", setting)]
    return run_git([*options, *arguments], OBJECTS, folder=tree.root, environment=variables, check=False).returncode


def _settings(repository: Repository) -> Iterator[str]:
    # The last one counts, as for git; a key without a value stands for true.
    found = {key: "true" if value is None else value for key, value in repository.configuration}
    for name in _FILE_SETTINGS:
        value = found.get(name.lower())
        if value and "\n" not in value:
            yield f"{name}={value}"
    # The user's own list of what is never to be committed; the repository's could be any file.
    excludes = run_git(
        ["config", "--global", "--type=path", "--get", "core.excludesFile"], REFS, folder=Path("/"), check=False
    )
    if excludes.text:
        yield f"core.excludesFile={excludes.text}"


def _copy(source: Path, target: Path) -> bool:
    """Copy a file that is a regular one of bearable size."""
    try:
        facts = source.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LARGEST_INDEX:
        return False
    shutil.copyfile(source, target)
    # By the index' own time git knows which files may have changed unnoticed in the second in which it was written.
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return True


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
