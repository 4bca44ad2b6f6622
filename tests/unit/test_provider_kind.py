"""kind: what it is told and how its answers are read. Making a cluster needs a Docker daemon."""

from __future__ import annotations

import tomllib
import uuid
from pathlib import Path

import pytest
import yaml

from sandbox.cluster.providers import kind
from sandbox.cluster.providers.model import BROKEN, RUNNING, STOPPED
from sandbox.model.errors import InvalidInput, OperationFailed

UNAVAILABLE = kind.KindProvider().available()


def test_the_configuration_lets_containerd_find_the_registry() -> None:
    config = yaml.safe_load(kind.cluster_config())
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    [patch] = config["containerdConfigPatches"]
    registry = tomllib.loads(patch)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert registry == {"config_path": "/etc/containerd/certs.d"}


def test_commands() -> None:
    config = Path("/home/u/.kube/config")
    assert kind.create_argv("demo", config) == [
        *("kind", "create", "cluster", "--name=sandbox-demo"),
        *("--config=-", "--wait=180s", "--kubeconfig=/home/u/.kube/config"),
    ]
    delete = ["kind", "delete", "cluster", "--name=sandbox-demo", "--kubeconfig=/home/u/.kube/config"]
    assert kind.delete_argv("demo", config) == delete
    assert kind.hosts_argv("n")[-1] == "/etc/containerd/certs.d/localhost:5001/hosts.toml"


def test_the_registry_is_for_this_machine_only() -> None:
    assert "--publish=127.0.0.1:5001:5000" in kind.registry_argv()


def test_nodes_reach_the_registry_by_its_containers_name() -> None:
    assert tomllib.loads(kind.hosts_toml()) == {"host": {f"http://{kind.REGISTRY_CONTAINER}:5000": {}}}


@pytest.mark.parametrize(
    ("output", "names"),
    [("", []), ("No kind clusters found.\n", []), ("kind\nsandbox-b\nsandbox-a\nmine-sandbox-x\n", ["a", "b"])],
)
def test_only_clusters_with_our_prefix_are_ours(output: str, names: list[str]) -> None:
    assert kind.ours(output) == names


@pytest.mark.parametrize(
    ("inspected", "expected"),
    [
        ("running kindest/node:v1.36.1@sha256:abc\n", (RUNNING, "v1.36.1")),
        ("exited kindest/node:v1.35.0", (STOPPED, "v1.35.0")),
        ("dead kindest/node:latest", (BROKEN, None)),
        ("", (BROKEN, None)),
    ],
)
def test_a_containers_state_is_the_clusters(inspected: str, expected: tuple[str, str | None]) -> None:
    assert kind.container_state(inspected) == expected


def test_the_pushed_digest_is_the_one_of_our_registry() -> None:
    digests = ["docker.io/library/redis@sha256:1", "localhost:5001/library/redis@sha256:2"]
    assert kind.pushed_reference(digests, "localhost:5001/library/redis") == digests[1]
    with pytest.raises(OperationFailed, match="has no digest after the push"):
        kind.pushed_reference(digests, "localhost:5001/other")


@pytest.mark.parametrize("said", ["Loaded image: shop/web:1\n", "noise\nLoaded image ID: sha256:abc\n"])
def test_what_docker_load_says(said: str) -> None:
    assert kind.loaded_reference(said) == said.split()[-1]


def test_an_archive_without_an_image_is_said() -> None:
    with pytest.raises(OperationFailed, match="the archive holds no image"):
        kind.loaded_reference("")


async def test_a_control_plane_alone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="kind has no control plane without a node"):
        await kind.KindProvider().create("demo", control_plane_only=True, progress=print)


@pytest.mark.skipif(UNAVAILABLE is not None, reason=f"no Docker daemon or no kind: {UNAVAILABLE}")
async def test_a_cluster_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    provider, name = kind.KindProvider(), f"t-{uuid.uuid4().hex[:6]}"
    try:
        assert (await provider.create(name, progress=print)).state == RUNNING
        reference = await provider.load_image(name, kind.REGISTRY_IMAGE, print)
        assert reference.startswith("localhost:5001/registry@sha256:")
    finally:
        assert await provider.delete(name, print)
    assert not await provider.delete(name, print)
