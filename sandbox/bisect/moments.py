"""The two states between which a search goes on, found by their names: captures, running places, records, locks."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.capture.bundle import Bundle, open_bundle
from sandbox.capture.catalogue import find as find_capture
from sandbox.capture.difference import Side, side_of_capture, side_of_record
from sandbox.capture.fixtures.model import Limits
from sandbox.capture.keys import redaction_key
from sandbox.capture.model import Document
from sandbox.capture.sides import (
    Kind,
    Surroundings,
    captured_now,
    named,
    record_called,
    rendered_lock,
    running_place,
    running_title,
    without_secrets,
)
from sandbox.cluster.readiness import condition
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import HttpSmokeRecord, Record
from sandbox.project.config import Fixtures
from sandbox.provision.environment import known_environment
from sandbox.provision.locks import read_lock
from sandbox.provision.target import Target
from sandbox.reproduce.captured import Captured, read_captured
from sandbox.reproduce.verdict import wanted


@dataclass(frozen=True)
class Moment:
    """One of the two states.

    Attributes:
        title: what it is, for people.
        captured: as ``reproduce`` reads a capture.
        side: as ``diff`` compares it.
        bundle: that holds its fixtures; None: it has none.
        digest: of the capture; empty for what is looked at now.
        live: whether its objects are as they lived in the cluster, with the server's defaults.
    """

    title: str
    captured: Captured
    side: Side
    bundle: Bundle | None = None
    digest: str = ""
    live: bool = True

    def without_failed_jobs(self) -> tuple[Moment, list[str]]:
        """The same without Jobs that had failed, and their names.

        Where all is well they are left of something else: a rolled back deployment leaves the hook that failed it.
        """
        captured = self.captured
        failed = [m for m in captured.objects if m["kind"] == "Job" and condition(m, "Failed").get("status") == "True"]
        uids = {m["metadata"].get("uid") for m in failed}
        kept = replace(
            captured,
            objects=tuple(m for m in captured.objects if m not in failed),
            pods=tuple(p for p in captured.pods if not uids & _owners(p)),
        )
        return replace(self, captured=kept), [str(ObjectRef.of(m)) for m in failed]

    @property
    def smoke(self) -> tuple[str, HttpSmokeRecord] | None:
        """The smoke test that failed in it, and whose it is; None: no smoke test did, or nobody says what it was."""
        name, record = wanted(self.captured.document).smoke_of, self.captured.record
        service = record.services.get(name) if record else None
        return (name, service.smoke) if service and service.smoke else None

    @property
    def key_id(self) -> str:
        """Of the key that made the fingerprints of its Secrets."""
        return self.captured.document.redaction.key_id


@dataclass(frozen=True)
class Choice:
    """What is read of a moment.

    Attributes:
        data: the contents of databases and caches, where it runs.
    """

    identity: Path | None
    data: bool
    declared: Fixtures | None


async def find(place: Surroundings, text: str, choice: Choice) -> Moment:
    """What a name means, or what it says it means (``capture:ID``).

    Raises:
        InvalidInput: nothing is called so, or it is something that was not deployed.
        OperationFailed, Refused, Unreachable: it cannot be read.
    """

    async def environment(place: Surroundings, name: str) -> Moment | None:
        known = await known_environment(place.target, name)
        return await _running(place, known.target, known.namespace, name, choice) if known else None

    async def capture(place: Surroundings, name: str) -> Moment | None:
        store = await place.store()
        bundle = await open_bundle(store, await find_capture(store, name))
        return await _of_bundle(bundle, f"capture {bundle.entry.id}", choice, bundle.entry.digest)

    async def sandbox(place: Surroundings, name: str) -> Moment | None:
        at = await running_place(place, name)
        return await _running(place, *at, choice) if at else None

    finders: Mapping[Kind, Callable[[Surroundings, str], Awaitable[Moment | None]]] = {
        "lock": _lock,
        "record": _record,
        "env": environment,
        "capture": capture,
        "sandbox": sandbox,
    }
    try:
        return await named(place, text, finders, lambda found: found.title)
    except InvalidInput as error:
        error.hint += "; `sandbox lock --ref REF -f FILE` makes a lock of a commit"
        raise


async def _running(place: Surroundings, target: Target, namespace: str, environment: str, choice: Choice) -> Moment:
    bundle = await captured_now(
        place, target, namespace, environment, limits=Limits(), fixtures=choice.data, declared=choice.declared
    )
    return await _of_bundle(bundle, running_title(namespace, environment), choice)


async def _of_bundle(bundle: Bundle, title: str, choice: Choice, digest: str = "") -> Moment:
    captured = await read_captured(bundle, choice.identity)
    return Moment(title, captured, await side_of_capture(bundle, title), bundle, digest)


async def _record(place: Surroundings, name: str) -> Moment | None:
    found = await record_called(place, name)
    if found is None:
        return None
    return await _of_record(place, *found)


async def _lock(place: Surroundings, name: str) -> Moment | None:
    path = place.folder / name
    if not await asyncio.to_thread(path.is_file):
        return None
    with place.reporter.step(f"Render {name}"):
        record, namespace = await rendered_lock(place, await asyncio.to_thread(read_lock, path))
    return await _of_record(place, record, namespace, f"lock {name}")


async def _of_record(place: Surroundings, record: Record, namespace: str, title: str) -> Moment:
    safe, key_id = without_secrets(record, await redaction_key(await place.store()))
    side = side_of_record(safe, key_id=key_id, title=title)
    return Moment(title, _as_captured(record, safe, namespace, key_id), side, live=False)


def _as_captured(record: Record, safe: Record, namespace: str, key_id: str) -> Captured:
    """A record as if it had been captured: it has everything but what lived."""
    objects = _with_uids(safe)
    document = Document(
        started_at=record.at,
        ended_at=record.at,
        namespace=namespace,
        project=record.lock.project,
        environment=record.lock.env,
    )
    redaction = document.redaction.model_copy(update={"key_id": key_id})
    return Captured(
        document=document.model_copy(update={"redaction": redaction}),
        objects=tuple(m for m in objects if m["kind"] != "Secret"),
        secrets=tuple(m for m in objects if m["kind"] == "Secret"),
        # Who may read a record may read the Secrets beside it.
        true_secrets=tuple(_in_base64(m) for m in _with_uids(record) if m["kind"] == "Secret"),
        record=safe,
    )


def _with_uids(record: Record) -> list[Manifest]:
    """Its objects as if the server had them: attribution goes by UIDs."""
    manifests = [m for service in record.services.values() for m in service.manifests]
    return [
        {**m, "metadata": {**m["metadata"], "uid": f"recorded-{number}"}}
        for number, m in enumerate(manifests)
        if "name" in (m.get("metadata") or {})
    ]


def _in_base64(secret: Manifest) -> Manifest:
    """A Secret as the server would store it."""
    texts = {k: base64.b64encode(str(v).encode()).decode() for k, v in (secret.get("stringData") or {}).items()}
    plain = {key: value for key, value in secret.items() if key != "stringData"}
    return {**plain, "data": {**(secret.get("data") or {}), **texts}}


def _owners(manifest: Manifest) -> set[str]:
    """UIDs of what an object belongs to."""
    return {str(owner.get("uid")) for owner in manifest["metadata"].get("ownerReferences") or ()}
