"""The connection to one cluster: the one place where requests leave and errors come in.

HTTP is aiohttp's, the kubeconfig ours. Measured, in seconds of CPU to import (2 cores, best of nine): asyncio 0.06,
aiohttp 0.24, this module 0.26; ``kubernetes`` 0.27, because ``kubernetes/__init__`` imports its sync client first;
``kubernetes.aio.client.ApiClient`` 0.47, with its loader of kubeconfigs 0.55. Under the bare ApiClient lies aiohttp
anyway, and what it adds (typed serialising, its own retries) is not used here. So the kubernetes package is imported
only for the old ``auth-provider`` credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter
from yarl import URL

from sandbox import __version__
from sandbox.cluster import errors
from sandbox.cluster.credentials import Credentials, Identity
from sandbox.cluster.kubeconfig import Access, find, locations, read
from sandbox.model.errors import InvalidInput

# A server that never answered is down or the address is wrong: say so soon. One that did is being restarted.
_RETRY_FIRST_CONTACT_S = 3.0
_RETRY_S = 30.0
_CONNECT_TIMEOUT_S = 5.0
_NAMESPACE = re.compile(r"/apis?/[^?]*?/namespaces/([^/?]+)", re.ASCII)
# Once more, in case of an internal error that passes (a leader change, a webhook that restarts).
_INTERNAL_ERROR_ATTEMPTS = 3
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})
Query = Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class UserInfo:
    """Who the API server takes us for."""

    username: str
    groups: tuple[str, ...]


class Cluster:
    """A connection to one cluster; ``async with Cluster.connect(...) as cluster``.

    Attributes:
        context: name of the kubeconfig's context.
        server: address of the API server.
        default_namespace: the context's.
        owners: whose the sandboxes are that were looked at, by namespace: refusals in one of them say it.
    """

    def __init__(self, access: Access) -> None:
        self.context = access.context
        self.server = access.server
        self.default_namespace = access.namespace
        self._access = access
        self._credentials = Credentials(access)
        self._proxy = _proxy(access)
        self._session: aiohttp.ClientSession | None = None
        self._tls: dict[tuple[str, str] | None, ssl.SSLContext] = {}
        self._answered = False
        self._clock: tuple[datetime, float] | None = None
        self._version: str | None = None
        self._own_kubeconfig: Path | None = None
        self.owners: dict[str, str] = {}
        # What discovery.py learned; it lives as long as the connection.
        self.discovered: dict[str, asyncio.Future[Any]] = {}

    @classmethod
    def connect(cls, context: str | None = None, kubeconfig: Path | None = None) -> Cluster:
        """Read the kubeconfig; the first request goes out when it is needed.

        Args:
            context: the kubeconfig's current one by default.
            kubeconfig: ``$KUBECONFIG``, else ``~/.kube/config``, else the pod's service account by default.

        Raises:
            Unreachable: there is no kubeconfig.
            InvalidInput: it is not one, or has no such context.
        """
        return cls(find(context, kubeconfig))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; harmless when closed."""
        session, self._session = self._session, None
        if session:
            await session.close()
        if self._own_kubeconfig:
            self._own_kubeconfig.unlink(missing_ok=True)
            self._own_kubeconfig = None

    @property
    def kubeconfig_path(self) -> Path:
        """A file from which tools (helm, kubectl) reach this cluster under ``context``.

        The user's own where one file says it all, else one of ours that lives as long as the connection.
        """
        if self._access.file:
            return self._access.file
        if self._own_kubeconfig is None:
            # mkstemp makes it readable by its owner only.
            handle, name = tempfile.mkstemp(prefix="sandbox-kubeconfig-", suffix=".json")
            with os.fdopen(handle, "w") as file:
                json.dump(self._access.document, file)
            self._own_kubeconfig = Path(name)
        return self._own_kubeconfig

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 30.0,
        retry: bool = True,
    ) -> Any:
        """Send a request and return the answer: decoded where it is JSON, else as text.

        Retried, with a bound: what is idempotent on connection errors, 429 and 5xx; anything on 429 and on a
        connection that was never made.

        Args:
            path: with every part quoted, as :meth:`Resource.path` gives it.
            body: encoded as JSON (which is YAML too), except bytes.
            timeout: seconds for one try.

        Raises:
            FromServer: the server refused (see :mod:`sandbox.cluster.errors`).
            ServerUnavailable: it does not answer.
            TlsFailure: the connection is not trusted.
        """
        async for attempt in self._attempts(method, retry):
            with attempt:
                async with self.open(
                    method, path, query=query, body=body, content_type=content_type, accept=accept, timeout=timeout
                ) as response:
                    with self._connection_errors(method, path):
                        data = await response.read()
                    return _decoded(data, response.headers.get("Content-Type", ""), method, path)
        raise AssertionError("tenacity gives a result or raises")

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float | None = None,
        read_timeout: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request once and hand over the answer to be read as it comes (watches, logs).

        Args:
            timeout: seconds for all of it; None: no bound but ``read_timeout``.
            read_timeout: seconds that the server may be silent.

        Raises:
            as :meth:`request`.
        """
        headers = [("Accept", accept)]
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.append(("Content-Type", content_type))
        for last in (False, True):
            identity = await self._credentials.identity()
            with self._connection_errors(method, path):
                response = await self._opened().request(
                    method,
                    self._url(path, query),
                    data=data,
                    headers=[*headers, *identity.headers],
                    timeout=aiohttp.ClientTimeout(
                        total=timeout, sock_connect=_CONNECT_TIMEOUT_S, sock_read=read_timeout
                    ),
                    allow_redirects=False,
                    **self._transport(identity),
                )
            if response.status != 401 or last or not self._credentials.renewable:
                break
            # The token may have ended since it was read; asking once more is what client-go does.
            response.release()
            self._credentials.forget(identity)
        try:
            self._note(response)
            if response.status >= 300:
                with self._connection_errors(method, path):
                    text = await response.read()
                raise self._refusal(response.status, text, method, path, response.headers.get("Retry-After"))
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

    @asynccontextmanager
    async def websocket(
        self, path: str, *, query: str, protocols: tuple[str, ...]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse[Any]]:
        """Open a websocket (exec, port-forward).

        A dead connection is noticed by TCP's own probes: pings of the websocket are not read while its output waits
        for a slow reader (a pager), and would cut it off.

        Args:
            query: encoded already: exec repeats keys.

        Raises:
            as :meth:`request`.
        """
        try:
            opened = await self._upgraded(path, query, protocols)
        except aiohttp.WSServerHandshakeError as error:
            raise await self._handshake_refusal(path, query, error.status, error.message) from None
        try:
            yield opened
        finally:
            await opened.close()

    async def _upgraded(
        self, path: str, query: str, protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse[Any]:
        for last in (False, True):
            identity = await self._credentials.identity()
            try:
                with self._connection_errors("GET", path):
                    opened: aiohttp.ClientWebSocketResponse[Any] = await self._opened().ws_connect(
                        URL(f"{self.server}{path}?{query}", encoded=True),
                        protocols=protocols,
                        headers=list(identity.headers),
                        max_msg_size=0,
                        timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                        **self._transport(identity),
                    )
                return opened
            except aiohttp.WSServerHandshakeError as error:
                if error.status != 401 or last or not self._credentials.renewable:
                    raise
                self._credentials.forget(identity)
        raise AssertionError("the second try returns or raises")

    async def version(self) -> str:
        """The server's version, such as ``v1.36.3``."""
        if self._version is None:
            self._version = str((await self.request("GET", "/version"))["gitVersion"])
        return self._version

    async def server_time(self) -> datetime:
        """The server's clock (the Date header of its last answer, carried on), UTC; exact to about a second."""
        if self._clock is None:
            await self.request("GET", "/version")
        if self._clock is None:
            raise errors.RequestFailed("the server does not say what time it is", why="no Date header in its answer")
        return self.known_time()

    def known_time(self) -> datetime:
        """As :meth:`server_time`, for those whose request has been answered already."""
        assert self._clock is not None, "the server has answered"
        date, received = self._clock
        return date + timedelta(seconds=time.monotonic() - received)

    async def whoami(self) -> UserInfo:
        """Who the server takes us for (SelfSubjectReview; Kubernetes 1.28 or later)."""
        review = await self.request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
        user = (review.get("status") or {}).get("userInfo") or {}
        return UserInfo(str(user.get("username") or ""), tuple(user.get("groups") or ()))

    async def can_i(self, verb: str, group: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Whether we may do this (SelfSubjectAccessReview).

        Args:
            resource: plural, with a subresource after a slash: ``pods/exec``.
            namespace: empty: cluster-scoped, or in all namespaces.
        """
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        review = await self.request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {**attributes, "namespace": namespace, "name": name}},
            },
        )
        return bool((review.get("status") or {}).get("allowed"))

    def _attempts(self, method: str, retry: bool) -> AsyncRetrying:
        began = time.monotonic()

        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, errors.RequestFailed):
                return state.attempt_number >= _INTERNAL_ERROR_ATTEMPTS
            spent = time.monotonic() - began + state.upcoming_sleep
            return spent > (_RETRY_S if self._answered else _RETRY_FIRST_CONTACT_S)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, errors.FromServer) else None
            return max(backoff(state), asked or 0.0)

        backoff = wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2)
        return AsyncRetrying(
            retry=retry_if_exception(lambda error: retry and _may_retry(error, method)),
            stop=stop,
            wait=wait,
            reraise=True,
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Watches hold one connection each; the server bounds what is too much.
                connector=aiohttp.TCPConnector(limit=0, socket_factory=_probed_socket),
                headers={"User-Agent": f"sandbox/{__version__}"},
                # One object may be 1.5 MiB, and a watch has it on one line.
                read_bufsize=2**21,
                auto_decompress=True,
            )
        return self._session

    def _url(self, path: str, query: Query | None) -> URL:
        pairs = {key: _query_text(value) for key, value in (query or {}).items() if value is not None}
        return URL(f"{self.server}{path}{'?' + urlencode(pairs) if pairs else ''}", encoded=True)

    def _transport(self, identity: Identity) -> dict[str, Any]:
        if self.server.startswith("http://"):
            return {"proxy": self._proxy}
        if identity.certificate not in self._tls:
            self._tls[identity.certificate] = _tls_context(self._access, identity)
        return {
            "proxy": self._proxy,
            "ssl": self._tls[identity.certificate],
            "server_hostname": self._access.tls_server_name,
        }

    def _note(self, response: aiohttp.ClientResponse) -> None:
        self._answered = True
        if date := response.headers.get("Date"):
            with contextlib.suppress(ValueError):
                self._clock = (parsedate_to_datetime(date).astimezone(UTC), time.monotonic())

    def _refusal(
        self, status: int, body: bytes, method: str, path: str, retry_after: str | None = None
    ) -> errors.FromServer:
        error = errors.from_response(status, body, method=method, path=path, retry_after=retry_after)
        if isinstance(error, errors.Unauthorized):
            error.what = f"the cluster of context {self.context!r} does not accept the credentials"
            error.why = f"{self.server}: {error.why}"
        elif isinstance(error, errors.Forbidden) and error.is_about_rights:
            found = _NAMESPACE.match(path)
            if owner := self.owners.get(found[1] if found else ""):
                error.hint = f"it is a sandbox of {owner}; unless that is you, ask them"
        return error

    async def _handshake_refusal(self, path: str, query: str, status: int, message: str) -> errors.FromServer:
        """The refusal of a websocket with its text, which a handshake's error lacks: the same request, not upgraded.

        The server checks rights and existence first and then refuses it for not being an upgrade: nothing is run.
        """
        try:
            async with self.open("GET", f"{path}?{query}", timeout=10.0):
                pass
        except errors.FromServer as error:
            if error.status == status:
                return error
        return self._refusal(status, message.encode(), "GET", path)

    @contextlib.contextmanager
    def _connection_errors(self, method: str, path: str) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
            raise self._tls_failure(error) from None
        except aiohttp.WSServerHandshakeError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise self._tls_failure(error.__cause__) from None
            raise self._no_answer(error, method, path) from None

    def _tls_failure(self, error: BaseException) -> errors.TlsFailure:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            hint = "the kubeconfig's certificate-authority or tls-server-name is not this server's: fetch it again"
        elif "ALERT" in text.upper():
            hint = "the server refused the client certificate (expired?): log in again"
        else:
            hint = "is this the right address, and is it https?"
        return errors.TlsFailure(
            f"no trusted connection to {self.server} (context {self.context!r})", why=text, hint=hint
        )

    def _no_answer(self, error: BaseException, method: str, path: str) -> errors.ServerUnavailable:
        silent = isinstance(error, TimeoutError)
        why = "no answer in time" if silent else str(error) or type(error).__name__
        failure = errors.ServerUnavailable(
            f"the cluster of context {self.context!r} does not answer",
            why=f"{self.server}, on trying to {errors.describe(method, path)}: {why}",
            hint="is it running, and can this machine reach it? `sandbox cluster list` shows the embedded ones",
        )
        # Whether the request can have reached the server: what was never connected can be sent again, whatever it is.
        failure.reason = "NotConnected" if isinstance(error, aiohttp.ClientConnectorError) else "NoAnswer"
        return failure


def contexts(kubeconfig: Path | None = None) -> list[str]:
    """Names of the kubeconfig's contexts, sorted; empty where there is none."""
    return sorted(read(locations(kubeconfig)).contexts)


def _probed_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within two minutes that nobody is at its other end any more."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 6)):
        # macOS has the last two only.
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def _may_retry(error: BaseException, method: str) -> bool:
    if isinstance(error, errors.ServerUnavailable):
        return method in _IDEMPOTENT or error.status == 429 or error.reason == "NotConnected"
    return isinstance(error, errors.RequestFailed) and error.status == 500 and method in _IDEMPOTENT


def _decoded(data: bytes, content_type: str, method: str, path: str) -> Any:
    if "json" not in content_type:
        return data.decode(errors="replace")
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        # A proxy that cuts answers short; asking again is right, as after a broken connection.
        failure = errors.ServerUnavailable(f"cannot {errors.describe(method, path)}", why=f"the answer is cut: {error}")
        failure.reason = "NoAnswer"
        raise failure from None


def _query_text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tls_context(access: Access, identity: Identity) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.ca)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"the certificate-authority of context {access.context!r} is not a certificate", why=str(error)
        ) from None
    # Python 3.13 demands extensions that the authorities of many clusters lack; kubectl does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if identity.certificate:
        _load_certificate(context, identity.certificate, access.context)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: tuple[str, str], name: str) -> None:
    # The ssl module reads certificates from files only: readable by the owner, and gone at once.
    handle, file = tempfile.mkstemp(prefix="sandbox-tls-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write("\n".join(certificate))
        context.load_cert_chain(file)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"the client certificate of context {name!r} cannot be used", why=str(error), hint="log in again"
        ) from None
    finally:
        Path(file).unlink()


def _proxy(access: Access) -> str | None:
    """The proxy to use: the kubeconfig's, else the environment's (HTTPS_PROXY, NO_PROXY) as kubectl does."""
    parts = urlsplit(access.server)
    proxy = access.proxy
    if proxy is None and parts.hostname and not urllib.request.proxy_bypass(parts.netloc):
        proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not proxy.startswith(("http://", "https://")):
        raise InvalidInput(
            f"the proxy of context {access.context!r} is of a kind that is not supported",
            why=f"proxy-url: {urlsplit(proxy).scheme}://…",
            hint="use an http:// or https:// proxy",
        )
    return proxy
