"""What is read out of a Containerfile before it is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.images.containerfile import (
    applicable_args,
    base_images,
    declared_args,
    expand,
    find_containerfile,
    instructions,
    refuse_unsafe_mounts,
)
from sandbox.model.errors import InvalidInput, Refused


def test_joins_lines_and_leaves_out_comments_and_heredocs() -> None:
    text = """# syntax=docker/dockerfile:1
FROM scratch
# a comment
RUN one \\
  # a comment in between
  two \\

  three
RUN <<EOF
ARG NOT_AN_ARG=1
EOF
ARG AFTER
"""
    found = [(item.name, " ".join(item.rest.split()), item.line) for item in instructions(text)]
    assert found == [("FROM", "scratch", 2), ("RUN", "one two three", 4), ("RUN", "<<EOF", 9), ("ARG", "AFTER", 12)]


def test_the_escape_directive_is_followed() -> None:
    text = "# escape=`\nFROM scratch\nRUN a `\n b\nCOPY c:\\ x\\\nARG A\n"
    assert [item.name for item in instructions(text)] == ["FROM", "RUN", "COPY", "ARG"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARG A\narg B=1\nFROM x\nARG C='a b' D=2\n", {"A", "B", "C", "D"}),
        ("FROM x\nRUN echo ARG E\n# ARG F\n", set()),
        ("ARG\tA=1", {"A"}),
        ("", set()),
    ],
)
def test_declared_args(text: str, expected: set[str]) -> None:
    assert declared_args(text) == expected


def test_only_declared_args_apply() -> None:
    assert applicable_args("ARG A\nFROM x", {"A": "1", "TOKEN": "2"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("FROM redis:7", {}, ("redis:7",)),
        ("FROM scratch", {}, ()),
        (
            "FROM --platform=linux/amd64 a AS one\nFROM one\nCOPY --from=one /x /\nCOPY --from=b:1 /x /",
            {},
            ("a", "b:1"),
        ),
        ("FROM a\nFROM b\nCOPY --from=0 /x /", {}, ("a", "b")),
        ("ARG BASE=d\nFROM $BASE", {}, ("d",)),
        ("ARG BASE=d\nFROM ${BASE}", {"BASE": "e"}, ("e",)),
        ("ARG R=x.io\nARG BASE=${R}/d\nFROM ${BASE}:${TAG:-1}", {}, ("x.io/d:1",)),
        ("FROM a AS Build\nRUN --mount=type=bind,from=tools,target=/t x\nCOPY --from=build /x /", {}, ("a", "tools")),
        ("FROM a\nARG BASE=late\nFROM ${BASE}", {}, ("a",)),
    ],
)
def test_base_images(text: str, args: dict[str, str], expected: tuple[str, ...]) -> None:
    assert base_images(text, args) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$A", "1"), ("${A}x", "1x"), ("${B:-d}", "d"), ("${A:-d}", "1"), ("${A:+y}", "y"), ("${B:+y}", ""), ("$B", "")],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=bind,source=x,target=/m true",
        "RUN --mount=target=/m true",
        "run --MOUNT=type=bind,from=a,target=/m true",
        "RUN --mount=type=cache,from=a,target=/m true",
        "RUN --mount=type=cache,id=../../x,target=/m true",
        "RUN --mount=type=cache,id=/x,target=/m true",
        "RUN --mount=type=cache,source=x,target=/m true",
        "RUN --mount=type=cache,target=$X true",
        "RUN --mou\\\nnt=type=bind,target=/m true",
        "# escape=`\nRUN --mou`\nnt=type=bind,target=/m true",
        "RUN --mount type=bind,target=/m true",
        "RUN --mount=type=secret,id=x true",
        "RUN --mount=type=ssh true",
        'RUN --mount="type=bind,source=x,target=/m" true',
        "ONBUILD RUN --mount=type=bind,target=/m true",
        "RUN --mount=type=tmpfs,target=/t --mount=type=bind,target=/m true",
    ],
)
def test_mounts_that_lead_out_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="web/Containerfile uses `RUN --mount"):
        refuse_unsafe_mounts(f"FROM x\n{text}\n", "web/Containerfile", "buildah 1.28.2")


@pytest.mark.parametrize(
    "text",
    [
        "RUN true",
        "RUN --mount=type=tmpfs,target=/tmp true",
        "RUN --mount=type=cache,target=/root/.cache/pip pip install x",
        "RUN --mount=type=cache,id=pip,target=/c,sharing=locked true",
    ],
)
def test_other_mounts_are_not(text: str) -> None:
    refuse_unsafe_mounts(text, "Containerfile", "buildah")


def test_finds_the_containerfile(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no Containerfile or Dockerfile"):
        find_containerfile(tmp_path, None)
    (tmp_path / "Dockerfile").touch()
    assert find_containerfile(tmp_path, None).name == "Dockerfile"
    (tmp_path / "Containerfile").touch()
    assert find_containerfile(tmp_path, None).name == "Containerfile"
    with pytest.raises(InvalidInput, match=r"no prod\.Containerfile"):
        find_containerfile(tmp_path, "prod.Containerfile")
    (tmp_path / "out").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="outside its build context"):
        find_containerfile(tmp_path, "out")


@given(st.text(alphabet="ARGFROMUN <-=\\`\n#$\"'{}a", max_size=120))
def test_no_text_breaks_the_reading(text: str) -> None:
    declared_args(text)
    base_images(text, {})
