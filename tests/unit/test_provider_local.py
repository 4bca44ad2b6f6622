"""The small things that providers share: names, locks, programs, waiting, image names."""

from __future__ import annotations

import asyncio
import string
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster.providers import places
from sandbox.cluster.providers.embedded import node
from sandbox.cluster.providers.embedded.configuration import Ports
from sandbox.cluster.providers.embedded.images import archive_source
from sandbox.cluster.providers.embedded.lifecycle import Record, free_ports
from sandbox.cluster.providers.embedded.readiness import not_ready, wait
from sandbox.cluster.providers.images import repository_of
from sandbox.cluster.providers.locks import held
from sandbox.cluster.providers.model import require_name
from sandbox.cluster.providers.subprocesses import run, run_checked
from sandbox.model.errors import Busy, InvalidInput, OperationFailed


@pytest.mark.parametrize("name", ["a", "dev", "sandbox-test", "0-1", "a" * 32])
def test_names_that_can_be_used(name: str) -> None:
    assert require_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "../a", "a" * 33, "a\n"])
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a cluster's name"):
        require_name(name)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("shop/web:1.2", ("shop/web", "1.2")),
        ("redis", ("redis", "latest")),
        ("docker.io/library/redis:7", ("library/redis", "7")),
        ("localhost/shop:a", ("shop", "a")),
        ("localhost:5000/shop", ("shop", "latest")),
        ("registry.example/team/app@sha256:abc", ("team/app", "latest")),
        ("10.200.0.2:5000/app:x@sha256:abc", ("app", "x")),
        ("/tmp/My Image.tar", ("my-image", "latest")),
        ("./build/web.tar.gz", ("web", "latest")),
        ("/tmp/.tar", ("image", "latest")),
    ],
)
def test_an_images_name_in_the_local_registry(image: str, expected: tuple[str, str]) -> None:
    assert repository_of(image) == expected


@given(st.text(alphabet=string.ascii_letters + string.digits + "/._- ", min_size=1, max_size=30))
def test_an_archives_repository_is_always_valid(name: str) -> None:
    repository, _ = repository_of(f"/{name}.tar")
    assert all(c in string.ascii_lowercase + string.digits + "-" for c in repository)
    assert repository


def test_archives_are_told_apart(tmp_path: Path) -> None:
    def archive(name: str, member: str) -> str:
        (tmp_path / member).write_text("{}")
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / member, member)
        return str(tmp_path / name)

    docker, oci = archive("d.tar", "manifest.json"), archive("o.tar", "index.json")
    assert archive_source(docker) == f"docker-archive:{docker}"
    assert archive_source(oci) == f"oci-archive:{oci}"
    assert archive_source(str(tmp_path)) == f"oci:{tmp_path}"  # a folder with an index.json
    assert archive_source("shop/web:1") is None
    with pytest.raises(InvalidInput, match=r"neither manifest\.json nor index\.json"):
        archive_source(archive("x.tar", "other"))
    with pytest.raises(InvalidInput, match="No such file"):
        archive_source(str(tmp_path / "missing.tar"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SANDBOX_STATE_DIR": "/own", "XDG_STATE_HOME": "/xdg"}, "/own"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/sandbox"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/sandbox"),
    ],
)
def test_the_state_directory(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SANDBOX_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert places.state_dir() == Path(expected)


async def test_a_lock_is_waited_for_and_the_wait_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    order = []

    async def hold(name: str) -> None:
        async with held(tmp_path / "lock", "testing", bound=10, progress=said.append):
            order.append(f"{name} in")
            await asyncio.sleep(0.05)
            order.append(f"{name} out")

    await asyncio.gather(hold("a"), hold("b"))
    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
    assert said == ["waiting for another process that is testing (at most 10 s)"]


async def test_waiting_for_a_lock_has_a_bound(tmp_path: Path) -> None:
    async with held(tmp_path / "lock", "testing", bound=1, progress=print):
        with pytest.raises(Busy, match="another process is still testing"):
            async with held(tmp_path / "lock", "testing", bound=0.2, progress=print):
                pass


async def test_a_cancelled_program_is_gone_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os,time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    parent = f"import subprocess,sys; subprocess.run([sys.executable, '-c', {child!r}])"
    task = asyncio.create_task(run([sys.executable, "-c", parent], timeout=60))
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stat = Path("/proc", pid_file.read_text(), "stat")
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child is still there"
        await asyncio.sleep(0.02)


async def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(OperationFailed, match="sleep did not end within 0 s"):
        await run(["sleep", "60"], timeout=0.1)


async def test_a_failed_program_is_quoted() -> None:
    with pytest.raises(OperationFailed, match="it failed: no such option") as failure:
        await run_checked(["sh", "-c", "echo 'no such option' >&2; exit 3"], "it failed", timeout=10, hint="do so")
    assert failure.value.hint == "do so"


async def test_a_program_that_is_not_there_is_said() -> None:
    with pytest.raises(OperationFailed, match="no-such-program cannot be started: No such file"):
        await run(["no-such-program"], timeout=1)


async def test_standard_input_reaches_a_program() -> None:
    assert await run_checked(["cat"], "cat failed", timeout=10, stdin="a\nb") == "a\nb"


def test_nobody_holds_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    assert node.holder(tmp_path) is None
    (tmp_path / "node.lock.host").touch()
    assert node.holder(tmp_path) is None


async def test_the_kernel_names_the_holder(tmp_path: Path) -> None:
    # A shell starts what runs in the background with SIGQUIT ignored, and children inherit that.
    script = "import fcntl,signal,sys; signal.signal(signal.SIGQUIT, signal.SIG_DFL); f = open(sys.argv[1], 'w')"
    hold = "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{script}; {hold}", str(tmp_path / "node.lock.host")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    assert node.holder(tmp_path) == process.pid
    assert await node.kill(tmp_path)
    assert node.holder(tmp_path) is None
    await process.wait()


def test_cgroup_folders_are_removed_from_every_hierarchy(tmp_path: Path) -> None:
    for folder in ("cpu/sandbox-1/kubepods/pod", "memory/sandbox-1", "memory/sandbox-10", "sandbox-1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "memory/sandbox-1/in-use").touch()
    assert node.remove_cgroups("sandbox-1", tmp_path) == [tmp_path / "memory/sandbox-1"]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*")) == [
        "memory/sandbox-1",
        "memory/sandbox-10",
    ]


def test_free_ports_are_distinct_and_stay_where_they_are_free() -> None:
    first = free_ports(None)
    numbers = [first.api, first.etcd, first.etcd_peer, first.controller_manager, first.scheduler]
    assert len(set(numbers)) == 5
    assert free_ports(first) == first


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    record = Record(False, 3, "10.200.0.12/30", Ports(), (Path("/k"),), "digest", "v1.36.3")
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    assert (record.address, record.registry) == ("10.200.0.14", "10.200.0.14:5000")
    assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "cluster.json").write_text('{"index": 3}')
    assert Record.read(tmp_path) is None


def status(ready: str, heartbeat: datetime) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": ready,
        "message": "why",
        "lastHeartbeatTime": f"{heartbeat:%Y-%m-%dT%H:%M:%SZ}",
    }
    return {"status": {"conditions": [{"type": "MemoryPressure"}, condition]}}


def test_a_node_is_ready_only_by_what_it_said_since_it_started() -> None:
    started = datetime(2024, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    assert not_ready({}, started) == "the kubelet has not reported yet"
    assert not_ready(status("True", started - timedelta(seconds=5)), started) == "the kubelet has not reported yet"
    assert not_ready(status("False", started), started) == "why"
    assert not_ready(status("True", started), started) == ""


async def test_waiting_ends_with_the_cluster_or_the_bound() -> None:
    async def waited(bound: float, alive: bool) -> None:
        await wait(
            "the thing",
            lambda: "not yet",
            bound=bound,
            alive=lambda: alive,
            progress=print,
            explain=lambda: "last words",
            hint="look",
        )

    with pytest.raises(OperationFailed, match="the cluster ended while waiting for the thing: last words"):
        await waited(60, alive=False)
    with pytest.raises(OperationFailed, match=r"the thing is not ready after 0 s: not yet\nlast words"):
        await waited(0.2, alive=True)


def test_the_end_of_the_program_that_failed_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "node-init.log").write_text("… etcd: ended after 1s (exit code 1), starting it again\n")
    (tmp_path / "logs" / "etcd.log").write_text("first\nno space left on device\n")
    assert node.failures(tmp_path).endswith("etcd: first\netcd: no space left on device")
