"""Asking a registry which digest a tag has, by the OCI distribution protocol.

Credentials are those that docker, podman and buildah keep (``docker login``); they go to the registry
over HTTPS, or over plain HTTP only where the registry is this machine or declared insecure.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sandbox.images.process import run
from sandbox.images.reference import DEFAULT_REGISTRY, Reference, is_loopback, is_private_address, parse_reference
from sandbox.model.errors import OperationFailed, Unreachable

if TYPE_CHECKING:
    import aiohttp

# Where Docker Hub's registry answers, and the key under which docker keeps its login.
HUB_HOST = "registry-1.docker.io"
_HUB_LOGIN = "https://index.docker.io/v1/"

_MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ANSWER_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_LARGEST_MANIFEST = 4 << 20
_ATTEMPTS = 3
_HELPER_LIMIT = timedelta(seconds=10)


@dataclass(frozen=True, repr=False)
class Credentials:
    """User and password of a registry; an identity token has no user."""

    user: str
    password: str


class Transient(Exception):
    """Worth asking again: no connection, 429, 5xx."""


class NotThisScheme(Exception):
    """The registry does not speak TLS (or only TLS)."""


@dataclass(frozen=True)
class Answer:
    scheme: str
    status: int
    headers: dict[str, str]
    body: bytes


async def digest_of(reference: str, *, insecure: bool = False) -> str | None:
    """The digest of an image in its registry, or None where the registry has no such image.

    Args:
        reference: with a tag or digest; ``latest`` where it has none.
        insecure: plain HTTP and unverified certificates are allowed.

    Raises:
        InvalidInput: not an image reference.
        Unreachable: the registry does not answer, or refuses the credentials.
    """
    image = parse_reference(reference)
    path = f"/v2/{image.path}/manifests/{image.version}"
    answer = await _ask(image, "HEAD", path, insecure=insecure)
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise refused(image.registry, answer, f"whether it has {image}")
    digest = answer.headers.get("docker-content-digest", "")
    if digest:
        return digest
    # The header is only recommended; the digest is that of the manifest's bytes.
    answer = await _ask(image, "GET", path, insecure=insecure)
    if answer.status != 200:
        raise refused(image.registry, answer, f"for the manifest of {image}")
    return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"


async def image_labels(reference: str, *, insecure: bool = False) -> dict[str, str] | None:
    """The labels of an image, or None where its registry has no such image; empty where it has none.

    Of an image for several platforms, those of the first.

    Args:
        reference: with a digest or tag.

    Raises:
        InvalidInput: not an image reference.
        Unreachable: the registry does not answer, refuses the credentials, or what it says is no image.
    """
    image = parse_reference(reference)
    manifest = await _document(image, f"manifests/{image.version}", insecure=insecure)
    if manifest is None:
        return None
    if several := manifest.get("manifests"):
        manifest = await _document(image, f"manifests/{several[0]['digest']}", insecure=insecure) or {}
    config = (manifest.get("config") or {}).get("digest")
    found = await _document(image, f"blobs/{config}", insecure=insecure) if config else None
    labels = ((found or {}).get("config") or {}).get("Labels") or {}
    return {str(key): str(value) for key, value in labels.items()}


async def _document(image: Reference, path: str, *, insecure: bool) -> dict[str, Any] | None:
    """A JSON document of a repository; None where there is none."""
    answer = await _ask(image, "GET", f"/v2/{image.path}/{path}", insecure=insecure)
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise refused(image.registry, answer, f"for {path.partition('/')[0]} of {image}")
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unreachable(f"the registry {image.registry} gives no proper answer when asked about {image}")
    return document


async def ping(registry: str, *, insecure: bool = False) -> None:
    """Check that a registry answers and speaks the protocol (credentials are not checked).

    Args:
        registry: host, with port and path where there are some (``ghcr.io/acme/shop``).

    Raises:
        Unreachable: it does not.
    """
    image = parse_reference(f"{registry}/ping" if "/" not in registry else registry)
    answer = await _ask(image, "GET", "/v2/", insecure=insecure, log_in=False)
    if answer.status not in (200, 401):
        raise refused(image.registry, answer, "whether it is a registry")


async def speaks_plain_http(registry: str) -> bool:
    """Whether a registry on this machine or at a private address answers without TLS; any other is not asked.

    Raises:
        Unreachable: it does not answer at all.
    """
    if not is_private_address(registry):
        return False
    image = parse_reference(f"{registry}/ping")
    return (await _ask(image, "GET", "/v2/", insecure=False, log_in=False)).scheme == "http"


def auth_file(environment: dict[str, str] | None = None) -> Path | None:
    """The file of registry logins that a builder is given: the first there is of those that builders use."""
    return next((path for path in _auth_files(environment or dict(os.environ)) if path.is_file()), None)


async def credentials_for(registry: str, environment: dict[str, str] | None = None) -> Credentials | None:
    """The login for a registry that docker, podman or buildah keep; None where there is none.

    Raises:
        Unreachable: a credential helper is named and fails.
    """
    environment = dict(os.environ) if environment is None else environment
    keys = (_HUB_LOGIN, DEFAULT_REGISTRY) if registry == DEFAULT_REGISTRY else (registry, f"https://{registry}")
    for path in _auth_files(environment):
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if not isinstance(config, dict):
            continue
        helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
        if helper and (found := await _ask_helper(str(helper), keys[0], environment)):
            return found
        for key in keys:
            if found := _from_entry((config.get("auths") or {}).get(key)):
                return found
    return None


def schemes(registry: str, *, insecure: bool) -> tuple[str, ...]:
    """Which schemes are tried, in order: plain HTTP only for this machine, private addresses and by leave."""
    if is_loopback(registry):
        return ("http", "https")
    if insecure or is_private_address(registry):
        return ("https", "http")
    return ("https",)


async def _ask(image: Reference, method: str, path: str, *, insecure: bool, log_in: bool = True) -> Answer:
    import aiohttp

    host = HUB_HOST if image.registry == DEFAULT_REGISTRY else image.registry
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    allowed = schemes(image.registry, insecure=insecure)
    # trust_env: proxies, as every other tool has them; they are no use for this machine.
    async with aiohttp.ClientSession(timeout=timeout, trust_env=not is_loopback(host)) as session:
        reason = ""
        for scheme in allowed:
            # Having been led from HTTPS to HTTP by an address alone is not a leave to send a password.
            secret_may_go = scheme == "https" or insecure or is_loopback(host)
            request = Request(
                session, image, f"{scheme}://{host}", unverified=insecure, log_in=log_in and secret_may_go
            )
            try:
                async for attempt in AsyncRetrying(
                    stop=stop_after_attempt(_ATTEMPTS),
                    wait=wait_exponential(multiplier=0.2, max=2),
                    retry=retry_if_exception_type(Transient),
                    reraise=True,
                ):
                    with attempt:
                        return await request.send(method, path)
            except NotThisScheme as error:
                reason = reason or str(error)
            except Transient as error:
                reason = str(error)
                break
    raise Unreachable(
        f"the registry {image.registry} does not answer",
        why=reason,
        hint="is it running, and is its name right (`images.registry`)? `sandbox doctor` shows which one is used",
    )


class Request:
    """One request and, where the registry asks for it, the same again with a token."""

    def __init__(
        self, session: aiohttp.ClientSession, image: Reference, base: str, *, unverified: bool, log_in: bool
    ) -> None:
        self._session = session
        self._image = image
        self._base = base
        self._log_in = log_in
        self._tls: Any = {"ssl": False} if unverified else {}

    async def send(self, method: str, path: str) -> Answer:
        headers = {"Accept": ", ".join(_MANIFEST_TYPES)}
        answer = await self._once(method, self._base + path, headers)
        if answer.status == 401 and self._log_in:
            authorization = await self.authorize(answer.headers.get("www-authenticate", ""))
            if authorization:
                answer = await self._once(method, self._base + path, {**headers, "Authorization": authorization})
        return answer

    async def authorize(self, challenge: str) -> str:
        """What the ``Authorization`` header must say, by the registry's challenge; empty: nothing can be done."""
        kind, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        login = await credentials_for(self._image.registry)
        basic = ""
        if login and login.user:
            basic = "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        if kind.lower() == "basic":
            return basic
        if kind.lower() != "bearer" or "realm" not in fields:
            return ""
        realm = fields["realm"]
        if not realm.startswith("https://") and self._base.startswith("https://"):
            raise Unreachable(
                f"the registry {self._image.registry} wants a login over plain HTTP",
                why=f"its token service is {realm}",
                hint="credentials are not sent there",
            )
        query = {
            "service": fields.get("service", ""),
            "scope": fields.get("scope") or f"repository:{self._image.path}:pull",
        }
        if login and not login.user:
            form = {**query, "grant_type": "refresh_token", "client_id": "sandbox", "refresh_token": login.password}
            answer = await self._once("POST", realm, {}, data=form)
        else:
            answer = await self._once("GET", realm, {"Authorization": basic} if basic else {}, params=query)
        if answer.status != 200:
            raise refused(self._image.registry, answer, "for a token")
        try:
            body = json.loads(answer.body)
            return f"Bearer {body.get('token') or body['access_token']}"
        except (ValueError, KeyError, AttributeError):
            raise Unreachable(f"the token service of {self._image.registry} gives no token") from None

    async def _once(self, method: str, url: str, headers: dict[str, str], **more: Any) -> Answer:
        import aiohttp

        try:
            async with self._session.request(method, url, headers=headers, **more, **self._tls) as response:
                body = await response.content.read(_LARGEST_MANIFEST)
                answer = Answer(
                    response.url.scheme, response.status, {k.lower(): v for k, v in response.headers.items()}, body
                )
        except aiohttp.ClientConnectorCertificateError as error:
            raise NotThisScheme(str(error)) from None
        except (aiohttp.ClientSSLError, aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError) as error:
            raise NotThisScheme(str(error) or type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(str(error) or type(error).__name__) from None
        except TimeoutError:
            raise Transient(f"no answer within {_ANSWER_SECONDS:.0f} s") from None
        if answer.status == 429 or answer.status >= 500:
            raise Transient(f"{answer.status} {_said(answer)}".strip())
        if answer.status == 400 and b"HTTPS server" in answer.body:
            raise NotThisScheme("it speaks HTTPS only")
        return answer


def refused(registry: str, answer: Answer, asked: str) -> Unreachable:
    """The error of a registry that answers, and not with what it was asked for."""
    why = f"{answer.status} {_said(answer)}".strip()
    if answer.status in (401, 403):
        return Unreachable(
            f"the registry {registry} refuses to say {asked}"
            if asked.startswith("whether")
            else f"the registry {registry} refuses when asked {asked}",
            why=why,
            hint=f"log in with `docker login {registry}` (or podman, buildah); is the repository's name right?",
        )
    return Unreachable(f"the registry {registry} gives no proper answer when asked {asked}", why=why)


def _said(answer: Answer) -> str:
    """The registry's own words in an error's body, where there are some."""
    try:
        errors = json.loads(answer.body)["errors"]
        return "; ".join(f"{error.get('code', '')}: {error.get('message', '')}" for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _auth_files(environment: dict[str, str]) -> list[Path]:
    """Where logins are kept, the most particular first (containers-auth.json(5), docker's config.json)."""
    home = Path(environment.get("HOME") or Path.home())
    named = environment.get("REGISTRY_AUTH_FILE")
    runtime = environment.get("XDG_RUNTIME_DIR")
    docker = environment.get("DOCKER_CONFIG")
    return [
        *([Path(named)] if named else []),
        Path(runtime) / "containers/auth.json" if runtime else Path(f"/run/containers/{os.getuid()}/auth.json"),
        home / ".config/containers/auth.json",
        (Path(docker) if docker else home / ".docker") / "config.json",
    ]


def _from_entry(entry: Any) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials("", str(token))
    try:
        user, colon, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except ValueError:
        return None
    return Credentials(user, password) if colon else None


async def _ask_helper(helper: str, server: str, environment: dict[str, str]) -> Credentials | None:
    """Ask ``docker-credential-<helper>``; that it knows no login is not an error."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", helper):
        raise Unreachable(f"the credential helper {helper!r} has an impossible name")
    try:
        ended = await run(
            [f"docker-credential-{helper}", "get"], env=environment, limit=_HELPER_LIMIT, stdin=server.encode()
        )
    except OperationFailed as error:
        raise Unreachable(f"the login for {server} cannot be had", why=str(error)) from error
    if ended.code != 0:
        return None
    try:
        said = json.loads(ended.output)
        user = said["Username"]
        return Credentials("" if user == "<token>" else user, said["Secret"])
    except (ValueError, KeyError, TypeError):
        return None


async def wait_for_digest(
    reference: str, *, insecure: bool, limit: timedelta, every: timedelta = timedelta(seconds=5)
) -> str | None:
    """Ask until the registry has an image; None where it has none by the end of the limit.

    Raises:
        Unreachable: as :func:`digest_of`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + limit.total_seconds()
    while True:
        if digest := await digest_of(reference, insecure=insecure):
            return digest
        left = end - loop.time()
        if left <= 0:
            return None
        await asyncio.sleep(min(every.total_seconds(), left))
