"""Read, apply, delete and watch objects of any kind, as plain dictionaries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import aiohttp

from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import Resource, resource_for
from sandbox.cluster.errors import FromServer, Gone, NotFound, ServerUnavailable, from_response
from sandbox.model.errors import InvalidInput
from sandbox.model.labels import FIELD_MANAGER
from sandbox.model.objects import Manifest, ObjectRef

Propagation = Literal["Background", "Foreground", "Orphan"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]

_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
# The server ends a watch after this; a bookmark comes about every minute, so two without any are a dead connection.
_WATCH_S = 300
_SILENCE_S = 150.0
# A server that is gone this long is not coming back while somebody waits.
_WATCH_GIVE_UP_S = 60.0


async def get(cluster: Cluster, ref: ObjectRef) -> Manifest | None:
    """Read one object; None where it does not exist.

    Raises:
        InvalidInput: the server has no such kind.
    """
    resource = await resource_for(cluster, ref.api_version, ref.kind)
    try:
        found: Manifest = await cluster.request("GET", resource.path(ref.namespace or None, ref.name))
    except NotFound:
        return None
    return found


async def list_(
    cluster: Cluster,
    api_version: str,
    kind: str,
    namespace: str | None = None,
    label_selector: str | None = None,
    *,
    field_selector: str | None = None,
    limit: int = 500,
    metadata_only: bool = False,
) -> AsyncIterator[Manifest]:
    """List objects page by page, ``apiVersion`` and ``kind`` filled in.

    Args:
        namespace: None: all namespaces.
        limit: objects a page.
        metadata_only: without spec, data and status.

    Raises:
        Gone: paging took so long that the server dropped the list (minutes).
    """
    resource = await resource_for(cluster, api_version, kind)
    page: str | None = None
    while True:
        answer = await _page(cluster, resource, namespace, label_selector, field_selector, limit, page, metadata_only)
        for item in answer.get("items") or ():
            yield _complete(item, resource)
        page = answer["metadata"].get("continue")
        if not page:
            return


async def _page(
    cluster: Cluster,
    resource: Resource,
    namespace: str | None,
    label_selector: str | None,
    field_selector: str | None,
    limit: int,
    page: str | None,
    metadata_only: bool,
) -> Manifest:
    answer: Manifest = await cluster.request(
        "GET",
        resource.path(namespace),
        query={"labelSelector": label_selector, "fieldSelector": field_selector, "limit": limit, "continue": page},
        accept=_METADATA_LIST if metadata_only else "application/json",
        timeout=60.0,
    )
    return answer


def _complete(item: Manifest, resource: Resource) -> Manifest:
    """Lists leave out what all their items share (and say PartialObjectMetadata for metadata)."""
    return {**item, "apiVersion": resource.api_version, "kind": resource.kind}


async def apply(
    cluster: Cluster, manifest: Manifest, *, namespace: str | None = None, force: bool = True, dry_run: bool = False
) -> Manifest:
    """Apply an object server-side, as field manager ``sandbox``; what comes back is what the server now has.

    Args:
        namespace: where it goes when it does not say itself; ignored for what is cluster-scoped.
        force: take over fields that others manage.

    Raises:
        FieldConflict: without ``force``, others manage some of the fields.
        Invalid, Forbidden, QuotaExceeded: the server refuses it.
        InvalidInput: the server has no such kind, or the object has no name.
    """
    resource, path = await _place(cluster, manifest, namespace)
    body = manifest
    if resource.namespaced and not manifest["metadata"].get("namespace") and namespace:
        body = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    # managedFields of an object that was read once would be refused.
    if "managedFields" in body["metadata"]:
        body = {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}}
    applied: Manifest = await cluster.request(
        "PATCH",
        path,
        query={"fieldManager": FIELD_MANAGER, "force": force, "dryRun": "All" if dry_run else None},
        body=body,
        content_type="application/apply-patch+yaml",
    )
    return applied


async def create(
    cluster: Cluster, manifest: Manifest, *, namespace: str | None = None, dry_run: bool = False
) -> Manifest:
    """Create an object (with ``generateName`` too).

    Raises:
        AlreadyExists: there is one of this name.
        Invalid, Forbidden, QuotaExceeded: the server refuses it.
    """
    resource = await resource_for(cluster, manifest["apiVersion"], manifest["kind"])
    created: Manifest = await cluster.request(
        "POST",
        resource.path(manifest["metadata"].get("namespace") or namespace),
        query={"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None},
        body=manifest,
    )
    return created


async def patch_merge(
    cluster: Cluster,
    ref: ObjectRef,
    patch: Mapping[str, Any],
    *,
    resource_version: str | None = None,
    subresource: str = "",
    dry_run: bool = False,
) -> Manifest:
    """Change an object by a JSON merge patch (None removes a key).

    Args:
        resource_version: the version that the change is based on.

    Raises:
        NotFound: it does not exist.
        Conflict: it changed since ``resource_version``.
    """
    resource = await resource_for(cluster, ref.api_version, ref.kind)
    body = dict(patch)
    if resource_version is not None:
        body["metadata"] = {**body.get("metadata", {}), "resourceVersion": resource_version}
    patched: Manifest = await cluster.request(
        "PATCH",
        resource.path(ref.namespace or None, ref.name, subresource),
        query={"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None},
        body=body,
        content_type="application/merge-patch+json",
    )
    return patched


async def delete(
    cluster: Cluster,
    ref: ObjectRef,
    *,
    uid: str | None = None,
    resource_version: str | None = None,
    propagation: Propagation = "Background",
    dry_run: bool = False,
) -> bool:
    """Delete an object; False where it was gone already. What it owns goes after it.

    Args:
        uid: only if it is still this one.
        resource_version: only if nobody changed it since.

    Raises:
        Conflict: it is another one, or was changed.
    """
    resource = await resource_for(cluster, ref.api_version, ref.kind)
    preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v is not None}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
    if preconditions:
        body["preconditions"] = preconditions
    if dry_run:
        body["dryRun"] = ["All"]
    try:
        await cluster.request("DELETE", resource.path(ref.namespace or None, ref.name), body=body)
    except NotFound:
        return False
    return True


async def watch(
    cluster: Cluster,
    api_version: str,
    kind: str,
    namespace: str | None = None,
    *,
    label_selector: str | None = None,
    field_selector: str | None = None,
    metadata_only: bool = False,
    timeout: float | None = None,
) -> AsyncIterator[tuple[EventType, Manifest]]:
    """List, then follow the changes: every object there is as ``ADDED``, one ``SYNCED`` (empty), then what changes.

    A dropped connection goes on where it was; when the server forgot that point (410) it lists again and gives
    the difference, so that nothing is missed (several changes may come as one).

    Args:
        timeout: seconds after which it ends; None: until the caller stops.

    Raises:
        ServerUnavailable: the server is gone for a minute.
        FromServer: it refuses to list or watch.
    """
    resource = await resource_for(cluster, api_version, kind)
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    ends = time.monotonic() + timeout if timeout is not None else None
    # Of each object by UID, only what a DELETED after a gap must say.
    known: dict[str, Manifest] = {}
    version: str | None = None
    synced = False
    trouble_since: float | None = None
    while True:
        left = _WATCH_S if ends is None else min(_WATCH_S, ends - time.monotonic())
        if left <= 0:
            return
        try:
            if version is None:
                items, version = await _whole(
                    cluster, resource, namespace, label_selector, field_selector, metadata_only
                )
                for event in _difference(known, items):
                    yield event
                if not synced:
                    synced = True
                    yield "SYNCED", {}
            query = {**selectors, "watch": True, "allowWatchBookmarks": True, "timeoutSeconds": max(1, int(left))}
            opened = time.monotonic()
            async for event_type, item in _changes(
                cluster, resource, namespace, {**query, "resourceVersion": version}, metadata_only, left
            ):
                version = item["metadata"]["resourceVersion"]
                if event_type == "BOOKMARK":
                    continue
                item = _complete(item, resource)
                _remember(known, event_type, item)
                yield event_type, item
            trouble_since = None
            if time.monotonic() - opened < 1.0:
                # A proxy that ends every watch at once must not make us ask hundreds of times a second.
                await asyncio.sleep(1.0)
        except Gone:
            version = None
        except FromServer as error:
            trouble_since = trouble_since or time.monotonic()
            # A server that is starting also says 401, 403 or 500 for a moment to what it allowed before.
            passing = isinstance(error, ServerUnavailable) or synced
            if not passing or time.monotonic() - trouble_since > _WATCH_GIVE_UP_S:
                raise
            await asyncio.sleep(1.0)


async def _whole(
    cluster: Cluster,
    resource: Resource,
    namespace: str | None,
    label_selector: str | None,
    field_selector: str | None,
    metadata_only: bool,
) -> tuple[list[Manifest], str]:
    """All objects, and the version to watch from."""
    items: list[Manifest] = []
    page: str | None = None
    while True:
        answer = await _page(cluster, resource, namespace, label_selector, field_selector, 500, page, metadata_only)
        items += (_complete(item, resource) for item in answer.get("items") or ())
        page = answer["metadata"].get("continue")
        if not page:
            return items, str(answer["metadata"]["resourceVersion"])


def _difference(known: dict[str, Manifest], items: list[Manifest]) -> list[tuple[EventType, Manifest]]:
    """What changed between what was known and what there is; ``known`` is brought up to date."""
    events: list[tuple[EventType, Manifest]] = []
    present = {item["metadata"]["uid"] for item in items}
    for uid in [uid for uid in known if uid not in present]:
        events.append(("DELETED", known.pop(uid)))
    for item in items:
        before = known.get(item["metadata"]["uid"])
        if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            event_type: EventType = "ADDED" if before is None else "MODIFIED"
            _remember(known, event_type, item)
            events.append((event_type, item))
    return events


def _remember(known: dict[str, Manifest], event_type: EventType, item: Manifest) -> None:
    uid = item["metadata"]["uid"]
    if event_type == "DELETED":
        known.pop(uid, None)
        return
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
    metadata = {key: item["metadata"][key] for key in kept if key in item["metadata"]}
    known[uid] = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}


async def _changes(
    cluster: Cluster,
    resource: Resource,
    namespace: str | None,
    query: Mapping[str, str | int | bool | None],
    metadata_only: bool,
    seconds: float,
) -> AsyncIterator[tuple[Any, Manifest]]:
    """One watch request: events until the server ends it or the connection is lost.

    Raises:
        Gone: the server no longer knows the version it should start from.
        FromServer: the watch was not begun.
    """
    path = resource.path(namespace)
    accept = _METADATA if metadata_only else "application/json"
    async with cluster.open(
        "GET", path, query=query, accept=accept, timeout=seconds + 10.0, read_timeout=_SILENCE_S
    ) as response:
        while True:
            try:
                line = await response.content.readline()
            except (aiohttp.ClientError, TimeoutError, OSError):
                return
            if not line.strip():
                return
            try:
                event = json.loads(line)
            except ValueError:
                # Cut off in the middle: the server died while it wrote.
                return
            if event["type"] == "ERROR":
                raise _watch_error(event["object"], path)
            yield event["type"], event["object"]


def _watch_error(status: Manifest, path: str) -> FromServer:
    return from_response(int(status.get("code") or 500), json.dumps(status).encode(), method="GET", path=path)


async def _place(cluster: Cluster, manifest: Manifest, namespace: str | None) -> tuple[Resource, str]:
    metadata = manifest.get("metadata") or {}
    if not metadata.get("name"):
        raise InvalidInput(
            f"a {manifest.get('kind')} has no name", why="only named objects can be applied", hint="set metadata.name"
        )
    resource = await resource_for(cluster, manifest["apiVersion"], manifest["kind"])
    where = metadata.get("namespace") or namespace
    if resource.namespaced and not where:
        raise InvalidInput(f"{ObjectRef.of(manifest)} has no namespace to go to")
    return resource, resource.path(where, metadata["name"])
