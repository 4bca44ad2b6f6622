"""Clusters made by the `kind` binary on a Docker daemon, with a local registry.

The registry is set up as https://kind.sigs.k8s.io/docs/user/local-registry/ says: a container that the host
reaches as localhost:5001, and the same name on the nodes by containerd's certs.d.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from sandbox.cluster.providers.images import is_path, repository_of
from sandbox.cluster.providers.locks import held
from sandbox.cluster.providers.model import BROKEN, RUNNING, STOPPED, ClusterInfo, Progress, require_name
from sandbox.cluster.providers.places import state_dir, user_kubeconfig
from sandbox.cluster.providers.subprocesses import run, run_checked
from sandbox.model.errors import InvalidInput, OperationFailed, Unreachable

REGISTRY_CONTAINER = "sandbox-registry"
REGISTRY_IMAGE = "registry:3"
REGISTRY_PORT = 5001
REGISTRY = f"localhost:{REGISTRY_PORT}"
# Only clusters with this prefix are ours; other clusters of kind are left alone.
_PREFIX = "sandbox-"
_NETWORK = "kind"
_CREATE_TIMEOUT = 900.0  # seconds; the node image is 1 GB
_TIMEOUT = 120.0
_COPY_TIMEOUT = 900.0


class KindProvider:
    """Clusters of kind whose names start with `sandbox-` (left out here)."""

    name = "kind"

    def available(self) -> str | None:
        """Why it cannot be used: no binary, or no Docker daemon that answers."""
        if shutil.which("kind") is None:
            return "the program kind is not installed"
        if shutil.which("docker") is None:
            return "the program docker is not installed"
        try:
            asked = subprocess.run(
                ["docker", "version", "--format={{.Server.Version}}"], capture_output=True, text=True, timeout=10
            )
        except subprocess.TimeoutExpired:
            return "the Docker daemon does not answer within 10 s"
        return None if asked.returncode == 0 else f"no Docker daemon: {asked.stderr.strip().splitlines()[-1]}"

    async def create(
        self, name: str, *, control_plane_only: bool = False, install_packages: bool = False, progress: Progress
    ) -> ClusterInfo:
        """Create a cluster with a registry; one that is there already is completed and returned.

        Raises:
            InvalidInput: a control plane alone is asked for.
            OperationFailed: kind or docker fails; their own words are in the error.
        """
        del install_packages  # kind needs none
        require_name(name)
        if control_plane_only:
            raise InvalidInput("kind has no control plane without a node", hint="use --provider embedded")
        async with held(
            state_dir() / "locks" / "kind.lock", "working on kind clusters", bound=_CREATE_TIMEOUT, progress=progress
        ):
            await _ensure_registry(progress)
            if name not in await _names():
                progress(f"creating cluster {name} with kind")
                await run_checked(
                    create_argv(name, user_kubeconfig()),
                    "kind cannot create the cluster",
                    timeout=_CREATE_TIMEOUT,
                    stdin=cluster_config(),
                )
            await _connect_registry(name)
        return await self._info(name)

    async def list(self) -> list[ClusterInfo]:
        """The clusters that this tool made with kind; none where kind or Docker is missing."""
        if self.available() is not None:
            return []
        return [await self._info(name) for name in await _names()]

    async def delete(self, name: str, progress: Progress) -> bool:
        """Delete a cluster; with the last one the registry goes too."""
        require_name(name)
        if name not in await _names():
            return False
        await run_checked(delete_argv(name, user_kubeconfig()), "kind cannot delete the cluster", timeout=_TIMEOUT)
        progress(f"deleted cluster {name}")
        if not await _names():
            await run(["docker", "rm", "--force", "--volumes", REGISTRY_CONTAINER], timeout=_TIMEOUT)
        return True

    async def load_image(self, name: str, image: str, progress: Progress) -> str:
        """Push an image of the Docker daemon, or an archive, into the registry of the clusters."""
        if name not in await _names():
            raise Unreachable(f"cluster {name} takes no images", why="kind has no such cluster")
        repository, tag = repository_of(image)
        target = f"{REGISTRY}/{repository}:{tag}"
        source = await _load_archive(image) if is_path(image) else image
        progress(f"pushing {image} to {target}")
        await run_checked(["docker", "tag", source, target], f"there is no image {image}", timeout=_TIMEOUT)
        await run_checked(["docker", "push", "--quiet", target], f"{image} cannot be pushed", timeout=_COPY_TIMEOUT)
        inspect = ["docker", "image", "inspect", "--format={{json .RepoDigests}}", target]
        digests = await run_checked(inspect, f"the digest of {image} cannot be read", timeout=_TIMEOUT)
        return pushed_reference(json.loads(digests), f"{REGISTRY}/{repository}")

    async def _info(self, name: str) -> ClusterInfo:
        inspect = [
            "docker",
            "inspect",
            "--format={{.State.Status}} {{.Config.Image}}",
            f"{_PREFIX}{name}-control-plane",
        ]
        finished = await run(inspect, timeout=_TIMEOUT)
        state, version = container_state(finished.stdout if finished.code == 0 else "")
        return ClusterInfo(name, self.name, context_of(name), user_kubeconfig(), REGISTRY, state, version)


def context_of(name: str) -> str:
    """The context that kind writes for a cluster."""
    return f"kind-{_PREFIX}{name}"


def cluster_config() -> str:
    """kind's configuration file: containerd looks for registries in certs.d."""
    patch = '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n'
    return yaml.safe_dump(
        {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "containerdConfigPatches": [patch]}
    )


def create_argv(name: str, config: Path) -> list[str]:
    """kind's command to create a cluster; its configuration comes on standard input."""
    options = ["--config=-", "--wait=180s", f"--kubeconfig={config}"]
    return ["kind", "create", "cluster", f"--name={_PREFIX}{name}", *options]


def delete_argv(name: str, config: Path) -> list[str]:
    """kind's command to delete a cluster and its context."""
    return ["kind", "delete", "cluster", f"--name={_PREFIX}{name}", f"--kubeconfig={config}"]


def registry_argv() -> list[str]:
    """docker's command to start the registry, for this machine only."""
    publish = f"--publish=127.0.0.1:{REGISTRY_PORT}:5000"
    options = ["--detach", "--restart=always", publish, "--env=REGISTRY_STORAGE_DELETE_ENABLED=true"]
    return ["docker", "run", *options, f"--name={REGISTRY_CONTAINER}", REGISTRY_IMAGE]


def hosts_argv(node: str) -> list[str]:
    """docker's command that lets a node find the registry under the host's name for it (content on stdin)."""
    directory = f"/etc/containerd/certs.d/{REGISTRY}"
    return ["docker", "exec", "--interactive", node, "install", "-D", "/dev/stdin", f"{directory}/hosts.toml"]


def hosts_toml() -> str:
    """containerd's hosts.toml for the registry, by the container's name in kind's network."""
    return f'[host."http://{REGISTRY_CONTAINER}:5000"]\n'


def registry_hosting() -> dict[str, object]:
    """The ConfigMap that says where the local registry is (KEP-1755)."""
    hosting = {"host": REGISTRY, "hostFromContainerRuntime": f"{REGISTRY_CONTAINER}:5000"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": yaml.safe_dump(hosting)},
    }


def ours(output: str) -> list[str]:
    """The names in `kind get clusters` that this tool made, without their prefix."""
    return sorted(line.removeprefix(_PREFIX) for line in output.split() if line.startswith(_PREFIX))


def container_state(inspected: str) -> tuple[str, str | None]:
    """State and Kubernetes version, from `running kindest/node:v1.36.1` (status and image of the node's container)."""
    words = inspected.split()
    if len(words) != 2:
        return BROKEN, None
    version = re.search(r":(v[0-9.]+)", words[1])
    states = {"running": RUNNING, "exited": STOPPED, "created": STOPPED, "paused": STOPPED}
    return states.get(words[0], BROKEN), version.group(1) if version else None


def pushed_reference(digests: Sequence[str], repository: str) -> str:
    """The reference by digest that belongs to a repository.

    Raises:
        OperationFailed: the daemon recorded none, so nothing was pushed.
    """
    for reference in digests:
        if reference.startswith(f"{repository}@"):
            return reference
    raise OperationFailed(
        f"{repository} has no digest after the push", why=f"docker knows {', '.join(digests) or 'none'}"
    )


def loaded_reference(output: str) -> str:
    """The image that `docker load` says it has loaded.

    Raises:
        OperationFailed: it names none.
    """
    found = re.search(r"^Loaded image(?: ID)?: (\S+)$", output, re.MULTILINE)
    if not found:
        raise OperationFailed("the archive holds no image", why=output.strip())
    return found.group(1)


async def _names() -> list[str]:
    finished = await run(["kind", "get", "clusters"], timeout=_TIMEOUT)
    if finished.code != 0:
        raise Unreachable("the clusters of kind cannot be listed", why=finished.last_lines())
    return ours(finished.stdout)


async def _ensure_registry(progress: Progress) -> None:
    inspect = ["docker", "inspect", "--format={{.State.Running}}", REGISTRY_CONTAINER]
    finished = await run(inspect, timeout=_TIMEOUT)
    if finished.code != 0:
        progress(f"starting the registry {REGISTRY}")
        await run_checked(registry_argv(), "the registry cannot be started", timeout=_COPY_TIMEOUT)
    elif finished.stdout.strip() != "true":
        start = ["docker", "start", REGISTRY_CONTAINER]
        await run_checked(start, "the registry cannot be started", timeout=_TIMEOUT)


async def _connect_registry(name: str) -> None:
    nodes = await run_checked(
        ["kind", "get", "nodes", f"--name={_PREFIX}{name}"], "kind cannot list the nodes", timeout=_TIMEOUT
    )
    what = "the node cannot be told where the registry is"
    await asyncio.gather(
        *(run_checked(hosts_argv(node), what, timeout=_TIMEOUT, stdin=hosts_toml()) for node in nodes.split())
    )
    joined = await run(["docker", "network", "connect", _NETWORK, REGISTRY_CONTAINER], timeout=_TIMEOUT)
    if joined.code != 0 and "already exists" not in joined.stderr:
        raise OperationFailed("the registry cannot join the network of kind", why=joined.last_lines())
    apply = ["docker", "exec", "--interactive", f"{_PREFIX}{name}-control-plane", "kubectl"]
    apply += ["--kubeconfig=/etc/kubernetes/admin.conf", "apply", "--server-side", "--field-manager=sandbox", "-f", "-"]
    await run_checked(
        apply, "the registry cannot be recorded in the cluster", timeout=_TIMEOUT, stdin=json.dumps(registry_hosting())
    )


async def _load_archive(path: str) -> str:
    argv = ["docker", "load", f"--input={Path(path).expanduser()}"]
    return loaded_reference(await run_checked(argv, f"{path} cannot be loaded", timeout=_COPY_TIMEOUT))
