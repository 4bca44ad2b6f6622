"""Real git repositories for tests, made by git itself, in a home folder without anybody's settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "Dana Doe",
    "GIT_AUTHOR_EMAIL": "dana@example.com",
    "GIT_COMMITTER_NAME": "Dana Doe",
    "GIT_COMMITTER_EMAIL": "dana@example.com",
}


class Repo:
    """A repository with a work tree."""

    def __init__(self, folder: Path, *, branch: str = "main", object_format: str = "sha1") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", f"--initial-branch={branch}", f"--object-format={object_format}")

    @classmethod
    def clone(cls, source: str | Path, folder: Path, *options: str) -> Repo:
        run_git(folder.parent, "-c", "protocol.file.allow=always", "clone", "-q", *options, str(source), str(folder))
        repo = cls.__new__(cls)
        repo.folder = folder
        return repo

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        return run_git(self.folder, *arguments, stdin=stdin)

    def write(self, path: str, content: str | bytes = "content\n") -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, path: str = "file.txt", content: str | bytes | None = None, message: str = "a commit") -> str:
        """Commit everything, after writing one file; the commit's SHA."""
        self.write(path, content if content is not None else f"{message}\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.sha()

    def sha(self, ref: str = "HEAD") -> str:
        return self.git("rev-parse", f"{ref}^{{commit}}")

    def commit_tree(self, entries: list[tuple[str, str, str]], message: str = "made by hand") -> str:
        """A commit of a tree that git's own commands would not make; (mode, sha, name) of each entry."""
        raw = b"".join(
            f"{mode} ".encode() + os.fsencode(name) + b"\0" + bytes.fromhex(sha) for mode, sha, name in entries
        )
        tree = self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
        return self.git("commit-tree", tree, "-m", message)

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)


def run_git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        env={**os.environ, **IDENTITY},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode(errors="surrogateescape").strip()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content; links as what they point to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
