"""Which resources the server has: from ``apiVersion`` and ``kind`` to the path of a request.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, cast
from urllib.parse import quote

from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import NotFound
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import split_api_version

_ALL_VERBS = frozenset({"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"})
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Resource:
    """One kind of object as the server knows it.

    Attributes:
        plural: its name in paths.
        verbs: what the server can do with it (not: what we may).
        has_status: whether its status is kept apart, so that somebody is going to write one.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]
    has_status: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The path of a request, quoted.

        Args:
            namespace: ignored for what is cluster-scoped; None: all namespaces.
            name: None: the collection.
        """
        parts = ["api", self.version] if not self.group else ["apis", self.group, self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, *subresource.split("/")) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


def _built_in() -> Mapping[tuple[str, str], Resource]:
    """Kinds that every supported server (1.28 or later) has: their requests need no discovery first."""
    cluster_scoped = {"Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding", "StorageClass"}
    kinds = {
        ("", "v1"): "Namespace Pod Service Secret ConfigMap Event ServiceAccount PersistentVolumeClaim ResourceQuota "
        "LimitRange Endpoints Node PersistentVolume ReplicationController",
        ("apps", "v1"): "Deployment StatefulSet DaemonSet ReplicaSet ControllerRevision",
        ("batch", "v1"): "Job CronJob",
        ("coordination.k8s.io", "v1"): "Lease",
        ("discovery.k8s.io", "v1"): "EndpointSlice",
        ("networking.k8s.io", "v1"): "NetworkPolicy Ingress",
        ("policy", "v1"): "PodDisruptionBudget",
        ("rbac.authorization.k8s.io", "v1"): "Role RoleBinding ClusterRole ClusterRoleBinding",
        ("storage.k8s.io", "v1"): "StorageClass",
    }
    resources = (
        Resource(group, version, kind, _plural(kind), kind not in cluster_scoped, _ALL_VERBS)
        for (group, version), names in kinds.items()
        for kind in names.split()
    )
    return {(resource.api_version, resource.kind): resource for resource in resources}


def _plural(kind: str) -> str:
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x")) else f"{name}s"


_BUILT_IN = _built_in()


async def resource_for(cluster: Cluster, api_version: str, kind: str) -> Resource:
    """Find a kind of object on the server; asked once a connection and API version.

    Raises:
        InvalidInput: the server has no such kind.
    """
    known = _BUILT_IN.get((api_version, kind))
    if known:
        return known
    for again in (False, True):
        listed = await _once(cluster, f"kinds of {api_version}", lambda: _kinds(cluster, api_version), again=again)
        if kind in listed:
            return listed[kind]
        # A CRD may have come since (a chart's own): look a second time before saying that it is not there.
    near = get_close_matches(kind, listed, n=3)
    raise InvalidInput(
        f"the cluster has no kind {kind} in {api_version}",
        why=f"context {cluster.context!r} serves {'other kinds there' if listed else 'no such API'}"
        + (f", such as {', '.join(near)}" if near else ""),
        hint="is its CRD installed? (`kubectl api-resources` shows what there is)",
    )


async def all_resources(cluster: Cluster) -> list[Resource]:
    """Every kind in its preferred version, for those who go through a whole namespace; asked once a connection."""
    return list(await _once(cluster, "all resources", lambda: _preferred(cluster)))


async def api_versions(cluster: Cluster) -> list[str]:
    """What a chart sees as ``.Capabilities.APIVersions``: ``apps/v1`` and ``apps/v1/Deployment``, sorted."""
    served: list[Resource] = await _once(cluster, "served", lambda: _served(cluster))
    pairs = ((resource.api_version, f"{resource.api_version}/{resource.kind}") for resource in served)
    return sorted({text for pair in pairs for text in pair})


async def _once(cluster: Cluster, key: str, ask: Callable[[], Awaitable[_Found]], *, again: bool = False) -> _Found:
    """The answer to a question that is asked once a connection, also when several ask at once."""
    known = cluster.discovered.get(key)
    if known is not None and not (again and known.done()):
        # Shielded: one of several waiting being cancelled must not cancel the question for all.
        return cast(_Found, await asyncio.shield(known))
    task = asyncio.ensure_future(ask())
    cluster.discovered[key] = task
    try:
        return await asyncio.shield(task)
    except BaseException:
        # A failure is not remembered: the next one asks again.
        if task.done() and cluster.discovered.get(key) is task:
            del cluster.discovered[key]
        raise


async def _kinds(cluster: Cluster, api_version: str) -> dict[str, Resource]:
    group, version = split_api_version(api_version)
    path = f"/apis/{quote(group, safe='')}/{quote(version, safe='')}" if group else f"/api/{quote(version, safe='')}"
    try:
        answer = await cluster.request("GET", path)
    except NotFound:
        return {}
    items = answer.get("resources") or ()
    names = {item["name"] for item in items}
    return {
        item["kind"]: Resource(
            group,
            version,
            item["kind"],
            item["name"],
            bool(item["namespaced"]),
            frozenset(item.get("verbs") or ()),
            f"{item['name']}/status" in names,
        )
        for item in items
        if "/" not in item["name"]
    }


async def _served(cluster: Cluster) -> list[Resource]:
    core, groups = await asyncio.gather(
        cluster.request("GET", "/api", accept=f"{_AGGREGATED},application/json"),
        cluster.request("GET", "/apis", accept=f"{_AGGREGATED},application/json"),
    )
    if core.get("kind") == groups.get("kind") == "APIGroupDiscoveryList":
        return [resource for item in (*core.get("items", ()), *groups.get("items", ())) for resource in _of_group(item)]
    # An old or aggregated server without the aggregated form: version by version.
    versions = [
        *core.get("versions", ()),
        *(v["groupVersion"] for g in groups.get("groups", ()) for v in g["versions"]),
    ]
    found = await asyncio.gather(*(_kinds(cluster, version) for version in versions))
    return [resource for kinds in found for resource in kinds.values()]


def _of_group(item: Mapping[str, Any]) -> list[Resource]:
    group = item["metadata"].get("name") or ""
    return [
        Resource(
            group,
            version["version"],
            entry["responseKind"]["kind"],
            entry["resource"],
            entry.get("scope") == "Namespaced",
            frozenset(entry.get("verbs") or ()),
            any(sub.get("subresource") == "status" for sub in entry.get("subresources") or ()),
        )
        for version in item.get("versions") or ()
        for entry in version.get("resources") or ()
        if (entry.get("responseKind") or {}).get("kind")
    ]


async def _preferred(cluster: Cluster) -> list[Resource]:
    # The server lists a group's versions with the preferred one first.
    chosen: dict[tuple[str, str], Resource] = {}
    for resource in await _once(cluster, "served", lambda: _served(cluster)):
        chosen.setdefault((resource.group, resource.plural), resource)
    return list(chosen.values())
