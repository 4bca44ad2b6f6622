"""Ready means ready, failed means seconds: on real pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.waiting import wait_ready, watch_failures, while_watching
from sandbox.model.failure import Finding, NotReady
from sandbox.model.objects import Manifest, ObjectRef
from tests.e2e.workloads import claim, container, deployment, job, pod_spec, service, serving, stateful_set


@pytest.fixture
async def api(cluster: ClusterInfo) -> AsyncIterator[Cluster]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield connection


class Place:
    """A namespace to apply into and wait in."""

    def __init__(self, api: Cluster, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.told: list[tuple[str, str]] = []

    async def apply(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            await objects.apply(self.api, manifest, namespace=self.namespace)

    async def ready(self, timeout: float = 60.0, **services: Manifest | Sequence[Manifest]) -> None:
        """Apply services and wait for them."""
        targets = {name: [m] if isinstance(m, dict) else list(m) for name, m in services.items()}
        for manifests in targets.values():
            await self.apply(*manifests)
        await self.wait(targets, timeout)

    async def wait(self, targets: Mapping[str, Sequence[Manifest]], timeout: float = 60.0, **options: Any) -> None:
        def on_change(service: str, message: str) -> None:
            self.told.append((service, message))

        await wait_ready(self.api, self.namespace, targets, timeout=timeout, on_change=on_change, **options)

    async def failure(self, manifest: Manifest, *, within: float, timeout: float = 90.0) -> Finding:
        """Apply a service that must fail; the finding, and that it came in time."""
        began = time.monotonic()
        with pytest.raises(NotReady) as caught:
            await self.ready(timeout, web=manifest)
        took = time.monotonic() - began
        finding: Finding = caught.value.findings[0]
        assert took < within, f"after {took:.1f} s: {caught.value}"
        assert finding.service == "web"
        return finding


@pytest.fixture
def place(api: Cluster, namespace: str) -> Place:
    return Place(api, namespace)


# -- ready


async def test_everything_that_can_be_ready_is_waited_for(place: Place, probe_image: str) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    await place.ready(
        web=[deployment("web", pod_spec(serving(probe_image)), replicas=2), service("web")],
        db=[stateful_set("db", pod_spec(serving(probe_image), volumes=[volume])), claim("data")],
        migrate=job("migrate", pod_spec(container(probe_image, "write", "/done", "yes"))),
    )
    web = await objects.get(place.api, ObjectRef("apps", "v1", "Deployment", "web", place.namespace))
    assert web is not None
    assert web["status"]["availableReplicas"] == 2
    for name in ("web", "db", "migrate"):
        assert [message for service, message in place.told if service == name][-1] == "ready"


async def test_an_upgrade_is_ready_only_with_its_new_pods(place: Place, probe_image: str) -> None:
    first = deployment("web", pod_spec(serving(probe_image)))
    await place.ready(web=first)
    second = deployment("web", pod_spec(serving(probe_image, env=[{"name": "REVISION", "value": "2"}])))
    await place.ready(web=second)
    pods = [pod async for pod in objects.list_(place.api, "v1", "Pod", place.namespace)]
    running = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    assert [pod["spec"]["containers"][0]["env"][0]["value"] for pod in running] == ["2"]


async def test_a_service_that_crashes_until_its_database_is_there_survives(place: Place, probe_image: str) -> None:
    needy = container(probe_image, "serve-after", "http://db", "8080")
    late = serving(probe_image)
    late["readinessProbe"] = {**late["readinessProbe"], "initialDelaySeconds": 4}
    targets = {
        "web": [deployment("web", pod_spec(needy))],
        "db": [deployment("db", pod_spec(late)), service("db")],
    }
    for manifests in targets.values():
        await place.apply(*manifests)
    await place.wait(targets)
    [pod] = [p async for p in objects.list_(place.api, "v1", "Pod", place.namespace, "app=web")]
    assert pod["status"]["containerStatuses"][0]["restartCount"] >= 1


async def test_a_claim_that_waits_for_its_first_pod_is_no_reason_to_wait(place: Place, api: Cluster) -> None:
    name = f"late-{place.namespace}"
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "kubernetes.io/host-path",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await objects.apply(api, storage)
    try:
        await place.ready(db=claim("data", storageClassName=name))
    finally:
        await objects.delete(api, ObjectRef.of(storage))


async def test_a_custom_resource_is_ready_when_its_condition_says_so(place: Place, api: Cluster) -> None:
    group = f"{place.namespace}.example"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
    await objects.apply(api, crd)
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}}
    try:
        await place.wait({"crd": [crd]})
        with pytest.raises(NotReady, match="nothing is known of it yet"):
            await place.ready(2.0, web=thing)
        waiting = asyncio.create_task(place.wait({"web": [thing]}))
        ref = ObjectRef(group, "v1", "Thing", "a", place.namespace)
        conditions = [{"type": "Ready", "status": "False", "reason": "Starting", "message": "almost"}]
        await objects.patch_merge(api, ref, {"status": {"conditions": conditions}}, subresource="status")
        done, _ = await asyncio.wait({waiting}, timeout=1.5)
        assert not done
        assert ("web", f"thing.{group}/a: Starting: almost") in place.told
        conditions[0]["status"] = "True"
        await objects.patch_merge(api, ref, {"status": {"conditions": conditions}}, subresource="status")
        async with asyncio.timeout(10):
            await waiting
    finally:
        await objects.delete(api, ObjectRef.of(crd))


# -- failed


async def test_a_crash_at_start_is_said_in_seconds_with_its_last_words(place: Place, probe_image: str) -> None:
    crashing = container(probe_image, "crash", "no such table: orders")
    finding = await place.failure(deployment("web", pod_spec(crashing)), within=12)
    assert finding.reason in ("CrashLoopBackOff", "Error")
    assert finding.exit_code == 1
    assert finding.container == "main"
    assert finding.log_tail == ("no such table: orders",)


async def test_a_crash_beside_services_that_are_starting_is_said_when_they_are_ready(
    place: Place, probe_image: str
) -> None:
    targets = {
        "web": [deployment("web", pod_spec(container(probe_image, "crash", "broken")))],
        "slow": [deployment("slow", pod_spec(serving(probe_image)))],
    }
    for manifests in targets.values():
        await place.apply(*manifests)
    began = time.monotonic()
    with pytest.raises(NotReady) as caught:
        await place.wait(targets, needs={"web": [], "slow": []})
    assert time.monotonic() - began < 12
    assert [finding.service for finding in caught.value.findings] == ["web"]


async def test_an_init_container_that_crashes(place: Place, probe_image: str) -> None:
    init = container(probe_image, "crash", "not initialised", name="setup")
    finding = await place.failure(deployment("web", pod_spec(serving(probe_image), initContainers=[init])), within=12)
    assert (finding.container, finding.log_tail) == ("setup", ("not initialised",))


async def test_an_image_that_does_not_exist(place: Place, probe_image: str) -> None:
    missing = probe_image.partition("@")[0].rpartition("/")[0] + "/no-such-image:1"
    finding = await place.failure(deployment("web", pod_spec(container(missing, "sleep"))), within=10)
    assert finding.reason in ("ErrImagePull", "ImagePullBackOff")
    assert "not found" in finding.message


async def test_a_secret_that_is_missing(place: Place, probe_image: str) -> None:
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "password"}}}]
    finding = await place.failure(deployment("web", pod_spec(container(probe_image, "sleep", env=env))), within=12)
    assert finding.reason == "CreateContainerConfigError"
    assert 'secret "nowhere" not found' in finding.message


async def test_a_volume_that_is_missing(place: Place, probe_image: str) -> None:
    volumes = [{"name": "conf", "configMap": {"name": "nowhere"}}]
    mounts = [{"name": "conf", "mountPath": "/conf"}]
    spec = pod_spec(container(probe_image, "sleep", volumeMounts=mounts), volumes=volumes)
    finding = await place.failure(deployment("web", spec), within=15)
    assert finding.reason == "FailedMount"
    assert 'configmap "nowhere" not found' in finding.message


async def test_a_program_that_is_not_in_the_image(place: Place, probe_image: str) -> None:
    spec = pod_spec(container(probe_image, command=["/no-such-program"]))
    finding = await place.failure(deployment("web", spec), within=12)
    assert "no such file or directory" in finding.message


async def test_a_container_that_uses_too_much_memory(place: Place, probe_image: str) -> None:
    hungry = container(probe_image, "eat", resources={"limits": {"memory": "24Mi"}})
    finding = await place.failure(deployment("web", pod_spec(hungry)), within=20)
    assert finding.reason == "OOMKilled"
    assert finding.exit_code == 137


@pytest.mark.parametrize("kind", [deployment, stateful_set])
async def test_a_quota_that_is_used_up(place: Place, probe_image: str, kind: Any) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    await place.apply(quota)
    finding = await place.failure(kind("web", pod_spec(container(probe_image, "sleep"))), within=15)
    assert finding.reason == "FailedCreate"
    assert "exceeded quota: q" in finding.message


async def test_a_pod_that_fits_nowhere(place: Place, probe_image: str) -> None:
    greedy = container(probe_image, "sleep", resources={"requests": {"cpu": "1000"}})
    finding = await place.failure(deployment("web", pod_spec(greedy)), within=15)
    assert finding.reason == "Unschedulable"
    assert "Insufficient cpu" in finding.message


async def test_a_job_that_fails_says_why(place: Place, probe_image: str) -> None:
    migrate = job("migrate", pod_spec(container(probe_image, "crash", "relation exists")), backoffLimit=0)
    finding = await place.failure(migrate, within=10)
    assert finding.reason in ("BackoffLimitExceeded", "Error")
    assert finding.exit_code == 1
    assert finding.log_tail == ("relation exists",)


async def test_a_storage_class_that_does_not_exist(place: Place, probe_image: str) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    await place.apply(claim("data", storageClassName="no-such-class"))
    spec = pod_spec(container(probe_image, "sleep"), volumes=[volume])
    finding = await place.failure(deployment("web", spec), within=15)
    assert 'storageclass.storage.k8s.io "no-such-class" not found' in finding.message


async def test_a_liveness_probe_that_kills_is_named(place: Place, probe_image: str) -> None:
    probe = {"httpGet": {"path": "/", "port": 9999}, "periodSeconds": 1, "failureThreshold": 1}
    ready = {"httpGet": {"path": "/", "port": 9999}, "periodSeconds": 1}
    killed = container(probe_image, "serve", "8080", livenessProbe=probe, readinessProbe=ready)
    finding = await place.failure(deployment("web", pod_spec(killed)), within=45)
    assert "Liveness probe failed" in finding.message


async def test_what_is_only_slow_runs_out_of_time_and_says_what_its_probe_said(place: Place, probe_image: str) -> None:
    unready = serving(probe_image)
    unready["readinessProbe"] = {"httpGet": {"path": "/", "port": 9999}, "periodSeconds": 1}
    with pytest.raises(NotReady, match="service web not ready after 5 s") as caught:
        await place.ready(5.0, web=deployment("web", pod_spec(unready)))
    [finding] = caught.value.findings
    assert "0 of 1 replicas available" in finding.message
    assert "Readiness probe failed" in finding.message


async def test_an_upgrade_is_not_blamed_for_the_crashing_pods_it_replaces(place: Place, probe_image: str) -> None:
    await place.failure(deployment("web", pod_spec(container(probe_image, "crash", "old"))), within=12)
    await place.ready(web=deployment("web", pod_spec(serving(probe_image))))


# -- while Helm runs


async def test_only_what_changes_counts_while_helm_runs(place: Place, probe_image: str) -> None:
    broken = deployment("web", pod_spec(container(probe_image, "crash", "old")))
    failed = job("migrate", pod_spec(container(probe_image, "crash", "old")), backoffLimit=0)
    await place.failure(broken, within=12)
    await place.failure(failed, within=12)
    watching = asyncio.create_task(watch_failures(place.api, place.namespace, "web", [broken, failed]))
    try:
        done, _ = await asyncio.wait({watching}, timeout=3)
        assert not done
        await objects.delete(place.api, ObjectRef("batch", "v1", "Job", "migrate", place.namespace))
        failed["spec"]["template"]["spec"]["containers"][0]["args"] = ["crash", "new"]
        await _applied_anew(place, failed)
        with pytest.raises(NotReady) as caught:
            async with asyncio.timeout(15):
                await watching
        assert caught.value.findings[0].log_tail == ("new",)
    finally:
        watching.cancel()


async def _applied_anew(place: Place, manifest: Manifest) -> None:
    async with asyncio.timeout(20):
        async for event, item in objects.watch(place.api, "batch/v1", "Job", place.namespace):
            gone = event == "DELETED" and item["metadata"]["name"] == manifest["metadata"]["name"]
            if gone or (event == "SYNCED" and not await objects.get(place.api, _job_ref(place, manifest))):
                break
    await place.apply(manifest)


def _job_ref(place: Place, manifest: Manifest) -> ObjectRef:
    return ObjectRef("batch", "v1", "Job", manifest["metadata"]["name"], place.namespace)


async def test_an_operation_is_ended_when_what_it_made_fails(place: Place, probe_image: str) -> None:
    ended = asyncio.Event()
    migrate = job("migrate", pod_spec(container(probe_image, "crash", "broken")), backoffLimit=0)

    async def operation() -> None:
        try:
            await place.apply(migrate)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    with pytest.raises(NotReady):
        await while_watching(operation(), place.api, place.namespace, "web", [migrate])
    assert ended.is_set()
