"""All objects of a namespace, by discovery: built-in kinds, custom ones, whatever the cluster serves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sandbox.capture.bundle import JSON_TYPE
from sandbox.capture.collect.collection import Collection, as_json, gathered
from sandbox.capture.collect.running import as_list
from sandbox.cluster import discovery, objects
from sandbox.cluster.discovery import Resource
from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef

# Taken apart from the others: first of all, or with their values left out.
_ELSEWHERE = frozenset({("", "pods"), ("", "events"), ("events.k8s.io", "events"), ("", "secrets")})
# Not stored: the server computes them when it is asked.
_COMPUTED = frozenset({"metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"})
RELEASES = "helm.sh/release.v1"
RECORDS = "sandbox.dev/record"


@dataclass
class Contents:
    """Objects of the namespace but its pods, events and Secrets."""

    namespace: Manifest = field(default_factory=dict)
    objects: list[Manifest] = field(default_factory=list)
    secrets: list[Manifest] = field(default_factory=list)
    secrets_complete: bool = False
    secrets_known: asyncio.Event = field(default_factory=asyncio.Event)


async def collect_objects(collection: Collection, contents: Contents) -> None:
    """Every namespaced kind that can be listed."""
    resources: list[Resource] = []
    async with collection.looking_at("objects", "objects") as look:
        found = await discovery.all_resources(collection.cluster)
        resources = [r for r in found if r.namespaced and "list" in r.verbs and r.group not in _COMPUTED]
        resources = [r for r in resources if (r.group, r.plural) not in _ELSEWHERE]
        look.count = len(resources)
    await gathered([_namespace(collection, contents), *(_kind(collection, contents, r) for r in resources)])


async def collect_secrets(collection: Collection, contents: Contents) -> None:
    """Secrets for their values, which the redactor needs; stored with the HMAC of each value.

    Helm's releases and our records are Secrets too, and large: they are read by those who need them.
    """
    try:
        async with collection.looking_at("objects/secrets.json", "secrets") as look:
            types = f"type!={RELEASES},type!={RECORDS}"
            async for secret in objects.list_(
                collection.cluster, "v1", "Secret", collection.namespace, field_selector=types
            ):
                contents.secrets.append(secret)
            contents.secrets_complete = True
            contents.secrets_known.set()
            look.count = len(contents.secrets)
            if not contents.secrets:
                look.end("absent", "no Secrets")
                return
            redactor = await asyncio.shield(collection.secrecy)
            safe = await asyncio.to_thread(lambda: as_json(as_list([redactor.secret(s) for s in contents.secrets])))
            await collection.store_safe("objects/secrets.json", safe, JSON_TYPE, look)
    finally:
        contents.secrets_known.set()


async def _namespace(collection: Collection, contents: Contents) -> None:
    async with collection.looking_at("namespace.json", "objects") as look:
        found = await objects.get(collection.cluster, ObjectRef("", "v1", "Namespace", collection.namespace))
        if found is None:
            look.end("absent", "there is no such namespace")
            return
        contents.namespace = found
        await collection.store_json("namespace.json", found, look)


async def _kind(collection: Collection, contents: Contents, resource: Resource) -> None:
    title = f"objects/{resource.plural}{'.' if resource.group else ''}{resource.group}.json"
    async with collection.looking_at(title, "objects") as look:
        found: list[Manifest] = []
        size = 0
        # Not while it waits for what is secret: that is known only when others had their turn.
        async with collection.requests:
            async for item in objects.list_(
                collection.cluster,
                resource.api_version,
                resource.kind,
                collection.namespace,
                f"!{labels.VOLUME_COPY}",
                limit=200,
            ):
                found.append(item)
                size += len(as_json(item))
                if size > collection.bounds.kind:
                    break
        look.count = len(found)
        if not found:
            look.end("absent")
            return
        contents.objects += found
        await collection.store_json(title, as_list(found), look)
        if size > collection.bounds.kind:
            look.end("truncated", f"more than {collection.bounds.kind} bytes: the first {len(found)} are here")
