"""What ``sandbox diff`` compares, found by its name: captures, running places, records, locks, commits."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar, get_args

from sandbox.capture.bundle import Bundle, open_bundle
from sandbox.capture.capture import Options, capture
from sandbox.capture.catalogue import find as find_capture
from sandbox.capture.collect.releases import safe_record
from sandbox.capture.difference import (
    OF_THE_COMMIT,
    Difference,
    Side,
    compared,
    lacks,
    side_of_capture,
    side_of_lock,
    side_of_record,
)
from sandbox.capture.fixtures.model import Limits
from sandbox.capture.keys import redaction_key
from sandbox.capture.secrecy import redactor_for
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm
from sandbox.model.errors import InvalidInput, SandboxError, Unreachable
from sandbox.model.images import ResolvedImage
from sandbox.model.names import slug
from sandbox.model.objects import ObjectRef, digest
from sandbox.model.record import ImageLock, InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.project.config import Fixtures
from sandbox.project.settings import load_settings
from sandbox.project.variables import variables
from sandbox.provision import records
from sandbox.provision.environment import known_environment
from sandbox.provision.inspect import find_sandbox
from sandbox.provision.locks import read_lock
from sandbox.provision.reporter import Reporter
from sandbox.provision.sources import Declared, Sources, resolve_locked, resolve_others, resolve_own
from sandbox.provision.target import Target
from sandbox.render.render import RenderRequest, render
from sandbox.render.transform import label
from sandbox.source import git
from sandbox.source.command import in_thread
from sandbox.store.store import NotStored, Store

Kind = Literal["lock", "record", "env", "ref", "capture", "sandbox"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which a name without one is tried."""

_KINDS_SAID: dict[Kind, str] = {
    "capture": "a capture",
    "env": "an environment",
    "sandbox": "a sandbox",
    "record": "a record of one (NAME@3)",
    "lock": "a lock file",
    "ref": "a git ref",
}
T = TypeVar("T")

_RECORD = re.compile(r"(?P<place>[^@\s]+)@(?P<number>[0-9]{1,9})")
# A store of data in a running place is looked at, not copied: the contents of small ones, of others what they are like.
_MOST_OF_A_STORE = 4 * 1024 * 1024
_RENDERED_AT_ONCE = 4


@dataclass(frozen=True)
class Surroundings:
    """Where sides are looked for.

    Attributes:
        store: opens the store of captures, which is asked for only where something may be in it.
        workspace: an empty folder, for trees and for what is captured only to be compared.
    """

    target: Target
    folder: Path
    workspace: Path
    store: Callable[[], Awaitable[Store]]
    reporter: Reporter


@dataclass(frozen=True)
class Compared:
    """Two sides and what differs.

    Attributes:
        notes: what of them could not be compared.
    """

    titles: tuple[str, str]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()


async def compare(place: Surroundings, before: str, after: str) -> Compared:
    """What differs from one to the other, whatever they are.

    Two commits are compared as each environment of the project would have them; a commit and anything else as the
    environment of the latter.

    Raises:
        InvalidInput: nothing is called so.
        OperationFailed, Refused, Unreachable: one of them cannot be read or rendered.
    """
    a, b = await _find(place, before), await _find(place, after)
    if isinstance(a, Side) and isinstance(b, Side):
        return _compared(a, b)
    if isinstance(a, _Commit) and isinstance(b, _Commit):
        environments = sorted(a.environments | b.environments)
        found: list[Difference] = []
        notes: list[str] = []
        titles = ("", "")
        for environment in environments:
            one = _compared(await a.side(environment), await b.side(environment), environment)
            found += one.differences
            notes += one.notes
            titles = one.titles
        return Compared(titles, tuple(_once(found, environments)), tuple(dict.fromkeys(notes)))
    environment = next(side.environment for side in (a, b) if isinstance(side, Side))
    left, right = [await side.side(environment) if isinstance(side, _Commit) else side for side in (a, b)]
    return _compared(left, right)


def _compared(a: Side, b: Side, environment: str = "") -> Compared:
    note = lacks(a, b)
    found = [Difference(**{**vars(one), "environment": environment}) for one in compared(a, b)]
    return Compared((a.title, b.title), tuple(found), (f"not compared: {note}",) if note else ())


def _once(found: list[Difference], environments: Collection[str]) -> list[Difference]:
    """Differences that all environments have alike, once and without one."""
    alike: dict[Difference, set[str]] = {}
    for one in found:
        plain = Difference(**{**vars(one), "environment": ""})
        alike.setdefault(plain, set()).add(one.environment)
    told: list[Difference] = []
    for plain, where in alike.items():
        if len(where) == len(environments):
            told.append(plain)
        else:
            told += [Difference(**{**vars(plain), "environment": name}) for name in sorted(where)]
    return told


# -- by name --------------------------------------------------------------------------------------------------------


async def _find(place: Surroundings, text: str) -> Side | _Commit:
    return await named(place, text, _FINDERS, lambda found: found.title)


async def named(
    place: Surroundings,
    text: str,
    finders: Mapping[Kind, Callable[[Surroundings, str], Awaitable[T | None]]],
    title: Callable[[T], str],
) -> T:
    """What a name means, or what it says it means (``capture:ID``).

    Args:
        finders: by kind, in the order in which a name without one is tried; None: nothing is called so.

    Raises:
        InvalidInput: nothing is called so.
    """
    said, colon, name = text.partition(":")
    kinds = tuple(kind for kind in finders if kind == said) if colon else ()
    tried: list[str] = []
    for kind in kinds or finders:
        try:
            found = await finders[kind](place, name if kinds else text)
        except (NotStored, Unreachable) as error:
            if kinds:
                raise
            tried.append(f"{kind}: {error}")
            continue
        if found is not None:
            place.reporter.info(f"{text}: {title(found)}")
            return found
    raise InvalidInput(
        f"nothing is called {text!r}",
        why="\n".join(tried) or f"there is no {said} {name!r}",
        hint=f"name {_listed([_KINDS_SAID[kind] for kind in finders])}; `KIND:NAME` says which ({', '.join(finders)})",
    )


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


async def _lock(place: Surroundings, name: str) -> Side | None:
    path = place.folder / name
    if not await asyncio.to_thread(path.is_file):
        return None
    return side_of_lock(await asyncio.to_thread(read_lock, path), f"lock {name}")


async def _record(place: Surroundings, name: str) -> Side | None:
    found = await record_called(place, name)
    if found is None:
        return None
    record, _, title = found
    safe, key_id = without_secrets(record, await redaction_key(await place.store()))
    return side_of_record(safe, key_id=key_id, title=title)


async def record_called(place: Surroundings, name: str) -> tuple[Record, str, str] | None:
    """A record by its name (``qa@3``), with its namespace and a title; None: no place is called so.

    Raises:
        InvalidInput: the place has no such record.
    """
    match = _RECORD.fullmatch(name)
    if match is None:
        return None
    at = await running_place(place, match["place"])
    if at is None:
        return None
    target, namespace, _ = at
    async with Cluster.connect(target.context, target.kubeconfig) as cluster:
        known = await records.load_records(cluster, namespace)
    number = int(match["number"])
    record = next((record for record in known if record.number == number), None)
    if record is None:
        there = ", ".join(str(record.number) for record in known) or "none"
        raise InvalidInput(f"{match['place']} has no record {number}", why=f"there are {there}")
    return record, namespace, f"record {number} of {match['place']}"


async def _environment(place: Surroundings, name: str) -> Side | None:
    environment = await known_environment(place.target, name)
    return await _running(place, environment.target, environment.namespace, name) if environment else None


async def _sandbox(place: Surroundings, name: str) -> Side | None:
    at = await running_place(place, name)
    return await _running(place, at[0], at[1], at[2]) if at else None


async def _capture(place: Surroundings, name: str) -> Side | None:
    store = await place.store()
    return await side_of_capture(await open_bundle(store, await find_capture(store, name)))


async def _ref(place: Surroundings, name: str) -> _Commit | None:
    try:
        await in_thread(git.resolve_with_root, place.folder, name)
    except InvalidInput:
        return None
    # Both sides may be one commit, whose trees would be in each other's way.
    folder = Path(tempfile.mkdtemp(prefix="ref-", dir=place.workspace))
    declared = await resolve_own(
        place.folder, None, name, dirty=False, settings=load_settings(), workspace=folder, say=lambda _line: None
    )
    return _Commit(place, name, declared, folder)


_FINDERS: dict[Kind, Callable[[Surroundings, str], Awaitable[Side | _Commit | None]]] = {
    "lock": _lock,
    "record": _record,
    "env": _environment,
    "ref": _ref,
    "capture": _capture,
    "sandbox": _sandbox,
}


# -- what runs ------------------------------------------------------------------------------------------------------


async def running_place(place: Surroundings, name: str) -> tuple[Target, str, str] | None:
    """Target, namespace and environment (empty: it is a sandbox) of what runs somewhere."""
    environment = await known_environment(place.target, name)
    if environment is not None:
        return environment.target, environment.namespace, name
    async with Cluster.connect(place.target.context, place.target.kubeconfig) as cluster:
        try:
            return place.target, (await find_sandbox(cluster, name)).namespace, ""
        except SandboxError as error:
            if isinstance(error, Unreachable):
                raise
            return None


async def _running(place: Surroundings, target: Target, namespace: str, environment: str) -> Side:
    bundle = await captured_now(place, target, namespace, environment, limits=Limits(max_fixture=_MOST_OF_A_STORE))
    return await side_of_capture(bundle, running_title(namespace, environment))


def running_title(namespace: str, environment: str) -> str:
    """What runs somewhere, for people."""
    return f"environment {environment}" if environment else f"sandbox in {namespace}"


async def captured_now(
    place: Surroundings,
    target: Target,
    namespace: str,
    environment: str,
    *,
    limits: Limits,
    fixtures: bool = True,
    declared: Fixtures | None = None,
) -> Bundle:
    """A namespace as it is now: captured into a folder that goes with the command, by the key of the user's store.

    Args:
        fixtures: the contents of databases and caches too; ``declared``: what sandbox.yaml says of them.
    """
    folder = place.workspace / f"running-{slug(namespace)}"
    key = await redaction_key(await place.store())
    store = Store.open(str(folder))
    await store.put_if_absent("keys/redaction", key)
    async with Cluster.connect(target.context, target.kubeconfig) as cluster:
        taken = await capture(
            cluster,
            namespace,
            store=store,
            reason="",
            fixtures=fixtures,
            progress=place.reporter,
            options=Options(environment=environment, images=False, limits=limits, findings=(), declared=declared),
        )
    return await open_bundle(store, taken.entry)


def without_secrets(record: Record, key: bytes) -> tuple[Record, str]:
    """A record whose Secrets are fingerprints, and the id of the key that made them."""
    manifests = [m for service in record.services.values() for m in (*service.manifests, *service.hooks)]
    redactor, redaction = redactor_for(key, manifests, (), (), complete=True)
    return Record.model_validate(safe_record(record, redactor)), redaction.key_id


# -- commits --------------------------------------------------------------------------------------------------------


@dataclass
class _Commit:
    """A commit of the project around the folder; rendered without a cluster, for one environment at a time."""

    place: Surroundings
    ref: str
    declared: Declared
    folder: Path
    _sources: Sources | None = field(default=None)

    @property
    def title(self) -> str:
        commit = self.declared.own.commit
        return f"{self.ref}, {commit.short}: {commit.subject}"

    @property
    def environments(self) -> set[str]:
        project = self.declared.project
        return set(project.environments) or {project.defaults.env}

    async def side(self, environment: str) -> Side:
        """What it would be in an environment.

        Raises:
            InvalidInput, Refused: it does not render.
        """
        name = environment or self.declared.project.defaults.env
        with self.place.reporter.step(f"Render {self.ref} for {name}"):
            record = await self._rendered(name)
        # Values that a chart makes up are others each time.
        safe, _ = without_secrets(record, b"only keys are compared")
        return side_of_record(safe, key_id="", title=f"{self.title} ({name})", of_commits=True)

    async def _rendered(self, environment: str) -> Record:
        project = self.declared.project
        if self._sources is None:
            self._sources = await resolve_others(
                self.declared, project.services, settings=load_settings(), workspace=self.folder, say=lambda _line: None
            )
        sources, turns = self._sources, asyncio.Semaphore(_RENDERED_AT_ONCE)
        named = project.environments.get(environment)
        namespace = named.namespace if named and named.namespace else slug(f"{project.project}-{environment}")
        helm = Helm(Path(), "")

        async def one(name: str) -> tuple[str, ServiceRecord]:
            async with turns:
                return name, await self._service(name, environment, namespace, sources, helm)

        services = dict(await asyncio.gather(*(one(name) for name in project.services)))
        lock = Lock(
            project=project.project,
            env=environment,
            services={name: service.lock for name, service in services.items()},
            created_at=datetime.now(UTC),
        )
        return _recorded(lock, services)

    async def _service(
        self, name: str, environment: str, namespace: str, sources: Sources, helm: Helm
    ) -> ServiceRecord:
        spec = sources.project.service_in(name, environment)
        unbuilt = OF_THE_COMMIT
        images = tuple(
            ResolvedImage(i.name, unbuilt.repository, unbuilt.tag, unbuilt.digest, "planned") for i in spec.images
        )
        return await _rendered_service(name, sources, environment, namespace, images, helm)


def _recorded(lock: Lock, services: dict[str, ServiceRecord]) -> Record:
    return Record(
        number=0, at=lock.created_at, by="", namespace_uid="", outcome="deployed", lock=lock, services=services
    )


async def _rendered_service(
    name: str, sources: Sources, environment: str, namespace: str, images: tuple[ResolvedImage, ...], helm: Helm
) -> ServiceRecord:
    """A service of a project as it would be deployed into an environment, with some images."""
    spec, source = sources.project.service_in(name, environment), sources.by_service[name]
    order = RenderRequest(
        env=environment,
        namespace=namespace,
        variables=variables(
            name=environment,
            namespace=namespace,
            host_domain=load_settings().host_domain,
            env=environment,
            commit=source.commit.sha,
            owner="",
        ),
        images=images,
        services=tuple(sources.project.services),
    )
    rendered = await render(name, spec, source.tree, order, helm)
    manifests = rendered.manifests if spec.chart is not None else label(rendered.manifests, name)
    lock = ServiceLock(
        kind=spec.kind,
        repo=source.commit.repo,
        ref=source.commit.ref,
        commit=source.commit.sha,
        chart=rendered.chart,
        images=tuple(ImageLock(name=i.name, repository=i.repository, digest=i.digest) for i in images),
        input_digest=rendered.input_digest,
        manifest_digest=digest(manifests),
    )
    return ServiceRecord(
        lock=lock,
        manifests=manifests,
        hooks=rendered.hooks,
        values=rendered.values,
        inventory=[InventoryItem.of(ObjectRef.of(manifest)) for manifest in manifests],
        needs=tuple(need.service for need in spec.needs if need.as_ != "skip"),
        ports=dict(spec.ports),
    )


async def rendered_lock(place: Surroundings, lock: Lock) -> tuple[Record, str]:
    """What a lock would deploy, as a record, and for which namespace it is rendered.

    Raises:
        InvalidInput, Refused, Unreachable: its commits are not to be had, or do not render.
    """
    folder = Path(tempfile.mkdtemp(prefix="lock-", dir=place.workspace))
    sources = await resolve_locked(lock, settings=load_settings(), workspace=folder, say=lambda _line: None)
    namespace, turns = slug(f"{lock.project}-{lock.env}"), asyncio.Semaphore(_RENDERED_AT_ONCE)

    async def one(name: str, locked: ServiceLock) -> tuple[str, ServiceRecord]:
        images = tuple(ResolvedImage(i.name, i.repository, i.tag, i.digest, "locked") for i in locked.images)
        async with turns:
            made = await _rendered_service(name, sources, lock.env, namespace, images, Helm(Path(), ""))
        return name, made.model_copy(update={"lock": locked})

    services = dict(await asyncio.gather(*(one(name, locked) for name, locked in lock.services.items())))
    return _recorded(lock, services), namespace
