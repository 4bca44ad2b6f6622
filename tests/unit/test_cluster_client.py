"""The client against an HTTP server that misbehaves in every way that a real one does now and then."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from sandbox.cluster import client, errors, objects
from sandbox.cluster.client import Cluster
from sandbox.model.errors import InvalidInput, Unreachable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PODS = "/api/v1/namespaces/shop/pods"


@pytest.fixture
async def served(aiohttp_servers: list[web.AppRunner], tmp_path: Path) -> Callable[..., Awaitable[Cluster]]:
    """Serve a handler and connect to it."""

    async def start(handler: Handler, user: Any = None, tls: ssl.SSLContext | None = None, **cluster: Any) -> Cluster:
        app = web.Application()

        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request)

        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        aiohttp_servers.append(runner)
        port = runner.addresses[0][1]
        server = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        return connect(tmp_path, server, user, **cluster)

    return start


@pytest.fixture
async def aiohttp_servers() -> AsyncIterator[list[web.AppRunner]]:
    runners: list[web.AppRunner] = []
    yield runners
    for runner in runners:
        await runner.cleanup()


def connect(folder: Path, server: str, user: Any = None, **cluster: Any) -> Cluster:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {"token": "s3cret"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return Cluster.connect(None, file)


def refusal(code: int, reason: str, message: str = "no") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


class Script:
    """Answers with one response after the other, the last one for ever; counts."""

    def __init__(self, *answers: Callable[[], web.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        return answer()


def fine() -> web.Response:
    return web.json_response({"gitVersion": "v1.36.3"})


async def test_answers_are_decoded_and_credentials_sent(served: Any) -> None:
    script = Script(fine)
    async with await served(script) as cluster:
        assert await cluster.version() == "v1.36.3"
        assert await cluster.version() == "v1.36.3"
    [request] = script.requests
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers["User-Agent"].startswith("sandbox/")


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: refusal(503, "ServiceUnavailable"),
        lambda: refusal(429, "TooManyRequests"),
        lambda: refusal(504, "Timeout"),
        lambda: refusal(500, "InternalError"),
    ],
)
async def test_passing_trouble_is_tried_again(served: Any, trouble: Callable[[], web.Response]) -> None:
    script = Script(trouble, trouble, fine)
    async with await served(script) as cluster:
        assert await cluster.version() == "v1.36.3"
    assert len(script.requests) == 3


async def test_an_internal_error_is_not_tried_for_ever(served: Any) -> None:
    script = Script(lambda: refusal(500, "InternalError", "boom"))
    async with await served(script) as cluster:
        with pytest.raises(errors.RequestFailed, match="boom"):
            await cluster.request("GET", PODS)
    assert len(script.requests) == 3


async def test_what_is_not_idempotent_is_sent_once(served: Any) -> None:
    script = Script(lambda: refusal(503, "ServiceUnavailable"))
    async with await served(script) as cluster:
        with pytest.raises(errors.ServerUnavailable):
            await cluster.request("POST", PODS, body={})
    assert len(script.requests) == 1


async def test_refusals_are_final(served: Any) -> None:
    script = Script(lambda: refusal(404, "NotFound", "gone"))
    async with await served(script) as cluster:
        with pytest.raises(errors.NotFound):
            await cluster.request("GET", PODS)
    assert len(script.requests) == 1


async def test_a_server_that_stays_away_is_given_up(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_RETRY_S", 1.0)
    script = Script(fine, lambda: refusal(503, "ServiceUnavailable", "starting"))
    began = time.monotonic()
    async with await served(script) as cluster:
        await cluster.version()
        with pytest.raises(errors.ServerUnavailable, match="starting"):
            await cluster.request("GET", PODS)
    assert time.monotonic() - began < 5
    assert len(script.requests) > 2


async def test_nobody_at_the_address_is_said_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    async with connect(tmp_path, f"https://127.0.0.1:{port}") as cluster:
        with pytest.raises(errors.ServerUnavailable) as caught:
            await cluster.version()
    assert time.monotonic() - began < 8
    assert "context 'c' does not answer" in caught.value.what
    assert f"127.0.0.1:{port}" in caught.value.why
    assert caught.value.exit_code == 5


async def test_a_silent_server_is_bounded(served: Any) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with await served(silent) as cluster:
        with pytest.raises(errors.ServerUnavailable, match="no answer in time"):
            await cluster.request("GET", "/version", timeout=0.3, retry=False)


async def test_a_connection_cut_in_the_middle_is_tried_again(served: Any) -> None:
    count = 0

    async def cutting(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 1:
            assert request.transport is not None
            request.transport.close()
        return fine()

    async with await served(cutting) as cluster:
        assert await cluster.version() == "v1.36.3"


async def test_an_answer_that_is_cut_is_asked_for_again(served: Any) -> None:
    script = Script(lambda: web.Response(text='{"gitVersion": "v1', content_type="application/json"), fine)
    async with await served(script) as cluster:
        assert await cluster.version() == "v1.36.3"


async def test_expired_credentials_are_said_with_the_context(served: Any) -> None:
    async with await served(Script(lambda: refusal(401, "Unauthorized", "token has expired"))) as cluster:
        with pytest.raises(errors.Unauthorized) as caught:
            await cluster.version()
    error = caught.value
    assert "context 'c' does not accept the credentials" in error.what
    assert "token has expired" in error.why
    assert "log in" in error.hint
    assert "s3cret" not in f"{error}{error.hint}"
    assert isinstance(error, Unreachable)


async def test_redirects_are_not_followed_with_the_token(served: Any) -> None:
    elsewhere = Script(fine)
    other = await served(elsewhere)

    async def redirecting(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"{other.server}/version")

    async with await served(redirecting) as cluster:
        with pytest.raises(errors.RequestFailed):
            await cluster.version()
    assert elsewhere.requests == []


async def test_the_servers_clock_counts(served: Any) -> None:
    dated = Script(lambda: web.json_response({"gitVersion": "v1"}, headers={"Date": "Tue, 01 Jan 2030 12:00:00 GMT"}))
    async with await served(dated) as cluster:
        first = await cluster.server_time()
        assert first.isoformat().startswith("2030-01-01T12:00:0")
        assert await cluster.server_time() >= first
    assert len(dated.requests) == 1


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for ``sandbox.example``, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sandbox.example"]
    names = ["-addext", "subjectAltName=DNS:sandbox.example", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*argv, *names], check=True, capture_output=True, timeout=60)
    return files


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_an_unknown_authority_is_said(served: Any, tls: ssl.SSLContext) -> None:
    async with await served(Script(fine), tls=tls) as cluster:
        with pytest.raises(errors.TlsFailure) as caught:
            await cluster.version()
    assert "CERTIFICATE_VERIFY_FAILED" in caught.value.why
    assert "certificate-authority" in caught.value.hint
    assert caught.value.exit_code == 5


async def test_a_name_that_does_not_fit_is_said(
    served: Any, tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async with await served(Script(fine), tls=tls, **{"certificate-authority": str(certificate[0])}) as cluster:
        with pytest.raises(errors.TlsFailure, match=r"127\.0\.0\.1"):
            await cluster.version()


@pytest.mark.parametrize("how", [{"tls-server-name": "sandbox.example"}, {"insecure-skip-tls-verify": True}])
async def test_tls_server_name_and_insecure_work(
    served: Any, tls: ssl.SSLContext, certificate: tuple[Path, Path], how: dict[str, Any]
) -> None:
    authority = {} if "insecure-skip-tls-verify" in how else {"certificate-authority": str(certificate[0])}
    async with await served(Script(fine), tls=tls, **authority, **how) as cluster:
        assert await cluster.version() == "v1.36.3"


async def test_a_client_certificate_is_presented(
    served: Any, tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate[0])
    how = {"certificate-authority": str(certificate[0]), "tls-server-name": "sandbox.example"}
    user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
    async with await served(Script(fine), user=user, tls=tls, **how) as cluster:
        assert await cluster.version() == "v1.36.3"
    async with await served(Script(fine), tls=tls, **how) as cluster:
        with pytest.raises(Unreachable):
            await cluster.version()


async def test_a_client_certificate_that_is_none_is_refused(served: Any, tls: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a certificate")
    user = {"client-certificate": str(tmp_path / "c"), "client-key": str(tmp_path / "c")}
    async with await served(Script(fine), user=user, tls=tls) as cluster:
        with pytest.raises(InvalidInput, match="client certificate"):
            await cluster.version()


# -- proxies


def test_proxies_come_from_the_kubeconfig_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    outside, inside = "https://outside.example:6443", "https://inside.example:6443"
    assert connect(tmp_path, outside)._proxy == "http://proxy.example:3128"
    assert connect(tmp_path, inside)._proxy is None
    assert connect(tmp_path, inside, **{"proxy-url": "http://own.example:1"})._proxy == "http://own.example:1"
    with pytest.raises(InvalidInput, match="not supported"):
        connect(tmp_path, inside, **{"proxy-url": "socks5://user:pass@own.example:1"})


# -- credential plugins

_PLUGIN = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(os.environ["KUBERNETES_EXEC_INFO"] + "\\n")
token = open({token!r}).read().strip()
version = "client.authentication.k8s.io/v1"
print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": {{"token": token}}}}))
"""


def plugin(folder: Path, text: str) -> dict[str, Any]:
    script = folder / "login"
    script.write_text(text)
    script.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "interactiveMode": "Never"}}


async def test_a_plugin_gives_the_token_once_and_again_when_it_is_refused(served: Any, tmp_path: Path) -> None:
    log, token = tmp_path / "log", tmp_path / "token"
    token.write_text("old")
    user = plugin(tmp_path, _PLUGIN.format(python=sys.executable, log=str(log), token=str(token)))

    async def picky(request: web.Request) -> web.StreamResponse:
        accepted = request.headers["Authorization"] == f"Bearer {token.read_text()}"
        return fine() if accepted else refusal(401, "Unauthorized")

    user["exec"]["provideClusterInfo"] = True
    async with await served(picky, user=user) as cluster:
        await cluster.request("GET", "/version")
        await cluster.request("GET", "/version")
        assert len(log.read_text().splitlines()) == 1
        token.write_text("new")
        await cluster.request("GET", "/version")
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(asked) == 2
    assert asked[0]["spec"]["cluster"]["server"] == cluster.server


def answering(version: str, **status: str) -> str:
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    return f"#!/bin/sh\necho '{json.dumps(answer)}'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#!/bin/sh\necho please log in >&2; exit 3\n", "please log in"),
        ("#!/bin/sh\necho s3cret-not-json\n", "did not answer in JSON"),
        ("#!/bin/sh\necho '{}'\n", "did not answer with an ExecCredential"),
        (answering("client.authentication.k8s.io/v1", x="1"), "neither a token nor a certificate"),
        (answering("v0", token="x"), "another version"),
    ],
)
async def test_a_plugin_that_fails_says_why(served: Any, tmp_path: Path, text: str, expected: str) -> None:
    async with await served(Script(fine), user=plugin(tmp_path, text)) as cluster:
        with pytest.raises(Unreachable) as caught:
            await cluster.version()
    assert expected in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_plugin_that_is_not_there_gives_its_install_hint(served: Any) -> None:
    user = {"exec": {"command": "no-such-login", "apiVersion": "v1", "installHint": "brew install login"}}
    async with await served(Script(fine), user=user) as cluster:
        with pytest.raises(Unreachable, match="cannot be run") as caught:
            await cluster.version()
    assert caught.value.hint == "brew install login"


async def test_a_token_file_is_read_again(served: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")

    async def picky(request: web.Request) -> web.StreamResponse:
        good = request.headers["Authorization"] == f"Bearer {file.read_text().strip()}"
        return fine() if good else refusal(401, "Unauthorized")

    async with await served(picky, user={"tokenFile": "token"}) as cluster:
        await cluster.request("GET", "/version")
        file.write_text("new\n")
        await cluster.request("GET", "/version")


@pytest.mark.parametrize(
    ("user", "headers"),
    [
        ({"username": "dana", "password": "pw"}, [("Authorization", "Basic ZGFuYTpwdw==")]),
        (
            {"token": "t", "as": "eve", "as-groups": ["a", "b"], "as-user-extra": {"k/x": ["v"]}},
            [
                ("Impersonate-User", "eve"),
                ("Impersonate-Group", "a"),
                ("Impersonate-Group", "b"),
                ("Impersonate-Extra-k%2Fx", "v"),
            ],
        ),
    ],
)
async def test_other_credentials(served: Any, user: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    script = Script(fine)
    async with await served(script, user=user) as cluster:
        await cluster.version()
    sent = list(script.requests[0].headers.items())
    assert set(headers) <= set(sent)


def jwt(expires_in: float) -> str:
    parts = ({"alg": "none"}, {"exp": int(time.time() + expires_in)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "signature"])


async def test_the_old_oidc_form_gives_its_token(served: Any) -> None:
    script = Script(fine)
    token = jwt(3600)
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": token, "client-id": "c"}}}
    async with await served(script, user=user) as cluster:
        await cluster.version()
    assert script.requests[0].headers["Authorization"] == f"Bearer {token}"


async def test_an_oidc_token_that_ended_and_cannot_be_renewed_is_said(served: Any) -> None:
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": jwt(-3600), "client-id": "c"}}}
    async with await served(Script(fine), user=user) as cluster:
        with pytest.raises(Unreachable, match="auth-provider 'oidc' failed") as caught:
            await cluster.version()
    assert "refresh-token" in caught.value.why


async def test_where_the_package_for_it_is_left_out_that_is_said(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image of the clean-up."""
    monkeypatch.setitem(sys.modules, "kubernetes.aio.client", None)
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": jwt(3600), "client-id": "c"}}}
    async with await served(Script(fine), user=user) as cluster:
        with pytest.raises(Unreachable, match="cannot be used here") as caught:
            await cluster.version()
    assert "kubernetes is not installed" in caught.value.why


# -- watches


def listing(version: str, *names: str) -> web.Response:
    items = [{"metadata": {"name": name, "uid": name, "resourceVersion": version}} for name in names]
    return web.json_response({"metadata": {"resourceVersion": version}, "items": items})


def happened(kind: str, name: str, version: str) -> bytes:
    item = {"metadata": {"name": name, "uid": name, "resourceVersion": version}}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


_EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


async def test_a_watch_goes_on_over_cut_connections_and_lists_again_when_it_must(served: Any) -> None:
    lists = [("10", "a", "b"), ("20", "b", "c")]
    streams = [
        # Cut off in the middle of a line.
        (happened("MODIFIED", "a", "11"), b'{"type": "ADD'),
        # A bookmark moves the point to go on from.
        (happened("BOOKMARK", "", "15"),),
        (json.dumps(_EXPIRED).encode() + b"\n",),
        (happened("DELETED", "c", "21"),),
    ]
    asked: list[str] = []

    async def server(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return listing(*lists.pop(0))
        asked.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        for part in streams.pop(0) if streams else ():
            await response.write(part)
        if not streams:
            await asyncio.sleep(5)
        return response

    seen = []
    async with await served(server) as cluster:
        async with asyncio.timeout(20):
            async for kind, item in objects.watch(cluster, "v1", "Pod", "shop"):
                seen.append((kind, item.get("metadata", {}).get("name")))
                if kind == "DELETED" and seen[-1][1] == "c":
                    break
    assert seen == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("SYNCED", None),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("MODIFIED", "b"),
        ("ADDED", "c"),
        ("DELETED", "c"),
    ]
    assert asked == ["10", "11", "15", "20"]


async def test_a_watch_ends_when_its_time_is_up(served: Any) -> None:
    async def server(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return listing("1")
        await asyncio.sleep(float(request.query["timeoutSeconds"]))
        return web.Response()

    async with await served(server) as cluster:
        async with asyncio.timeout(10):
            assert [kind async for kind, _ in objects.watch(cluster, "v1", "Pod", timeout=1.0)] == ["SYNCED"]


async def test_a_watch_that_is_not_allowed_says_so(served: Any) -> None:
    async with await served(Script(lambda: refusal(403, "Forbidden", "pods is forbidden"))) as cluster:
        with pytest.raises(errors.Forbidden, match="pods is forbidden"):
            async for _ in objects.watch(cluster, "v1", "Pod"):
                pass


async def test_lists_are_paged(served: Any) -> None:
    async def server(request: web.Request) -> web.StreamResponse:
        first = "continue" not in request.query
        items = [{"metadata": {"name": "a" if first else "b"}}]
        return web.json_response({"metadata": {"continue": "next" if first else ""}, "items": items})

    async with await served(server) as cluster:
        found = [item async for item in objects.list_(cluster, "v1", "Pod", limit=1)]
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [("Pod", "a"), ("Pod", "b")]


def test_connecting_imports_neither_kubernetes_nor_pydantic() -> None:
    code = "import sandbox.cluster.client, sandbox.cluster.objects, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"kubernetes", "pydantic", "pyhelm3", "git", "rich", "typer"} & set(done.stdout.split())
    assert not heavy
