"""Helm against the embedded cluster: upgrades over changes by hand, failed hooks, releases left locked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm
from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.waiting import wait_ready, while_watching
from sandbox.model.errors import OperationFailed, Refused
from sandbox.model.failure import NotReady
from sandbox.model.objects import ObjectRef
from tests.conftest import kubectl
from tests.e2e.bounded import until

_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: {{ .Values.image }}, args: [sleep], env: [{name: A, value: "{{ .Values.a }}"}]}]
"""
_HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: {{ .Values.image }}, args: {{ .Values.migrate | toJson }}}]
"""


@pytest.fixture
async def api(cluster: ClusterInfo) -> AsyncIterator[Cluster]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield connection


@pytest.fixture
def helm(api: Cluster) -> Helm:
    return Helm(api.kubeconfig_path, api.context, cluster=api)


def write_chart(folder: Path, **templates: str) -> Path:
    chart = {"apiVersion": "v2", "name": "web", "version": "1.2.3", "appVersion": "9"}
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(json.dumps(chart))
    (folder / "values.yaml").write_text("replicas: 1\na: one\nmigrate: [wait, 1ms]\n")
    for name, text in templates.items():
        (folder / "templates" / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return write_chart(tmp_path / "chart", deployment=_DEPLOYMENT)


@pytest.fixture
def hooked(tmp_path: Path) -> Path:
    return write_chart(tmp_path / "hooked", deployment=_DEPLOYMENT, hook=_HOOK)


async def live(api: Cluster, namespace: str, name: str = "web") -> dict[str, Any]:
    found = await objects.get(api, ObjectRef("apps", "v1", "Deployment", name, namespace))
    assert found is not None
    return found


async def test_a_release_is_installed_upgraded_rolled_back_and_removed(
    api: Cluster, helm: Helm, namespace: str, chart: Path, probe_image: str
) -> None:
    assert await helm.install_or_upgrade("web", chart, {"image": probe_image}, namespace, timeout=60) == 1
    assert await helm.install_or_upgrade("web", chart, {"image": probe_image, "a": "two"}, namespace, timeout=60) == 2
    release = await helm.release("web", namespace)
    assert release is not None
    assert (release.revision, release.status, release.values["a"]) == (2, "deployed", "two")
    assert (release.chart_name, release.chart_version, release.app_version) == ("web", "1.2.3", "9")
    assert [manifest["kind"] for manifest in release.manifests] == ["Deployment"]
    await wait_ready(api, namespace, {"web": release.manifests}, timeout=60)
    assert await helm.rollback("web", 1, namespace) == 3
    [container] = (await live(api, namespace))["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "one"}]
    assert [found.revision for found in await helm.history("web", namespace)] == [1, 2, 3]
    assert [(found.name, found.revision) for found in await helm.releases(namespace)] == [("web", 3)]
    await helm.uninstall("web", namespace)
    assert await helm.release("web", namespace) is None
    await helm.uninstall("web", namespace)


async def test_changes_by_hand_do_not_stop_an_upgrade_or_rollback(
    api: Cluster, helm: Helm, cluster: ClusterInfo, namespace: str, chart: Path, probe_image: str
) -> None:
    values = {"image": probe_image}
    await helm.install_or_upgrade("web", chart, values, namespace, timeout=60)
    kubectl(cluster, "-n", namespace, "scale", "deployment/web", "--replicas=3")
    kubectl(cluster, "-n", namespace, "set", "env", "deployment/web", "A=by-hand")
    await helm.install_or_upgrade("web", chart, {**values, "a": "two"}, namespace, timeout=60)
    found = await live(api, namespace)
    assert found["spec"]["replicas"] == 1
    assert found["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] == "two"
    kubectl(cluster, "-n", namespace, "scale", "deployment/web", "--replicas=3")
    await helm.rollback("web", 1, namespace)
    assert (await live(api, namespace))["spec"]["replicas"] == 1


async def test_a_failed_hook_ends_helm_in_seconds_with_its_last_words(
    api: Cluster, helm: Helm, namespace: str, hooked: Path, probe_image: str
) -> None:
    values = {"image": probe_image, "migrate": ["crash", "relation orders exists"]}
    manifests, hooks = await helm.template("web", hooked, values, namespace)
    assert [hook["kind"] for hook in hooks] == ["Job"]
    install = helm.install_or_upgrade("web", hooked, values, namespace, timeout=120)
    with pytest.raises(NotReady) as caught:
        async with asyncio.timeout(30):
            await while_watching(install, api, namespace, "web", [*manifests, *hooks])
    assert caught.value.findings[0].log_tail == ("relation orders exists",)
    mended = {**values, "migrate": ["wait", "1ms"]}
    assert await helm.install_or_upgrade("web", hooked, mended, namespace, timeout=60) > 1


async def test_what_a_slow_hook_holds_back_is_not_missed(
    api: Cluster, helm: Helm, namespace: str, hooked: Path, probe_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.cluster.waiting._ABSENT_GRACE_S", 0.5)
    values = {"image": probe_image, "migrate": ["wait", "3s"]}
    manifests, hooks = await helm.template("web", hooked, values, namespace)
    install = helm.install_or_upgrade("web", hooked, values, namespace, timeout=60)
    assert await while_watching(install, api, namespace, "web", [*manifests, *hooks]) == 1


async def test_a_cancelled_upgrade_ends_at_once_and_the_next_one_works(
    helm: Helm, cluster: ClusterInfo, namespace: str, hooked: Path, probe_image: str
) -> None:
    values = {"image": probe_image, "migrate": ["sleep"]}
    install = asyncio.create_task(helm.install_or_upgrade("web", hooked, values, namespace, timeout=300))
    await asyncio.to_thread(until, lambda: _job(cluster, namespace), "the hook runs")
    install.cancel()
    done, _ = await asyncio.wait({install}, timeout=8)
    assert done, "helm was told to end and did not"
    mended = {**values, "migrate": ["wait", "1ms"]}
    await helm.install_or_upgrade("web", hooked, mended, namespace, timeout=60)
    release = await helm.release("web", namespace)
    assert release is not None
    assert release.status == "deployed"


def _job(cluster: ClusterInfo, namespace: str) -> str | None:
    names = kubectl(cluster, "-n", namespace, "get", "pods", "--field-selector=status.phase=Running", "-o", "name")
    return next((name for name in names.splitlines() if "migrate" in name), None)


_CALLER = """
import asyncio, json, sys
from pathlib import Path
from sandbox.cluster.helm import Helm
kubeconfig, context, chart, values, namespace = sys.argv[1:]
helm = Helm(Path(kubeconfig), context)
asyncio.run(helm.install_or_upgrade("web", Path(chart), json.loads(values), namespace, timeout=300))
"""


@contextmanager
def installing_elsewhere(
    cluster: ClusterInfo, chart: Path, values: dict[str, Any], namespace: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that installs a chart and is in the middle of its hook; killed at the end."""
    arguments = [str(cluster.kubeconfig), cluster.context, str(chart), json.dumps(values), namespace]
    caller = subprocess.Popen([sys.executable, "-c", _CALLER, *arguments], start_new_session=True)
    try:
        until(lambda: _job(cluster, namespace), "the hook runs")
        yield caller
    finally:
        caller.kill()
        caller.wait(10)


@pytest.mark.parametrize("before", [None, "deployed"])
async def test_a_release_that_a_killed_helm_left_locked_is_unlocked(
    helm: Helm, cluster: ClusterInfo, namespace: str, hooked: Path, probe_image: str, before: str | None
) -> None:
    quick = {"image": probe_image, "migrate": ["wait", "1ms"]}
    if before:
        await helm.install_or_upgrade("web", hooked, quick, namespace, timeout=60)
    with installing_elsewhere(cluster, hooked, {**quick, "a": "never", "migrate": ["sleep"]}, namespace) as caller:
        # Helm first, so that it cannot tidy up after its parent.
        for pid in [*_descendants(caller.pid), caller.pid]:
            os.kill(pid, signal.SIGKILL)
    locked = await helm.release("web", namespace)
    assert locked is not None
    assert locked.status == ("pending-upgrade" if before else "pending-install")
    await helm.install_or_upgrade("web", hooked, {**quick, "a": "after"}, namespace, timeout=60)
    release = await helm.release("web", namespace)
    assert release is not None
    assert (release.status, release.values["a"]) == ("deployed", "after")


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [found for child in map(int, listed) for found in (*_descendants(child), child)]


def test_helm_ends_when_its_caller_is_killed(
    cluster: ClusterInfo, namespace: str, hooked: Path, probe_image: str
) -> None:
    with installing_elsewhere(cluster, hooked, {"image": probe_image, "migrate": ["sleep"]}, namespace) as caller:
        [running] = _descendants(caller.pid)
    until(lambda: None if Path(f"/proc/{running}").exists() else True, "helm ends", 10)


async def test_the_chart_of_a_release_can_be_installed_again(
    api: Cluster, helm: Helm, namespace: str, hooked: Path, probe_image: str, tmp_path: Path
) -> None:
    values = {"image": probe_image, "a": "one: {{ two }}"}
    await helm.install_or_upgrade("web", hooked, values, namespace, timeout=60)
    release = await helm.release("web", namespace)
    assert release is not None
    assert not release.sub_charts
    unpacked = await helm.unpack_chart(release, tmp_path / "again")
    again, hooks = await helm.template("web", unpacked, release.values, namespace)
    assert again == release.manifests
    assert hooks == release.hooks


async def test_a_chart_with_sub_charts_comes_back_as_it_was_rendered(
    helm: Helm, namespace: str, chart: Path, probe_image: str, tmp_path: Path
) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sub}\ndata: {text: {{ .Values.text | toJson }}}\n"
    sub = write_chart(tmp_path / "sub", config=config)
    (sub / "Chart.yaml").write_text(json.dumps({"apiVersion": "v2", "name": "sub", "version": "0.1.0"}))
    named = {"name": "sub", "version": "0.1.0", "repository": "file://../sub"}
    metadata = {"apiVersion": "v2", "name": "web", "version": "1.2.3", "dependencies": [named]}
    (chart / "Chart.yaml").write_text(json.dumps(metadata))
    values = {"image": probe_image, "sub": {"text": "with {{ braces }}"}}
    await helm.install_or_upgrade("web", chart, values, namespace, timeout=60)
    release = await helm.release("web", namespace)
    assert release is not None
    assert release.sub_charts
    unpacked = await helm.unpack_chart(release, tmp_path / "again")
    again, _ = await helm.template("web", unpacked, release.values, namespace)
    assert sorted(again, key=str) == sorted(release.manifests, key=str)
    assert [m["data"]["text"] for m in again if m["kind"] == "ConfigMap"] == ["with {{ braces }}"]


async def test_what_helm_refuses_is_said_in_its_words(
    api: Cluster, helm: Helm, namespace: str, chart: Path, probe_image: str
) -> None:
    await helm.install_or_upgrade("web", chart, {"image": probe_image}, namespace, timeout=60)
    (chart / "templates" / "deployment.yaml").write_text(_DEPLOYMENT.replace("{{ .Release.Name }}", "web"))
    with pytest.raises(Refused, match="invalid ownership metadata"):
        await helm.install_or_upgrade("other", chart, {"image": probe_image}, namespace, timeout=60)
    with pytest.raises(OperationFailed, match="could not be installed"):
        await helm.install_or_upgrade("web", chart, {"image": {"not": "text"}}, namespace, timeout=60)
