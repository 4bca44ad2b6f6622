"""Asking registries: a server on this machine that speaks the protocol, token service included."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sandbox.images import registry as module
from sandbox.images.registry import (
    Credentials,
    auth_file,
    credentials_for,
    digest_of,
    ping,
    schemes,
    speaks_plain_http,
    wait_for_digest,
)
from sandbox.model.errors import InvalidInput, Unreachable

DIGEST = "sha256:" + "12" * 32
Handler = Callable[[web.Request], web.StreamResponse]


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(application, host="127.0.0.1") as server:
        yield f"127.0.0.1:{server.port}"


def log_in(home: Path, registry: str, user: str = "dana", password: str = "pass:word") -> None:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))


async def test_the_digest_is_what_the_registry_says() -> None:
    def answer(request: web.Request) -> web.Response:
        assert request.method == "HEAD"
        assert request.path == "/v2/acme/web/manifests/1.2"
        assert "application/vnd.oci.image.index.v1+json" in request.headers["Accept"]
        return web.Response(headers={"Docker-Content-Digest": DIGEST})

    async with serving(answer) as address:
        assert await digest_of(f"{address}/acme/web:1.2") == DIGEST


async def test_without_the_header_it_is_computed() -> None:
    body = b'{"schemaVersion": 2}'
    async with serving(lambda request: web.Response(body=b"" if request.method == "HEAD" else body)) as address:
        assert await digest_of(f"{address}/web") == f"sha256:{hashlib.sha256(body).hexdigest()}"


async def test_an_image_that_is_not_there() -> None:
    async with serving(lambda _: web.Response(status=404)) as address:
        assert await digest_of(f"{address}/web:1") is None
        assert await wait_for_digest(f"{address}/web:1", insecure=False, limit=timedelta()) is None


async def test_waiting_ends_when_the_image_appears() -> None:
    asked: list[int] = []

    def answer(_: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(headers={"Docker-Content-Digest": DIGEST}, status=200 if len(asked) > 2 else 404)

    async with serving(answer) as address:
        every = timedelta(milliseconds=10)
        found = await wait_for_digest(f"{address}/web:1", insecure=False, limit=timedelta(seconds=20), every=every)
    assert (found, len(asked)) == (DIGEST, 3)


async def test_a_failure_that_passes_is_asked_again() -> None:
    asked: list[int] = []

    def answer(_: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(headers={"Docker-Content-Digest": DIGEST}, status=503 if len(asked) < 3 else 200)

    async with serving(answer) as address:
        assert await digest_of(f"{address}/web:1") == DIGEST


async def test_a_failure_that_does_not_pass_has_an_end() -> None:
    said = {"errors": [{"code": "UNAVAILABLE", "message": "we are on holiday"}]}
    async with serving(lambda _: web.json_response(said, status=503)) as address:
        with pytest.raises(Unreachable, match="does not answer") as caught:
            await ping(address)
    assert "we are on holiday" in caught.value.why


async def test_the_token_service_is_asked_with_the_users_login(nobody_is_logged_in: Path) -> None:
    where: list[str] = []

    def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"dana:pass:word").decode()
            assert dict(request.query) == {"service": "reg", "scope": "repository:acme/web:pull"}
            return web.json_response({"token": "t0ken"})
        if request.headers.get("Authorization") != "Bearer t0ken":
            challenge = f'Bearer realm="http://{where[0]}/token",service="reg",scope="repository:acme/web:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.Response(headers={"Docker-Content-Digest": DIGEST})

    async with serving(answer) as address:
        where.append(address)
        log_in(nobody_is_logged_in, address)
        assert await digest_of(f"{address}/acme/web:1") == DIGEST


async def test_an_identity_token_is_exchanged(nobody_is_logged_in: Path) -> None:
    where: list[str] = []

    def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            assert request.method == "POST"
            return web.json_response({"access_token": "short"})
        if request.headers.get("Authorization") != "Bearer short":
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{where[0]}/token"'})
        return web.Response(headers={"Docker-Content-Digest": DIGEST})

    async with serving(answer) as address:
        where.append(address)
        (nobody_is_logged_in / "auth.json").write_text(json.dumps({"auths": {address: {"identitytoken": "long"}}}))
        os.environ["REGISTRY_AUTH_FILE"] = str(nobody_is_logged_in / "auth.json")
        try:
            assert await digest_of(f"{address}/web:1") == DIGEST
        finally:
            del os.environ["REGISTRY_AUTH_FILE"]


async def test_basic_authentication(nobody_is_logged_in: Path) -> None:
    def answer(request: web.Request) -> web.Response:
        if not request.headers.get("Authorization", "").startswith("Basic "):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.Response(headers={"Docker-Content-Digest": DIGEST})

    async with serving(answer) as address:
        log_in(nobody_is_logged_in, address)
        assert await digest_of(f"{address}/web:1") == DIGEST


async def test_refused_credentials_are_told_without_them(nobody_is_logged_in: Path) -> None:
    said = {"errors": [{"code": "DENIED", "message": "not yours"}]}
    async with serving(lambda _: web.json_response(said, status=403)) as address:
        log_in(nobody_is_logged_in, address, password="s3cret")
        with pytest.raises(Unreachable) as caught:
            await digest_of(f"{address}/web:1")
    text = f"{caught.value.what} {caught.value.why} {caught.value.hint}"
    assert "refuses" in text
    assert "docker login" in text
    assert "s3cret" not in text


async def test_a_registry_that_wants_a_login_still_answers() -> None:
    async with serving(lambda _: web.Response(status=401)) as address:
        await ping(address)
        assert await speaks_plain_http(address)


async def test_what_is_no_registry_is_said() -> None:
    async with serving(lambda _: web.Response(status=418)) as address:
        with pytest.raises(Unreachable, match="whether it is a registry"):
            await ping(address)


async def test_a_name_that_is_none() -> None:
    with pytest.raises(InvalidInput):
        await digest_of("https://x.io/a")


@pytest.mark.parametrize(
    ("registry", "insecure", "expected"),
    [
        ("localhost:5000", False, ("http", "https")),
        ("10.0.0.1:5000", False, ("https", "http")),
        ("reg.internal", True, ("https", "http")),
        ("ghcr.io", False, ("https",)),
    ],
)
def test_plain_http_is_not_for_everyone(registry: str, insecure: bool, expected: tuple[str, ...]) -> None:
    assert schemes(registry, insecure=insecure) == expected


class TestLogins:
    async def test_a_helper_is_asked(self, nobody_is_logged_in: Path) -> None:
        home = nobody_is_logged_in
        helper = home / "docker-credential-vault"
        helper.write_text(
            '#!/bin/sh\nread server\necho "{\\"Username\\": \\"dana\\", \\"Secret\\": \\"of $server\\"}"\n'
        )
        helper.chmod(0o755)
        (home / ".docker").mkdir()
        (home / ".docker/config.json").write_text(json.dumps({"credHelpers": {"ghcr.io": "vault"}}))
        environment = {"HOME": str(home), "PATH": f"{home}:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(home)}
        assert await credentials_for("ghcr.io", environment) == Credentials("dana", "of ghcr.io")
        assert await credentials_for("quay.io", environment) is None

    async def test_a_helper_that_is_missing_is_said(self, nobody_is_logged_in: Path) -> None:
        home = nobody_is_logged_in
        (home / ".docker").mkdir()
        (home / ".docker/config.json").write_text(json.dumps({"credsStore": "gone"}))
        with pytest.raises(Unreachable, match="docker-credential-gone"):
            await credentials_for("ghcr.io", {"HOME": str(home), "PATH": str(home), "XDG_RUNTIME_DIR": str(home)})

    async def test_docker_hub_has_a_key_of_its_own(self, nobody_is_logged_in: Path) -> None:
        log_in(nobody_is_logged_in, module._HUB_LOGIN)
        assert await credentials_for("docker.io") == Credentials("dana", "pass:word")

    async def test_an_unreadable_file_is_no_login(self, nobody_is_logged_in: Path) -> None:
        (nobody_is_logged_in / ".docker").mkdir()
        for text in ("{", "[]", '{"auths": {"x.io": {"auth": "%%%"}}}', '{"auths": null}', '{"auths": {"x.io": 1}}'):
            (nobody_is_logged_in / ".docker/config.json").write_text(text)
            assert await credentials_for("x.io") is None

    def test_the_most_particular_file_is_used(self, nobody_is_logged_in: Path) -> None:
        home = nobody_is_logged_in
        environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
        assert auth_file(environment) is None
        log_in(home, "x.io")
        assert auth_file(environment) == home / ".docker/config.json"
        (home / "mine.json").write_text("{}")
        assert auth_file({**environment, "REGISTRY_AUTH_FILE": str(home / "mine.json")}) == home / "mine.json"

    def test_credentials_do_not_show(self) -> None:
        assert "s3cret" not in repr(Credentials("dana", "s3cret"))
