"""The embedded cluster runs pods as a real cluster does."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.model.errors import InvalidInput
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until


def start_pod(
    cluster: ClusterInfo,
    namespace: str,
    name: str,
    image: str,
    *arguments: str,
    claim: str | None = None,
    user: int = 0,
) -> None:
    container: dict[str, Any] = {"name": "probe", "image": image, "args": list(arguments)}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container], "securityContext": {"runAsUser": user}}
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    kubectl(cluster, "apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))


def run_pod(
    cluster: ClusterInfo,
    namespace: str,
    name: str,
    image: str,
    *arguments: str,
    claim: str | None = None,
    user: int = 0,
) -> tuple[str, str]:
    """Run a pod to its end: its phase and what it wrote."""
    start_pod(cluster, namespace, name, image, *arguments, claim=claim, user=user)

    def ended() -> str | None:
        pod = api_of(cluster).get("pod", name, namespace)
        assert pod is not None, f"there is no pod {name}"
        phase: str = pod["status"].get("phase", "")
        return phase if phase in {"Succeeded", "Failed"} else None

    phase = until(ended, f"pod {name} ends")
    return phase, kubectl(cluster, "logs", name, "-n", namespace).strip()


def test_an_image_pushed_by_buildah_runs_by_digest(
    cluster: ClusterInfo, namespace: str, probe_storage: str, tmp_path: Path
) -> None:
    target = f"{cluster.registry}/pushed/by-buildah"
    digest_file = tmp_path / "digest"
    push = ["buildah", "push", "--tls-verify=false", f"--digestfile={digest_file}", probe_storage]
    subprocess.run([*push, f"docker://{target}:1"], check=True, timeout=60, capture_output=True)
    digest = digest_file.read_text().strip()

    phase, _ = run_pod(cluster, namespace, "pushed", f"{target}@{digest}", "resolve", "localhost")

    assert phase == "Succeeded"
    image_id = "jsonpath={.status.containerStatuses[0].imageID}"
    assert kubectl(cluster, "get", "pod", "pushed", "-n", namespace, "-o", image_id) == f"{target}@{digest}"


def test_an_image_that_the_registry_does_not_have_is_not_pulled(cluster: ClusterInfo, namespace: str) -> None:
    start_pod(cluster, namespace, "missing", f"{cluster.registry}/no/such:image", "sleep")
    reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"

    def refused() -> str | None:
        said = kubectl(cluster, "get", "pod", "missing", "-n", namespace, "-o", reason)
        return said if said in {"ErrImagePull", "ImagePullBackOff"} else None

    assert until(refused, "the pull is refused")


def test_names_resolve_in_pods(cluster: ClusterInfo, namespace: str, probe_image: str) -> None:
    phase, said = run_pod(cluster, namespace, "resolve", probe_image, "resolve", "kubernetes.default")
    assert (phase, said) == ("Succeeded", "10.96.0.1")


def test_a_name_outside_of_the_cluster_fails_at_once(cluster: ClusterInfo, namespace: str, probe_image: str) -> None:
    # The program gives up after 10 s; a pod that got no answer would still be running.
    phase, said = run_pod(cluster, namespace, "outside", probe_image, "resolve", "example.com")
    assert phase == "Failed"
    assert "timeout" not in said


def test_a_pod_reaches_a_service_and_itself_through_it(cluster: ClusterInfo, namespace: str, probe_image: str) -> None:
    start_pod(cluster, namespace, "server", probe_image, "serve", "8080")
    kubectl(cluster, "expose", "pod", "server", "-n", namespace, "--name=web", "--port=80", "--target-port=8080")
    kubectl(cluster, "wait", "--for=condition=Ready", "pod/server", "-n", namespace, "--timeout=120s")

    assert run_pod(cluster, namespace, "client", probe_image, "get", "http://web") == ("Succeeded", "server")
    itself = kubectl(cluster, "exec", "server", "-n", namespace, "--", "/probe", "get", "http://web")
    assert itself == "server"


def test_a_claim_keeps_what_a_pod_wrote(cluster: ClusterInfo, namespace: str, probe_image: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    kubectl(cluster, "apply", "-n", namespace, "-f", "-", stdin=json.dumps(claim))

    write = ("write", "/data/file", "kept")
    written, _ = run_pod(cluster, namespace, "writer", probe_image, *write, claim="data", user=1000)
    read = run_pod(cluster, namespace, "reader", probe_image, "read", "/data/file", claim="data")

    assert written == "Succeeded"
    assert read == ("Succeeded", "kept")


def test_the_cluster_says_where_its_registry_is(cluster: ClusterInfo) -> None:
    key = r"jsonpath={.data.localRegistryHosting\.v1}"
    hosting = kubectl(cluster, "get", "configmap", "local-registry-hosting", "-n", "kube-public", "-o", key)
    assert yaml.safe_load(hosting)["host"] == cluster.registry


def test_an_archive_is_loaded_by_its_path(cluster: ClusterInfo, probe_storage: str, tmp_path: Path) -> None:
    archive = tmp_path / "Probe Image.tar"
    push = ["buildah", "push", probe_storage, f"docker-archive:{archive}:probe:1"]
    subprocess.run(push, check=True, timeout=60, capture_output=True)

    reference = asyncio.run(EmbeddedProvider().load_image(cluster.name, str(archive), print))

    assert reference.startswith(f"{cluster.registry}/probe-image@sha256:")


async def test_an_image_that_nobody_has_is_said(cluster: ClusterInfo) -> None:
    with pytest.raises(InvalidInput, match="there is no image localhost/nobody/has:it on this machine"):
        await EmbeddedProvider().load_image(cluster.name, "localhost/nobody/has:it", print)
