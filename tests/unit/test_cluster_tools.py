"""cluster/tools.py: a program is asked for its version again only when it may have changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sandbox.cluster import tools


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the programs that were run."""
    names: list[str] = []
    ask = tools._ask

    def noting(paths: dict[str, Path]) -> dict[str, str]:
        names.extend(paths)
        return ask(paths)

    monkeypatch.setattr(tools, "_ask", noting)
    return names


def test_a_binary_is_asked_once_and_again_when_it_changes(tmp_path: Path, asked: list[str]) -> None:
    git = tmp_path / "git"
    shutil.copy(str(shutil.which("git")), git)
    first = tools.versions_of({"git": git})
    assert first["git"].count(".") >= 1
    assert tools.versions_of({"git": git}) == first
    assert asked == ["git"]
    git.unlink()
    shutil.copy(str(shutil.which("git")), git)
    assert tools.versions_of({"git": git}) == first
    assert asked == ["git", "git"]


@pytest.mark.parametrize("shim", ["script", "link"])
def test_what_may_start_another_program_is_always_asked(tmp_path: Path, asked: list[str], shim: str) -> None:
    helm = tmp_path / "helm"
    if shim == "script":
        helm.write_text("#!/bin/sh\necho v4.3.1\n")
        helm.chmod(0o755)
    else:
        # Version switchers link each name to the one program that they are.
        (tmp_path / "switch").write_bytes(Path(str(shutil.which("git"))).read_bytes())
        (tmp_path / "switch").chmod(0o755)
        helm.symlink_to(tmp_path / "switch")
    for _ in range(2):
        assert "helm" in tools.versions_of({"helm": helm})
    assert asked == ["helm", "helm"]


def test_a_broken_cache_is_no_cache(tmp_path: Path, asked: list[str]) -> None:
    git = Path(str(shutil.which("git")))
    told = tools.versions_of({"git": git})
    (tmp_path / "cache" / "sandbox" / "tool-versions.json").write_text('["no", "mapping"')
    assert tools.versions_of({"git": git}) == told
    assert asked == ["git", "git"]


def test_a_program_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    broken = tmp_path / "helm"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    assert tools.versions_of({"helm": broken}) == {}
