"""examples/shop/make-repositories: the same commits everywhere, and nobody's work lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "examples" / "shop"
REPOSITORIES = {"shop", "catalogue", "data", "orders", "web"}
BRANCHES = {
    "broken/chart",
    "broken/crash",
    "broken/image",
    "broken/migration",
    "broken/migration-data",
    "broken/pair",
    "broken/pull",
    "broken/quota",
    "broken/readiness",
    "broken/smoke",
    "broken/smoke-redis",
    "broken/test",
    "feature/banner",
    "feature/order-notes",
    "main",
}


def make_repositories(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SHOP / "make-repositories"), str(folder), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def branches(folder: Path) -> dict[str, str]:
    lines = git(folder, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def all_branches(folder: Path) -> dict[str, dict[str, str]]:
    return {name: branches(folder / name) for name in sorted(REPOSITORIES)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repositories")
    done = make_repositories(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_all_repositories_and_branches(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == REPOSITORIES
    assert set(branches(made / "shop")) == BRANCHES
    assert set(branches(made / "catalogue")) == {"main", "broken/readiness", "broken/test"}
    assert {"main", "feature/banner", "broken/pair"} <= set(branches(made / "web"))
    assert {"main", "broken/crash", "broken/migration", "broken/pair"} <= set(branches(made / "orders"))


def test_working_tree_is_clean_and_on_main(made: Path) -> None:
    for name in REPOSITORIES:
        assert git(made / name, "status", "--porcelain", "--branch") == "## main\n"


def test_history_is_believable(made: Path) -> None:
    log = git(made / "shop", "log", "--format=%an <%ae>|%cn <%ce>|%s", "--all").splitlines()
    assert {author for line in log for author in line.split("|")[:2]} == {"Shop Example <shop@example.com>"}
    subjects = [line.split("|")[2] for line in log]
    assert len(subjects) == len(set(subjects))
    assert all(subject[0].isupper() and len(subject) <= 72 for subject in subjects)
    assert len(git(made / "shop", "log", "--oneline", "main").splitlines()) >= 10


def test_every_service_is_the_same_in_its_own_repository(made: Path) -> None:
    for name in REPOSITORIES - {"shop"}:
        for branch in branches(made / name):
            own_tree = git(made / name, "rev-parse", f"{branch}^{{tree}}")
            assert own_tree == git(made / "shop", "rev-parse", f"{branch}:{name}")


def test_same_commits_whatever_the_user_s_configuration(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Somebody\n\temail = somebody@example.org\n"
        "[core]\n\tautocrlf = true\n\tfileMode = false\n[init]\n\tdefaultBranch = trunk\n[commit]\n\tgpgSign = true\n"
    )
    done = make_repositories(
        tmp_path / "again", HOME=str(home), TZ="Asia/Tokyo", LANG="de_DE.UTF-8", GIT_AUTHOR_NAME="Somebody"
    )
    assert done.returncode == 0, done.stderr
    assert all_branches(tmp_path / "again") == all_branches(made)


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """Repositories that the test may change."""
    shutil.copytree(made, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def test_again_changes_nothing(own: Path) -> None:
    before = (own / "shop").stat().st_ino
    first = make_repositories(own)
    assert first.returncode == 0
    assert (own / "shop").stat().st_ino == before


def commit_something(shop: Path) -> None:
    (shop / "note.txt").write_text("mine\n")
    git(shop, "add", "note.txt")
    git(shop, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-q", "-m", "Mine")


def change_something(shop: Path) -> None:
    (shop / "README.md").write_text("mine\n")


def make_a_branch(shop: Path) -> None:
    git(shop, "branch", "mine")


@pytest.mark.parametrize("work", [commit_something, change_something, make_a_branch])
def test_work_of_others_is_not_lost(own: Path, work: Callable[[Path], None]) -> None:
    work(own / "shop")
    marker = own / "shop" / ".git" / "shop-example.json"
    # as if the shop's files had changed since the repositories were made
    marker.write_text(marker.read_text().replace('"made_from": "', '"made_from": "older-'))
    refused = make_repositories(own)
    assert refused.returncode == 1
    assert "holds" in refused.stderr
    assert "--force" in refused.stderr
    forced = make_repositories(own, "--force")
    assert forced.returncode == 0, forced.stderr
    assert set(branches(own / "shop")) == BRANCHES
    assert git(own / "shop", "status", "--porcelain") == ""


def test_older_ones_are_made_anew(own: Path) -> None:
    before = branches(own / "web")
    marker = own / "web" / ".git" / "shop-example.json"
    marker.write_text(marker.read_text().replace('"made_from": "', '"made_from": "older-'))
    assert make_repositories(own).returncode == 0
    assert "older-" not in marker.read_text()
    assert branches(own / "web") == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine\n")
    refused = make_repositories(tmp_path)
    assert refused.returncode == 1
    assert "was not made by this script" in refused.stderr
    assert (tmp_path / "shop" / "mine.txt").read_text() == "mine\n"
