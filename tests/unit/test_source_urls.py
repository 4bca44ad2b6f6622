"""Addresses of repositories."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput, Refused, SandboxError
from sandbox.source.refs import check_ref, is_plain_name, unknown_ref
from sandbox.source.urls import absolute_address, is_local, parse_address, public_address


@pytest.mark.parametrize(
    ("text", "shown", "credentials"),
    [
        ("https://git.example/acme/shop.git", "https://git.example/acme/shop.git", ""),
        ("https://dana:s3cret@git.example/x.git", "https://git.example/x.git", "dana:s3cret"),
        ("https://t0ken@git.example:8443/x.git", "https://git.example:8443/x.git", "t0ken:"),
        ("https://d%40x:p%2Fw@git.example/x", "https://git.example/x", "d@x:p/w"),
        ("https://git.example/x.git?access_token=s3cret#y", "https://git.example/x.git", ""),
        ("ssh://git@git.example:2222/x.git", "ssh://git@git.example:2222/x.git", ""),
        ("ssh://git:s3cret@git.example/x.git", "ssh://git@git.example/x.git", ""),
        ("git@git.example:acme/shop.git", "git@git.example:acme/shop.git", ""),
        ("git://git.example/x.git", "git://git.example/x.git", ""),
    ],
)
def test_addresses_elsewhere(text: str, shown: str, credentials: str) -> None:
    address = parse_address(text)
    assert (address.shown, address.path, address.credentials) == (shown, None, credentials)
    assert not is_local(address.shown)


def test_addresses_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").mkdir()
    assert parse_address("file:///srv/a%20b.git").path == Path("/srv/a b.git")
    assert parse_address("../x").path == tmp_path.parent / "x"
    assert parse_address("/srv/x/../y").path == Path("/srv/y")
    assert parse_address("odd:name").path == tmp_path / "odd:name"
    assert is_local(parse_address("file:///srv/x").shown)
    assert is_local(parse_address(".").shown)


@pytest.mark.parametrize(
    "text",
    [
        "--upload-pack=touch x",
        "-oProxyCommand=touch x:y",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-l@host/x",
        "-x@host:path",
        "git@-oProxyCommand=x:path",
        "ext::sh -c touch% x",
        "fd::17",
        "transport::address",
        "http://git.example/x.git",
        "ftp://git.example/x.git",
        "javascript://x",
        "file://elsewhere/share",
        "https:///x",
        "https://git.example:port/x",
        "",
        "  ",
        "~no-such-user/x",
        "https://git.example/x\n--upload-pack=y",
        "a\0b",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises((InvalidInput, Refused)):
        parse_address(text)


@example("0:0::")
@example("ext::sh -c x")
@given(st.text(max_size=60))
def test_whatever_is_given_is_an_address_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except SandboxError:
        return
    assert not address.shown.startswith("-")
    # As git reads a remote helper (transport.c): nothing but a scheme's characters before the colons.
    assert not re.match(r"[A-Za-z0-9+.-]*::", address.shown) or address.path is not None


@given(st.text("abc/:@.", min_size=1, max_size=12), st.text("abcdef", min_size=4, max_size=12))
def test_passwords_are_never_shown(path: str, password: str) -> None:
    try:
        shown = parse_address(f"https://dana:{password}00@git.example/{path}").shown
    except SandboxError as error:
        shown = f"{error.what} {error.why}"
    assert f"{password}00" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://dana:s3cret@git.example/x", "https://git.example/x"),
        ("http://dana:s3cret@git.example/x?y=z", "http://git.example/x"),
        ("../other.git", "/srv/other.git"),
        ("ext::sh -c id", "ext::sh -c id"),
    ],
)
def test_what_is_shown_of_a_configured_remote(text: str, shown: str) -> None:
    assert public_address(text, Path("/srv/shop")) == shown


@pytest.mark.parametrize(
    ("text", "base", "expected"),
    [
        ("../orders.git", "https://git.example/acme/web.git", "https://git.example/acme/orders.git"),
        ("../../other/x", "ssh://git@git.example:22/acme/web.git", "ssh://git@git.example:22/other/x"),
        ("../orders.git", "git@git.example:acme/web.git", "git@git.example:acme/orders.git"),
        ("../orders.git", "git@git.example:/acme/web.git", "git@git.example:/acme/orders.git"),
        ("../orders", "/srv/web", "/srv/orders"),
        ("./part", "/srv/web", "/srv/web/part"),
        ("../orders", "file:///srv/web", "file:///srv/orders"),
        ("https://git.example/x", "/srv/web", "https://git.example/x"),
        ("/srv/x", "/srv/web", "/srv/x"),
    ],
)
def test_addresses_relative_to_another(text: str, base: str, expected: str) -> None:
    assert absolute_address(text, base) == expected


@pytest.mark.parametrize("base", ["https://git.example/web.git", "git@git.example:web.git", "/web"])
def test_no_relative_address_leaves_its_host(base: str) -> None:
    with pytest.raises(InvalidInput):
        absolute_address("../../x.git", base)


@given(st.text(max_size=40))
def test_a_ref_is_checked_or_refused(text: str) -> None:
    try:
        check_ref(text)
    except InvalidInput:
        return
    assert text
    assert not text.startswith("-")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("ref", "plain"),
    [("main", True), ("feature/x.y", True), ("a@b", True), ("@", False), ("main~1", False), ("a^", False),
     ("a@{1}", False), (":/x", False), ("a:b", False), ("a b", False), ("a..b", False)],
)  # fmt: skip
def test_names_and_expressions(ref: str, plain: bool) -> None:
    assert is_plain_name(ref) is plain


def test_near_names_are_told() -> None:
    names = ["main", "feature/login", "feature/checkout", "fix/login-page"]
    assert "feature/login" in unknown_ref("login", "x", names).why
    assert "main" in unknown_ref("mian", "x", names).why
    assert "main" in unknown_ref("mian~2", "x", names).why
    assert unknown_ref("zzzzz", "x", names).why.startswith("there are main")
    assert unknown_ref("x", "x", []).why == "there are no branches and no tags"
