"""Fixtures for all tests: the embedded cluster that the end-to-end tests share, and a namespace in it.

The cluster is created or reused (`SANDBOX_TEST_CLUSTER`, by default `sandbox-test`) and left running, so that the
next run starts at once; with `CI` or `SANDBOX_TEST_CLUSTER_DELETE` set it is deleted at the end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.cluster.providers.places import state_dir
from tests.e2e.api import api_of

# Two workers and a cluster on two cores: how long an example takes says nothing.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

TEST_CLUSTER = os.environ.get("SANDBOX_TEST_CLUSTER", "sandbox-test")
# A second one without nodes, for what would be in the way of others: policies, sweeps.
CONTROL_PLANE = os.environ.get("SANDBOX_TEST_CONTROL_PLANE", f"{TEST_CLUSTER}-cp")
_KUBECTL_TIMEOUT = 150  # seconds; more than any `--timeout` that tests give to kubectl
_created = pytest.StashKey[ClusterInfo]()


def pytest_configure() -> None:
    # The user's own kubeconfig is not for tests to change.
    os.environ["KUBECONFIG"] = str(state_dir() / "test-kubeconfig")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Create the cluster before the first test: on a fresh machine it takes longer than any test may."""
    wanted = any("cluster" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and EmbeddedProvider().available() is None and not session.config.option.collectonly:
        session.config.stash[_created] = _create_cluster()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Delete the cluster where nobody will use it again; in the main process, after all workers."""
    if hasattr(session.config, "workerinput"):
        return
    if os.environ.get("CI") or os.environ.get("SANDBOX_TEST_CLUSTER_DELETE"):
        for name in (TEST_CLUSTER, CONTROL_PLANE):
            asyncio.run(EmbeddedProvider().delete(name, _say))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> ClusterInfo:
    """A running embedded cluster, shared by all tests: work in a namespace of your own."""
    if reason := EmbeddedProvider().available():
        pytest.skip(f"no embedded cluster: {reason}")
    created = request.config.stash.get(_created, None)
    return created or _create_cluster()


@pytest.fixture(scope="session")
def control_plane() -> ClusterInfo:
    """A running control plane without nodes, shared by all tests that need one: pods never run there."""
    if reason := EmbeddedProvider().available():
        pytest.skip(f"no embedded cluster: {reason}")
    return asyncio.run(EmbeddedProvider().create(CONTROL_PLANE, control_plane_only=True, progress=_say))


@pytest.fixture
def namespace(cluster: ClusterInfo) -> Iterator[str]:
    """A fresh namespace, deleted afterwards without waiting for it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    api_of(cluster).create_namespace(name)
    yield name
    api_of(cluster).delete_namespace(name)


def kubectl(cluster: ClusterInfo, *arguments: str, stdin: str | None = None) -> str:
    """Run the embedded cluster's kubectl; fails the test with kubectl's own words."""
    directory = embedded_bin_dir()
    assert directory is not None, "the embedded cluster is built"
    argv = [str(directory / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", f"--context={cluster.context}"]
    done = subprocess.run(
        [*argv, *arguments], input=stdin, capture_output=True, text=True, timeout=_KUBECTL_TIMEOUT, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _create_cluster() -> ClusterInfo:
    return asyncio.run(EmbeddedProvider().create(TEST_CLUSTER, progress=_say))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def pytest_report_header() -> str:
    return f"test cluster: {TEST_CLUSTER} ({Path(os.environ['KUBECONFIG'])})"
