"""What of a capture is needed to bring it back, read from its bundle. Untrusted: only the form of objects is known."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sandbox.capture.bundle import Bundle, Damaged
from sandbox.capture.collect.data import BEFORE, FIXTURES
from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.keys import decrypted
from sandbox.capture.model import Document
from sandbox.model.errors import SandboxError
from sandbox.model.objects import Manifest
from sandbox.model.record import Record
from sandbox.model.yamlguard import check_plain
from sandbox.store.store import NotStored

_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9_.:]{0,251}[a-zA-Z0-9])?")
_API_VERSION = re.compile(r"([a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?/)?v[0-9][a-z0-9]{0,20}")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,80}")
SECRETS = "objects/secrets.json"
ENCRYPTED_SECRETS = "secrets.json.age"


@dataclass(frozen=True)
class Captured:
    """A capture's contents.

    Attributes:
        objects: but pods, events and Secrets.
        secrets: with fingerprints for values.
        true_secrets: as they were; empty without an identity that can read them.
        record: the newest of ours in the namespace; None: there is none.
        before: what stores held before the deployment that failed; empty: nobody took it.
        encrypted_fixtures: of both, by their paths in the bundle.
        problems: of items that cannot be read, by name.
    """

    document: Document
    pods: tuple[Manifest, ...] = ()
    objects: tuple[Manifest, ...] = ()
    secrets: tuple[Manifest, ...] = ()
    true_secrets: tuple[Manifest, ...] = field(default=(), repr=False)
    record: Record | None = None
    fixtures: tuple[Fixture, ...] = ()
    before: tuple[Fixture, ...] = ()
    encrypted_fixtures: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)


async def read_captured(bundle: Bundle, identity: Path | None = None) -> Captured:
    """Read all that is needed; what is damaged or missing is a problem of that item only.

    Raises:
        InvalidInput: ``identity`` holds none, or is not there.
        OperationFailed: the Secrets' true values cannot be read with it.
        Unreachable: the store does not answer.
    """
    problems: dict[str, str] = {}

    async def objects_of(title: str) -> list[Manifest]:
        try:
            data = await bundle.read(title)
        except NotStored:
            return []
        except Damaged as error:
            problems[title] = str(error)
            return []
        try:
            return list(await asyncio.to_thread(_objects, data))
        except ValueError as error:
            problems[title] = str(error)[:200]
            return []

    titles = sorted(t for t in bundle.layers if t.startswith("objects/") and t.endswith(".json") and t != SECRETS)
    found = await asyncio.gather(*(objects_of(title) for title in titles))
    objects = [manifest for several in found for manifest in several]
    fixtures, encrypted = _fixtures(bundle, FIXTURES, bundle.document.fixtures, problems)
    before, encrypted_before = _fixtures(bundle, BEFORE, bundle.document.before, problems)
    captured = Captured(
        document=bundle.document,
        pods=tuple(await objects_of("pods.json")),
        objects=tuple(objects),
        secrets=tuple(await objects_of(SECRETS)),
        true_secrets=tuple(await _true_secrets(bundle, identity)) if identity else (),
        record=await _record(bundle, problems),
        fixtures=fixtures,
        before=before,
        encrypted_fixtures=encrypted | encrypted_before,
        problems=problems,
    )
    return await _filled_up(bundle, captured)


def _objects(data: bytes) -> Iterator[Manifest]:
    """The objects of a list, those that look like any.

    Raises:
        ValueError: it is no list of objects.
    """
    try:
        items = json.loads(data)["items"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a list of objects: {error}") from None
    if not isinstance(items, list):
        raise ValueError("not a list of objects")
    yield from (item for item in items if is_object(item))


def is_object(item: Any) -> bool:
    """Whether something has the form of an object: with a kind, a name, and tables where Kubernetes has tables."""
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        return False
    metadata = item["metadata"]
    texts = (item.get("apiVersion"), item.get("kind"), metadata.get("name"))
    if not all(isinstance(text, str) for text in texts):
        return False
    tables = (metadata.get("labels"), metadata.get("annotations"), item.get("data"), item.get("shapes"))
    return (
        _API_VERSION.fullmatch(item["apiVersion"]) is not None
        and _KIND.fullmatch(item["kind"]) is not None
        and _NAME.fullmatch(metadata["name"]) is not None
        and all(table is None or isinstance(table, dict) for table in tables)
        and all(isinstance(item.get(part), dict | None) for part in ("spec", "status"))
        and isinstance(metadata.get("ownerReferences"), list | None)
    )


async def _true_secrets(bundle: Bundle, identity: Path) -> list[Manifest]:
    if ENCRYPTED_SECRETS not in bundle.layers:
        return []
    data = await bundle.read(ENCRYPTED_SECRETS)
    plain = await asyncio.to_thread(decrypted, data, identity)
    try:
        return list(_objects(plain))
    except ValueError as error:
        raise Damaged(f"{ENCRYPTED_SECRETS} of the capture is damaged", why=str(error)) from None


async def _record(bundle: Bundle, problems: dict[str, str]) -> Record | None:
    title = f"records/{bundle.document.record}.json"
    if bundle.document.record is None or title not in bundle.layers:
        return None
    try:
        return Record.model_validate_json(await bundle.read(title))
    except (SandboxError, ValidationError, RecursionError) as error:
        problems[title] = f"{type(error).__name__}" if isinstance(error, ValidationError) else str(error)
        return None


def _fixtures(
    bundle: Bundle, root: str, described: Iterable[Mapping[str, Any]], problems: dict[str, str]
) -> tuple[tuple[Fixture, ...], frozenset[str]]:
    found, encrypted = [], set()
    for plain in described:
        try:
            fixture = Fixture.model_validate(plain)
        except (ValidationError, RecursionError):
            problems[f"{root}/{str(plain.get('name'))[:60]}"] = "its description cannot be read"
            continue
        found.append(fixture)
        if any(f"{root}/{part.path}.age" in bundle.layers for part in fixture.parts):
            encrypted.add(f"{root}/{fixture.name}")
    return tuple(found), frozenset(encrypted)


async def _filled_up(bundle: Bundle, captured: Captured) -> Captured:
    """Objects that could not be listed, from what was deployed: Helm's manifests, or our record's."""
    unknown = {item.name for item in captured.document.items if item.status in ("denied", "timeout", "failed")}
    unknown |= set(captured.problems)
    if not any(name.startswith("objects/") for name in unknown):
        return captured
    deployed = [m for s in (captured.record.services.values() if captured.record else ()) for m in s.manifests]
    for title in sorted(_newest_releases(bundle)):
        try:
            text = await bundle.read_text(title)
            check_plain(text.encode())
            deployed += [m for m in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if m]
        except (SandboxError, yaml.YAMLError, ValueError, RecursionError) as error:
            captured.problems[title] = str(error)[:200]
    there = {(m["kind"], m["metadata"]["name"]) for m in (*captured.objects, *captured.secrets)}
    missing = [m for m in deployed if is_object(m) and (m["kind"], m["metadata"]["name"]) not in there]
    wanted = [m for m in missing if _title(m) in unknown or "objects" in unknown]
    return Captured(
        **{
            **vars(captured),
            "objects": (*captured.objects, *(m for m in wanted if m["kind"] != "Secret")),
            "secrets": (*captured.secrets, *(m for m in wanted if m["kind"] == "Secret")),
        }
    )


def _newest_releases(bundle: Bundle) -> Sequence[str]:
    newest: dict[str, tuple[int, str]] = {}
    for title in bundle.layers:
        parts = title.split("/")
        if len(parts) == 4 and parts[0] == "helm" and parts[3] == "manifest.yaml" and parts[2].isdecimal():
            newest[parts[1]] = max(newest.get(parts[1], (0, "")), (int(parts[2]), title))
    return [title for _, title in newest.values()]


def _title(manifest: Manifest) -> str:
    """Where the capture would have an object's kind: by its plural, which for these kinds is regular."""
    group, _, _ = manifest["apiVersion"].rpartition("/")
    kind = manifest["kind"].lower()
    plural = f"{kind}es" if kind.endswith("ss") else f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"objects/{plural}{'.' if group else ''}{group}.json"
