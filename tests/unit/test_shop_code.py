"""The shop's own unit tests, on main and on every branch: they pass wherever the branch is not broken in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "examples" / "shop"
SERVICES = ("catalogue", "orders", "web")
FAILING = {("broken/test", "catalogue")}


def run_tests(service: Path) -> subprocess.CompletedProcess[str]:
    """As the built image runs them, but with this machine's Python: they need no package that it may lack."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "unittest", "discover", "-s", "tests"],
        cwd=service,
        env={**os.environ, "PYTHONPATH": str(service / "app")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("service", SERVICES)
def test_services(service: str) -> None:
    done = run_tests(SHOP / service)
    assert done.returncode == 0, done.stderr
    assert "Ran 0 tests" not in done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repositories")
    subprocess.run([str(SHOP / "make-repositories"), str(folder)], check=True, capture_output=True, timeout=120)
    return folder / "shop"


def changed_services(branch: str) -> list[str]:
    """The services whose code a branch changes."""
    names = {
        line.split(" b/", 1)[1].split("/")[0]
        for patch in (SHOP / "branches" / branch).glob("*.patch")
        for line in patch.read_text(encoding="utf-8").splitlines()
        if line.startswith("diff --git a/")
    }
    return sorted(names & set(SERVICES))


BRANCHES = sorted({str(path.parent.relative_to(SHOP / "branches")) for path in (SHOP / "branches").rglob("*.patch")})


@pytest.mark.parametrize("branch", BRANCHES)
def test_branches(branch: str, repository: Path, tmp_path: Path) -> None:
    assert changed_services(branch), "a branch changes one of the services"
    tree = tmp_path / "tree"
    git = ["git", "-C", str(repository), "worktree", "add", "--quiet", "--detach", str(tree), branch]
    subprocess.run(git, check=True, capture_output=True, timeout=60)
    for service in changed_services(branch):
        done = run_tests(tree / service)
        passed = done.returncode == 0
        assert passed is ((branch, service) not in FAILING), done.stderr
