"""A way to the API server on which requests go wrong, each in a way that tests choose."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import yaml
from aiohttp import web

from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo

# Lost: the server has done it, and the answer never comes. Dropped: the request never gets there.
Fault = Literal["lost", "dropped", 409, 429, 500, 503]
# From method, path and how many such requests there were, this one included: what goes wrong; None: nothing.
Faults = Callable[[str, str, int], Fault | None]


class FaultyProxy:
    """Forwards requests to the API server, but for those that go wrong. ``met`` counts the faults."""

    def __init__(self, cluster: ClusterInfo, faults: Faults) -> None:
        self._cluster = cluster
        self._faults = faults
        self._seen: Counter[tuple[str, str]] = Counter()
        self.met: Counter[Fault] = Counter()
        self.port = 0
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        assert self._started.wait(20), "the proxy starts"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Cluster.connect(self._cluster.context, self._cluster.kubeconfig) as upstream:
            self._upstream = upstream
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server = site._server
            assert isinstance(server, asyncio.Server)
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = (request.method, request.path)
        self._seen[asked] += 1
        fault = self._faults(*asked, self._seen[asked])
        if fault is not None:
            self.met[fault] += 1
        if fault == "dropped":
            return self._cut(request)
        if isinstance(fault, int):
            status = {"kind": "Status", "status": "Failure", "code": fault, "message": f"injected {fault}"}
            return web.json_response(status, status=fault, headers={"Retry-After": "1"} if fault == 429 else {})
        answer = await self._forward(request)
        return self._cut(request) if fault == "lost" else answer

    async def _forward(self, request: web.Request) -> web.Response:
        identity = await self._upstream._credentials.identity()
        async with self._upstream._opened().request(
            request.method,
            self._upstream.server + request.raw_path,
            data=await request.read(),
            headers={name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers},
            **self._upstream._transport(identity),
        ) as answer:
            data = await answer.read()
            kept = {name: answer.headers[name] for name in ("Content-Type", "Date") if name in answer.headers}
            return web.Response(status=answer.status, body=data, headers=kept)

    def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        # Nobody gets it.
        return web.Response()


@contextlib.contextmanager
def faulty(cluster: ClusterInfo, kubeconfig: Path, faults: Faults) -> Iterator[FaultyProxy]:
    """A proxy in front of a cluster's API server; ``kubeconfig`` is written and leads through it."""
    with FaultyProxy(cluster, faults) as proxy:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faulty", "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": cluster.context, "context": {"cluster": "faulty", "user": "nobody"}}],
            "current-context": cluster.context,
        }
        kubeconfig.write_text(yaml.safe_dump(content))
        yield proxy
