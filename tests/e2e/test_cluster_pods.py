"""Logs, commands and ports of real pods."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import NotFound
from sandbox.cluster.pods import LogLine, events, exec_, log_tail, logs, port_forward
from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.waiting import wait_ready
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.objects import Manifest, ObjectRef
from tests.e2e.workloads import container, deployment, pod_spec, service, serving

MIB = 1024 * 1024
_BLOCK = bytes(range(256)) * (MIB // 256)


@pytest.fixture
async def api(cluster: ClusterInfo) -> AsyncIterator[Cluster]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield connection


async def deployed(api: Cluster, namespace: str, *manifests: Manifest) -> None:
    for manifest in manifests:
        await objects.apply(api, manifest, namespace=namespace)
    await wait_ready(api, namespace, {"web": manifests}, timeout=60)


async def pods_of(api: Cluster, namespace: str, app: str) -> list[Manifest]:
    return [pod async for pod in objects.list_(api, "v1", "Pod", namespace, f"app={app}")]


@pytest.fixture
async def sleeper(api: Cluster, namespace: str, probe_image: str) -> str:
    """Name of a pod that does nothing."""
    await deployed(api, namespace, deployment("sleeper", pod_spec(container(probe_image, "sleep"))))
    [pod] = await pods_of(api, namespace, "sleeper")
    return str(pod["metadata"]["name"])


class Run:
    """Runs the probe in a pod and keeps what it put out."""

    def __init__(self, api: Cluster, namespace: str, pod: str) -> None:
        self._api, self._namespace, self._pod = api, namespace, pod
        self.stdout, self.stderr = io.BytesIO(), io.BytesIO()

    async def __call__(self, *command: str, **options: Any) -> int:
        self.stdout, self.stderr = io.BytesIO(), io.BytesIO()
        call = exec_(
            self._api,
            self._namespace,
            self._pod,
            None,
            ["/probe", *command],
            stdout=self.stdout,
            stderr=self.stderr,
            **options,
        )
        async with asyncio.timeout(60):
            return await call


@pytest.fixture
def run(api: Cluster, namespace: str, sleeper: str) -> Run:
    return Run(api, namespace, sleeper)


# -- commands


async def test_a_command_gives_its_output_its_errors_and_its_exit_code(run: Run) -> None:
    assert await run("exit", "7") == 7
    assert (run.stdout.getvalue(), run.stderr.getvalue()) == (b"", b"exiting with 7\n")
    assert await run("resolve", "localhost") == 0
    assert b"127.0.0.1" in run.stdout.getvalue()


async def test_input_reaches_a_command_byte_for_byte_and_ends(run: Run) -> None:
    data = _BLOCK * 3 + b"\xff\x00\xfe end"
    assert await run("cat", stdin=data) == 0
    assert run.stdout.getvalue() == data
    assert await run("cat", stdin=io.BytesIO(data)) == 0
    assert run.stdout.getvalue() == data
    assert await run("cat", stdin=b"") == 0
    assert run.stdout.getvalue() == b""


async def test_a_hundred_mebibytes_come_complete(api: Cluster, namespace: str, sleeper: str) -> None:
    class Digest:
        def __init__(self) -> None:
            self.sha, self.size = hashlib.sha256(), 0

        def write(self, data: bytes) -> None:
            self.sha.update(data)
            self.size += len(data)

        def flush(self) -> None:
            pass

    received, expected = Digest(), hashlib.sha256()
    for _ in range(100):
        expected.update(_BLOCK)
    call = exec_(api, namespace, sleeper, None, ["/probe", "produce", "100"], stdout=received)
    async with asyncio.timeout(120):
        assert await call == 0
    assert received.size == 100 * MIB
    assert received.sha.digest() == expected.digest()


async def test_input_that_cannot_be_read_ends_it(run: Run) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await run("cat", stdin=broken())


async def test_a_terminal_merges_output_and_takes_sizes(api: Cluster, namespace: str, sleeper: str) -> None:
    async def sizes() -> AsyncIterator[tuple[int, int]]:
        yield 80, 24

    async def typed() -> AsyncIterator[bytes]:
        yield b"hello\n"
        # A terminal does not close; Ctrl-D ends the input.
        yield b"\x04"
        await asyncio.Event().wait()

    output = io.BytesIO()
    command = ["/probe", "cat"]
    call = exec_(api, namespace, sleeper, "main", command, stdin=typed(), tty=True, stdout=output, sizes=sizes())
    async with asyncio.timeout(30):
        assert await call == 0
    # Once echoed by the terminal, once by the command.
    assert output.getvalue() == b"hello\r\nhello\r\n"


async def test_a_command_that_cannot_be_run_says_why(api: Cluster, namespace: str, sleeper: str) -> None:
    with pytest.raises(OperationFailed, match="no such file or directory"):
        await exec_(api, namespace, sleeper, None, ["/no-such-program"], stdout=io.BytesIO(), stderr=io.BytesIO())
    with pytest.raises(NotFound, match='pods "nobody" not found'):
        await exec_(api, namespace, "nobody", None, ["/probe"])


async def test_a_command_is_bounded(run: Run) -> None:
    with pytest.raises(OperationFailed, match="did not end within 1 s"):
        await run("sleep", timeout=1)


async def test_a_pod_that_goes_away_under_a_command_is_no_success(
    api: Cluster, namespace: str, sleeper: str, run: Run
) -> None:
    running = asyncio.create_task(run("tick"))
    await asyncio.sleep(0.5)
    await objects.delete(api, ObjectRef("", "v1", "Pod", sleeper, namespace))
    outcome = await asyncio.gather(running, return_exceptions=True)
    assert outcome[0] != 0


# -- logs


async def collected(lines: AsyncIterator[LogLine], count: int) -> list[LogLine]:
    found = []
    async with asyncio.timeout(60):
        async for line in lines:
            found.append(line)
            if len(found) == count:
                break
    return found


async def test_logs_of_all_pods_and_containers(api: Cluster, namespace: str, probe_image: str) -> None:
    spec = pod_spec(container(probe_image, "tick", name="one"), container(probe_image, "tick", name="two"))
    await deployed(api, namespace, deployment("web", spec, replicas=2))
    pods = await pods_of(api, namespace, "web")
    found = [line async for line in logs(api, namespace, pods, tail=2)]
    assert {line.prefix for line in found} == {f"{p['metadata']['name']}/{c}" for p in pods for c in ("one", "two")}
    assert len(found) == 8
    assert all(line.text.startswith("tick ") for line in found)
    only = [line async for line in logs(api, namespace, pods, container="two", tail=1, timestamps=True)]
    assert {line.container for line in only} == {"two"}
    assert all(line.at.endswith("Z") for line in only)
    with pytest.raises(InvalidInput, match="there is no container 'three'"):
        await collected(logs(api, namespace, pods, container="three"), 1)


async def test_following_goes_on_with_the_pods_that_replace_others(
    api: Cluster, namespace: str, probe_image: str
) -> None:
    await deployed(api, namespace, deployment("web", pod_spec(container(probe_image, "tick"))))
    [first] = await pods_of(api, namespace, "web")

    async def now() -> Sequence[Manifest]:
        return await pods_of(api, namespace, "web")

    seen: set[str] = set()
    async with asyncio.timeout(60):
        async for line in logs(api, namespace, now, follow=True, tail=1):
            if not seen:
                await objects.delete(api, ObjectRef.of({"apiVersion": "v1", "kind": "Pod", **first}))
            seen.add(line.pod)
            if len(seen) == 2:
                break
    assert first["metadata"]["name"] in seen


async def test_a_restarted_container_is_followed_without_repeating_lines(
    api: Cluster, namespace: str, probe_image: str
) -> None:
    crashing = container(probe_image, "crash", "again and again")
    await objects.apply(api, deployment("web", pod_spec(crashing)), namespace=namespace)

    async def now() -> Sequence[Manifest]:
        return await pods_of(api, namespace, "web")

    found = await collected(logs(api, namespace, now, follow=True, timestamps=True), 2)
    assert found[0].at < found[1].at


async def test_the_log_of_the_run_before(api: Cluster, namespace: str, probe_image: str) -> None:
    crashing = container(probe_image, "crash", "first words")
    await objects.apply(api, deployment("web", pod_spec(crashing)), namespace=namespace)
    async with asyncio.timeout(60):
        async for _, pod in objects.watch(api, "v1", "Pod", namespace):
            statuses = (pod.get("status") or {}).get("containerStatuses") or ()
            if any(s["restartCount"] for s in statuses):
                break
    found = await collected(logs(api, namespace, [pod], previous=True), 1)
    assert found[0].text == "first words"
    name = pod["metadata"]["name"]
    assert await log_tail(api, namespace, name, "main", previous=True) == ("first words",)
    assert await log_tail(api, namespace, "nobody", "main") == ()


# -- ports


async def fetch(port: int) -> str:
    """The answer's body of one HTTP request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        await writer.drain()
        async with asyncio.timeout(30):
            answer = await reader.read()
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def test_a_service_is_reached_many_times_at_once(api: Cluster, namespace: str, probe_image: str) -> None:
    await deployed(api, namespace, deployment("web", pod_spec(serving(probe_image))), service("web"))
    [pod] = await pods_of(api, namespace, "web")
    async with port_forward(api, namespace, "web", 0, "http") as port:
        answers = await asyncio.gather(*(fetch(port) for _ in range(20)))
    assert set(answers) == {pod["metadata"]["name"]}


async def test_a_forwarded_service_survives_the_restart_of_its_pod(
    api: Cluster, namespace: str, probe_image: str
) -> None:
    await deployed(api, namespace, deployment("web", pod_spec(serving(probe_image))), service("web"))
    async with port_forward(api, namespace, "web", 0, 80) as port:
        before = await fetch(port)
        await objects.delete(api, ObjectRef("", "v1", "Pod", before, namespace))
        after = await fetch(port)
    assert after
    assert after != before


async def test_ports_and_targets_that_are_not_there_are_said_at_once(
    api: Cluster, namespace: str, probe_image: str
) -> None:
    await deployed(api, namespace, deployment("web", pod_spec(serving(probe_image))), service("web"))
    with pytest.raises(NotFound, match="there is no service/nobody"):
        async with port_forward(api, namespace, "nobody", 0, 80):
            pass
    with pytest.raises(InvalidInput, match="has no port 'https'"):
        async with port_forward(api, namespace, "web", 0, "https"):
            pass
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    with pytest.raises(OperationFailed, match="cannot be listened on"):
        async with port_forward(api, namespace, "web", taken.sockets[0].getsockname()[1], 80):
            pass
    taken.close()


async def test_a_port_where_nobody_listens_is_told(api: Cluster, namespace: str, probe_image: str) -> None:
    await deployed(api, namespace, deployment("web", pod_spec(serving(probe_image))))
    [pod] = await pods_of(api, namespace, "web")
    told: list[str] = []
    target = ObjectRef("", "v1", "Pod", pod["metadata"]["name"], namespace)
    async with port_forward(api, namespace, target, 0, 9999, on_error=told.append) as port:
        assert await fetch(port) == ""
    assert "connection refused" in told[0]


# -- events


async def test_events_come_in_order_and_as_they_happen(api: Cluster, namespace: str, probe_image: str) -> None:
    follower = asyncio.create_task(_until_reason(events(api, namespace, follow=True), "Started"))
    await deployed(api, namespace, deployment("web", pod_spec(serving(probe_image))))
    async with asyncio.timeout(30):
        await follower
    reasons = [e["reason"] async for e in events(api, namespace, about=lambda about: about.get("kind") == "Pod")]
    assert reasons.index("Scheduled") < reasons.index("Started")


async def _until_reason(found: AsyncIterator[Manifest], reason: str) -> None:
    async for event in found:
        if event["reason"] == reason:
            return
