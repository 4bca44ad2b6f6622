"""Blobs and manifests that are no images, in an OCI registry: what ``oras`` does, as a stream.

Ours, because oras-py reads every blob into memory, waits without a bound, and has its own idea of logins
(https://github.com/oras-project/oras-py, ``provider.py`` of 0.2.43); protocol, logins and schemes are those of
:mod:`sandbox.images.registry`. Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urljoin, urlsplit

from sandbox.images.reference import DEFAULT_REGISTRY, Reference, is_loopback
from sandbox.images.registry import HUB_HOST, Answer, NotThisScheme, Request, Transient, refused, schemes
from sandbox.model.errors import Unreachable

if TYPE_CHECKING:
    import aiohttp

_CONNECT_SECONDS = 5.0
# That a registry says nothing while it is sent or sends a blob.
_SILENCE_SECONDS = 60.0
_LARGEST_ERROR = 64 * 1024
_CHUNK = 1024 * 1024
Chunks = Callable[[], AsyncIterator[bytes]]


class Repository:
    """One repository of a registry. ``async with Repository(…) as repository``."""

    def __init__(self, reference: Reference, *, insecure: bool = False) -> None:
        """``insecure``: plain HTTP and unverified certificates are allowed."""
        self._reference = reference
        self._insecure = insecure
        self._host = HUB_HOST if reference.registry == DEFAULT_REGISTRY else reference.registry
        self._base = ""
        self._authorization = ""

    async def __aenter__(self) -> Self:
        """Connect; finds out whether the registry speaks TLS.

        Raises:
            Unreachable: it does not answer.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=not is_loopback(self._host))
        try:
            await self._choose_scheme()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        async with self._send("HEAD", f"blobs/{digest}") as response:
            if response.status in (200, 404):
                return response.status == 200
            raise await self._refused(response, f"whether it has {digest}")

    async def put_blob(self, digest: str, size: int, chunks: Chunks) -> None:
        """Upload a blob in one piece.

        Raises:
            Unreachable: the registry does not take it.
        """
        async with self._send("POST", "blobs/uploads/") as response:
            if response.status != 202:
                raise await self._refused(response, f"to take {digest}")
            place = urljoin(str(response.url), response.headers.get("Location", ""))
        # Parameters that are there already belong to the upload.
        target = f"{place}{'&' if urlsplit(place).query else '?'}{urlencode({'digest': digest})}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        async with self._send("PUT", target, headers=headers, data=chunks) as response:
            if response.status != 201:
                raise await self._refused(response, f"to take {digest}")

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        """A blob as it comes; nobody has compared it with its digest.

        Raises:
            Unreachable: the registry does not give it.
        """
        async with self._send("GET", f"blobs/{digest}") as response:
            if response.status != 200:
                raise await self._refused(response, f"for {digest}")
            async for chunk in self._body(response):
                yield chunk

    async def put_manifest(self, version: str, data: bytes, media_type: str) -> None:
        """Store a manifest under a tag or its digest; its blobs must be there.

        Raises:
            Unreachable: the registry does not take it.
        """
        headers = {"Content-Type": media_type}
        async with self._send("PUT", f"manifests/{version}", headers=headers, data=data) as response:
            if response.status != 201:
                raise await self._refused(response, "to take a manifest")

    async def manifest(self, version: str, media_type: str, *, at_most: int) -> bytes | None:
        """The manifest of a tag or digest, not compared with it; None where there is none.

        Raises:
            Unreachable: the registry does not give it, or it is larger than ``at_most`` bytes.
        """
        async with self._send("GET", f"manifests/{version}", headers={"Accept": media_type}) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise await self._refused(response, "for a manifest")
            data = bytearray()
            async for chunk in self._body(response):
                data += chunk
                if len(data) > at_most:
                    raise Unreachable(f"{self._reference} has a manifest of more than {at_most} bytes")
            return bytes(data)

    async def _choose_scheme(self) -> None:
        reason = ""
        for scheme in schemes(self._reference.registry, insecure=self._insecure):
            self._base = f"{scheme}://{self._host}"
            try:
                await self._request(log_in=False).send("GET", "/v2/")
                return
            except (NotThisScheme, Transient) as error:
                reason = reason or str(error)
        raise Unreachable(
            f"the registry {self._reference.registry} does not answer", why=reason, hint="is its name right?"
        )

    def _request(self, *, log_in: bool = True) -> Request:
        # Having been led from HTTPS to HTTP by an address alone is no leave to send a password.
        safe = self._base.startswith("https://") or self._insecure or is_loopback(self._host)
        return Request(self._session, self._reference, self._base, unverified=self._insecure, log_in=log_in and safe)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: bytes | Chunks | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and once more with a login where the registry asks for one."""
        import aiohttp

        url = path if "://" in path else f"{self._base}/v2/{self._reference.path}/{path}"
        # An upload may be sent elsewhere (a bucket), which has no use for the login.
        ours = urlsplit(url).netloc == urlsplit(self._base).netloc
        for last in (False, True):
            allowed = {"Authorization": self._authorization} if self._authorization and ours else {}
            options: dict[str, Any] = {"ssl": False} if self._insecure else {}
            try:
                response = await self._session.request(
                    method,
                    url,
                    headers={**(headers or {}), **allowed},
                    data=data() if callable(data) else data,
                    **options,
                )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._broken(error) from error
            async with response:
                if response.status == 401 and not last and ours:
                    challenge = response.headers.get("WWW-Authenticate", "")
                    self._authorization = await self._request().authorize(challenge)
                    if self._authorization:
                        continue
                yield response
                return

    async def _body(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(f"the connection to the registry {self._reference.registry} broke off", why=why)

    async def _refused(self, response: aiohttp.ClientResponse, asked: str) -> Unreachable:
        body = await response.content.read(_LARGEST_ERROR)
        return refused(self._reference.registry, Answer(response.url.scheme, response.status, {}, body), asked)
