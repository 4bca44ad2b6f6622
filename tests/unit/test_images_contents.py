"""The key of an image's content."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.images.contents import Content, IgnorePatterns, content_key


@pytest.fixture
def content(tmp_path: Path) -> Content:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text("print()\n")
    return Content(tmp_path, tmp_path / "Containerfile", {"A": "1"}, "", {"base": "sha256:1"}, ("true",), "buildah")


def test_a_key_is_a_tag_and_stays_the_same(content: Content) -> None:
    key = content_key(content)
    assert re.fullmatch(r"src-[0-9a-f]{32}", key)
    (content.context / "app/main.py").touch()
    assert content_key(content) == key


@pytest.mark.parametrize(
    "change",
    [
        {"args": {"A": "2"}},
        {"args": {}},
        {"target": "x"},
        {"bases": {"base": "sha256:2"}},
        {"bases": {"other": "sha256:1"}},
        {"test": ()},
    ],
)
def test_what_is_not_a_file_changes_the_key(content: Content, change: dict[str, object]) -> None:
    assert content_key(replace(content, **change)) != content_key(content)  # type: ignore[arg-type]


def test_every_change_of_the_tree_changes_the_key(content: Content) -> None:
    context, main = content.context, content.context / "app/main.py"
    keys = [content_key(content)]
    main.write_text("print(1)\n")
    keys.append(content_key(content))
    main.chmod(0o755)
    keys.append(content_key(content))
    main.rename(context / "app/other.py")
    keys.append(content_key(content))
    (context / "app/link").symlink_to("other.py")
    keys.append(content_key(content))
    (context / "app/link").unlink()
    (context / "app/link").symlink_to("main.py")
    keys.append(content_key(content))
    (context / "folder-link").symlink_to("app")
    keys.append(content_key(content))
    content.containerfile.write_text("FROM scratch\nUSER 1\n")
    keys.append(content_key(content))
    assert len(set(keys)) == len(keys)


def test_ignored_files_are_no_part_of_it(content: Content) -> None:
    (content.context / ".dockerignore").write_text("*.md\n**/cache\nContainerfile\n")
    key = content_key(content)
    (content.context / "README.md").write_text("x")
    (content.context / "app/cache").mkdir()
    (content.context / "app/cache/x").write_text("x")
    assert content_key(content) == key
    # What the build itself reads always counts.
    content.containerfile.write_text("FROM scratch\nUSER 1\n")
    assert content_key(content) != key


def test_in_doubt_nothing_is_ignored(content: Content) -> None:
    (content.context / ".dockerignore").write_text("*.md\n")
    (content.context / ".containerignore").write_text("*.md\n")
    key = content_key(content)
    (content.context / "README.md").write_text("x")
    assert content_key(content) != key


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.md"], "README.md", True),
        (["*.md"], "docs/README.md", False),
        (["**/*.md"], "README.md", True),
        (["**/*.md"], "a/b/README.md", True),
        (["docs"], "docs/a/b", True),
        (["docs/"], "docs/a", True),
        (["/docs"], "docs/a", True),
        (["docs/*"], "docs/a/b", True),
        (["docs/**"], "docs/a/b", True),
        (["doc?"], "docs", True),
        (["doc?"], "doc/", False),
        (["[a-c].txt"], "b.txt", True),
        (["[a-c].txt"], "d.txt", False),
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "other", True),
        (["*", "!keep"], "keep/inner", False),
        (["*.md", "!README.md", "README*"], "README.md", True),
        (["# *.md", ""], "README.md", False),
        ([r"a\*b"], "a*b", True),
        ([r"a\*b"], "axb", False),
        (["a.c"], "abc", False),
        (["a/../b"], "b", True),
        ([".git"], ".git/config", True),
        (["**"], "x/y", True),
        (["[", "x"], "x", False),
        (["a+b(c)"], "a+b(c)", True),
    ],
)
def test_patterns_match_as_mobys_do(lines: list[str], path: str, ignored: bool) -> None:
    assert IgnorePatterns.of(lines).match(path) is ignored
