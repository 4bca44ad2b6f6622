"""Requests, refusals and watches against a real API server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from sandbox.cluster import errors, objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import all_resources, api_versions, resource_for
from sandbox.cluster.kubeconfig import find
from sandbox.cluster.providers import ClusterInfo
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest, ObjectRef
from tests.conftest import kubectl
from tests.e2e.workloads import container, deployment, pod_spec


@pytest.fixture
async def api(cluster: ClusterInfo) -> AsyncIterator[Cluster]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield connection


def config(name: str = "a", **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_who_and_where_we_are(api: Cluster) -> None:
    assert (await api.version()).startswith("v1.")
    user = await api.whoami()
    assert user.username
    assert "system:authenticated" in user.groups
    assert abs(await api.server_time() - datetime.now(UTC)) < timedelta(seconds=5)
    assert await api.can_i("create", "apps", "deployments", "default")
    assert await api.can_i("create", "", "pods/exec", "default")


async def test_objects_are_applied_read_changed_and_deleted(api: Cluster, namespace: str) -> None:
    applied = await objects.apply(api, config(x="1"), namespace=namespace)
    ref = ObjectRef.of(applied)
    assert ref.namespace == namespace
    assert {entry["manager"] for entry in applied["metadata"]["managedFields"]} == {"sandbox"}
    again = await objects.apply(api, {**applied, "data": {"x": "2"}})
    assert again["data"] == {"x": "2"}
    changed = await objects.patch_merge(
        api, ref, {"data": {"y": "3", "x": None}}, resource_version=again["metadata"]["resourceVersion"]
    )
    assert changed["data"] == {"y": "3"}
    with pytest.raises(errors.Conflict):
        await objects.patch_merge(api, ref, {"data": {"z": "4"}}, resource_version=again["metadata"]["resourceVersion"])
    with pytest.raises(errors.AlreadyExists):
        await objects.create(api, config(), namespace=namespace)
    with pytest.raises(errors.Conflict):
        await objects.delete(api, ref, uid="00000000-0000-0000-0000-000000000000")
    assert await objects.delete(api, ref, uid=applied["metadata"]["uid"])
    assert not await objects.delete(api, ref)
    assert await objects.get(api, ref) is None


async def test_a_dry_run_changes_nothing(api: Cluster, namespace: str) -> None:
    tried = await objects.apply(api, config(x="1"), namespace=namespace, dry_run=True)
    assert tried["data"] == {"x": "1"}
    assert await objects.get(api, ObjectRef.of(tried)) is None


async def test_fields_of_others_are_taken_only_by_force(api: Cluster, cluster: ClusterInfo, namespace: str) -> None:
    web = deployment("web", pod_spec(container("nowhere.invalid/x:1")), replicas=0)
    await objects.apply(api, web, namespace=namespace)
    kubectl(cluster, "-n", namespace, "scale", "deployment/web", "--replicas=1")
    with pytest.raises(errors.FieldConflict, match="kubectl"):
        await objects.apply(api, web, namespace=namespace, force=False)
    taken = await objects.apply(api, web, namespace=namespace)
    assert taken["spec"]["replicas"] == 0


async def test_lists_are_complete_over_pages(api: Cluster, namespace: str) -> None:
    await asyncio.gather(*(objects.apply(api, config(f"c{n}"), namespace=namespace) for n in range(7)))
    found = [o async for o in objects.list_(api, "v1", "ConfigMap", namespace, limit=3)]
    assert {f"c{n}" for n in range(7)} <= {o["metadata"]["name"] for o in found}
    assert all(o["kind"] == "ConfigMap" for o in found)
    thin = [o async for o in objects.list_(api, "v1", "ConfigMap", namespace, metadata_only=True)]
    assert all("data" not in o and o["kind"] == "ConfigMap" for o in thin)


# -- refusals


async def test_a_quota_says_what_it_refuses(api: Cluster, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "1"}},
    }
    await objects.apply(api, quota, namespace=namespace)
    with pytest.raises(errors.QuotaExceeded, match="exceeded quota: q"):
        async with asyncio.timeout(30):
            await _apply_many(api, namespace)


async def _apply_many(api: Cluster, namespace: str) -> None:
    """The quota is counted a moment after it is made."""
    for number in range(100):
        await objects.apply(api, config(f"c{number}"), namespace=namespace)
        await asyncio.sleep(0.1)


async def test_an_invalid_object_is_refused_with_its_field(api: Cluster, namespace: str) -> None:
    with pytest.raises(errors.Invalid, match=r"spec\.ports"):
        await objects.apply(
            api, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}, namespace=namespace
        )


async def test_no_rights_are_said_with_who_lacks_them(cluster: ClusterInfo, namespace: str, tmp_path: Path) -> None:
    access = find(cluster.context, cluster.kubeconfig)
    document = yaml.safe_load(yaml.safe_dump(dict(access.document)))
    document["users"][0]["user"]["as"] = "eve"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    async with Cluster.connect(cluster.context, file) as eve:
        assert (await eve.whoami()).username == "eve"
        assert not await eve.can_i("create", "", "namespaces")
        with pytest.raises(errors.Forbidden, match='User "eve" cannot create resource "namespaces"') as caught:
            await objects.create(eve, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-x"}})
    assert caught.value.exit_code == 4


async def test_expired_credentials_are_said(cluster: ClusterInfo) -> None:
    access = find(cluster.context, cluster.kubeconfig)
    async with Cluster(replace(access, user={"token": "e.x.pired"})) as nobody:
        with pytest.raises(errors.Unauthorized) as caught:
            await nobody.whoami()
    assert "does not accept the credentials" in caught.value.what
    assert "e.x.pired" not in str(caught.value)


async def test_a_terminating_namespace_takes_nothing_new(api: Cluster, namespace: str) -> None:
    held = {**config(), "metadata": {"name": "held", "finalizers": ["sandbox.dev/test"]}}
    applied = await objects.apply(api, held, namespace=namespace)
    await objects.delete(api, ObjectRef("", "v1", "Namespace", namespace))
    try:
        with pytest.raises(errors.NamespaceTerminating):
            await objects.apply(api, config("late"), namespace=namespace)
    finally:
        await objects.patch_merge(api, ObjectRef.of(applied), {"metadata": {"finalizers": None}})


# -- discovery


async def test_what_the_server_has(api: Cluster) -> None:
    versions = await api_versions(api)
    assert {"v1", "apps/v1", "apps/v1/Deployment", "v1/Pod"} <= set(versions)
    kinds = {(resource.group, resource.kind): resource for resource in await all_resources(api)}
    assert kinds["apps", "Deployment"].namespaced
    assert kinds["apps", "Deployment"].has_status
    assert not kinds["", "Node"].namespaced
    found = await resource_for(api, "autoscaling/v2", "HorizontalPodAutoscaler")
    assert found.plural == "horizontalpodautoscalers"


async def test_built_in_kinds_are_what_the_server_says(api: Cluster) -> None:
    from sandbox.cluster.discovery import _BUILT_IN

    served = {(r.api_version, r.kind): r for r in await all_resources(api)}
    for key, resource in _BUILT_IN.items():
        assert (resource.plural, resource.namespaced) == (served[key].plural, served[key].namespaced), key


async def test_a_kind_that_comes_later_is_found(api: Cluster, namespace: str) -> None:
    group = f"{namespace}.example"
    with pytest.raises(InvalidInput) as caught:
        await resource_for(api, f"{group}/v1", "Thing")
    assert "is its CRD installed" in caught.value.hint
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    await objects.apply(api, crd)
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(InvalidInput):
                    assert (await resource_for(api, f"{group}/v1", "Thing")).plural == "things"
                    break
                await asyncio.sleep(0.2)
    finally:
        await objects.delete(api, ObjectRef.of(crd))


# -- watches over bad connections


class CuttingProxy:
    """Passes TCP connections on and cuts them all when told to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer), return_exceptions=True)

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_a_watch_misses_nothing_when_its_connection_is_cut(
    api: Cluster, cluster: ClusterInfo, namespace: str
) -> None:
    access = find(cluster.context, cluster.kubeconfig)
    host, _, port = access.server.removeprefix("https://").rpartition(":")
    seen: dict[str, str] = {}
    async with CuttingProxy(host, int(port)) as proxy:
        through = replace(
            access, server=f"https://127.0.0.1:{proxy.port}", tls_server_name=access.tls_server_name or host
        )
        async with Cluster(through) as watching, asyncio.timeout(60):
            await objects.apply(api, config("before"), namespace=namespace)
            async for event, item in objects.watch(watching, "v1", "ConfigMap", namespace):
                if event == "SYNCED":
                    proxy.cut()
                    await objects.apply(api, config("during"), namespace=namespace)
                    await objects.delete(api, ObjectRef("", "v1", "ConfigMap", "before", namespace))
                    continue
                seen[item["metadata"]["name"]] = event
                if seen.get("during") == "ADDED" and seen.get("before") == "DELETED":
                    break


async def test_a_request_over_a_cut_connection_is_sent_again(cluster: ClusterInfo, namespace: str) -> None:
    access = find(cluster.context, cluster.kubeconfig)
    host, _, port = access.server.removeprefix("https://").rpartition(":")
    async with CuttingProxy(host, int(port)) as proxy:
        through = replace(
            access, server=f"https://127.0.0.1:{proxy.port}", tls_server_name=access.tls_server_name or host
        )
        async with Cluster(through) as flaky:
            for number in range(5):
                await objects.apply(flaky, config("a", n=str(number)), namespace=namespace)
                proxy.cut()
            found = await objects.get(flaky, ObjectRef("", "v1", "ConfigMap", "a", namespace))
    assert found is not None
    assert found["data"] == {"n": "4"}
