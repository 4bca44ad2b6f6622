"""The steps that ``up`` and ``deploy`` share: sources, services, the record before and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sandbox.cluster.client import Cluster
from sandbox.model.errors import SandboxError
from sandbox.model.failure import NotReady
from sandbox.model.record import Record, ServiceRecord
from sandbox.provision import equivalents, records
from sandbox.provision.identity import Identity
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.planning import Planner, Settled
from sandbox.provision.reporter import Reporter
from sandbox.provision.request import UpRequest
from sandbox.provision.services import Place, prune
from sandbox.provision.sources import Declared, Sources


@dataclass(frozen=True)
class ServiceOutcome:
    """What happened to one service: created, upgraded, unchanged, pruned or kept (planned in a dry run)."""

    name: str
    action: str
    detail: str = ""


def outcomes(plan: Plan, deployed: Collection[str]) -> tuple[ServiceOutcome, ...]:
    """What happens to each service.

    Args:
        deployed: those that are (or would be) deployed; the others run as they are.
    """
    found = [ServiceOutcome(name, _action(plan, name, deployed)) for name in plan.services]
    found += [ServiceOutcome(name, "kept") for name in plan.kept]
    return (*found, *(ServiceOutcome(name, "pruned") for name in plan.removed))


def _action(plan: Plan, name: str, deployed: Collection[str]) -> str:
    if name not in plan.applied:
        return "created"
    return "upgraded" if name in deployed else "unchanged"


async def resolve_sources(
    planner: Planner, request: UpRequest, settle: Callable[[Declared], Settled]
) -> tuple[Sources, Settled]:
    """What the platform decided, the project's files at the commit that is meant, and what the user left open.

    Args:
        settle: fills in the latter; what is misspelt is said before other repositories are asked for their files.
    """
    await planner.read_platform(request)
    with planner.reporter.step("Resolve source") as step:
        declared = await planner.declared(request)
        settled = settle(declared)
        selection = settled.selection
        sources = await planner.sources(declared, {*selection.deployed, *selection.mocked})
        planner.reporter.command(equivalents.export(sources.own.commit))
        step.detail(f"{sources.own.commit.ref} is {sources.own.commit.short}: {sources.own.commit.subject}")
    return sources, settled


async def resolve_services(
    planner: Planner, request: UpRequest, settled: Settled, sources: Sources, identity: Identity
) -> dict[str, ServicePlan]:
    """Images by digest and rendered manifests; writes nothing but images that do not exist yet."""
    # Before anything is built: it may not be there, or lack what is taken from it.
    taken = await planner.from_base(request, settled, sources, identity)
    with planner.reporter.step("Resolve images") as step:
        images = await planner.images(request, settled, sources, step.detail)
    with planner.reporter.step("Render"):
        services = await planner.render(request, settled, sources, identity, images)
        services |= taken
        for service in services.values():
            planner.reporter.command(equivalents.render(service, identity.namespace))
    return services


async def begin_record(cluster: Cluster, plan: Plan, namespace_uid: str) -> Record:
    """Write down what is going to be applied before it is: what a killed deployment leaves is known to the next."""
    applied = {
        name: service.record()
        .with_inventory_of(plan.applied.get(name))
        .model_copy(update={"unfinished": name in plan.changed})
        for name, service in plan.services.items()
    }
    number = plan.before[-1].number + 1 if plan.before else 1
    commit = plan.commit
    record = Record(
        number=number,
        at=await cluster.server_time(),
        by=plan.identity.created_by,
        namespace_uid=namespace_uid,
        outcome="failed",
        failure="interrupted",
        lock=plan.lock,
        # What is to be pruned stays in the inventory until it is gone.
        services={**plan.removed, **plan.kept, **applied},
        patch=commit.patch.decode(errors="surrogateescape") if commit and commit.patch else "",
    )
    await records.save(cluster, plan.identity.namespace, record)
    return record


async def remove_surplus(place: Place, plan: Plan, reporter: Reporter) -> None:
    """Remove services that are not wanted any more, and releases that nobody has."""
    for name, service in plan.removed.items():
        with reporter.step(f"Remove {name}"):
            reporter.command(equivalents.remove(place.cluster.context, place.namespace, service))
            await prune(place, name, service, None)
    # What a deployment left that was killed before it could prune.
    for release in plan.stale_releases:
        if await place.helm.release(release, place.namespace) is not None:
            await place.helm.uninstall(release, place.namespace)


async def end_record(place: Place, plan: Plan, record: Record, deployed: Mapping[str, ServiceRecord]) -> Record:
    """Write down that the deployment came through."""
    # The same to the cluster, but now it is this commit that says so.
    unchanged = {
        name: plan.applied[name].model_copy(update={"lock": service.lock})
        for name, service in plan.services.items()
        if name not in deployed
    }
    finished = record.model_copy(
        update={"outcome": "deployed", "failure": "", "services": {**plan.kept, **unchanged, **deployed}}
    )
    await records.save(place.cluster, place.namespace, finished)
    return finished


async def note_failure(cluster: Cluster, namespace: str, record: Record, error: SandboxError) -> Record:
    """Write down why the deployment failed, in one line."""
    failure = error.findings[0].lines()[0] if isinstance(error, NotReady) and error.findings else error.what
    failed = record.model_copy(update={"failure": failure})
    await records.save(cluster, namespace, failed)
    return failed
