"""Going back to an earlier record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sandbox.cluster import sleeping
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm, HelmRelease
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.statefulsets import replace_stuck_pods
from sandbox.cluster.waiting import wait_ready
from sandbox.model.errors import InvalidInput, PartlyDone, SandboxError
from sandbox.model.record import ChartLock, Record, ServiceRecord
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision import equivalents, records
from sandbox.provision import namespace as ns
from sandbox.provision.plan import in_order
from sandbox.provision.reporter import Reporter
from sandbox.provision.services import (
    DEPLOY_HOOKS,
    ROLLBACK_HOOKS,
    Place,
    apply_manifests,
    prune,
    remove_leftovers,
)
from sandbox.provision.workspace import workspace


async def rollback(
    cluster: Cluster,
    sandbox: Sandbox,
    *,
    to: int | None,
    reporter: Reporter,
    dry_run: bool = False,
    timeout: float = 300.0,
) -> Record:
    """Bring every service of a sandbox or an environment back to the record before, or to one by its number.

    Returns:
        The record that is (or would be) deployed again.

    Raises:
        InvalidInput: there is no such record.
        PartlyDone: some services could not be brought back; they are named.
    """
    known = await records.load_records(cluster, sandbox.namespace)
    wanted = choose_record(known, to)
    if dry_run:
        return wanted
    user = await cluster.whoami()
    helm = Helm(cluster.kubeconfig_path, cluster.context, cluster=cluster)
    place = Place(cluster, sandbox.namespace, helm, timeout)
    async with deployment_lease(cluster, sandbox.namespace):
        if sandbox.phase == Phase.SLEEPING:
            with reporter.step("Wake"):
                await sleeping.wake(cluster, sandbox.namespace)
        with reporter.step(f"Roll back to record {wanted.number}"):
            for name, service in wanted.services.items():
                reporter.command(equivalents.bring_back(cluster.context, sandbox.namespace, name, service))
            done = await go_back(place, known, wanted, by=user.username)
        if not sandbox.shared:
            await ns.finish(cluster, sandbox.namespace, Phase.READY)
    return done


def choose_record(known: Sequence[Record], to: int | None) -> Record:
    """The record to go back to: the one asked for, else the last that was deployed before the newest.

    Raises:
        InvalidInput: with the numbers that there are.
    """
    deployed = [record for record in known if record.outcome == "deployed"]
    older = deployed[:-1] if known and known[-1].outcome == "deployed" else deployed
    chosen = older if to is None else [record for record in deployed if record.number <= to]
    if (wanted := records.last_deployed(chosen)) and to in (None, wanted.number):
        return wanted
    numbers = ", ".join(str(record.number) for record in deployed) or "none"
    asked = f"record {to}" if to is not None else "record before"
    running = "; the newest is what runs now" if deployed and to is None else ""
    raise InvalidInput(
        f"there is no {asked} to roll back to", why=f"deployed records: {numbers}{running}", hint="sandbox history"
    )


async def go_back(place: Place, known: Sequence[Record], wanted: Record, *, by: str) -> Record:
    """Bring every service back to what a record deployed, those that need others first.

    Raises:
        PartlyDone: naming what could not be brought back and why; the rest was.
    """
    present = known[-1].services
    names = {*wanted.services, *present}
    restored = await restore_services(place, present, wanted.services, names)
    failures = [f"{name}: {why}" for name, why in restored.failures.items()]
    if not failures and place.wait:
        try:
            await wait_restored(place, restored)
        except SandboxError as error:
            failures.append(f"waiting: {error}")
    if failures:
        raise PartlyDone(
            f"the rollback of {place.namespace} to record {wanted.number} is incomplete",
            why="\n".join(failures),
            hint="`sandbox status` shows what runs; `sandbox up` deploys anew",
        )
    return await save_rollback(place, known[-1].number + 1, wanted, restored.services, by=by)


@dataclass
class Restored:
    """What became of the services that were to be brought back.

    Attributes:
        services: back, as they are recorded now.
        removed: those that the record did not have.
        failures: why others could not be brought back, by name.
    """

    services: dict[str, ServiceRecord] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


async def restore_services(
    place: Place,
    present: Mapping[str, ServiceRecord],
    wanted: Mapping[str, ServiceRecord],
    names: Collection[str],
    *,
    before_each: Callable[[str], Awaitable[None]] | None = None,
) -> Restored:
    """Bring some services back side by side, each after those that need it; waits for none to become ready.

    Args:
        present: what the newest deployment, finished or not, put there.
        wanted: as they were; one that is not in it is removed.
        before_each: called with a service's name before it is touched; where it fails, that is noted and the service
            is brought back all the same.
    """
    found = Restored()
    order = [n for n in in_order({n: s.needs for n, s in {**wanted, **present}.items()}) if n in set(names)]
    needs = {name: {*_needs(present, name), *_needs(wanted, name)} for name in order}
    done = {name: asyncio.Event() for name in order}

    async def one(position: int, name: str) -> None:
        # Only those that come later in the order: what needs one another in a circle, seen over two deployments, ends.
        for later in order[position + 1 :]:
            if name in needs[later]:
                await done[later].wait()
        try:
            if before_each is not None:
                with _noting(found.failures, name):
                    await before_each(name)
            with _noting(found.failures, name):
                if name in wanted:
                    found.services[name] = await _restore(place, name, wanted[name], present.get(name))
                elif name in present:
                    await prune(place, name, present[name], None)
                    found.removed.append(name)
        finally:
            done[name].set()

    await asyncio.gather(*(one(position, name) for position, name in enumerate(order)))
    return found


def _needs(services: Mapping[str, ServiceRecord], name: str) -> tuple[str, ...]:
    return services[name].needs if name in services else ()


async def wait_restored(place: Place, restored: Restored) -> None:
    """Wait until the services that were brought back are ready.

    Raises:
        NotReady: they do not become so.
    """
    targets = {name: service.manifests for name, service in restored.services.items()}
    await replace_stuck_pods(place.cluster, place.namespace, [m for found in targets.values() for m in found])
    await wait_ready(place.cluster, place.namespace, targets, timeout=place.timeout)


async def save_rollback(
    place: Place, number: int, wanted: Record, services: Mapping[str, ServiceRecord], *, by: str
) -> Record:
    """Write down that an earlier deployment is there again, as a record of its own."""
    record = wanted.with_services(services).model_copy(
        update={"number": number, "at": await place.cluster.server_time(), "by": by}
    )
    await records.save(place.cluster, place.namespace, record)
    return record


async def _restore(place: Place, name: str, wanted: ServiceRecord, present: ServiceRecord | None) -> ServiceRecord:
    if present is not None and present.release is not None:
        # Another release, or plain manifests now: objects of the same names must be gone before they are made again.
        await prune(place, name, present, wanted)
    if wanted.lock.chart is None:
        await apply_manifests(place, wanted.manifests)
        restored = wanted
    else:
        restored = await _restore_release(place, wanted, wanted.lock.chart)
    if present is not None and present.release is None:
        await prune(place, name, present, restored)
    return restored


async def _restore_release(place: Place, wanted: ServiceRecord, chart: ChartLock) -> ServiceRecord:
    stored = await place.helm.revisions(chart.release, place.namespace)
    if stored and stored[-1] == (wanted.revision, "deployed"):
        return wanted
    known = next((revision for revision, _ in stored if revision == wanted.revision), None)
    await remove_leftovers(place, wanted.hooks, DEPLOY_HOOKS if known is None else ROLLBACK_HOOKS)
    async with place.turns:
        if known is not None:
            revision = await place.helm.rollback(chart.release, known, place.namespace, timeout=place.timeout)
        else:
            revision = await _install_again(place, wanted, chart)
    return wanted.model_copy(update={"revision": revision})


async def _install_again(place: Place, wanted: ServiceRecord, chart: ChartLock) -> int:
    """Helm has forgotten the revision (its history is bounded), or the release was uninstalled: the record has it."""
    release = HelmRelease(
        name=chart.release,
        namespace=place.namespace,
        revision=0,
        status="",
        values=wanted.values,
        manifests=wanted.manifests,
        hooks=wanted.hooks,
        chart={"metadata": {"apiVersion": "v2", "name": chart.name, "version": chart.version}},
        # What the record holds is rendered, as with these.
        sub_charts=True,
    )
    with workspace() as folder:
        unpacked = await place.helm.unpack_chart(release, folder / chart.release)
        return await place.helm.install_or_upgrade(chart.release, unpacked, {}, place.namespace, timeout=place.timeout)


@contextmanager
def _noting(failures: dict[str, str], service: str) -> Iterator[None]:
    """Go on after a failure of one service, and note it."""
    try:
        yield
    except SandboxError as error:
        failures[service] = "\n".join(filter(None, (failures.get(service), str(error))))
