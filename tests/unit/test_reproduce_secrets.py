"""New values for what a capture keeps secret: one for each, wherever it occurs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture.secrecy import redactor_for
from sandbox.model.objects import Manifest
from sandbox.reproduce.secrets import Values, regenerated, role_passwords, values_of, within_base64

KEY, SEED = b"k" * 32, b"s" * 32
PASSWORD = "hunter2-and-more"
URL = f"postgres://shop:{PASSWORD}@db.qa.svc:5432/orders"


def secret(name: str = "db", kind: str = "Opaque", **values: str) -> Manifest:
    data = {key.replace("_", "-"): encoded(value) for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name}, "data": data}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def opened(manifest: Manifest) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in manifest["data"].items()}


def captured(*secrets: Manifest) -> tuple[list[Manifest], Any]:
    redactor, _ = redactor_for(KEY, secrets, (), (), complete=True)
    return [redactor.secret(one) for one in secrets], redactor


def test_a_value_is_the_same_in_secrets_urls_and_other_texts() -> None:
    shown, redactor = captured(secret(password=PASSWORD), secret("app", url=URL, copy=PASSWORD, username="shop"))
    values = values_of(SEED, shown)
    first, second = (opened(regenerated(one, values)[0]) for one in shown)
    new = first["password"]
    assert new != PASSWORD
    assert second == {"url": f"postgres://shop:{new}@db.qa.svc:5432/orders", "copy": new, "username": "shop"}
    text = values.in_text(redactor.in_text(f"--password={PASSWORD} {URL} {encoded(URL)}"))
    assert text == f"--password={new} {second['url']} {second['url']}"


@given(password=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=8, max_size=30))
def test_a_true_value_is_back_wherever_it_was(password: str) -> None:
    true = [secret(password=password)]
    shown, redactor = captured(*true)
    values = values_of(SEED, shown, true)
    assert values.in_text(redactor.in_text(f"<{password}>")) == f"<{password}>"
    assert opened(regenerated(shown[0], values, true[0])[0]) == {"password": password}


def test_a_true_url_tells_the_password_that_stands_alone_elsewhere() -> None:
    true = [secret(url=URL)]
    shown, redactor = captured(*true)
    assert values_of(SEED, shown, true).in_text(redactor.in_text(f"login as {PASSWORD}")) == f"login as {PASSWORD}"


def test_values_differ_by_seed_and_by_fingerprint_and_are_plain() -> None:
    made = {Values(seed).of(mark) for seed in (SEED, b"other") for mark in ("0" * 16, "1" * 16)}
    assert len(made) == 4
    assert all(value.isalnum() and len(value) == 32 for value in made)


def test_secrets_with_a_form_have_it() -> None:
    docker, tls = (
        secret("pull", "kubernetes.io/dockerconfigjson", **{".dockerconfigjson": '{"auths":{"r":{"auth":"x"}}}'}),
        secret("cert", "kubernetes.io/tls", **{"tls.crt": "a certificate", "tls.key": "a private key"}),
    )
    shown, _ = captured(docker, tls)
    values = values_of(SEED, shown)
    (pull, why), (cert, _) = (regenerated(one, values) for one in shown)
    assert json.loads(opened(pull)[".dockerconfigjson"]) == {"auths": {}}
    assert "not in the capture" in why
    assert opened(cert)["tls.crt"].startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE KEY" in opened(cert)["tls.key"]


def pod(env: list[Manifest], env_from: list[Manifest] = []) -> Manifest:  # noqa: B006
    spec = {"containers": [{"name": "main", "env": env, "envFrom": env_from}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec}


def variable(name: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "db", "key": key}}}


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"DB_USER": "shop"}}


@pytest.mark.parametrize(
    "manifests",
    [
        [secret(url=URL)],
        [secret(url=f"jdbc in front, {URL} behind")],
        [secret(username="shop", password=PASSWORD)],
        [secret(pw=PASSWORD), pod([{"name": "PGUSER", "value": "shop"}, variable("PGPASSWORD", "pw")])],
        [secret(pw=PASSWORD), CONFIG, pod([variable("DB_PASSWORD", "pw")], [{"configMapRef": {"name": "c"}}])],
        [secret(pw=PASSWORD), pod([variable("PW", "pw"), {"name": "U", "value": "postgres://shop:$(PW)@db/orders"}])],
    ],
    ids=["url", "url in text", "keys of a secret", "variables", "user from a map", "expanded"],
)
def test_a_role_has_the_password_that_its_users_have(manifests: list[Manifest]) -> None:
    assert role_passwords(["shop", '"Other Role"'], manifests) == {"shop": PASSWORD}


def test_a_user_that_is_no_role_has_no_password_here() -> None:
    assert role_passwords(["postgres"], [secret(url=URL)]) == {}


def test_within_base64_a_value_cannot_be_put() -> None:
    placeholder = "redacted-0123456789abcdef"
    assert within_base64(f"Basic c2hvcDp{placeholder}") == [placeholder]
    assert within_base64(f"password: {placeholder} {placeholder}") == []
