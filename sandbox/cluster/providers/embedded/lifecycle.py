"""Creating, listing and deleting embedded clusters. Every step can be interrupted and done again."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
import socket
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tenacity
import yaml

from sandbox.cluster.providers import contexts
from sandbox.cluster.providers.embedded import allocation, build, certificates, configuration, node, objects, programs
from sandbox.cluster.providers.embedded.configuration import Layout, Ports
from sandbox.cluster.providers.embedded.readiness import Api, http_ready, wait
from sandbox.cluster.providers.locks import held
from sandbox.cluster.providers.model import BROKEN, RUNNING, STOPPED, ClusterInfo, Progress, is_name, require_name
from sandbox.cluster.providers.places import state_dir, user_kubeconfig
from sandbox.cluster.providers.subprocesses import direct_environment, run_checked
from sandbox.model.errors import InvalidInput, OperationFailed, PartlyDone

PROVIDER = "embedded"
_LOCK_BOUND = 900.0  # seconds that one command waits for another on the same cluster
_NETWORK_LOCK_BOUND = 60.0
_API_BOUND = 120.0  # a loaded machine with two cores takes half of it
_NODE_BOUND = 120.0
_APPLY_BOUND = 60.0
_CGROUP_BOUND = 15.0
_REMOVE_ATTEMPTS = 5
_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


@dataclass(frozen=True)
class Record:
    """What is kept of a cluster (`cluster.json`); everything else follows from it.

    Attributes:
        subnet: the node's /30, None for a control plane alone.
        kubeconfigs: the user's files that the context was added to, the last one first.
        digest: of the sources that its programs were built from.
    """

    control_plane_only: bool
    index: int | None
    subnet: str | None
    ports: Ports
    kubeconfigs: tuple[Path, ...]
    digest: str
    version: str | None

    @property
    def address(self) -> str:
        return str(ipaddress.IPv4Network(self.subnet)[2]) if self.subnet else "127.0.0.1"

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.ports.api}"

    @property
    def registry(self) -> str | None:
        return f"{self.address}:{configuration.REGISTRY_PORT}" if self.subnet else None

    def write(self, directory: Path) -> None:
        content = {**asdict(self), "kubeconfigs": [str(path) for path in self.kubeconfigs]}
        _write_atomically(directory / "cluster.json", json.dumps(content, indent=2))

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """The record, or None when a cluster is half-made or half-deleted."""
        try:
            content = json.loads((directory / "cluster.json").read_text())
            content["ports"] = Ports(**content["ports"])
            content["kubeconfigs"] = tuple(Path(path) for path in content["kubeconfigs"])
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def directory_of(name: str) -> Path:
    """The directory of a cluster."""
    return state_dir() / "clusters" / require_name(name)


def context_of(name: str) -> str:
    """The kubeconfig context of a cluster."""
    return f"sandbox-{name}"


async def create(name: str, *, control_plane_only: bool, install_packages: bool, progress: Progress) -> ClusterInfo:
    """Create a cluster, or mend or simply find the one that has this name.

    Raises:
        InvalidInput: the name cannot be used, or the cluster exists in the other shape.
        OperationFailed: something that is needed is missing, or a part does not become ready.
        Busy: another process is working on this cluster.
    """
    directory = directory_of(name)
    if not control_plane_only:
        _require_root()
        await programs.require(install=install_packages, progress=progress)
    binaries = await build.ensure(progress)
    async with _lock(name, progress):
        existing = Record.read(directory)
        if existing and existing.control_plane_only != control_plane_only:
            shape = "a control plane alone" if existing.control_plane_only else "a whole node"
            raise InvalidInput(f"cluster {name} exists and is {shape}", hint="delete it first, or take another name")
        if existing and existing.digest != binaries.digest and node.holder(directory) is not None:
            progress(
                f"cluster {name} runs an older build; after `sandbox cluster delete {name}` it is made with this one"
            )
        try:
            if existing is None:
                await node.kill(directory)  # of a cluster whose record is damaged
                await _bring_up(name, directory, binaries, control_plane_only, progress)
            else:
                await _mend(name, directory, binaries, control_plane_only, progress)
        except OSError as error:
            raise OperationFailed(f"cluster {name} cannot be created", why=str(error)) from error
        return await info(name)


async def _mend(
    name: str, directory: Path, binaries: build.Binaries, control_plane_only: bool, progress: Progress
) -> None:
    """Bring up a cluster that is recorded; one that runs and does not become ready is started again, once."""
    try:
        await _bring_up(name, directory, binaries, control_plane_only, progress)
    except OperationFailed as error:
        progress(f"{error.what}; starting cluster {name} again")
        await node.kill(directory)
        await _bring_up(name, directory, binaries, control_plane_only, progress)


async def _bring_up(
    name: str, directory: Path, binaries: build.Binaries, control_plane_only: bool, progress: Progress
) -> None:
    if node.holder(directory) is None:
        await _start(name, directory, binaries, control_plane_only, progress)
    await _complete(name, directory, progress)


async def names() -> list[str]:
    """The names of all clusters, half-made ones too."""
    parent = state_dir() / "clusters"
    if not parent.is_dir():
        return []
    return sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and is_name(entry.name))


async def info(name: str) -> ClusterInfo:
    """What is known of a cluster now."""
    directory = directory_of(name)
    record = Record.read(directory)
    state = BROKEN
    if record and node.holder(directory) is None:
        state = STOPPED
    elif record and not await asyncio.to_thread(_api(directory, record).ready):
        state = RUNNING
    return ClusterInfo(
        name=name,
        provider=PROVIDER,
        context=context_of(name),
        kubeconfig=_shown_kubeconfig(record),
        registry=record.registry if record else None,
        state=state,
        version=record.version if record else None,
    )


async def delete(name: str, progress: Progress) -> bool:
    """Delete a cluster: its processes, interface, cgroup folders, contexts and files.

    Returns:
        False when there was nothing of it.

    Raises:
        PartlyDone: something of it cannot be removed; calling again goes on.
        Busy: another process is working on this cluster.
    """
    directory = directory_of(name)
    if not directory.exists():
        return contexts.remove(user_kubeconfig(), context_of(name))
    async with _lock(name, progress):
        record = Record.read(directory)
        for path in {user_kubeconfig(), *(record.kubeconfigs if record else ())}:
            contexts.remove(path, context_of(name))
        if await node.kill(directory):
            progress(f"ended the processes of cluster {name}")
        for network in allocation.allocated(directory):
            await node.remove_link(network.host_link)
            await _remove_cgroups(name, network.cgroup)
            allocation.release(network)
        await _remove_directory(directory)
        _lock_path(name).unlink()
    progress(f"deleted cluster {name}")
    return True


async def _start(
    name: str, directory: Path, binaries: build.Binaries, control_plane_only: bool, progress: Progress
) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout = await _layout(name, directory, binaries, control_plane_only, progress)
    before = Record.read(directory)
    if before and before.address != layout.address:
        shutil.rmtree(directory / "pki", ignore_errors=True)  # its certificates name the old address
    Record(
        control_plane_only=control_plane_only,
        index=layout.network.index if layout.network else None,
        subnet=str(layout.network.subnet) if layout.network else None,
        ports=layout.ports,
        kubeconfigs=before.kubeconfigs if before else (),
        digest=binaries.digest,
        version=build.kubernetes_version(),
    ).write(directory)
    certificates.ensure(directory / "pki", certificates.wanted(layout.node_name, [layout.address]))
    _write_configuration(layout, directory, binaries)
    progress(f"starting cluster {name}")
    await node.end_remainder(directory)
    if layout.network:
        await _remove_cgroups(name, layout.network.cgroup)  # the kubelet stops for seconds at each of a killed pod's
    await node.start(directory, binaries["node-init"])


async def _layout(
    name: str, directory: Path, binaries: build.Binaries, control_plane_only: bool, progress: Progress
) -> Layout:
    if control_plane_only:
        before = Record.read(directory)
        return configuration.control_plane_layout(
            name, directory, binaries.bin, free_ports(before.ports if before else None)
        )
    cni = programs.cni_directory()
    assert cni is not None, "programs.require has found it"
    lock = allocation.register_dir() / "lock"
    async with held(lock, "choosing a network", bound=_NETWORK_LOCK_BOUND, progress=progress):
        network = allocation.allocate(directory, await _networks_in_use())
    return configuration.node_layout(name, network, cni)


def free_ports(preferred: Ports | None) -> Ports:
    """Ports of 127.0.0.1 that nobody listens on; the preferred ones where they are free."""
    with ExitStack() as stack:
        chosen = {}
        for program in asdict(Ports()):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", getattr(preferred, program) if preferred else 0))
            except OSError:
                listener.bind(("127.0.0.1", 0))
            chosen[program] = listener.getsockname()[1]
        return Ports(**chosen)


async def _networks_in_use() -> list[ipaddress.IPv4Network]:
    """The networks of the host's addresses and routes, without the default route."""
    used = []
    for query in (["address"], ["route"]):
        output = await run_checked(["ip", "-json", "-4", *query], "the host's networks cannot be read", timeout=20)
        for entry in json.loads(output or "[]"):
            texts = [f"{a['local']}/{a['prefixlen']}" for a in entry.get("addr_info", []) if "local" in a]
            texts += [entry["dst"]] if "dst" in entry and entry["dst"] != "default" else []
            for text in texts:
                with suppress(ValueError):  # "unreachable" and the like
                    used.append(ipaddress.IPv4Network(text, strict=False))
    return used


def _write_configuration(layout: Layout, directory: Path, binaries: build.Binaries) -> None:
    for folder in ("etcd", "logs", "config", "containerd", "kubelet", "registry", "volumes", "logs/pods"):
        (directory / folder).mkdir(exist_ok=True, mode=0o700)
    # Containers that do not run as root traverse these.
    for folder in ("kubelet", "volumes", "containerd"):
        (directory / folder).chmod(0o711)
    config = directory / "config"
    for file, content in configuration.files(layout).items():
        path = config / file
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, content)
    pki = directory / "pki"
    for user in configuration.component_kubeconfigs(layout):
        access = configuration.kubeconfig(context_of(layout.name), layout.server, pki, user)
        _write_atomically(config / f"{user}.kubeconfig", yaml.safe_dump(access))
    settings = configuration.init(layout, directory, binaries.bin)
    _write_atomically(directory / "node-init.json", json.dumps(settings, indent=2))


async def _complete(name: str, directory: Path, progress: Progress) -> None:
    """Wait for the API, give the cluster its objects, and wait for the node and its services."""
    record = Record.read(directory)
    if record is None:
        raise OperationFailed(f"cluster {name} is half-made", why=f"{directory}/cluster.json is missing or damaged")
    api = _api(directory, record)

    async def until(what: str, check: Any, bound: float) -> None:
        await wait(
            what,
            check,
            bound=bound,
            alive=lambda: node.holder(directory) is not None,
            progress=progress,
            explain=lambda: node.failures(directory),
            hint=f"all logs are in {directory / 'logs'}; after `sandbox cluster delete {name}` it can be made anew",
        )

    await until("the API server", api.ready, _API_BOUND)
    content = configuration.kubeconfig(context_of(name), record.server, directory / "pki", "admin")
    contexts.write(directory / "kubeconfig", content)
    if not record.control_plane_only:
        layout = configuration.node_layout(name, _network(record), Path())
        started = datetime.fromtimestamp((directory / "node-init.json").stat().st_mtime, UTC)
        await _apply(objects.manifests(layout), directory / "kubeconfig")
        await until("the node", lambda: api.node_ready(layout.node_name, started), _NODE_BOUND)
        dns_port, registry_port = configuration.DNS_READY_PORT, configuration.REGISTRY_PORT
        await until("DNS", lambda: http_ready(record.address, dns_port, "/ready"), _NODE_BOUND)
        await until("the registry", lambda: http_ready(record.address, registry_port, "/v2/"), _NODE_BOUND)
    # Without it, a pod that somebody makes right away would be refused.
    await until("the default service account", lambda: api.exists(_DEFAULT_ACCOUNT), _NODE_BOUND)
    _offer(directory, record, content)


def _offer(directory: Path, record: Record, content: dict[str, Any]) -> None:
    """Add the context to the user's kubeconfig, remembering the file before anything is written to it."""
    path = user_kubeconfig().absolute()
    others = tuple(known for known in record.kubeconfigs if known != path)
    replace(record, kubeconfigs=(path, *others)).write(directory)
    contexts.add(path, content)


def _shown_kubeconfig(record: Record | None) -> Path:
    """The file to find the context in: the user's present one if it is there, else where it was added last."""
    present = user_kubeconfig().absolute()
    known = record.kubeconfigs if record else ()
    return present if present in known or not known else known[0]


def _network(record: Record) -> allocation.Network:
    assert record.index is not None, "a cluster with a node has a network"
    assert record.subnet is not None
    return allocation.Network(record.index, ipaddress.IPv4Network(record.subnet))


async def _apply(manifests: list[dict[str, Any]], config: Path) -> None:
    """Apply objects; retried, because a fresh API server still makes its own namespaces and roles."""
    built = build.find()
    kubectl: str | Path = built["kubectl"] if built else "kubectl"
    argv = [kubectl, f"--kubeconfig={config}", "apply", "--server-side", "--force-conflicts"]
    argv += ["--field-manager=sandbox", "--filename=-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    attempts = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_delay(_APPLY_BOUND),
        wait=tenacity.wait_fixed(0.5),
        retry=tenacity.retry_if_exception_type(OperationFailed),
        reraise=True,
    )
    async for attempt in attempts:
        with attempt:
            what = "the cluster's own objects cannot be applied"
            await run_checked(argv, what, timeout=30, stdin=text, env=direct_environment())


def _api(directory: Path, record: Record) -> Api:
    return Api(record.address, record.ports.api, directory / "pki")


async def _remove_cgroups(name: str, cgroup: str) -> None:
    deadline = asyncio.get_running_loop().time() + _CGROUP_BOUND
    while left := node.remove_cgroups(cgroup):
        if asyncio.get_running_loop().time() > deadline:
            raise PartlyDone(
                f"cgroup folders of cluster {name} cannot be removed", why=f"in use: {', '.join(map(str, left))}"
            )
        await asyncio.sleep(0.1)


async def _remove_directory(directory: Path) -> None:
    """Remove a cluster's files; a process that is just ending may still have written one."""
    for attempt in range(_REMOVE_ATTEMPTS):
        try:
            await asyncio.to_thread(shutil.rmtree, directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if attempt == _REMOVE_ATTEMPTS - 1:
                raise PartlyDone(f"{directory} cannot be removed", why=str(error)) from error
            await asyncio.sleep(0.5)


def _lock(name: str, progress: Progress) -> AbstractAsyncContextManager[None]:
    return held(_lock_path(name), f"working on cluster {name}", bound=_LOCK_BOUND, progress=progress)


def _lock_path(name: str) -> Path:
    return state_dir() / "locks" / f"{require_name(name)}.lock"


def _require_root() -> None:
    if os.geteuid() != 0:
        raise OperationFailed(
            "an embedded cluster with a node needs root",
            why="it makes namespaces, mounts and a network interface",
            hint="run as root, use --provider kind, or --control-plane-only for a cluster that runs no pods",
        )


def _write_atomically(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.replace(path)
