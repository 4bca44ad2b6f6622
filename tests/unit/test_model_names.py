import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.names import sandbox_name, slug

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Branch names as git allows them, and user names as clusters have them, often close to one another.
_TEXT = st.one_of(st.text(max_size=100), st.from_regex(r"[a-cA-C0-1/_.@:-]{1,12}", fullmatch=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("main", "main"), ("feature/login", "feature--login"), ("feature-login", "feature-login"), ("v1", "v1")],
)
def test_what_is_nearly_a_label_stays_readable(text: str, expected: str) -> None:
    assert slug(text) == expected


@pytest.mark.parametrize("text", ["Feature/Login", "a" * 80, "dana@example.com", "日本", "", "-", "a--b", "x/"])
def test_what_loses_something_gets_a_hash(text: str) -> None:
    assert re.search(r"-[0-9a-f]{6}$", slug(text))


@given(_TEXT)
def test_a_slug_is_a_label(text: str) -> None:
    assert _LABEL.fullmatch(slug(text))


@given(_TEXT, _TEXT)
def test_slugs_do_not_collide(one: str, other: str) -> None:
    assert one == other or slug(one) != slug(other)


@given(_TEXT, _TEXT, _TEXT)
def test_a_sandbox_name_is_a_label(owner: str, project: str, branch: str) -> None:
    assert _LABEL.fullmatch(sandbox_name(owner, project, branch))
    assert len(sandbox_name(owner, project, branch, longest=40)) <= 40


def test_names_that_are_shortened_differ() -> None:
    long = "x" * 80
    assert sandbox_name("dana", "shop", long + "1") != sandbox_name("dana", "shop", long + "2")
