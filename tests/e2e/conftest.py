"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded.build import sources, toolchain
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from tests.e2e.preloaded import Preloaded
from tests.e2e.projects import GitProject, Namespace, Tool, temporary_project

# The files that take longest (a minute and more), in that order; they are begun first.
_LONGEST = (
    "shop",
    "provider_embedded_lifecycle",
    "cleanup",
    "up_failures",
    "cluster_waiting",
    "admission",
    "images_build",
    "chart",
    "reproduce",
    "bisect",
    "capture",
    "deploy_data",
    "cluster_helm",
    "up_interrupted",
    "up_again",
    "deploy",
    "up_faults",
    "up_base",
    "after_failure",
)
_PROBE = Path(__file__).parent / "probe" / "main.go"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    # A file is one worker's: where a long one is begun last, the other workers wait for its end.
    rank = {f"test_{name}.py": number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def probe_storage(cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image in buildah's storage that holds the program `probe` and nothing else; the reference there."""
    directory = tmp_path_factory.mktemp("probe")
    go_sources = sources()
    assert go_sources is not None
    go = asyncio.run(toolchain((go_sources / "go.mod").read_text(), print))
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    build = [str(go), "build", "-trimpath", "-ldflags=-s -w", "-o", str(directory / "probe"), str(_PROBE)]
    subprocess.run(build, check=True, timeout=300, env=environment)
    (directory / "Containerfile").write_text('FROM scratch\nCOPY probe /probe\nENTRYPOINT ["/probe"]\n')
    image = f"localhost/sandbox-probe:{os.getpid()}"
    command = ["buildah", "build", "--isolation=chroot", "--quiet", "--tag", image, str(directory)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    yield image
    subprocess.run(["buildah", "rmi", "--force", image], check=False, timeout=60, capture_output=True)


@pytest.fixture(scope="session")
def probe_image(cluster: ClusterInfo, probe_storage: str) -> str:
    """The probe image in the test cluster's registry, by digest."""
    return asyncio.run(EmbeddedProvider().load_image(cluster.name, probe_storage, print))


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """The process that runs commands; what it has imported serves all files of a worker."""
    made = Preloaded()
    yield made
    made.close()


@pytest.fixture(scope="session")
def tool(cluster: ClusterInfo, preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, in a home of its own."""
    return Tool(cluster, tmp_path_factory.mktemp("home"), preloaded)


@pytest.fixture
def project(cluster: ClusterInfo, tmp_path: Path) -> Iterator[GitProject]:
    """An empty git repository; its sandboxes are deleted afterwards, without waiting for it."""
    with temporary_project(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def space(cluster: ClusterInfo, project: GitProject) -> Namespace:
    """The namespace of the project's sandbox; not there yet."""
    return Namespace(cluster, project.name)
