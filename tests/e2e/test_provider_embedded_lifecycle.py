"""Embedded clusters come and go whole: side by side, interrupted, killed, as an ordinary user."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded import allocation, build, node, programs
from sandbox.cluster.providers.embedded.lifecycle import context_of, create, delete, directory_of, info, names
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.model.errors import InvalidInput, OperationFailed, Unreachable
from tests.conftest import kubectl
from tests.e2e.bounded import until

pytestmark = pytest.mark.skipif(
    EmbeddedProvider().available() is not None, reason=f"no embedded cluster: {EmbeddedProvider().available()}"
)
_NOBODY = 65534
_CREATE = """
import asyncio, sys
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
say = lambda line: print(line, flush=True)
asyncio.run(EmbeddedProvider().create(sys.argv[1], control_plane_only=sys.argv[2] == "control-plane", progress=say))
"""


@pytest.fixture
async def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The name of a cluster that does not exist yet, with a state directory and a kubeconfig of its own."""
    _keep_in(tmp_path, monkeypatch)
    name = f"t-{uuid.uuid4().hex[:8]}"
    yield name
    await delete(name, print)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The name and place of a cluster that several tests damage in turn; each makes it whole first."""
    folder = tmp_path_factory.mktemp("kept")
    name = f"t-{uuid.uuid4().hex[:8]}"
    yield name, folder
    with pytest.MonkeyPatch.context() as monkeypatch:
        _keep_in(folder, monkeypatch)
        asyncio.run(delete(name, print))


@pytest.fixture
def control(kept: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of that cluster, a control plane alone."""
    name, folder = kept
    _keep_in(folder, monkeypatch)
    return name


def _keep_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))


async def made(name: str, *, control_plane_only: bool = False) -> ClusterInfo:
    return await create(name, control_plane_only=control_plane_only, install_packages=False, progress=print)


def kill_creation_at(name: str, line: str, shape: str = "node") -> None:
    """Start creating a cluster in another process and kill that when it has said a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CREATE, name, shape], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    said = []
    for text in process.stdout:
        said.append(text)
        if text.startswith(line):
            break
    process.kill()
    process.wait(timeout=10)
    process.stdout.close()
    assert said, "the process ended before it said anything"
    assert said[-1].startswith(line), said


class Traces:
    """What there is of a cluster on this machine outside of its own directory."""

    def __init__(self, directory: Path, networks: list[allocation.Network]) -> None:
        self.directory = directory
        self.networks = networks

    def processes(self) -> set[str]:
        """Processes that name the directory in their arguments or have something of it mounted."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                about = (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes()
            except OSError:
                continue  # it has just ended
            if os.fsencode(self.directory) in about:
                found.add(process.name)
        return found - {str(os.getpid())}

    def mounts(self) -> bool:
        return str(self.directory) in Path("/proc/self/mountinfo").read_text()

    def interfaces(self) -> list[str]:
        return [n.host_link for n in self.networks if Path("/sys/class/net", n.host_link).exists()]

    def cgroups(self) -> list[Path]:
        root = Path("/sys/fs/cgroup")
        return [path for n in self.networks for path in (root / n.cgroup, *root.glob(f"*/{n.cgroup}")) if path.exists()]

    def allocations(self) -> list[allocation.Network]:
        return allocation.allocated(self.directory)


def assert_no_trace(name: str, traces: Traces) -> None:
    assert until(lambda: True if not traces.processes() else None, "its last process has ended", 10)
    assert not traces.mounts()
    assert traces.interfaces() == []
    assert traces.cgroups() == []
    assert traces.allocations() == []
    assert not traces.directory.exists()
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    assert [entry["name"] for key in ("clusters", "users", "contexts") for entry in config[key]] == []


def kernel_settings() -> dict[str, str]:
    """Settings of the whole machine that the kubelet would change."""
    names = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
    return {name: Path("/proc/sys", name).read_text() for name in names}


async def test_a_second_cluster_beside_the_first_and_nothing_left_of_it(
    cluster: ClusterInfo, probe_storage: str, name: str
) -> None:
    settings = kernel_settings()
    second = await made(name)
    assert kernel_settings() == settings
    assert (second.state, second.version, second.context) == ("running", build.kubernetes_version(), context_of(name))
    assert second.registry != cluster.registry
    assert name in await names()

    image = await EmbeddedProvider().load_image(name, probe_storage, print)
    kubectl(second, "run", "probe", f"--image={image}", "--", "sleep")
    kubectl(second, "wait", "--for=condition=Ready", "pod/probe", "--timeout=120s")
    assert kubectl(cluster, "get", "pods", "-n", "default", "-o", "name") == ""

    again = await made(name)
    assert again == second
    assert kubectl(second, "get", "pod", "probe", "-o", "jsonpath={.status.containerStatuses[0].restartCount}") == "0"

    directory = directory_of(name)
    traces = Traces(directory, allocation.allocated(directory))
    assert len(traces.processes()) > 5
    assert len(traces.interfaces()) == 1
    assert traces.cgroups()

    assert await delete(name, print)

    assert_no_trace(name, traces)
    assert not await delete(name, print)
    assert (await info(cluster.name)).name == cluster.name


@pytest.mark.parametrize("line", ["starting cluster", "the API server is ready", "the node is ready"])
async def test_killed_while_creating_then_created_again(name: str, line: str) -> None:
    kill_creation_at(name, line)
    assert (await made(name)).state == "running"


async def test_killed_while_creating_then_deleted(name: str) -> None:
    kill_creation_at(name, "starting cluster")
    directory = directory_of(name)
    traces = Traces(directory, allocation.allocated(directory))
    assert traces.networks

    Path(os.environ["KUBECONFIG"]).write_text("{clusters: [], users: [], contexts: []}")
    assert await delete(name, print)

    assert_no_trace(name, traces)


async def test_a_cluster_whose_processes_were_killed_comes_back_with_its_objects(name: str, probe_storage: str) -> None:
    cluster = await made(name)
    image = await EmbeddedProvider().load_image(name, probe_storage, print)
    kubectl(cluster, "create", "deployment", "probe", f"--image={image}", "--", "/probe", "sleep")
    kubectl(cluster, "wait", "--for=condition=Available", "deployment/probe", "--timeout=120s")
    directory = directory_of(name)
    pid = node.holder(directory)
    assert pid is not None

    os.kill(pid, 9)
    until(lambda: True if node.holder(directory) is None else None, "the holder has ended", 10)
    assert (await info(name)).state == "stopped"
    assert (await made(name)).state == "running"

    restarted = "jsonpath={.items[0].status.containerStatuses[0].restartCount}"
    until(
        lambda: True if kubectl(cluster, "get", "pods", "-o", restarted) not in {"", "0"} else None,
        "the pod was started again",
    )
    kubectl(cluster, "wait", "--for=condition=Available", "deployment/probe", "--timeout=120s")


async def test_a_crashed_program_is_started_again(control: str) -> None:
    cluster = await made(control, control_plane_only=True)
    directory = directory_of(control)
    server = str(build.find().bin / "kube-apiserver")  # type: ignore[union-attr]

    def api_server() -> str | None:
        for process in Traces(directory, []).processes():
            if Path("/proc", process, "cmdline").read_bytes().startswith(server.encode()):
                return process
        return None

    first = until(api_server, "the API server runs")
    os.kill(int(first), 9)
    until(lambda: new if (new := api_server()) not in {None, first} else None, "it runs again", 20)
    assert (await made(control, control_plane_only=True)) == cluster


async def test_a_damaged_record_is_made_anew(control: str) -> None:
    first = await made(control, control_plane_only=True)
    held_by = node.holder(directory_of(control))
    (directory_of(control) / "cluster.json").write_text('{"control_plane_only": tru')
    assert (await info(control)).state == "broken"

    again = await made(control, control_plane_only=True)

    assert again == first
    assert node.holder(directory_of(control)) not in {None, held_by}


async def test_a_cluster_whose_directory_is_removed_by_hand_ends_by_itself(name: str) -> None:
    await made(name)
    directory = directory_of(name)
    traces = Traces(directory, allocation.allocated(directory))
    assert traces.processes()

    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)  # what the programs wrote meanwhile

    until(lambda: True if not traces.processes() else None, "its processes have ended", 60)
    until(lambda: True if not traces.interfaces() and not traces.cgroups() else None, "nothing is left", 20)
    assert await delete(name, print)  # the context
    assert not await delete(name, print)


def test_two_commands_at_once_make_one_cluster(name: str) -> None:
    creating = [
        subprocess.Popen([sys.executable, "-c", _CREATE, name, "control-plane"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in creating]
    assert [process.returncode for process in creating] == [0, 0]
    assert sum("starting cluster" in text for text in said) == 1
    assert asyncio.run(info(name)).state == "running"


async def test_a_cluster_that_cannot_come_up_says_why(control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await made(control, control_plane_only=True)
    directory = directory_of(control)
    await node.kill(directory)
    database = directory / "etcd" / "member" / "snap" / "db"
    database.write_bytes(b"no database" * 1000)
    with monkeypatch.context() as impatient:
        impatient.setattr("sandbox.cluster.providers.embedded.lifecycle._API_BOUND", 8.0)
        with pytest.raises(OperationFailed, match=r"the API server is not ready after 8 s") as failure:
            await made(control, control_plane_only=True)

    assert "etcd: ended after" in failure.value.why
    assert f"sandbox cluster delete {control}" in failure.value.hint
    assert (await info(control)).state == "broken"
    assert await delete(control, print)
    assert (await made(control, control_plane_only=True)).context == cluster.context


async def test_half_made_directories_are_listed_and_deleted(name: str) -> None:
    directory = directory_of(name)
    directory.mkdir(parents=True)
    (directory / "cluster.json").write_text('{"control_plane_only": fal')

    assert [c.state for c in await EmbeddedProvider().list()] == ["broken"]
    assert await delete(name, print)
    assert not directory.exists()


async def test_the_other_shape_is_refused(control_plane: ClusterInfo) -> None:
    with pytest.raises(InvalidInput, match="is a control plane alone"):
        await made(control_plane.name)


async def test_a_control_plane_alone_takes_no_images(control_plane: ClusterInfo) -> None:
    assert control_plane.registry is None
    with pytest.raises(Unreachable, match="a control plane alone has no registry"):
        await EmbeddedProvider().load_image(control_plane.name, "anything", print)


def test_a_control_plane_needs_no_root(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = Path("/tmp") / f"sandbox-nobody-{uuid.uuid4().hex[:8]}"
    built = build.find()
    assert built is not None, "the cluster fixture has built it"
    try:
        # The build of another user cannot be read; its own would take minutes.
        shutil.copytree(built.bin.parent, home / "cache" / "embedded" / built.digest, symlinks=True)
        for path in (home, *home.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
        as_nobody(home, "create")
        listed = as_nobody(home, "list")
        assert "state='running'" in listed
        api = yaml.safe_load((home / "kubeconfig").read_text())
        assert api["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
        namespaces = [str(built["kubectl"]), f"--kubeconfig={home / 'kubeconfig'}", "get", "namespaces", "-o", "name"]
        assert "namespace/default" in subprocess.check_output(namespaces, text=True, timeout=30)
        as_nobody(home, "delete")
        assert list((home / "state" / "clusters").iterdir()) == []
        owned = [p for p in Path("/proc").glob("[0-9]*") if owned_and_named(p, home)]
        assert owned == []
    finally:
        shutil.rmtree(home, ignore_errors=True)


def as_nobody(home: Path, command: str) -> str:
    """Run one of the provider's methods as a user without rights."""
    script = f"""
import asyncio
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
p = EmbeddedProvider()
calls = {{
    "create": lambda: p.create("mine", control_plane_only=True, progress=print),
    "list": lambda: p.list(),
    "delete": lambda: p.delete("mine", print),
}}
print(asyncio.run(calls[{command!r}]()))
"""
    environment = {
        "PATH": programs.SYSTEM_PATH,
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SANDBOX_STATE_DIR": str(home / "state"),
        "SANDBOX_CACHE_DIR": str(home / "cache"),
        "KUBECONFIG": str(home / "kubeconfig"),
    }
    drop = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", script], env=environment, cwd="/", capture_output=True, text=True, timeout=120
    )
    if "PermissionError" in done.stderr or "Permission denied" in done.stderr:
        readable = subprocess.run(
            [*drop, sys.executable, "-c", "import sandbox"], env=environment, cwd="/", capture_output=True, timeout=30
        )
        if readable.returncode != 0:
            pytest.skip("another user cannot read this Python or this checkout")
    assert done.returncode == 0, done.stderr
    return done.stdout


def owned_and_named(process: Path, home: Path) -> bool:
    try:
        return os.fsencode(home) in (process / "cmdline").read_bytes() and process.stat().st_uid == _NOBODY
    except OSError:
        return False
