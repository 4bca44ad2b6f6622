"""Secret values never get into a capture, in whatever form they turn up."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox.capture.secrecy import PLACEHOLDER, Redactor, redactor_for
from sandbox.model.objects import Manifest

KEY = b"k" * 32


def secret(name: str = "db", kind: str = "Opaque", **values: str) -> Manifest:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name}, "data": data}


def redactor(*secrets: Manifest, names: set[str] = frozenset()) -> Redactor:  # type: ignore[assignment]
    return redactor_for(KEY, secrets, (), names, complete=True)[0]


def go_json(text: str) -> str:
    return json.dumps(text).translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "basic authorization": lambda v: base64.b64encode(f"user:{v}".encode()).decode(),
    "inside base64": lambda v: base64.b64encode(f"ab{v}\n and more".encode()).decode(),
    "percent": lambda v: quote(v, safe=""),
    "percent, slashes kept": quote,
    "percent in small letters": lambda v: re.sub(r"%..", lambda m: m[0].lower(), quote(v, safe="")),
    "form": quote_plus,
    "json": json.dumps,
    "json of Go": go_json,
    "json in json": lambda v: json.dumps(json.dumps({"password": v})),
    "json of Go in json": lambda v: json.dumps(go_json(v)),
    "html": html.escape,
    "yaml, single quotes": lambda v: v.replace("'", "''"),
}


@pytest.mark.parametrize("form", FORMS)
@given(value=st.text(st.characters(codec="utf-8"), min_size=8, max_size=40))
def test_a_value_is_found_in_every_form(form: str, value: str) -> None:
    assume(value == value.strip())
    # What base64 leaves of a value at its ends is at most two characters of it.
    needle = FORMS[form](value)
    clean = redactor(secret(password=value)).in_text(f"before={needle} after")
    core = needle if form not in ("basic authorization", "inside base64") else needle[14:-14]
    assert not core or core not in clean
    assert clean.startswith("before=")


@pytest.mark.parametrize(
    ("value", "leaked"),
    [
        ("postgres://shop:hunter2hunter2@db:5432/shop?sslmode=off", "hunter2hunter2"),
        ("amqp://u:p%40ssw0rd1@mq/", "p@ssw0rd1"),
        ("DEBUG=1\nDB_PASSWORD='correct horse'\nexport API_TOKEN=abcdef123456\n", "correct horse"),
        ("DEBUG=1\nDB_PASSWORD='correct horse'\nexport API_TOKEN=abcdef123456\n", "abcdef123456"),
        ('{"db": {"password": "in-a-document"}, "port": 5432}', "in-a-document"),
        (
            json.dumps({"auths": {"r.example": {"auth": base64.b64encode(b"bot:docker-login").decode()}}}),
            "docker-login",
        ),
    ],
)
def test_secrets_inside_a_value_are_known_too(value: str, leaked: str) -> None:
    clean = redactor(secret(config=value)).in_text(f"login failed for {leaked}, retrying")
    assert leaked not in clean
    assert PLACEHOLDER.search(clean)


def test_equal_values_become_equal_placeholders_and_only_with_the_same_key() -> None:
    one, other = redactor(secret(a="hunter2hunter2")), redactor(secret(b="hunter2hunter2"), secret("x", c="12345678"))
    assert one.in_text("hunter2hunter2") == other.in_text("hunter2hunter2")
    another_key, _ = redactor_for(b"x" * 32, [secret(a="hunter2hunter2")], (), (), complete=True)
    assert another_key.in_text("hunter2hunter2") != one.in_text("hunter2hunter2")


def test_short_values_are_told_and_only_words_of_their_own() -> None:
    found, facts = redactor_for(KEY, [secret(port="5432", pin="abc123")], (), (), complete=True)
    assert facts.short == ("secret/db: port",)
    assert found.in_text("port 5432, pin abc123, file xabc123y") == (
        f"port 5432, pin {found.placeholder('abc123')}, file xabc123y"
    )


def test_what_is_spelt_like_a_thing_here_stays_unless_its_key_is_secret() -> None:
    found, facts = redactor_for(KEY, [secret(username="postgres")], (), {"postgres"}, complete=True)
    assert found.in_text("user postgres") == "user postgres"
    assert facts.left == ("secret/db: username",)
    found, facts = redactor_for(KEY, [secret(password="postgres")], (), {"postgres"}, complete=True)
    pod = {"image": "registry/postgres:17", "name": "postgres", "env": [{"name": "P", "value": "postgres"}]}
    clean = found.in_data(pod)
    assert (clean["image"], clean["name"]) == ("registry/postgres:17", "postgres")
    assert PLACEHOLDER.fullmatch(clean["env"][0]["value"])
    assert not facts.left


def test_a_secret_in_a_label_or_a_key_is_no_name() -> None:
    found = redactor(secret(token="t0ken-123456"))
    clean = json.dumps(found.in_data({"labels": {"x": "t0ken-123456"}, "t0ken-123456": 1, "list": ["t0ken-123456"]}))
    assert "t0ken-123456" not in clean


def test_a_secret_keeps_its_keys_and_fingerprints() -> None:
    manifest = secret(password="hunter2hunter2", empty="")
    manifest["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "hunter2hunter2",
        "a": "b",
    }
    found = redactor(manifest)
    shown = found.secret(manifest)
    assert shown["data"]["password"] == f"hmac-{found.hmac('hunter2hunter2')}"
    assert set(shown["data"]) == {"password", "empty"}
    assert shown["metadata"]["annotations"] == {"a": "b"}
    assert "hunter2" not in json.dumps(shown)


def test_releases_and_records_are_no_values() -> None:
    _, facts = redactor_for(KEY, [secret(kind="helm.sh/release.v1", release="H4sIAAAAAAAA")], (), (), complete=True)
    assert facts.values == 0


def test_former_values_are_looked_for_too() -> None:
    old: list[dict[str, Any]] = [
        {"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "old-password"}}
    ]
    found, _ = redactor_for(KEY, [secret(password="new-password")], old, (), complete=True)
    assert "old-password" not in found.in_text("old-password new-password")


def test_binary_values_are_found_by_their_base64() -> None:
    data = base64.b64encode(bytes(range(200, 250))).decode()
    manifest = {"kind": "Secret", "metadata": {"name": "keystore"}, "data": {"p12": data}}
    assert data not in redactor(manifest).in_text(f"keystore: {data}")


@given(st.text())
def test_without_secrets_nothing_changes(text: str) -> None:
    assume("\ud800" not in text)
    assert redactor().in_text(text) == text


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        ({"username": "shop", "password": "only-ours-1"}, {"username": "shop"}),
        ({"DB_PORT": "5432", "db-name": "orders", "pin": "1234"}, {"DB_PORT": "5432", "db-name": "orders"}),
        # What another key calls a secret is nobody's name.
        ({"user": "only-ours-1", "password": "only-ours-1"}, {}),
        ({"url": "postgres://shop:only%2Dours@db:5432/orders"}, {"url": "postgres://shop:{}@db:5432/orders"}),
        ({"url": "https://ghp_token:x-oauth-basic@example.com/"}, {}),
        ({"url": "postgres://shop:only-ours@db/orders?sslpassword=more"}, {}),
        ({"host": "two words"}, {}),
    ],
)
def test_of_a_secret_it_is_kept_who_and_where(values: dict[str, str], shapes: dict[str, str]) -> None:
    made = redactor(secret(**values))
    expected = {key: shape.format(made.placeholder("only-ours")) for key, shape in shapes.items()}
    assert made.secret(secret(**values)).get("shapes", {}) == expected
