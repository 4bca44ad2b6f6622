"""Clusters, credentials and registries that are not there, refuse, or go away meanwhile."""

from __future__ import annotations

import base64
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.projects import (
    GitProject,
    Manifest,
    Namespace,
    Running,
    Tool,
    config_map,
    deployment,
    temporary_project,
)
from tests.e2e.proxy import Proxy, proxied

# Seconds in which a command gives up on a server that does not answer.
BOUND = 60


@pytest.fixture
def small(project: GitProject) -> GitProject:
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    return project


def kubeconfig(cluster: ClusterInfo, path: Path, user: dict[str, Any]) -> str:
    """A kubeconfig for the cluster with another user; its path."""
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    (context,) = [c for c in content["contexts"] if c["name"] == cluster.context]
    content["contexts"] = [{**context, "context": {"cluster": context["context"]["cluster"], "user": "other"}}]
    content["users"] = [{"name": "other", "user": user}]
    content["current-context"] = cluster.context
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_no_kubeconfig_is_said(tool: Tool, small: GitProject, tmp_path: Path) -> None:
    nowhere = tool.with_environment(KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path), SANDBOX_CONTEXT="")

    nowhere.up(small).failed(5, "kubeconfig")


def test_a_context_that_is_not_there_is_said_with_those_that_are(
    tool: Tool, small: GitProject, cluster: ClusterInfo
) -> None:
    tool.up(small, "--context", "prod-eu").failed(2, "prod-eu", cluster.context)


def test_a_server_that_does_not_answer_is_said_within_a_bound(
    tool: Tool, small: GitProject, cluster: ClusterInfo, tmp_path: Path
) -> None:
    path = tmp_path / "gone"
    with proxied(cluster, path) as proxy:
        proxy.cut()
        started = time.monotonic()
        tool.with_environment(KUBECONFIG=str(path)).up(small).failed(5, f"127.0.0.1:{proxy.port}")

    assert time.monotonic() - started < BOUND


def expired_certificate() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dana")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return {
        "client-certificate-data": base64.b64encode(certificate.public_bytes(serialization.Encoding.PEM)).decode(),
        "client-key-data": base64.b64encode(pem).decode(),
    }


@pytest.mark.parametrize("kind", ["token", "certificate"])
def test_credentials_that_expired_are_said(
    tool: Tool, small: GitProject, cluster: ClusterInfo, tmp_path: Path, kind: str
) -> None:
    user = {"token": "secret-but-expired"} if kind == "token" else expired_certificate()
    path = kubeconfig(cluster, tmp_path / "config", user)

    ended = tool.with_environment(KUBECONFIG=path).up(small).failed(5)

    assert "Unauthorized" in ended.err or "expired" in ended.err
    assert "secret-but-expired" not in ended.err


def service_account(cluster: ClusterInfo, namespace: str) -> dict[str, str]:
    """A user without any rights."""
    kubectl(cluster, "create", "serviceaccount", "nobody", "-n", namespace)
    return {"token": kubectl(cluster, "create", "token", "nobody", "-n", namespace).strip()}


def test_no_permission_to_create_namespaces_is_said(
    tool: Tool, small: GitProject, cluster: ClusterInfo, namespace: str, tmp_path: Path
) -> None:
    path = kubeconfig(cluster, tmp_path / "config", service_account(cluster, namespace))

    ended = tool.with_environment(KUBECONFIG=path).up(small).failed(4, "namespaces")

    assert f"system:serviceaccount:{namespace}:nobody" in ended.err
    assert Namespace(cluster, small.name).itself() is None


def with_two_services(project: GitProject, image: str) -> None:
    """One is ready at once, the other one three seconds after its start."""
    slow = {"exec": {"command": ["/probe", "resolve", "localhost"]}, "initialDelaySeconds": 3, "periodSeconds": 1}
    services: dict[str, Manifest] = {
        "first": project.manifests("first", config_map("first", text="x")),
        "second": project.manifests("second", deployment("second", image, "sleep", readinessProbe=slow)),
    }
    project.declare(services)
    project.commit()


STEPS = ["• Resolve images", "• Namespace", "• Guardrails", "• Deploy second", "0 of 1"]


def test_a_server_that_goes_away_meanwhile_is_said_and_a_second_run_converges(
    tool: Tool, cluster: ClusterInfo, probe_image: str, tmp_path: Path
) -> None:
    with ExitStack() as all_of_them:
        interrupted: list[tuple[GitProject, Running, Proxy]] = []
        # Side by side: what each does after the cut is to wait for the server to come back.
        for number, step in enumerate(STEPS):
            project = all_of_them.enter_context(temporary_project(cluster, tmp_path / str(number)))
            with_two_services(project, probe_image)
            path = tmp_path / f"through-proxy-{number}"
            proxy = all_of_them.enter_context(proxied(cluster, path))
            running = tool.with_environment(KUBECONFIG=str(path)).start_up(project)
            running.read_until(step)
            proxy.cut()
            interrupted.append((project, running, proxy))
        for project, running, proxy in interrupted:
            running.wait(BOUND).failed(5, f"127.0.0.1:{proxy.port}")
            space = Namespace(cluster, project.name)
            itself = space.itself()
            assert itself is None or itself["metadata"]["annotations"]["sandbox.dev/expires-at"]
            tool.up(project).ok()
            assert space.get("deployment", "second")["status"]["availableReplicas"] == 1
            assert space.annotations()["sandbox.dev/phase"] == "Ready"


def test_a_registry_that_does_not_answer_is_said(
    tool: Tool, project: GitProject, space: Namespace, probe_storage: str
) -> None:
    image = f"{project.name}/web"
    project.write({"web/Containerfile": f"FROM {probe_storage}\n"})
    web = project.manifests("web", deployment("web", image, "sleep"))
    web |= {"images": [{"name": image, "build": {"context": "web"}}]}
    # Nothing listens at the discard port.
    project.declare({"web": web}, images={"registry": "127.0.0.1:9/shop", "builder": "buildah"})
    project.commit()

    tool.up(project).failed(5, "127.0.0.1:9")

    assert space.itself() is None


def test_an_image_that_nobody_pushes_is_waited_for_with_a_bound(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo
) -> None:
    image = {"name": f"{project.name}/web", "repository": f"{cluster.registry}/{project.name}/web"}
    web = project.manifests("web", deployment("web", image["name"], "sleep")) | {"images": [image]}
    project.declare({"web": web}, images={"wait": "3s"})
    sha = project.commit()

    tool.up(project).failed(1, f"{image['repository']}:{sha}", "3s")

    assert space.itself() is None
