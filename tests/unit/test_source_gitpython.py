"""What we read off a repository, held against what GitPython, an independent reader of git's objects, says of it."""

from pathlib import Path

import git as gitpython
import pytest

from sandbox.source import git
from tests.unit.git_repositories import Repo

BINARY = bytes(range(256)) * 40


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.commit("README.md", "one\n", "First")
    made.commit("charts/web/Chart.yaml", "name: web\n", "Add a chart")
    made.git("tag", "-a", "v1", "-m", "annotated")
    made.commit("logo.png", BINARY, "Add a logo")
    made.write("run", "#!/bin/sh\n").chmod(0o755)
    made.git("add", "-A")
    made.git("commit", "-q", "-m", "Add a script")
    made.git("branch", "feature/x", "HEAD~1")
    return made


@pytest.mark.parametrize("ref", ["main", "feature/x", "v1", "HEAD~2", "HEAD^", "heads/main"])
def test_refs_mean_what_gitpython_says(repo: Repo, ref: str) -> None:
    found = git.resolve(repo.folder, ref)
    expected = gitpython.Repo(repo.folder).commit(ref)
    assert found.sha == expected.hexsha
    assert found.author == f"{expected.author.name} <{expected.author.email}>"
    assert found.subject == expected.summary
    assert found.committed_at == expected.committed_datetime


def test_an_export_holds_the_blobs_that_gitpython_reads(repo: Repo, tmp_path: Path) -> None:
    commit = git.resolve(repo.folder, None)
    git.export(commit, repo.folder, tmp_path / "tree")
    blobs = [item for item in gitpython.Repo(repo.folder).commit().tree.traverse() if isinstance(item, gitpython.Blob)]
    exported = {str(path.relative_to(tmp_path / "tree")) for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert exported == {str(blob.path) for blob in blobs}
    for blob in blobs:
        file = tmp_path / "tree" / blob.path
        assert file.read_bytes() == blob.data_stream.read()
        assert bool(file.stat().st_mode & 0o111) == (blob.mode == gitpython.Blob.executable_mode)
