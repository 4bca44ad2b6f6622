"""Take a capture: everything about a namespace at a moment, into a store. Changes nothing in the namespace, unless a
Job may read the volume of a database that is down.

All collectors start at once and end with one deadline; what is gone first (pods, logs, events, Secrets that the
others must not show) asks first. What is not there in time is marked, and the capture says that it is partial.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.capture.bundle import BundleWriter, Entry
from sandbox.capture.collect.collection import Bounds, Collection, StoreFailed, as_json, gathered
from sandbox.capture.collect.contents import Contents, collect_objects, collect_secrets
from sandbox.capture.collect.data import Before, Data, Wanted, collect_before, collect_fixtures
from sandbox.capture.collect.registries import Registries, collect_images
from sandbox.capture.collect.releases import Deployed, collect_records, collect_releases
from sandbox.capture.collect.running import Running, as_list, collect_events, collect_logs, collect_pods
from sandbox.capture.collect.surroundings import Surroundings, collect_nodes, collect_versions
from sandbox.capture.fixtures.model import Limits
from sandbox.capture.keys import encrypted, recipients, redaction_key
from sandbox.capture.model import Document, Item, QuotaLine, Redaction, Service, Why
from sandbox.capture.secrecy import Redactor, redactor_for
from sandbox.capture.services import judge, names_in
from sandbox.capture.signature import signature
from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.model.errors import InvalidInput, SandboxError
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Sandbox, is_sandbox
from sandbox.project.config import Fixtures
from sandbox.provision.reporter import Reporter
from sandbox.store.store import Store

SECRETS_TYPE = "application/vnd.sandbox.secrets.v1+json+age"
# Of a capture that is about to end: what is under way is marked, the rest is written.
_CLOSING = timedelta(seconds=1)


@dataclass(frozen=True)
class Options:
    """What else a capture may be told.

    Attributes:
        environment: what people call the place (``qa``).
        by: who takes it, where that is not who we are to the cluster.
        findings: what the deployment found itself.
        recipients: age's, for what only they may read.
        include_secrets: the values of Secrets too, encrypted to the recipients.
        bounds: how much is taken.
        images: ask the registries whether they still have each image, and for its labels.
        declared, limits: the project's ``fixtures:``, and how much of one store is dumped.
        before: what stores held before the deployment that failed; their files stay where they are.
        allow_write: a Job may read the volume of a database that is down; None: nobody can allow it.
    """

    environment: str = ""
    by: str = ""
    findings: Sequence[Finding] = ()
    recipients: Sequence[str] = ()
    include_secrets: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    images: bool = True
    declared: Fixtures | None = None
    limits: Limits = field(default_factory=Limits)
    before: Before | None = None
    allow_write: bool | None = None


@dataclass(frozen=True)
class Capture:
    """A capture that is in its store."""

    entry: Entry
    document: Document

    @property
    def id(self) -> str:
        return self.entry.id


@dataclass
class _Found:
    """What the collectors found, for those who judge it."""

    running: Running = field(default_factory=Running)
    contents: Contents = field(default_factory=Contents)
    deployed: Deployed = field(default_factory=Deployed)
    surroundings: Surroundings = field(default_factory=Surroundings)
    registries: Registries = field(default_factory=Registries)
    data: Data = field(default_factory=Data)
    redaction: Redaction = field(default_factory=lambda: Redaction(complete=False))


async def capture(
    cluster: Cluster,
    namespace: str,
    *,
    store: Store,
    reason: str,
    command: Sequence[str] | None = None,
    deadline: timedelta = timedelta(seconds=60),
    fixtures: bool = True,
    progress: Reporter,
    options: Options = Options(),
) -> Capture:
    """Capture a namespace.

    Args:
        reason: why, one line.
        command: the test that failed, where one did; kept, never run.
        deadline: after which it goes on with what it has.
        fixtures: the contents of databases and caches too.

    Raises:
        InvalidInput: there is no such namespace, or a recipient is none.
        Unreachable: the cluster does not answer at all.
        OperationFailed, Refused: the store does not take it; then nothing is listed there.
    """
    if options.include_secrets and not options.recipients:
        raise InvalidInput(
            "the values of Secrets are only ever stored encrypted",
            hint="say for whom: --recipient age1… (`age-keygen` makes a pair)",
        )
    to = recipients(options.recipients)
    await _check_namespace(cluster, namespace)
    started = datetime.now(UTC)
    loop = asyncio.get_running_loop()
    writer = BundleWriter(store)
    found = _Found()
    with progress.step(f"Capture {namespace}") as step:
        collection = Collection(
            cluster=cluster,
            namespace=namespace,
            store=store,
            writer=writer,
            until=loop.time() + max(deadline - _CLOSING, deadline / 2).total_seconds(),
            bounds=options.bounds,
            secrecy=loop.create_future(),
        )
        key = await redaction_key(store)
        try:
            declared = options.declared or Fixtures()
            dumps = Wanted(declared, options.limits, to, options.allow_write) if fixtures else None
            await _collect(collection, found, key, options, to, dumps)
        except StoreFailed as failure:
            raise failure.error from None
        finally:
            collection.secrecy.cancel()
        step.detail("writing it down")
        document = _document(collection, found, started, reason, command or (), options)
        entry = await writer.seal(document)
    return Capture(entry, document)


async def _check_namespace(cluster: Cluster, namespace: str) -> None:
    """Say at once that a namespace is not there; who may not look is let through."""
    try:
        found = await objects.get(cluster, ObjectRef("", "v1", "Namespace", namespace))
    except SandboxError as error:
        if error.exit_code == 5:
            raise
        return
    if found is None:
        raise InvalidInput(f"there is no namespace {namespace} in {cluster.context}")


async def _collect(
    collection: Collection, found: _Found, key: bytes, options: Options, to: Sequence[Any], dumps: Wanted | None
) -> None:
    # The order is that in which they ask: what is gone first comes first.
    work = [
        collect_pods(collection, found.running),
        collect_secrets(collection, found.contents),
        collect_events(collection, found.running),
        collect_logs(collection, found.running),
        collect_releases(collection, found.deployed),
        collect_records(collection, found.deployed),
        _learn_secrets(collection, found, key),
        *([collect_fixtures(collection, found.running, dumps, key, found.data)] if dumps else []),
        *([collect_before(collection, options.before, dumps, found.data)] if dumps and options.before else []),
        collect_objects(collection, found.contents),
        collect_nodes(collection, found.running),
        collect_versions(collection, found.surroundings),
        *([collect_images(collection, found.running, found.registries)] if options.images else []),
        *([_secret_values(collection, found.contents, to)] if options.include_secrets else []),
    ]
    await gathered(work)


async def _learn_secrets(collection: Collection, found: _Found, key: bytes) -> None:
    """Make the redactor when everything that holds secrets was read, or could not be."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(collection.until):
            await asyncio.gather(
                found.contents.secrets_known.wait(),
                found.deployed.releases_known.wait(),
                found.deployed.records_known.wait(),
                found.running.pods_known.wait(),
            )
            redactor, found.redaction = await asyncio.to_thread(
                redactor_for,
                key,
                found.contents.secrets,
                found.deployed.rendered(),
                names_in(found.running.pods),
                complete=found.contents.secrets_complete,
            )
            collection.secrecy.set_result(redactor)


async def _secret_values(collection: Collection, contents: Contents, to: Sequence[Any]) -> None:
    """The Secrets as they are, for the recipients only."""
    await contents.secrets_known.wait()
    async with collection.looking_at("secrets.json.age", "secrets") as look:
        look.count = len(contents.secrets)
        if not contents.secrets:
            look.end("absent", "no Secrets, or they may not be read")
            return
        data = await asyncio.to_thread(encrypted, as_json(as_list(contents.secrets)), to)
        await collection.store_safe("secrets.json.age", data, SECRETS_TYPE, look)


def _document(
    collection: Collection,
    found: _Found,
    started: datetime,
    reason: str,
    command: Sequence[str],
    options: Options,
) -> Document:
    ended = datetime.now(UTC)
    redactor = None
    if collection.secrecy.done() and not collection.secrecy.cancelled():
        redactor = collection.secrecy.result()
    try:
        judged = judge(found.contents.objects, found.running, found.deployed, ended, options.findings)
        services, findings = judged.services, judged.findings
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # What a cluster holds is not ours to trust; the rest of the capture is good.
        _mark(collection, "services", "failed", f"{type(error).__name__}: {error}", ended)
        services, findings = (), tuple(options.findings)
    whys = tuple(_safe(redactor, finding) for finding in findings)
    namespace = found.contents.namespace
    sandbox = Sandbox.of(namespace, collection.cluster.context) if namespace and is_sandbox(namespace) else None
    items = tuple(sorted(collection.items, key=lambda item: (item.started_at, item.name)))
    return Document(
        started_at=started,
        ended_at=ended,
        by=options.by or found.surroundings.user,
        reason=_clean(redactor, reason),
        command=tuple(_clean(redactor, word) for word in command),
        context=collection.cluster.context,
        server_version=found.surroundings.server_version,
        namespace=collection.namespace,
        namespace_uid=str((namespace.get("metadata") or {}).get("uid") or ""),
        environment=options.environment,
        project=sandbox.project if sandbox else found.deployed.record.lock.project if found.deployed.record else "",
        owner=sandbox.owner if sandbox else "",
        record=found.deployed.record.number if found.deployed.record else None,
        partial=not found.redaction.complete or any(_is_gap(item) for item in items),
        findings=whys,
        signature=signature([why.finding for why in whys]),
        services=tuple(_safe_service(redactor, found.registries.told(service)) for service in services),
        quota=tuple(_quota(found.contents.objects)),
        tools=found.surroundings.tools,
        redaction=found.redaction,
        items=items,
        fixtures=tuple(sorted(found.data.fixtures, key=lambda fixture: str(fixture.get("name")))),
        before=tuple(sorted(found.data.before, key=lambda fixture: str(fixture.get("name")))),
    )


def _mark(collection: Collection, name: str, status: Any, why: str, at: datetime) -> None:
    collection.items.append(Item(name=name, area="objects", status=status, why=why[:300], started_at=at, ended_at=at))


def _is_gap(item: Item) -> bool:
    """Whether something is missing; that the beginning of a long log was left out is said, and is no gap."""
    return item.status not in ("ok", "absent") and not (item.status == "truncated" and item.area == "logs")


def _clean(redactor: Redactor | None, text: str) -> str:
    return redactor.in_text(text) if redactor else text


def _safe(redactor: Redactor | None, finding: Finding) -> Why:
    """A finding without secrets; without the words of others where the secrets are not known."""
    if redactor is None:
        return Why(reason=finding.reason, object=finding.object, service=finding.service, exit_code=finding.exit_code)
    why = Why.of(finding)
    return why.model_copy(
        update={
            "message": redactor.in_text(why.message),
            "log_tail": tuple(redactor.in_text(line) for line in why.log_tail),
        }
    )


def _safe_service(redactor: Redactor | None, service: Service) -> Service:
    if redactor is None:
        return service
    return Service.model_validate(redactor.in_data(service.model_dump(), names=True))


def _quota(contents: Sequence[Manifest]) -> list[QuotaLine]:
    lines = []
    for quota in contents:
        if quota.get("kind") == "ResourceQuota" and quota.get("apiVersion") == "v1":
            status = quota.get("status") or {}
            used = status.get("used") or {}
            for resource, hard in sorted((status.get("hard") or {}).items()):
                name = quota["metadata"]["name"]
                lines.append(
                    QuotaLine(quota=name, resource=resource, used=str(used.get(resource, "0")), hard=str(hard))
                )
    return lines
