"""Sandboxes without pods, made by hand in the shapes that tests of expiry and clean-up need."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.objects import Manifest
from tests.e2e.api import api_of

# As much of a lock as the clean-up asks for.
LOCK = '{"apiVersion": "sandbox.dev/v1", "kind": "Lock"}'


@dataclass
class Group:
    """Some sandboxes of one project, so that a command can be told to look at these only (``-l``)."""

    cluster: ClusterInfo
    project: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:9]}")

    @property
    def selector(self) -> str:
        return f"{labels.PROJECT}={self.project}"

    def name(self, number: int | str) -> str:
        return f"{self.project}-{number}"

    def make(self, name: str, left: timedelta | None = timedelta(hours=8), **more: Any) -> Manifest:
        """Make one sandbox with its record; the Namespace."""
        return asyncio.run(self._make_all([(name, left, more)]))[0]

    def make_many(self, count: int, left: timedelta) -> list[Manifest]:
        return asyncio.run(self._make_all([(self.name(number), left, {}) for number in range(count)]))

    async def _make_all(self, wanted: list[tuple[str, timedelta | None, dict[str, Any]]]) -> list[Manifest]:
        at_once = asyncio.Semaphore(8)
        async with Cluster.connect(self.cluster.context, self.cluster.kubeconfig) as connection:

            async def one(name: str, left: timedelta | None, more: dict[str, Any]) -> Manifest:
                async with at_once:
                    return await self._make(connection, name, left, **more)

            return list(await asyncio.gather(*(one(*each) for each in wanted)))

    async def _make(
        self,
        connection: Cluster,
        name: str,
        left: timedelta | None,
        *,
        annotations: Mapping[str, str | None] | None = None,
        label: Mapping[str, str] | None = None,
        record: bool = True,
        record_data: Mapping[str, str] | None = None,
        owner: str = "dana@example.com",
    ) -> Manifest:
        now = datetime.now(UTC)
        note: dict[str, str | None] = {
            labels.NAMESPACE: name,
            labels.CREATED_AT: to_rfc3339(now),
            labels.OWNER_USER: owner,
            labels.PHASE: "Ready",
            labels.TTL: "8h",
            labels.EXPIRES_AT: to_rfc3339(now + left) if left is not None else None,
            **(annotations or {}),
        }
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {
                    labels.MANAGED_BY: labels.MANAGED_BY_VALUE,
                    labels.PROJECT: self.project,
                    labels.NAME: name,
                    labels.OWNER: owner.partition("@")[0],
                    **(label or {}),
                },
                "annotations": {key: text for key, text in note.items() if text is not None},
            },
        }
        made = await objects.create(connection, manifest)
        if record:
            data = {"namespaceUID": made["metadata"]["uid"], "number": "1", "outcome": "deployed", "lock": LOCK}
            await objects.create(connection, _config_map(name, {**data, **(record_data or {})}))
        return made

    def annotations(self, name: str) -> dict[str, str]:
        found = self.get(name)
        assert found is not None, f"there is no namespace {name}"
        return dict(found["metadata"]["annotations"])

    def get(self, name: str) -> Manifest | None:
        return api_of(self.cluster).get("namespace", name)

    def alive(self) -> set[str]:
        """The names of those that are there and not being deleted."""
        items = api_of(self.cluster).list("namespaces", selector=self.selector)
        return {i["metadata"]["name"] for i in items if "deletionTimestamp" not in i["metadata"]}


def _config_map(namespace: str, data: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": labels.RECORD_NAME, "namespace": namespace},
        "data": dict(data),
    }


def definition(api_group: str) -> Manifest:
    """The CustomResourceDefinition of Things, which may have any fields."""
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{api_group}"},
        "spec": {
            "group": api_group,
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": anything}],
        },
    }


@contextmanager
def group_on(cluster: ClusterInfo) -> Iterator[Group]:
    """A group of sandboxes; they are deleted afterwards, without waiting for it."""
    made = Group(cluster)
    try:
        yield made
    finally:
        api_of(cluster).delete_namespaces(made.selector)
