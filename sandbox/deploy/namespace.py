"""The namespace of an environment: it is there, or is made; it never becomes a sandbox."""

from __future__ import annotations

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists, Forbidden
from sandbox.model.errors import OperationFailed, Refused
from sandbox.model.objects import Manifest
from sandbox.model.sandbox import is_sandbox
from sandbox.provision import namespace as ns
from sandbox.provision.environment import EnvironmentPlace


async def find(cluster: Cluster, environment: EnvironmentPlace) -> Manifest | None:
    """The namespace; None where it is not there, and may be made.

    Raises:
        Refused: it is a sandbox, or it is not there and may not be made.
        OperationFailed: it is being deleted.
    """
    found = await _look(cluster, environment.namespace)
    if found is not None:
        _check(environment, found)
        return found
    if not await cluster.can_i("create", "", "namespaces"):
        raise Refused(
            f"there is no namespace {environment.namespace} for {environment.name}",
            why=f"or it may not be seen, and none may be created in {cluster.context}",
            hint="have it made, with rights in it (docs/deploy.md says which)",
        )
    return None


async def ensure(cluster: Cluster, environment: EnvironmentPlace) -> Manifest:
    """The namespace, made where it is not there yet: a plain one, without guardrails or an end.

    Raises:
        as :func:`find`.
    """
    found = await find(cluster, environment)
    if found is not None:
        return found
    manifest: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": environment.namespace}}
    try:
        return await objects.create(cluster, manifest)
    except AlreadyExists:
        return await ensure(cluster, environment)


async def _look(cluster: Cluster, name: str) -> Manifest | None:
    """The namespace as far as it may be seen: who has rights in it only need not see itself."""
    try:
        return await objects.get(cluster, ns.reference(name))
    except Forbidden:
        if await cluster.can_i("create", "", "secrets", name):
            return {"metadata": {"name": name, "uid": ""}}
        return await ns.find(cluster, name)


def _check(environment: EnvironmentPlace, namespace: Manifest) -> None:
    if is_sandbox(namespace):
        raise Refused(
            f"the namespace {environment.namespace} is a sandbox, not the environment {environment.name}",
            why="a sandbox has one owner and an end",
            hint=f"name another namespace under environments.{environment.name} in sandbox.yaml",
        )
    if namespace["metadata"].get("deletionTimestamp"):
        raise OperationFailed(
            f"the namespace {environment.namespace} is being deleted", hint="try again when it is gone"
        )
