"""Waiting until the parts of a cluster answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox.model.errors import OperationFailed

_REQUEST_TIMEOUT = 5.0  # seconds
_POLL = 0.1


@dataclass(frozen=True)
class Api:
    """The API server of one cluster, asked with the administrator's certificate and through no proxy."""

    address: str
    port: int
    pki: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one request.

        Raises:
            OSError: nothing answers; `ssl.SSLError` and HTTP protocol errors are wrapped in it.
        """
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=_REQUEST_TIMEOUT, context=context)
        return _exchange(connection, path)

    def ready(self) -> str:
        """Empty when the API server says that it is ready, else what it or the network says."""
        return _not_ok(self.get, "/readyz")

    def exists(self, path: str) -> str:
        """Empty when the object is there."""
        return _not_ok(self.get, path)

    def node_ready(self, node: str, since: datetime) -> str:
        """Empty when the node has reported Ready since it was started, else the kubelet's reason."""
        try:
            status, body = self.get(f"/api/v1/nodes/{node}")
        except OSError as error:
            return str(error)
        if status != 200:
            return f"node {node}: HTTP {status}"
        return not_ready(json.loads(body), since)


def not_ready(node: dict[str, Any], since: datetime) -> str:
    """Why a Node object does not count as ready; empty when it does.

    Args:
        since: when the node was started. What the API server still has from before says nothing.
    """
    conditions = node.get("status", {}).get("conditions", [])
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None or datetime.fromisoformat(ready["lastHeartbeatTime"]) < since.replace(microsecond=0):
        return "the kubelet has not reported yet"
    return "" if ready["status"] == "True" else str(ready.get("message") or ready.get("reason"))


def http_ready(address: str, port: int, path: str) -> str:
    """Empty when a plain HTTP server answers 200."""
    return _not_ok(lambda p: _exchange(http.client.HTTPConnection(address, port, timeout=_REQUEST_TIMEOUT), p), path)


async def wait(
    what: str,
    check: Callable[[], str],
    *,
    bound: float,
    alive: Callable[[], bool],
    progress: Callable[[str], None],
    explain: Callable[[], str],
    hint: str,
) -> None:
    """Wait until a check returns an empty text.

    Args:
        what: what is waited for, in messages: "the API server".
        check: returns the reason why it is not so yet; runs in a thread.
        bound: seconds.
        alive: whether the cluster's process is still there; waiting ends when it is not.
        explain: more about a failure, such as the last lines of a log.

    Raises:
        OperationFailed: the bound passed, or the cluster's process ended.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    while reason := await asyncio.to_thread(check):
        if not alive():
            raise OperationFailed(f"the cluster ended while waiting for {what}", why=explain(), hint=hint)
        if loop.time() - started > bound:
            why = f"{reason}\n{explain()}".strip()
            raise OperationFailed(f"{what} is not ready after {bound:.0f} s", why=why, hint=hint)
        await asyncio.sleep(_POLL)
    progress(f"{what} is ready ({loop.time() - started:.1f} s)")


def _exchange(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"not HTTP: {error!r}") from error
    finally:
        connection.close()


def _not_ok(get: Callable[[str], tuple[int, str]], path: str) -> str:
    try:
        status, body = get(path)
    except OSError as error:
        return str(error)
    return "" if status == 200 else f"HTTP {status}: {body.strip()[-300:]}"
