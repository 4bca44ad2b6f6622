"""Image references, by the distribution project's grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.images.build import repository_for
from sandbox.images.reference import (
    Reference,
    is_loopback,
    is_private_address,
    parse_reference,
    same_repository,
)
from sandbox.model.errors import InvalidInput

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis", Reference("docker.io", "library/redis")),
        ("redis:7", Reference("docker.io", "library/redis", "7")),
        ("acme/web", Reference("docker.io", "acme/web")),
        ("docker.io/redis", Reference("docker.io", "library/redis")),
        ("ghcr.io/acme/web:1.2", Reference("ghcr.io", "acme/web", "1.2")),
        ("localhost/web", Reference("localhost", "web")),
        ("localhost:5000/web", Reference("localhost:5000", "web")),
        ("localhost:5000/a/b:v1", Reference("localhost:5000", "a/b", "v1")),
        ("[::1]:5000/web", Reference("[::1]:5000", "web")),
        (f"web@{DIGEST}", Reference("docker.io", "library/web", "", DIGEST)),
        (f"10.0.0.1:5000/web:t@{DIGEST}", Reference("10.0.0.1:5000", "web", "t", DIGEST)),
        ("Registry/web", Reference("Registry", "web")),
    ],
)
def test_reads(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "a@", "a@sha256:1", "A", "a/B", "a b", "http://x.io/a", "x.io/", "/a", "a//b", "-a", "a:b c",
     "-x.io/a", "a:" + "b" * 129, "a" * 256, "x.io/../a", "ghcr.io/a?x"],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_reference(text)


@given(st.text(max_size=60))
def test_what_is_read_is_read_the_same_again(text: str) -> None:
    try:
        image = parse_reference(text)
    except InvalidInput:
        return
    assert parse_reference(str(image)) == image


def test_repositories_are_compared_without_tag_and_with_defaults() -> None:
    assert same_repository("redis", "docker.io/library/redis:7")
    assert same_repository("shop/web", f"shop/web@{DIGEST}")
    assert not same_repository("shop/web", "ghcr.io/shop/web")
    assert not same_repository("shop/web", "shop/web-admin")
    assert not same_repository("$(IMAGE)", "$(IMAGE)")


@pytest.mark.parametrize(
    ("registry", "loopback", "private"),
    [
        ("localhost:5000", True, True),
        ("127.0.0.2:80", True, True),
        ("[::1]:5000", True, True),
        ("10.200.0.2:5000", False, True),
        ("192.168.1.1", False, True),
        ("8.8.8.8:443", False, False),
        ("ghcr.io", False, False),
        ("localhost.example.com", False, False),
    ],
)
def test_tells_this_machine_and_private_addresses(registry: str, loopback: bool, private: bool) -> None:
    assert is_loopback(registry) is loopback
    assert is_private_address(registry) is private


@pytest.mark.parametrize(
    ("name", "registry", "expected"),
    [
        ("web", "ghcr.io/acme", "ghcr.io/acme/web"),
        ("shop/web", "ghcr.io/acme/", "ghcr.io/acme/shop/web"),
        ("docker.io/shop/web", "10.0.0.1:5000", "10.0.0.1:5000/shop/web"),
        ("ghcr.io/acme/web", "ghcr.io/acme", "ghcr.io/acme/web"),
        ("quay.io/other/web", "ghcr.io/acme", "ghcr.io/acme/other/web"),
        ("web", "acme", "docker.io/acme/web"),
        ("library/web", "localhost:5000", "localhost:5000/library/web"),
    ],
)
def test_where_built_images_go(name: str, registry: str, expected: str) -> None:
    assert repository_for(name, registry) == expected
