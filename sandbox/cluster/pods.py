"""What one does with running pods: read their logs, run commands in them, reach their ports; and the events around.

Commands and ports go over websockets of our own (aiohttp's): kubernetes.aio decodes binary output as UTF-8 and
never closes stdin, and has no framing for ports. Protocols: ``v5.channel.k8s.io`` for commands
(https://kubernetes.io/blog/2024/08/20/websockets-transition/, Kubernetes 1.30 or later; before, v4 without closing
stdin), ``v4.channel.k8s.io`` for ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlencode

import aiohttp

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster, Query
from sandbox.cluster.errors import FromServer, NotFound, RequestFailed, ServerUnavailable
from sandbox.cluster.readiness import condition, container_statuses, event_times
from sandbox.model.errors import InvalidInput, OperationFailed, SandboxError, Unreachable
from sandbox.model.objects import Manifest, ObjectRef

# -- logs -------------------------------------------------------------------------------------------------------

# A silent log is no dead connection, but a connection is asked for anew this often all the same.
_LOG_SILENCE_S = 600.0
_LOG_GIVE_UP_S = 60.0


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log.

    Attributes:
        text: without its end; what is not UTF-8 is replaced.
        at: RFC 3339 with nanoseconds, as the kubelet wrote it; empty where it was not asked for.
    """

    pod: str
    container: str
    text: str
    at: str = ""

    @property
    def prefix(self) -> str:
        return f"{self.pod}/{self.container}"


def _pod_path(namespace: str, pod: str, subresource: str = "") -> str:
    end = f"/{subresource}" if subresource else ""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}{end}"


def is_complaint(text: str) -> bool:
    """Whether a log is none, but the kubelet's own complaint: it answers 200 with that for a container that is gone."""
    return text.startswith(("unable to retrieve container logs", "failed to try resolving symlinks in path"))


async def log_tail(
    cluster: Cluster, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 20
) -> tuple[str, ...]:
    """The last lines of a container's log; empty where there is none (yet, or any more)."""
    query: Query = {"container": container, "tailLines": lines, "previous": previous, "limitBytes": 64_000}
    try:
        text = await cluster.request(
            "GET", _pod_path(namespace, pod, "log"), query=query, accept="*/*", timeout=5.0, retry=False
        )
    except (FromServer, Unreachable):
        return ()
    found = [] if is_complaint(str(text)) else str(text).splitlines()
    return tuple(found[-lines:])


async def logs(
    cluster: Cluster,
    namespace: str,
    pods: Sequence[Manifest] | Callable[[], Awaitable[Sequence[Manifest]]],
    *,
    container: str | None = None,
    follow: bool = False,
    previous: bool = False,
    tail: int | None = None,
    since: timedelta | None = None,
    timestamps: bool = False,
) -> AsyncIterator[LogLine]:
    """Lines of the logs of pods, of all their containers unless one is named.

    Without ``follow`` pod by pod, in the order given; with it as they come, reconnecting where a connection drops
    and, when ``pods`` is a function, taking in pods that come later, until the caller stops.

    Raises:
        InvalidInput: no pod has such a container.
        FromServer: the logs may not be read.
    """
    ask = pods if callable(pods) else None
    known: Sequence[Manifest] = await ask() if ask else pods  # type: ignore[assignment]
    options = _LogOptions(previous, tail, since, timestamps)
    if not follow:
        for pod in known:
            for name in _log_containers(pod, container, known):
                wanted = _of_last_end(options, pod, name)
                async for line in _log_once(cluster, namespace, pod["metadata"]["name"], name, wanted):
                    yield line
        return
    async for line in _LogFollower(cluster, namespace, ask, container, options).lines(known):
        yield line


@dataclass(frozen=True)
class _LogOptions:
    previous: bool
    tail: int | None
    since: timedelta | None
    timestamps: bool


def _of_last_end(options: _LogOptions, pod: Manifest, container: str) -> _LogOptions:
    """Where a container has ended and was not started again yet, its run before is the one that just ended: of those
    before it the kubelet keeps nothing."""
    state = next((s for s in container_statuses(pod) if s["name"] == container), {})
    ended = bool(state.get("restartCount")) and "terminated" in (state.get("state") or {})
    return replace(options, previous=False) if options.previous and ended else options


def _log_containers(pod: Manifest, wanted: str | None, pods: Sequence[Manifest]) -> list[str]:
    """Containers of a pod that have a log: those that were started, the wanted one only where one is named."""
    started = [
        status["name"]
        for status in container_statuses(pod)
        if (status.get("state") or {}).keys() & {"running", "terminated"} or status.get("lastState")
    ]
    if wanted is None:
        return started
    every = {c["name"] for p in pods for key in ("initContainers", "containers") for c in p["spec"].get(key) or ()}
    if every and wanted not in every:
        raise InvalidInput(f"there is no container {wanted!r}", hint=f"use one of: {', '.join(sorted(every))}")
    return [name for name in started if name == wanted]


async def _log_once(
    cluster: Cluster,
    namespace: str,
    pod: str,
    container: str,
    options: _LogOptions,
    *,
    follow: bool = False,
    since_time: str | None = None,
) -> AsyncIterator[LogLine]:
    query: Query = {
        "container": container,
        "follow": follow or None,
        "previous": options.previous or None,
        "tailLines": options.tail if since_time is None else None,
        "sinceSeconds": max(1, int(options.since.total_seconds())) if options.since and since_time is None else None,
        "sinceTime": since_time,
        "timestamps": (options.timestamps or follow) or None,
    }
    path = _pod_path(namespace, pod, "log")
    try:
        async with cluster.open("GET", path, query=query, accept="*/*", read_timeout=_LOG_SILENCE_S) as response:
            # Not by readline: a line may be longer than any buffer.
            async for raw in _lines(response):
                text = raw.decode(errors="replace")
                at = ""
                if query["timestamps"]:
                    at, _, text = text.partition(" ")
                yield LogLine(pod, container, text, at)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ServerUnavailable(
            f"the log of {pod}/{container} broke off", why=str(error) or type(error).__name__, hint="try again"
        ) from None
    except RequestFailed as error:
        # 400: no previous run, or not started yet.
        if error.status == 400:
            return
        raise


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        # Something that never ends a line is given out in pieces rather than kept.
        if len(rest) > 2**20:
            yield rest
            rest = b""
    if rest:
        yield rest


class _LogFollower:
    """Follows many containers at once; new pods and restarts included."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        ask: Callable[[], Awaitable[Sequence[Manifest]]] | None,
        container: str | None,
        options: _LogOptions,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._ask = ask
        self._container = container
        self._options = options
        # A queue with a bound: a reader that is slow slows the connections down instead of filling memory.
        self._queue: asyncio.Queue[LogLine | SandboxError] = asyncio.Queue(maxsize=1000)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def lines(self, pods: Sequence[Manifest]) -> AsyncIterator[LogLine]:
        looker = asyncio.create_task(self._look(pods))
        try:
            while True:
                get = asyncio.ensure_future(self._queue.get())
                await asyncio.wait((get, looker), return_when=asyncio.FIRST_COMPLETED)
                if not get.done():
                    # Nothing is followed any more: what is still queued comes out, then it ends.
                    get.cancel()
                    looker.result()
                    while not self._queue.empty():
                        yield self._checked(self._queue.get_nowait())
                    return
                yield self._checked(get.result())
        finally:
            for task in (looker, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(looker, *self._tasks.values(), return_exceptions=True)

    @staticmethod
    def _checked(item: LogLine | SandboxError) -> LogLine:
        if isinstance(item, SandboxError):
            raise item
        return item

    async def _look(self, pods: Sequence[Manifest]) -> None:
        """Start following what is there; with a function, look again every second; else end when all have ended."""
        while True:
            for pod in pods:
                for name in _log_containers(pod, self._container, pods):
                    key = (pod["metadata"]["name"], name)
                    if key not in self._tasks:
                        self._tasks[key] = asyncio.create_task(self._follow(*key, pod["metadata"].get("uid", "")))
            if self._ask is None:
                await asyncio.gather(*self._tasks.values())
                return
            await asyncio.sleep(1.0)
            pods = await self._ask()

    async def _follow(self, pod: str, container: str, uid: str) -> None:
        """One container until its pod is gone, over restarts and dropped connections."""
        last = ""
        trouble = 0.0
        while True:
            resumed_from = last
            try:
                async for line in _log_once(
                    self._cluster,
                    self._namespace,
                    pod,
                    container,
                    self._options,
                    follow=True,
                    since_time=last or None,
                ):
                    # sinceTime is inclusive: what was given out already is skipped by its own, finer time.
                    if resumed_from and line.at <= resumed_from:
                        continue
                    last, trouble = line.at or last, 0.0
                    await self._queue.put(
                        line if self._options.timestamps else LogLine(line.pod, line.container, line.text)
                    )
            except NotFound:
                return
            except SandboxError as error:
                trouble += 1.0
                if not isinstance(error, ServerUnavailable) or trouble > _LOG_GIVE_UP_S:
                    await self._queue.put(error)
                    return
            if self._options.previous or not await self._goes_on(pod, uid):
                return
            await asyncio.sleep(1.0)

    async def _goes_on(self, pod: str, uid: str) -> bool:
        """Whether a container whose log ended may write again: its pod is there and not finished."""
        try:
            found = await objects.get(self._cluster, ObjectRef("", "v1", "Pod", pod, self._namespace))
        except Unreachable:
            return True
        if found is None or found["metadata"].get("uid") != uid:
            return False
        return (found.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


# -- commands ---------------------------------------------------------------------------------------------------

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 64 * 1024


class Writer(Protocol):
    """Where output goes, such as ``sys.stdout.buffer``."""

    def write(self, data: bytes, /) -> Any: ...

    def flush(self) -> Any: ...


async def exec_(
    cluster: Cluster,
    namespace: str,
    pod: str,
    container: str | None,
    command: Sequence[str],
    stdin: BinaryIO | bytes | AsyncIterator[bytes] | None = None,
    tty: bool = False,
    *,
    stdout: Writer | None = None,
    stderr: Writer | None = None,
    sizes: AsyncIterator[tuple[int, int]] | None = None,
    timeout: float | None = None,
) -> int:
    """Run a command in a container and return its exit code. Bytes stay bytes.

    Args:
        stdin: what it reads; a file is read in a thread. None: nothing.
        tty: give it a terminal (then stderr comes as stdout).
        stdout: where its output goes (this process's own by default); written to as it comes.
        sizes: of the terminal, (columns, rows), the first at once.
        timeout: seconds for the command; None: as long as it takes.

    Raises:
        NotFound: no such pod.
        OperationFailed: the command cannot be run, or the connection broke before its exit code came: what was
            received may be incomplete.
        Exception: whatever reading ``stdin`` or writing the output raised; the command is left.
    """
    if stdin == b"":
        # Its end alone, sent at once, may reach the node before the command has an input, and is lost then.
        stdin = None
    query = urlencode(
        [
            *([("container", container)] if container else []),
            *(("command", part) for part in command),
            ("stdout", "true"),
            *([("stderr", "true")] if not tty else [("tty", "true")]),
            *([("stdin", "true")] if stdin is not None else []),
        ]
    )
    session = _ExecSession(stdout or sys.stdout.buffer, stderr or sys.stderr.buffer)
    path = _pod_path(namespace, pod, "exec")
    protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    try:
        async with asyncio.timeout(timeout):
            async with cluster.websocket(path, query=query, protocols=protocols) as socket:
                if stdin is not None and not tty and socket.protocol != protocols[0]:
                    raise OperationFailed(
                        "the cluster cannot tell a command that its input ended",
                        why="it does not speak v5.channel.k8s.io",
                        hint="Kubernetes 1.30 or later does; or use `kubectl exec -i`",
                    )
                return await session.run(socket, stdin, sizes)
    except TimeoutError:
        raise OperationFailed(
            f"the command in {pod} did not end within {timeout:g} s", why=" ".join(command)[:200]
        ) from None


class _ExecSession:
    """One command: feeds its input, gives out its output, and reads its end."""

    def __init__(self, stdout: Writer, stderr: Writer) -> None:
        self._outputs: Mapping[int, Writer] = {_STDOUT: stdout, _STDERR: stderr}
        self._result = b""

    async def run(
        self,
        socket: aiohttp.ClientWebSocketResponse[Any],
        stdin: BinaryIO | bytes | AsyncIterator[bytes] | None,
        sizes: AsyncIterator[tuple[int, int]] | None,
    ) -> int:
        feeders = []
        if stdin is not None:
            feeders.append(asyncio.create_task(self._feed(socket, stdin)))
        if sizes is not None:
            feeders.append(asyncio.create_task(self._resize(socket, sizes)))
        receiver = asyncio.create_task(self._receive(socket))
        try:
            # A command whose input cannot be read any further would wait for it for ever.
            waiting = {receiver, *feeders}
            while receiver in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (receiver, *feeders):
                task.cancel()
            await asyncio.gather(receiver, *feeders, return_exceptions=True)
        return self._exit_code(socket)

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        async for message in socket:
            if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                continue
            data = message.data.encode() if isinstance(message.data, str) else message.data
            if not data:
                continue
            channel, payload = data[0], data[1:]
            if channel == _ERROR:
                self._result += payload
            elif payload and channel in self._outputs:
                output = self._outputs[channel]
                output.write(payload)
                output.flush()

    async def _feed(
        self, socket: aiohttp.ClientWebSocketResponse[Any], stdin: BinaryIO | bytes | AsyncIterator[bytes]
    ) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in _chunks(stdin):
                await socket.send_bytes(bytes([_STDIN]) + chunk)
            await socket.send_bytes(bytes([_CLOSE, _STDIN]))

    async def _resize(
        self, socket: aiohttp.ClientWebSocketResponse[Any], sizes: AsyncIterator[tuple[int, int]]
    ) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for columns, rows in sizes:
                size = json.dumps({"Width": columns, "Height": rows})
                await socket.send_bytes(bytes([_RESIZE]) + size.encode())

    def _exit_code(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> int:
        # Without the server's own word on how it ended, nothing is known: streams can be cut and look complete
        # (kubernetes/kubernetes#124571).
        if not self._result:
            why = str(socket.exception() or "") or f"closed with code {socket.close_code}, without an exit code"
            raise OperationFailed(
                "the connection to the command broke off", why=why, hint="what it put out may be incomplete: try again"
            )
        status = json.loads(self._result)
        if status.get("status") == "Success":
            return 0
        if status.get("reason") == "NonZeroExitCode":
            causes = (status.get("details") or {}).get("causes") or ()
            code = next((cause.get("message") for cause in causes if cause.get("reason") == "ExitCode"), None)
            if code is not None and code.lstrip("-").isdecimal():
                return int(code)
        raise OperationFailed("the command could not be run", why=str(status.get("message") or status))


async def _chunks(source: BinaryIO | bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), _CHUNK):
            yield source[start : start + _CHUNK]
    elif isinstance(source, AsyncIterator):
        async for chunk in source:
            yield chunk
    else:
        # read1 gives what is there: a terminal's line must not wait for a full buffer.
        read = getattr(source, "read1", source.read)
        while chunk := await asyncio.to_thread(read, _CHUNK):
            yield chunk


# -- ports ------------------------------------------------------------------------------------------------------

_PORT_PROTOCOL = "v4.channel.k8s.io"
# A restarting pod is waited for this long before a connection is refused.
_POD_WAIT_S = 15.0
# A websocket cannot say that one side has finished sending. When the local side has, what the pod still sends is
# taken as long as it comes without such a pause.
_HALF_CLOSED_S = 5.0


@asynccontextmanager
async def port_forward(
    cluster: Cluster,
    namespace: str,
    target: ObjectRef | str,
    local_port: int,
    remote_port: int | str,
    *,
    address: str = "127.0.0.1",
    on_error: Callable[[str], None] | None = None,
) -> AsyncIterator[int]:
    """Listen on a local port and carry every connection to a pod; yields the local port.

    Each connection goes to a ready pod as it is then: a Service's or workload's restarted pods are found again.

    Args:
        target: a Pod or Service (or Deployment, StatefulSet, … with a selector); a plain text names a Service.
        local_port: 0: any free one.
        remote_port: of the Service (number or name) or of the pod.
        on_error: told of connections that could not be carried.

    Raises:
        NotFound: there is no such target.
        OperationFailed: the local port is taken, or no pod is ready within 15 s.
        InvalidInput: it has no such port.
    """
    ref = ObjectRef("", "v1", "Service", target, namespace) if isinstance(target, str) else target
    forwarder = _Forwarder(cluster, namespace, ref, remote_port, on_error or (lambda text: None))
    # The first one finds wrong names and ports before anybody connects.
    await forwarder.destination()
    try:
        server = await asyncio.start_server(forwarder.serve, address, local_port)
    except OSError as error:
        raise OperationFailed(
            f"the local port {local_port} cannot be listened on",
            why=error.strerror or str(error),
            hint="choose another one, or 0 for any that is free",
        ) from None
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await forwarder.close()


class _Forwarder:
    """Carries the connections of one forwarded port."""

    def __init__(
        self, cluster: Cluster, namespace: str, ref: ObjectRef, port: int | str, on_error: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._ref = ref
        self._port = port
        self._on_error = on_error
        self._connections: set[asyncio.Task[Any]] = set()

    async def destination(self) -> tuple[str, int]:
        """A ready pod and its port, waited for with a bound."""
        deadline = asyncio.get_running_loop().time() + _POD_WAIT_S
        while True:
            found = await self._find()
            if found:
                return found
            if asyncio.get_running_loop().time() > deadline:
                raise OperationFailed(
                    f"no pod of {self._ref} is ready",
                    why=f"waited {_POD_WAIT_S:g} s",
                    hint="see why: `sandbox status`, `sandbox events`",
                )
            await asyncio.sleep(0.5)

    async def _find(self) -> tuple[str, int] | None:
        target = await objects.get(self._cluster, self._ref)
        if target is None:
            raise NotFound(f"there is no {self._ref} in namespace {self._namespace}", status=404, reason="NotFound")
        if self._ref.kind == "Pod":
            pods = [target]
        else:
            selector = _selector(target, self._ref)
            pods = [
                pod async for pod in objects.list_(self._cluster, "v1", "Pod", self._namespace, label_selector=selector)
            ]
        ready = [pod for pod in pods if is_ready(pod)]
        return (ready[0]["metadata"]["name"], target_port(target, self._port, ready[0])) if ready else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._carry(reader, writer)
        except (SandboxError, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            self._on_error(str(error) or type(error).__name__)
        except asyncio.CancelledError:
            # The listener is closing; asyncio's server would log a traceback.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod, port = await self.destination()
        path = _pod_path(self._namespace, pod, "portforward")
        async with self._cluster.websocket(path, query=f"ports={port}", protocols=(_PORT_PROTOCOL,)) as socket:
            await _Connection(reader, writer, socket).run()


class _Connection:
    """One TCP connection over one websocket."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        socket: aiohttp.ClientWebSocketResponse[Any],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._socket = socket
        self._received = 0

    async def run(self) -> None:
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                await self._until_quiet(receiving)
            if receiving.done():
                receiving.result()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self) -> None:
        while data := await self._reader.read(_CHUNK):
            await self._socket.send_bytes(b"\0" + data)

    async def _receive(self) -> None:
        """Give the local side what comes. Channel 0 is data, 1 an error text; each begins with the port, two bytes."""
        begun: set[int] = set()
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, payload = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)
                payload = payload[2:]
            if not payload:
                continue
            if channel == 1:
                raise OperationFailed("the port of the pod cannot be reached", why=payload.decode(errors="replace"))
            self._received += len(payload)
            self._writer.write(payload)
            await self._writer.drain()

    async def _until_quiet(self, receiving: asyncio.Task[None]) -> None:
        """Let the pod finish what it is sending: until it closes, or nothing came for a while."""
        while not receiving.done():
            before = self._received
            await asyncio.wait((receiving,), timeout=_HALF_CLOSED_S)
            if self._received == before:
                return


def is_ready(pod: Manifest) -> bool:
    """Whether a pod takes connections."""
    return not pod["metadata"].get("deletionTimestamp") and condition(pod, "Ready").get("status") == "True"


def _selector(target: Manifest, ref: ObjectRef) -> str:
    """The label selector of a Service or workload."""
    spec = target.get("spec") or {}
    selector = spec.get("selector") or {}
    labels = selector if ref.kind in ("Service", "ReplicationController") else selector.get("matchLabels") or {}
    if not labels:
        raise InvalidInput(f"{ref} selects no pods", why="it has no selector", hint="name a pod or another Service")
    return ",".join(f"{key}={value}" for key, value in labels.items())


def target_port(target: Manifest, port: int | str, pod: Manifest) -> int:
    """The port of a pod that a port of a Service (or the pod's own, by number or name) leads to.

    Raises:
        InvalidInput: there is no such port.
    """
    wanted: int | str = int(port) if str(port).isdecimal() else port
    if target.get("kind") == "Service":
        offered = (target.get("spec") or {}).get("ports") or ()
        match = next((entry for entry in offered if wanted in (entry.get("port"), entry.get("name"))), None)
        if match is None:
            shown = ", ".join(f"{e.get('name') or '-'} ({e.get('port')})" for e in offered) or "none"
            raise InvalidInput(f"service/{target['metadata']['name']} has no port {port!r}", hint=f"it has: {shown}")
        wanted = match.get("targetPort") or match["port"]
    if isinstance(wanted, int):
        return wanted
    named = {
        entry.get("name"): entry["containerPort"]
        for kind in ("containers", "initContainers")
        for container in pod["spec"].get(kind) or ()
        for entry in container.get("ports") or ()
    }
    if wanted not in named:
        shown = ", ".join(str(name) for name in named if name) or "none"
        raise InvalidInput(f"pod/{pod['metadata']['name']} has no port named {wanted!r}", hint=f"it has: {shown}")
    return int(named[wanted])


# -- events -----------------------------------------------------------------------------------------------------


async def events(
    cluster: Cluster,
    namespace: str,
    *,
    about: Callable[[Manifest], bool] | None = None,
    follow: bool = False,
) -> AsyncIterator[Manifest]:
    """Events of a namespace, oldest first by when they were last seen; then as they come, with ``follow``.

    Args:
        about: whether an event's ``involvedObject`` is wanted.
    """

    def wanted(event: Manifest) -> bool:
        return about is None or about(event.get("involvedObject") or {})

    if not follow:
        found = [event async for event in objects.list_(cluster, "v1", "Event", namespace) if wanted(event)]
        for event in sorted(found, key=_last_seen):
            yield event
        return
    before: list[Manifest] | None = []
    async for kind, event in objects.watch(cluster, "v1", "Event", namespace):
        if before is not None and kind == "ADDED":
            before.append(event)
        elif kind == "SYNCED":
            for old in sorted(filter(wanted, before or ()), key=_last_seen):
                yield old
            before = None
        elif kind != "DELETED" and wanted(event):
            yield event


def _last_seen(event: Manifest) -> datetime:
    return event_times(event)[1] or datetime.min.replace(tzinfo=UTC)
