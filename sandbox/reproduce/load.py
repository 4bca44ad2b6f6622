"""Data into a sandbox that is there: from a folder of ``data export``, or from a capture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.capture.bundle import Bundle
from sandbox.capture.collect.data import FIXTURES
from sandbox.capture.fixtures import folder as exported
from sandbox.capture.fixtures.find import Found, find
from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.fixtures.restore import fill_from_fixture, refuse_incomplete
from sandbox.capture.fixtures.store import RestoreRequest, stores
from sandbox.cluster.client import Cluster
from sandbox.cluster.lease import deployment_lease
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import Manifest
from sandbox.model.sandbox import Sandbox
from sandbox.project.config import Fixtures
from sandbox.provision.contents import list_all
from sandbox.provision.reporter import Reporter
from sandbox.reproduce.captured import read_captured
from sandbox.reproduce.data import unpack
from sandbox.reproduce.secrets import Values, role_passwords

# What says which password a role has for those who use it.
_SAYING = (("v1", "Secret"), ("v1", "ConfigMap"), ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"))


@dataclass(frozen=True)
class Source:
    """Fixtures, and where their files are.

    Attributes:
        title: of it all, for people.
        bundle: of a capture, whose files are unpacked when they are needed; None: they are in the folder.
    """

    title: str
    fixtures: tuple[Fixture, ...]
    folder: Path
    bundle: Bundle | None = None
    identity: Path | None = None

    async def unpack(self, fixture: Fixture) -> None:
        """Have a fixture's files in the folder. Raises as :func:`sandbox.reproduce.data.unpack`."""
        if self.bundle is not None:
            await unpack(self.bundle, FIXTURES, fixture, self.folder, self.identity)


@dataclass(frozen=True)
class Loaded:
    """One store that was filled and compared."""

    name: str
    store: str
    notes: tuple[str, ...]


def of_folder(folder: Path) -> Source:
    """What ``data export`` wrote.

    Raises:
        InvalidInput, Refused: it is not that.
    """
    return Source(str(folder), tuple(exported.read(folder)), folder)


async def of_capture(bundle: Bundle, workspace: Path, identity: Path | None) -> Source:
    """The contents that a capture holds.

    Raises:
        InvalidInput: it holds none, or they are encrypted and there is no identity.
    """
    captured = await read_captured(bundle, None)
    locked = [f.name for f in captured.fixtures if f"{FIXTURES}/{f.name}" in captured.encrypted_fixtures]
    if locked and identity is None:
        raise InvalidInput(f"{', '.join(locked)} of the capture are encrypted", hint="--identity FILE reads them")
    # Names of roles may be what some Secret holds: any name will do, the same everywhere.
    values = Values(os.urandom(32))
    fixtures = tuple(
        f.model_copy(update={"facts": values.in_data(f.facts)}) for f in captured.fixtures if f.status != "absent"
    )
    return Source(f"capture {bundle.entry.id}", fixtures, workspace, bundle, identity)


async def load(
    cluster: Cluster,
    sandbox: Sandbox,
    source: Source,
    declared: Fixtures,
    reporter: Reporter,
    *,
    wanted: Sequence[str],
    replace: bool,
    timeout: float,
) -> list[Loaded]:
    """Fill the databases and caches of a sandbox, one after the other, and compare each with what it was.

    Args:
        declared: the ``fixtures:`` of sandbox.yaml.
        wanted: names of fixtures; empty: all.
        replace: what the stores hold may be lost.
        timeout: seconds for each.

    Raises:
        InvalidInput: there is no such fixture, or no store in the sandbox for one.
        Refused: a fixture is not complete or of a newer server, or a store holds data and ``replace`` is not set.
        OperationFailed: it could not be restored, or is not what it was.
        Busy: a deployment is under way.
    """
    fixtures = _wanted(source, wanted)
    pods = await list_all(cluster, "v1", "Pod", sandbox.namespace)
    pairs = [(fixture, _target(fixture, pods, declared, sandbox)) for fixture in fixtures]
    lists = [await list_all(cluster, version, kind, sandbox.namespace) for version, kind in _SAYING]
    said = [manifest for found in lists for manifest in found]
    done = []
    async with deployment_lease(cluster, sandbox.namespace):
        for fixture, (pod, store) in pairs:
            with reporter.step(f"Fill {store.name} from {fixture.name}"):
                await source.unpack(fixture)
                passwords = role_passwords(fixture.facts.get("roles") or (), said)
                request = RestoreRequest(replace=replace, passwords=passwords, timeout=timeout)
                notes = await _filled(cluster, sandbox, pod, store, fixture, source.folder, request)
            done.append(Loaded(fixture.name, store.name, notes))
    return done


def _wanted(source: Source, names: Sequence[str]) -> list[Fixture]:
    known = {fixture.name: fixture for fixture in source.fixtures}
    if missing := sorted(set(names) - set(known)):
        raise InvalidInput(
            f"{source.title} holds no {', '.join(missing)}", hint=f"it holds {', '.join(known) or 'no data at all'}"
        )
    if not known:
        raise InvalidInput(f"{source.title} holds no data")
    chosen = [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
    for fixture in chosen:
        refuse_incomplete(fixture)
    return chosen


def _target(fixture: Fixture, pods: Sequence[Manifest], declared: Fixtures, sandbox: Sandbox) -> tuple[Manifest, Found]:
    """The store of a sandbox that a fixture is for: of its kind, and called as it or as its workload."""
    found, _ = find(pods, declared, stores())
    alike = [one for one in found if one.kind == fixture.kind]
    called = [one for one in alike if {one.name, one.workload} & {fixture.name, fixture.workload}]
    running = [one for one in called if not one.trouble]
    # Of several pods of one workload the one that is called as the captured one: a primary.
    running.sort(key=lambda one: (one.pod != fixture.pod, one.pod))
    if not running:
        there = ", ".join(f"{one.name} ({one.kind})" for one in found) or "none"
        trouble = "; ".join(f"{one.name}: {one.trouble}" for one in called)
        raise InvalidInput(
            f"the sandbox {sandbox.name} has no {fixture.kind} called {fixture.name} that runs",
            why=trouble or f"there are {there}",
            hint="--only leaves fixtures out",
        )
    pod = next(pod for pod in pods if pod["metadata"]["name"] == running[0].pod)
    return pod, running[0]


async def _filled(
    cluster: Cluster,
    sandbox: Sandbox,
    pod: Manifest,
    store: Found,
    fixture: Fixture,
    folder: Path,
    request: RestoreRequest,
) -> tuple[str, ...]:
    target = store.declared.model_copy(update={"kind": store.kind, "container": store.container})
    place = (cluster, sandbox.namespace, pod, fixture)
    try:
        return await fill_from_fixture(*place, folder, request=request, declared=target)
    except Refused as error:
        if not request.replace and "has data already" in error.what:
            error.hint = "--replace-data if that may be lost"
        raise
