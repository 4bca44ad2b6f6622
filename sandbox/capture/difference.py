"""What differs between two sides (captures, records, locks, commits): services and their versions, configuration, data.

A side says as much as its kind can: a lock knows versions only, a commit what it renders, a capture also what lived in
the cluster. Two sides are compared in what both know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import ValidationError

from sandbox.capture.bundle import Bundle, Damaged
from sandbox.capture.model import Document, Service
from sandbox.capture.signature import telling_lines
from sandbox.model import labels
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest, ObjectRef, canonical_json, containers, pod_spec
from sandbox.model.record import ImageLock, Lock, Record, ServiceLock, ServiceRecord

_LONGEST_VALUE = 120
_LONGEST_FAILURE = 500
_MOST_PATHS = 200
_SHORTEST_WORD = 8
# Kinds that others make, or that change while nothing changes.
_DERIVED = frozenset({"endpoints", "endpointslices", "leases", "replicasets", "controllerrevisions", "jobs", "events"})
_NOT_CONTENTS = frozenset({"apiVersion", "kind", "metadata", "status"})
# Given by the cluster; in another namespace they differ though nobody changed them.
_ASSIGNED = frozenset({"clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "volumeName", "finalizers"})
# Stands for the images of a project that are built of its commits: what is not built yet has no digest.
OF_THE_COMMIT = ImageLock(name="", repository="image-of-the-commit", tag="of-the-commit", digest=f"sha256:{0:064x}")


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        area: service, image, chart, values, config, secret, object, quota, data, tool, failure.
        where: what it is of: a service, an object, a resource.
        path: inside of that; empty for the whole.
        before, after: as texts; empty for what is not there.
        environment: for which it was rendered, where that is for several.
    """

    area: str
    where: str
    path: str
    before: str
    after: str
    environment: str = ""


@dataclass(frozen=True)
class Contents:
    """Values and objects, without secret values.

    Attributes:
        values: by release or service.
        configs, secrets: data by name; of Secrets fingerprints.
        objects: all others by ``kind/name``: what each says, without metadata and status.
        key_id: of the key that made the fingerprints; empty: they are of no use, keys alone count.
    """

    values: Mapping[str, Any]
    configs: Mapping[str, Any]
    secrets: Mapping[str, Any]
    objects: Mapping[str, Any]
    key_id: str = ""


@dataclass(frozen=True)
class Side:
    """One of two things that are compared; None stands for what nobody can know of it.

    Attributes:
        title: what it is, for people.
        services: name → commit, state, chart.
        images: service → container → image, with its digest.
        locked: service → name of an image → digest, of images that the project brings.
        live: as the cluster had it, with all defaults.
        rendered: as it was deployed, or would be.
        facts: area (quota, data, tool, failure) → name → facts.
        environment: whose values it has; empty: not known.
    """

    title: str
    services: Mapping[str, Mapping[str, str]]
    images: Mapping[str, Mapping[str, str]] | None = None
    locked: Mapping[str, Mapping[str, str]] | None = None
    live: Contents | None = None
    rendered: Contents | None = None
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: str = ""

    @property
    def is_of_commits(self) -> bool:
        """Whether it says what a commit would be, with images that may not be built yet."""
        return self.images is None and self.locked is None


async def difference(a: Bundle, b: Bundle) -> list[Difference]:
    """What differs from the first capture to the second, by area.

    Raises:
        Damaged: one of them is damaged.
    """
    return compared(await side_of_capture(a), await side_of_capture(b))


def compared(a: Side, b: Side) -> list[Difference]:
    """What differs from the first side to the second, by area."""
    # What is wrong comes first: it is why somebody looks.
    found = [*_failures(a, b), *_services(a, b)]
    before, after = _contents(a, b)
    if before is not None and after is not None:
        found += _compared("values", before.values, after.values)
        found += _compared("config", before.configs, after.configs)
        secrets = [side.secrets for side in (before, after)]
        if not before.key_id or before.key_id != after.key_id:
            secrets = [{name: dict.fromkeys(data, "") for name, data in side.items()} for side in secrets]
        found += _compared("secret", *secrets)
        found += _compared("object", before.objects, after.objects)
    for area in ("quota", "data", "tool"):
        found += _facts_compared(area, a, b)
    return found


def _failures(a: Side, b: Side) -> Iterator[Difference]:
    before, after = ((side.facts.get("failure") or {}).get("", {}).get("") for side in (a, b))
    if before is not None and after is not None and before != after:
        yield Difference("failure", "", "", before[:_LONGEST_FAILURE], after[:_LONGEST_FAILURE])


def _facts_compared(area: str, a: Side, b: Side) -> list[Difference]:
    return list(_compared(area, a.facts[area], b.facts[area])) if area in a.facts and area in b.facts else []


def lacks(a: Side, b: Side) -> str:
    """What of two sides cannot be compared, in words; empty: nothing."""
    if any(content is None for content in _contents(a, b)):
        poor = [side.title for side in (a, b) if side.live is None and side.rendered is None]
        return f"values and objects are not known of {' and '.join(poor)}" if poor else "they say it in different ways"
    if a.is_of_commits != b.is_of_commits:
        return "images of a commit that is only rendered are not built: its commit stands for them"
    return ""


def _contents(a: Side, b: Side) -> tuple[Contents | None, Contents | None]:
    """What both know: as it lived, else as it was deployed."""
    if a.live is not None and b.live is not None:
        return a.live, b.live
    before, after = a.rendered, b.rendered
    if before is not None and after is not None and a.is_of_commits != b.is_of_commits:
        before, after = (_without_builds(one, side) for one, side in ((before, a), (after, b)))
    return before, after


def _without_builds(contents: Contents, side: Side) -> Contents:
    """Contents in which images that a project brings have neither place nor digest."""
    words: dict[str, str] = {}
    for images in (side.locked or {}).values():
        for image in images.values():
            place, _, digest = image.partition("@")
            repository, _, tag = place.rpartition(":") if ":" in place.rpartition("/")[2] else (place, "", "")
            words |= {repository: OF_THE_COMMIT.repository, tag: OF_THE_COMMIT.tag, digest: OF_THE_COMMIT.digest}
    name, digest = OF_THE_COMMIT.repository, OF_THE_COMMIT.digest

    def plain(value: Any) -> Any:
        text = canonical_json(value).decode()
        # A short word may stand for anything else.
        for word in sorted((word for word in words if len(word) >= _SHORTEST_WORD), key=len, reverse=True):
            text = text.replace(word, words[word])
        # A tag may stand before the digest: after the name, or alone as a chart's value.
        text = re.sub(rf":[\w.-]+@{digest}", f"@{digest}", text)
        return json.loads(re.sub(rf'"(?!{name})[\w.-]+@{digest}', f'"@{digest}', text))

    return Contents(
        plain(contents.values), contents.configs, contents.secrets, plain(contents.objects), contents.key_id
    )


def _services(a: Side, b: Side) -> Iterator[Difference]:
    for name in sorted({*a.services, *b.services}):
        if name not in a.services or name not in b.services:
            versions = (_version(side.services.get(name)) for side in (a, b))
            yield Difference("service", name, "", *versions)
            continue
        old, new = a.services[name], b.services[name]
        for key in ("commit", "state"):
            if key in old and key in new and old[key] != new[key]:
                yield Difference("service", name, key, old[key], new[key])
        if old.get("chart", "") != new.get("chart", ""):
            yield Difference("chart", name, "", old.get("chart", ""), new.get("chart", ""))
        sides = (a.images, b.images) if a.images is not None and b.images is not None else (a.locked, b.locked)
        if sides[0] is not None and sides[1] is not None:
            images = [side.get(name, {}) for side in sides if side is not None]
            for container in sorted({*images[0], *images[1]}):
                before, after = (side.get(container, "") for side in images)
                if before != after:
                    yield Difference("image", name, container, before, after)


def _version(service: Mapping[str, str] | None) -> str:
    return "" if service is None else service.get("commit", "")[:12] or service.get("chart", "") or "there"


# -- captures -----------------------------------------------------------------------------------------------------


async def side_of_capture(bundle: Bundle, title: str = "") -> Side:
    """A capture.

    Raises:
        Damaged: it is damaged.
    """
    document = bundle.document
    record, values = await _newest_record(bundle), await _values(bundle)
    deployed = side_of_record(record, key_id=document.redaction.key_id) if record else None
    return Side(
        title=title or f"capture {bundle.entry.id}",
        services={s.name: _service(s) for s in document.services},
        images={s.name: {i.container: _image(i.named, i.digest) for i in s.images} for s in document.services},
        locked=deployed.locked if deployed else None,
        live=await _live(bundle, values),
        rendered=deployed.rendered if deployed else await _releases(bundle, values),
        facts=_facts(document),
        environment=document.environment or (record.lock.env if record else ""),
    )


def _service(service: Service) -> dict[str, str]:
    chart = f"{service.chart} {service.chart_version}".strip()
    return {"commit": service.commit, "state": service.state, "chart": chart}


def _image(named: str, digest: str) -> str:
    return f"{named.partition('@')[0]} {digest}".strip()


def _facts(document: Document) -> dict[str, dict[str, Any]]:
    return {
        "quota": {f"{line.quota} {line.resource}": {"hard": line.hard} for line in document.quota},
        "data": {str(fixture.get("name")): _data_facts(fixture) for fixture in document.fixtures},
        "tool": {name: {"": text} for name, text in {**document.tools, "server": document.server_version}.items()},
        "failure": {"": {"": _failure(document)}},
    }


def _failure(document: Document) -> str:
    """What failed, with the line of its log that tells most."""
    finding = document.findings[0].finding if document.findings else None
    told = telling_lines(finding.log_tail) if finding else []
    if finding is None or not told:
        return document.headline
    return f"{replace(finding, message='').lines()[0]}: {told[-1]}"


async def _live(bundle: Bundle, values: Mapping[str, Any]) -> Contents:
    objects = await _objects(bundle)
    kinds = ("configmaps", "secrets")
    return Contents(
        values=values,
        configs=_of(objects, "configmaps"),
        secrets=_of(objects, "secrets"),
        objects={f"{kind}/{name}": value for (kind, name), value in objects.items() if kind not in kinds},
        key_id=bundle.document.redaction.key_id,
    )


async def _newest_record(bundle: Bundle) -> Record | None:
    title = f"records/{bundle.document.record}.json"
    if bundle.document.record is None or title not in bundle.layers:
        return None
    try:
        return Record.model_validate_json(await bundle.read(title))
    except (ValidationError, RecursionError) as error:
        raise Damaged(f"{title} of the capture cannot be read", why=type(error).__name__) from None


async def _releases(bundle: Bundle, values: Mapping[str, Any]) -> Contents | None:
    """What Helm's newest revisions say, where no record of ours does; None: there is neither."""
    manifests: list[Manifest] = []
    for release, revision in _newest(bundle).items():
        title = f"helm/{release}/{revision}/manifest.yaml"
        if title in bundle.layers:
            try:
                loaded = yaml.load_all(await bundle.read(title), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                manifests += [m for m in loaded if isinstance(m, dict) and isinstance(m.get("metadata"), dict)]
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise OperationFailed(f"{title} of the capture is not YAML", why=str(error)[:200]) from None
    return _of_manifests(manifests, values, bundle.document.redaction.key_id) if manifests else None


# -- records, locks, commits ----------------------------------------------------------------------------------------


def side_of_record(record: Record, *, key_id: str, title: str = "", of_commits: bool = False) -> Side:
    """A record, or a commit rendered as one.

    Args:
        record: without secret values (:func:`sandbox.capture.collect.releases.safe_record`).
        key_id: of the key that made the fingerprints of its Secrets; empty: they are of no use.
        of_commits: nothing of it was deployed, and its images may not be built.
    """
    services = record.services
    manifests = [manifest for service in services.values() for manifest in (*service.manifests, *service.hooks)]
    values = {name: service.values for name, service in services.items() if service.values}
    return Side(
        title=title or f"record {record.number}",
        services={name: _of_lock(service.lock) for name, service in services.items()},
        images=None if of_commits else {name: _images(service) for name, service in services.items()},
        locked=None if of_commits else {name: _locked(service.lock) for name, service in services.items()},
        rendered=_of_manifests(manifests, values, key_id),
        facts=_tools(record.lock),
        environment=record.lock.env,
    )


def side_of_lock(lock: Lock, title: str) -> Side:
    """A lock: it names versions and nothing else."""
    return Side(
        title=title,
        services={name: _of_lock(service) for name, service in lock.services.items()},
        locked={name: _locked(service) for name, service in lock.services.items()},
        facts=_tools(lock),
        environment=lock.env,
    )


def _tools(lock: Lock) -> dict[str, dict[str, Any]]:
    return {"tool": {name: {"": text} for name, text in lock.tools.items()}} if lock.tools else {}


def _of_lock(lock: ServiceLock) -> dict[str, str]:
    chart = f"{lock.chart.name} {lock.chart.version}" if lock.chart else ""
    return {"commit": lock.commit + ("+changes" if lock.dirty else ""), "chart": chart}


def _locked(lock: ServiceLock) -> dict[str, str]:
    return {i.name: f"{i.repository}{f':{i.tag}' if i.tag else ''}@{i.digest}" for i in lock.images}


def _images(service: ServiceRecord) -> dict[str, str]:
    """As a capture has them: by container, the name and the digest."""
    found = {}
    for manifest in service.manifests:
        for container in containers(pod_spec(manifest) or {}):
            named, _, digest = str(container.get("image") or "").partition("@")
            found[str(container.get("name"))] = _image(named, digest)
    return found


def _of_manifests(manifests: Iterable[Manifest], values: Mapping[str, Any], key_id: str) -> Contents:
    by_kind: dict[str, dict[str, Any]] = {"ConfigMap": {}, "Secret": {}, "": {}}
    for manifest in manifests:
        kind, name = str(manifest.get("kind")), str(manifest["metadata"].get("name"))
        if kind in ("ConfigMap", "Secret"):
            by_kind[kind][name] = {**(manifest.get("data") or {}), **(manifest.get("stringData") or {})}
        else:
            contents = {key: value for key, value in manifest.items() if key not in _NOT_CONTENTS}
            by_kind[""][str(ObjectRef.of(manifest))] = contents
    return Contents(values, by_kind["ConfigMap"], by_kind["Secret"], by_kind[""], key_id)


# -- what they hold -------------------------------------------------------------------------------------------------


def _data_facts(fixture: Mapping[str, Any]) -> dict[str, Any]:
    """What says in which version a database is: of its server, and of its schema."""
    facts = fixture.get("facts") or {}
    return {
        "server": fixture.get("server_version", ""),
        "status": fixture.get("status", ""),
        **{key: facts[key] for key in sorted(facts) if "schema" in key or "migration" in key or key == "databases"},
    }


async def _values(bundle: Bundle) -> dict[str, Any]:
    """The values of each release in its newest revision."""
    found = {}
    for release, revision in _newest(bundle).items():
        found[release] = _json(await bundle.read(f"helm/{release}/{revision}/values.json"), release)
    return found


def _newest(bundle: Bundle) -> dict[str, int]:
    """The newest revision of each release."""
    newest: dict[str, int] = {}
    for title in bundle.layers:
        match = re.fullmatch(r"helm/([^/]+)/(\d+)/values\.json", title)
        if match:
            newest[match[1]] = max(int(match[2]), newest.get(match[1], 0))
    return newest


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
            if not metadata.get("ownerReferences") and metadata.get("name") and not _is_ours(item):
                contents = {key: value for key, value in item.items() if key not in _NOT_CONTENTS}
                found[(match[1] + (match[2] or ""), metadata["name"])] = contents
    return found


def _is_ours(item: Manifest) -> bool:
    """Whether it says what was deployed, rather than being it."""
    name, kind = item["metadata"]["name"], str(item.get("type") or "")
    return name in (labels.RECORD_NAME, "kube-root-ca.crt") or kind.startswith(labels.DOMAIN)


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
