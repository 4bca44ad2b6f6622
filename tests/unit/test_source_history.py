"""The commits between two, read from whatever repository is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.source.history import MOST, between
from tests.unit.git_repositories import Repo

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "shop")


def test_newest_first_with_author_and_subject(repo: Repo) -> None:
    good, _, bad = (repo.commit(message=message) for message in ("One", "Two\n\nwith a body", "Three"))
    found = between(good, bad, repo="https://example.com/shop", folder=repo.folder)
    assert [(c.subject, c.author) for c in found.commits] == [
        ("Three", "Dana Doe <dana@example.com>"),
        ("Two", "Dana Doe <dana@example.com>"),
    ]
    assert (found.more, found.unread) == (0, "")


def test_the_same_commit_has_nothing_between(repo: Repo) -> None:
    sha = repo.commit()
    assert between(sha, sha, repo="", folder=repo.folder).commits == ()


def test_short_names_of_commits(repo: Repo) -> None:
    good, bad = repo.commit(message="One"), repo.commit(message="Two")
    assert [c.sha for c in between(good[:8], bad[:8], repo="", folder=repo.folder).commits] == [bad]


def test_very_many_are_counted(repo: Repo) -> None:
    good = repo.commit()
    for number in range(MOST + 3):
        repo.git("commit", "-q", "--allow-empty", "-m", f"Commit {number}")
    found = between(good, repo.sha(), repo="", folder=repo.folder)
    assert (len(found.commits), found.more) == (MOST, 3)


def test_a_repository_on_this_machine_that_the_record_names(repo: Repo, home: Path) -> None:
    good, bad = repo.commit(message="One"), repo.commit(message="Two")
    assert [c.sha for c in between(good, bad, repo=str(repo.folder), folder=home).commits] == [bad]


def test_a_history_that_was_cut_is_not_told_as_if_it_were_whole(repo: Repo, tmp_path: Path) -> None:
    good = repo.commit(message="One")
    repo.commit(message="Two")
    bad = repo.commit(message="Three")
    repo.git("branch", "good", good)
    shallow = Repo.clone(f"file://{repo.folder}", tmp_path / "shallow", "--depth=1", "--no-single-branch")
    found = between(good, bad, repo="https://example.com/shop", folder=shallow.folder)
    assert found.commits == ()
    assert found.unread


@pytest.mark.parametrize(
    ("older", "newer", "said"),
    [
        ("a" * 40, "b" * 40, "https://example.com/shop is not at hand"),
        ("", "b" * 40, "not known on both sides"),
        ("--output=/tmp/x", "b" * 40, "not known on both sides"),
        ("a" * 40, "b" * 40 + "\nHEAD", "not known on both sides"),
    ],
)
def test_what_cannot_be_read_is_said(repo: Repo, older: str, newer: str, said: str) -> None:
    repo.commit()
    found = between(older, newer, repo="https://example.com/shop", folder=repo.folder)
    assert found.commits == ()
    assert said in found.unread
