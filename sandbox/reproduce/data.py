"""Databases and caches filled from a capture's fixtures, and compared with what was captured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.capture.bundle import Bundle
from sandbox.capture.fixtures.find import workload_of
from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.fixtures.restore import fill_from_fixture, verify_fixture
from sandbox.capture.fixtures.store import RestoreRequest
from sandbox.capture.keys import decrypt_file
from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.pods import is_ready
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest
from sandbox.project.config import Fixtures, FixtureStore
from sandbox.reproduce.plan import DataStore


async def unpack(bundle: Bundle, root: str, fixture: Fixture, folder: Path, identity: Path | None) -> None:
    """Write a fixture's files into a folder, each compared with its digest, decrypted where need be.

    Args:
        root: where the bundle has them.

    Raises:
        Damaged, NotStored: a file is not what was captured, or gone.
        OperationFailed: it cannot be decrypted.
    """
    for part in fixture.parts:
        title, target = f"{root}/{part.path}", folder / part.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if title in bundle.layers or identity is None:
            await bundle.unpack(title, target)
            continue
        encrypted = target.with_name(f"{target.name}.age")
        await bundle.unpack(f"{title}.age", encrypted)
        await asyncio.to_thread(decrypt_file, encrypted, target, identity)
        encrypted.unlink()


async def fill(
    cluster: Cluster,
    namespace: str,
    store: DataStore,
    folder: Path,
    passwords: Mapping[str, str],
    *,
    replace: bool,
    timeout: float,
    declared: Fixtures,
) -> tuple[str, ...]:
    """Restore one store, and compare it with what was captured.

    Args:
        declared: the ``fixtures:`` of sandbox.yaml.
        passwords: of roles.
        replace: what it holds may be lost: nobody but its own first start, or a run that was killed, put it there.

    Returns:
        What a reader should know.

    Raises:
        Refused, OperationFailed: it could not be restored, or is not what was captured.
    """
    fixture = store.fixture
    pod, target = await _pod(cluster, namespace, store), _declared(fixture, declared)
    request = RestoreRequest(replace=replace, passwords=passwords, timeout=timeout)
    return await fill_from_fixture(cluster, namespace, pod, fixture, folder, request=request, declared=target)


async def differences(cluster: Cluster, namespace: str, store: DataStore, *, declared: Fixtures) -> tuple[str, ...]:
    """How a store differs from what was captured by now, one line each; empty: not at all.

    Raises:
        OperationFailed, InvalidInput: it does not run, or cannot be asked.
    """
    pod = await _pod(cluster, namespace, store)
    return await verify_fixture(cluster, namespace, pod, store.fixture, declared=_declared(store.fixture, declared))


def _declared(fixture: Fixture, declared: Fixtures) -> FixtureStore:
    """What sandbox.yaml says of a store, of the kind and in the container that were captured."""
    known = declared.stores.get(fixture.name, FixtureStore())
    return known.model_copy(update={"kind": fixture.kind, "container": fixture.container})


async def _pod(cluster: Cluster, namespace: str, store: DataStore) -> Manifest:
    """The pod that has the data: the one that is called as the captured one (a primary), else one that is ready."""
    found: Sequence[Manifest] = [
        pod
        async for pod in objects.list_(cluster, "v1", "Pod", namespace)
        if workload_of(pod) == store.fixture.workload and not pod["metadata"].get("deletionTimestamp")
    ]
    ready = sorted(
        (pod for pod in found if is_ready(pod)),
        key=lambda pod: (pod["metadata"]["name"] != store.fixture.pod, pod["metadata"]["name"]),
    )
    if not ready:
        raise OperationFailed(f"no pod of {store.fixture.workload} is ready in {namespace}")
    return ready[0]
