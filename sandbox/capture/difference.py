"""What differs between two captures: services and their versions, configuration, quota, data, what it stands on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.capture.bundle import Bundle
from sandbox.capture.model import Document, Service
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest

_LONGEST_VALUE = 120
_MOST_PATHS = 200
# Kinds that others make, or that change while nothing changes.
_DERIVED = frozenset({"endpoints", "endpointslices", "leases", "replicasets", "controllerrevisions", "jobs", "events"})
_NOT_CONTENTS = frozenset({"apiVersion", "kind", "metadata", "status"})
# Given by the cluster; in another namespace they differ though nobody changed them.
_ASSIGNED = frozenset({"clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "volumeName", "finalizers"})


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        area: service, image, chart, values, config, secret, object, quota, data, tool, failure.
        where: what it is of: a service, an object, a resource.
        path: inside of that; empty for the whole.
        before, after: as texts; empty for what is not there.
    """

    area: str
    where: str
    path: str
    before: str
    after: str


async def difference(a: Bundle, b: Bundle) -> list[Difference]:
    """What differs from the first capture to the second, by area.

    Raises:
        Damaged: one of them is damaged.
    """
    found = list(_documents(a.document, b.document))
    found += _compared("values", await _values(a), await _values(b))
    before, after = await _objects(a), await _objects(b)
    found += _compared("config", *(_of(side, "configmaps") for side in (before, after)))
    if a.document.redaction.key_id == b.document.redaction.key_id:
        found += _compared("secret", *(_of(side, "secrets") for side in (before, after)))
    others = [{k: v for k, v in side.items() if k[0] not in ("configmaps", "secrets")} for side in (before, after)]
    found += _compared("object", *({f"{kind}/{name}": v for (kind, name), v in side.items()} for side in others))
    return found


def _documents(a: Document, b: Document) -> Iterator[Difference]:
    old, new = ({s.name: s for s in document.services} for document in (a, b))
    for name in sorted({*old, *new}):
        yield from _services(name, old.get(name), new.get(name))
    yield from _compared(
        "quota",
        *({f"{line.quota} {line.resource}": {"hard": line.hard} for line in d.quota} for d in (a, b)),
    )
    yield from _compared("data", *({str(f.get("name")): _data_facts(f) for f in d.fixtures} for d in (a, b)))
    tools = [{**d.tools, "server": d.server_version} for d in (a, b)]
    yield from _compared("tool", *({name: {"": text} for name, text in side.items()} for side in tools))
    yield from _compared("failure", {"": {"": a.headline}}, {"": {"": b.headline}})


def _services(name: str, old: Service | None, new: Service | None) -> Iterator[Difference]:
    if old is None or new is None:
        here, gone = (_version(service) if service else "" for service in (new, old))
        yield Difference("service", name, "", gone, here)
        return
    for field in ("commit", "state"):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield Difference("service", name, field, before, after)
    charts = [f"{s.chart} {s.chart_version}".strip() for s in (old, new)]
    if charts[0] != charts[1]:
        yield Difference("chart", name, "", *charts)
    images = [{i.container: f"{i.named.partition('@')[0]} {i.digest}".strip() for i in s.images} for s in (old, new)]
    for container in sorted({*images[0], *images[1]}):
        before, after = (side.get(container, "") for side in images)
        if before != after:
            yield Difference("image", name, container, before, after)


def _version(service: Service) -> str:
    return service.commit[:12] or f"{service.chart} {service.chart_version}".strip() or "there"


def _data_facts(fixture: Mapping[str, Any]) -> dict[str, Any]:
    """What says in which version a database is: of its server, and of its schema."""
    facts = fixture.get("facts") or {}
    return {
        "server": fixture.get("server_version", ""),
        "status": fixture.get("status", ""),
        **{key: facts[key] for key in sorted(facts) if "schema" in key or "migration" in key or key == "databases"},
    }


async def _values(bundle: Bundle) -> dict[str, Any]:
    """The values of each release in its newest revision, and of each service of the newest record."""
    newest: dict[str, int] = {}
    for title in bundle.layers:
        match = re.fullmatch(r"helm/([^/]+)/(\d+)/values\.json", title)
        if match:
            newest[match[1]] = max(int(match[2]), newest.get(match[1], 0))
    found = {}
    for release, revision in newest.items():
        found[release] = _json(await bundle.read(f"helm/{release}/{revision}/values.json"), release)
    return found


async def _objects(bundle: Bundle) -> dict[tuple[str, str], Any]:
    """What each object says, by kind and name: those that nobody else made."""
    found = {}
    for title in bundle.layers:
        match = re.fullmatch(r"objects/([a-z0-9]+)(\.[^/]*)?\.json", title)
        if not match or match[1] in _DERIVED:
            continue
        listed = _json(await bundle.read(title), title)
        for item in listed.get("items", ()) if isinstance(listed, dict) else ():
            metadata = item.get("metadata") or {}
            if not metadata.get("ownerReferences") and metadata.get("name"):
                contents = {key: value for key, value in item.items() if key not in _NOT_CONTENTS}
                found[(match[1] + (match[2] or ""), metadata["name"])] = contents
    return found


def _of(side: Mapping[tuple[str, str], Manifest], kind: str) -> dict[str, Any]:
    return {name: value.get("data") or {} for (of, name), value in side.items() if of == kind}


def _json(data: bytes, title: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OperationFailed(f"{title} of the capture is not JSON", why=str(error)[:200]) from None


def _compared(area: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Compare named things deeply; what is only on one side is one difference."""
    found = []
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            found.append(Difference(area, name, "", *("there" if name in side else "" for side in (before, after))))
            continue
        paths = list(_paths(before[name], after[name], ""))
        found += [Difference(area, name, path, _text(old), _text(new)) for path, old, new in paths[:_MOST_PATHS]]
        if len(paths) > _MOST_PATHS:
            found.append(Difference(area, name, "…", "", f"{len(paths) - _MOST_PATHS} more"))
    return found


_MISSING = object()


def _paths(old: Any, new: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new} - _ASSIGNED, key=str):
            inner = f"{path}.{key}" if path else str(key)
            yield from _paths(old.get(key, _MISSING), new.get(key, _MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list) and (names := _named(old, new)) is not None:
        yield from _paths(*names, path)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _paths(one, other, f"{path}[{number}]")
    elif old != new:
        yield path, old, new


def _named(old: list[Any], new: list[Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Lists of things with names (containers, variables, ports) by name; None for other lists."""
    sides = []
    for side in (old, new):
        if not all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in side):
            return None
        named = {item["name"]: item for item in side}
        if len(named) != len(side):
            return None
        sides.append(named)
    return (sides[0], sides[1]) if old or new else None


def _text(value: Any) -> str:
    if value is _MISSING:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
