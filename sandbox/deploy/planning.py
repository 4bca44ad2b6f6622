"""What is going to be deployed into an environment: this repository's services; all others stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sandbox.deploy.request import DeployRequest
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.record import Lock, Record, ServiceRecord
from sandbox.project.config import API_VERSION, Project
from sandbox.project.quotas import QuotaProfile
from sandbox.project.yamlfile import near
from sandbox.provision import steps
from sandbox.provision.environment import EnvironmentPlace
from sandbox.provision.identity import Identity
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.planning import Planner, Settled
from sandbox.provision.request import UpRequest
from sandbox.provision.selection import Selection
from sandbox.provision.sources import Declared, Sources
from sandbox.source.urls import same_repository


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made of: it is held against the environment's newest records again under the lease."""

    plan: Plan
    sources: Sources
    request: DeployRequest


async def make_plan(
    planner: Planner, place: EnvironmentPlace, request: DeployRequest, before: Sequence[Record]
) -> Planned:
    """Resolve and render everything; writes nothing but images that do not exist yet.

    Args:
        before: the environment's records, oldest first.

    Raises:
        InvalidInput, Refused, Unreachable: as the steps of ``up``.
    """
    sources, settled = await steps.resolve_sources(
        planner, request.up, lambda found: settle(planner, place, request.up, found)
    )
    planner.reporter.info(f"environment {place.name}: {', '.join(settled.selection.deployed)}")
    identity = await _identity(planner, place, sources)
    services = await steps.resolve_services(planner, request.up, settled, sources, identity)
    plan = await planner.plan(request.up, settled, sources, identity, services, ())
    return with_records(Planned(plan, sources, request), before)


def settle(planner: Planner, place: EnvironmentPlace, request: UpRequest, declared: Declared) -> Settled:
    """Fill in what the user left open: the environment's values, this repository's services, no quota profile, no end.

    Raises:
        InvalidInput: an unknown service.
    """
    selection = Selection(deployed=chosen_services(declared.project, request.only, planner.lock))
    planner.check_set_values(request, declared.project, selection)
    return Settled(place.name, _no_profile(declared.project), timedelta(0), None, selection, planner.lock)


def chosen_services(project: Project, only: Sequence[str], lock: Lock | None) -> tuple[str, ...]:
    """The services that are deployed: those asked for, else the lock's, else those whose files are in this repository.

    A project of nothing but other repositories' services is a version manifest: all of them.

    Raises:
        InvalidInput: an unknown service.
    """
    unknown = sorted(set(only) - set(project.services))
    if unknown:
        raise InvalidInput(
            f"the project {project.project} has no service {', '.join(unknown)}{near(unknown[0], project.services)}",
            why=f"it has {', '.join(project.services)}",
        )
    if only:
        return tuple(name for name in project.services if name in only)
    if lock is not None:
        return tuple(name for name in project.services if name in lock.services)
    own = tuple(name for name, service in project.services.items() if service.source is None)
    return own or tuple(project.services)


def _no_profile(project: Project) -> QuotaProfile:
    """An environment has the quota that whoever runs it gave it; ours are for sandboxes."""
    return QuotaProfile.model_construct(
        api_version=API_VERSION,
        kind="QuotaProfile",
        name="none",
        resource_quota={},
        pod_security="privileged",
        allowed_cluster_scoped=project.allow_cluster_scoped,
    )


async def _identity(planner: Planner, place: EnvironmentPlace, sources: Sources) -> Identity:
    user = (await planner.cluster.whoami()).username
    commit = sources.own.commit
    return Identity(
        owner=user,
        created_by=user,
        project=sources.project.project,
        branch=commit.branch or commit.short,
        name=place.name,
        namespace=place.namespace,
    )


def with_records(planned: Planned, before: Sequence[Record]) -> Planned:
    """The plan, held against the environment's records.

    Raises:
        Refused: a service was deployed from another repository.
    """
    plan, request = planned.plan, planned.request
    applied = before[-1].services if before else {}
    if not request.adopt:
        refuse_others(plan.services, applied)
    kept = neighbours(applied, plan.services, planned.sources, only=bool(request.up.only))
    services = {**{name: record.lock for name, record in kept.items()}, **{n: s.lock for n, s in plan.services.items()}}
    lock = plan.lock.model_copy(update={"services": services}).sealed()
    return replace(planned, plan=replace(plan, before=before, kept=kept, lock=lock, shared=True))


def refuse_others(services: Mapping[str, ServicePlan], applied: Mapping[str, ServiceRecord]) -> None:
    """
    Raises:
        Refused: another repository's services have these names.
    """
    others = [
        f"{name} is from {applied[name].lock.repo}, not from {service.lock.repo}"
        for name, service in services.items()
        if name in applied
        and applied[name].lock.repo
        and not same_repository(applied[name].lock.repo, service.lock.repo)
    ]
    if others:
        raise Refused(
            "these services of the environment are another repository's",
            why="\n".join(others),
            hint="rename them, or take them over with --adopt",
        )


def neighbours(
    applied: Mapping[str, ServiceRecord], services: Mapping[str, ServicePlan], sources: Sources, *, only: bool
) -> dict[str, ServiceRecord]:
    """The services that this deployment does not touch: all but its own, and but those that its repository has no more.

    Args:
        only: the user named services: then nothing else is touched.
    """
    own = {sources.own.commit.repo, *(service.lock.repo for service in services.values())}

    def is_gone(name: str, service: ServiceRecord) -> bool:
        return name not in sources.declares and any(same_repository(service.lock.repo, repo) for repo in own)

    return {
        name: service
        for name, service in applied.items()
        if name not in services and (only or not is_gone(name, service))
    }


def unmet_needs(plan: Plan) -> list[str]:
    """What services need that is neither deployed now nor known in the environment, one line each."""
    there = {*plan.services, *plan.kept}
    return [
        f"{name} needs {need}, which nothing that we know of has deployed into {plan.identity.name}"
        for name, service in plan.services.items()
        for need in service.needs
        if need not in there
    ]
