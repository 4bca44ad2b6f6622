"""Helm's releases and our own records: what was deployed, and what had been deployed before it failed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sandbox.capture.bundle import JSON_TYPE
from sandbox.capture.collect.collection import Collection, Look, as_json, gathered
from sandbox.capture.collect.contents import RELEASES
from sandbox.capture.secrecy import Redactor
from sandbox.cluster import objects
from sandbox.cluster.helm import HelmRelease, decode_release
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import Record
from sandbox.provision import records

YAML_TYPE = "application/yaml"


@dataclass
class Deployed:
    """What was deployed, as far as Helm or we wrote it down.

    Attributes:
        newest, good: of each release the newest revision, and the last one that Helm calls deployed (or superseded),
            where there is one and it is another.
        record, good_record: the newest record, and the newest of a deployment that came through.
    """

    newest: dict[str, HelmRelease] = field(default_factory=dict)
    good: dict[str, HelmRelease] = field(default_factory=dict)
    record: Record | None = None
    good_record: Record | None = None
    releases_known: asyncio.Event = field(default_factory=asyncio.Event)
    records_known: asyncio.Event = field(default_factory=asyncio.Event)

    def rendered(self) -> list[Manifest]:
        """Manifests of all of them; their Secrets hold values that may be in use, or were."""
        found = [m for release in (*self.newest.values(), *self.good.values()) for m in _manifests(release)]
        for record in (self.record, self.good_record):
            for service in record.services.values() if record else ():
                found += [*service.manifests, *service.hooks]
        return found


async def collect_releases(collection: Collection, deployed: Deployed) -> None:
    """Of each release the newest revision and the last good one: values, chart, manifests, hooks, status."""
    chosen: list[tuple[str, int, str]] = []
    read: list[tuple[Look, HelmRelease]] = []
    try:
        async with collection.looking_at("helm", "helm") as look:
            async for secret in objects.list_(
                collection.cluster, "v1", "Secret", collection.namespace, "owner=helm", metadata_only=True
            ):
                labels = secret["metadata"].get("labels") or {}
                if labels.get("name") and str(labels.get("version", "")).isdecimal():
                    chosen.append((labels["name"], int(labels["version"]), str(labels.get("status"))))
            look.count = len({name for name, _, _ in chosen})
            if not chosen:
                look.end("absent", "no Helm releases")
        wanted = [(name, revision) for name, revision in _newest_and_good(chosen)]
        loaded = await asyncio.gather(*(_load(collection, deployed, name, revision) for name, revision in wanted))
        read = [one for one in loaded if one is not None]
    finally:
        deployed.releases_known.set()
    await gathered(_store(collection, release) for _, release in read)


def _newest_and_good(found: Iterable[tuple[str, int, str]]) -> list[tuple[str, int]]:
    by_name: dict[str, list[tuple[int, str]]] = {}
    for name, revision, status in found:
        by_name.setdefault(name, []).append((revision, status))
    wanted = []
    for name, revisions in sorted(by_name.items()):
        newest = max(revisions)
        # While `deployed` is the newest, the one before it is what a rollback goes to.
        good = [r for r in revisions if r[1] in ("deployed", "superseded") and r != newest]
        best = max(good, key=lambda r: (r[1] == "deployed", r[0]), default=None)
        wanted += [(name, newest[0]), *([(name, best[0])] if best else [])]
    return wanted


async def _load(
    collection: Collection, deployed: Deployed, name: str, revision: int
) -> tuple[Look, HelmRelease] | None:
    async with collection.looking_at(f"helm/{name}/{revision}", "helm") as look:
        ref = ObjectRef("", "v1", "Secret", f"sh.helm.release.v1.{name}.v{revision}", collection.namespace)
        async with collection.requests:
            secret = await objects.get(collection.cluster, ref)
        if secret is None or secret.get("type") != RELEASES:
            look.end("absent", f"{ref} is gone")
            return None
        release = await asyncio.to_thread(decode_release, secret)
        known = deployed.newest.get(name)
        if known is None or known.revision < release.revision:
            if known is not None:
                deployed.good[name] = known
            deployed.newest[name] = release
        else:
            deployed.good[name] = release
        return look, release
    return None


async def _store(collection: Collection, release: HelmRelease) -> None:
    base = f"helm/{release.name}/{release.revision}"
    async with collection.looking_at(f"{base}/release.json", "helm") as look:
        redactor = await asyncio.shield(collection.secrecy)
        for name, media_type, data in await asyncio.to_thread(lambda: list(_files(redactor, release))):
            await collection.store_safe(f"{base}/{name}", data, media_type, look)


def _files(redactor: Redactor, release: HelmRelease) -> Iterable[tuple[str, str, bytes]]:
    """A release as files, without secrets."""
    facts = {
        "name": release.name,
        "namespace": release.namespace,
        "revision": release.revision,
        "status": release.status,
        "description": redactor.in_text(release.description),
        "updated": release.updated,
        "chart": release.chart_name,
        "chartVersion": release.chart_version,
        "appVersion": release.app_version,
        "subCharts": release.sub_charts,
    }
    yield "release.json", JSON_TYPE, as_json(facts)
    yield "values.json", JSON_TYPE, as_json(redactor.in_data(release.values))
    yield "chart.json", JSON_TYPE, as_json(_chart(redactor, release.chart))
    yield "manifest.yaml", YAML_TYPE, _stream(redactor, release.manifests)
    yield "hooks.yaml", YAML_TYPE, _stream(redactor, release.hooks)


def _chart(redactor: Redactor, chart: Mapping[str, Any]) -> dict[str, Any]:
    """A stored chart; its files are base64, which is opened so that it stays readable when something is taken out."""
    safe = dict(chart)
    for key in ("templates", "files"):
        safe[key] = [{**entry, "data": _encoded(redactor, entry.get("data"))} for entry in chart.get(key) or ()]
    if chart.get("schema"):
        safe["schema"] = _encoded(redactor, chart["schema"])
    for key in set(safe) - {"templates", "files", "schema"}:
        safe[key] = redactor.in_data(safe[key])
    return safe


def _encoded(redactor: Redactor, data: Any) -> str:
    return base64.b64encode(redactor.in_bytes(base64.b64decode(str(data or "")))).decode()


def _stream(redactor: Redactor, manifests: Iterable[Manifest]) -> bytes:
    safe = [redactor.secret(m) if m.get("kind") == "Secret" else redactor.in_data(m) for m in manifests]
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump_all(safe, Dumper=dumper, sort_keys=False, allow_unicode=True, encoding="utf-8") if safe else b""


def _manifests(release: HelmRelease) -> list[Manifest]:
    return [*release.manifests, *release.hooks]


async def collect_records(collection: Collection, deployed: Deployed) -> None:
    """Our records: the newest, and the newest that came through."""
    try:
        async with collection.looking_at("records", "record") as look:
            found = await records.load_records(collection.cluster, collection.namespace)
            look.count = len(found)
            if not found:
                look.end("absent", "sandbox deployed nothing here")
            else:
                deployed.record, deployed.good_record = found[-1], records.last_deployed(found)
    finally:
        deployed.records_known.set()
    distinct = {r.number: r for r in (deployed.record, deployed.good_record) if r is not None}
    await gathered(_store_record(collection, record) for record in distinct.values())


async def _store_record(collection: Collection, record: Record) -> None:
    title = f"records/{record.number}.json"
    async with collection.looking_at(title, "record") as look:
        redactor = await asyncio.shield(collection.secrecy)
        data = await asyncio.to_thread(lambda: as_json(safe_record(record, redactor)))
        await collection.store_safe(title, data, JSON_TYPE, look)


def safe_record(record: Record, redactor: Redactor) -> dict[str, Any]:
    """A record as plain data, without secrets."""
    plain: dict[str, Any] = record.model_dump(mode="json")
    for name, service in record.services.items():
        for part, manifests in (("manifests", service.manifests), ("hooks", service.hooks)):
            plain["services"][name][part] = [
                redactor.secret(m) if m.get("kind") == "Secret" else redactor.in_data(m) for m in manifests
            ]
        plain["services"][name]["values"] = redactor.in_data(service.values)
    plain["failure"], plain["patch"] = redactor.in_text(record.failure), redactor.in_text(record.patch)
    return plain
