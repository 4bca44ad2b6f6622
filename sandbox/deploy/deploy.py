"""``sandbox deploy``: into a shared, long-lived environment; what fails is captured, then rolled back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from sandbox.cluster.client import Cluster
from sandbox.cluster.lease import deployment_lease
from sandbox.deploy import adoption, migrations, namespace, recovery
from sandbox.deploy.context import Context
from sandbox.deploy.planning import Planned, make_plan, unmet_needs, with_records
from sandbox.deploy.report import Captured, Failure, Report, ServiceEnd, commands
from sandbox.deploy.request import DeployRequest
from sandbox.model.errors import SandboxError
from sandbox.model.objects import Manifest
from sandbox.model.record import Record, ServiceRecord
from sandbox.provision import preflight, records, steps
from sandbox.provision.command import run_test
from sandbox.provision.environment import EnvironmentPlace
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.planning import Planner
from sandbox.provision.reporter import Reporter
from sandbox.provision.services import deploy_services
from sandbox.provision.unchanged import not_running
from sandbox.provision.workspace import workspace
from sandbox.store.store import Store


async def deploy(
    environment: EnvironmentPlace,
    request: DeployRequest,
    store: Store,
    reporter: Reporter,
    *,
    can_reproduce: bool = False,
) -> Report:
    """Deploy this repository's services into an environment; a failure is captured and rolled back.

    Returns:
        How it ended, whichever way: only what is wrong with the request itself is raised.

    Raises:
        InvalidInput: the request contradicts itself.
    """
    request.validate()
    started = time.monotonic()
    report = Report(environment.name, environment.namespace, environment.target.context or "", "refused")
    begun: set[str] = set()
    try:
        with workspace() as folder:
            async with Cluster.connect(environment.target.context, environment.target.kubeconfig) as cluster:
                report = replace(report, context=cluster.context)
                planner = Planner(cluster, environment.target, folder, reporter)
                context = Context(cluster, planner, environment, request, store, reporter, can_reproduce, begun)
                report = await _deploy(context, report)
    except SandboxError as error:
        report = _ended_early(report, error, begun)
    except asyncio.CancelledError:
        if begun:
            reporter.warn(
                f"stopped while {', '.join(sorted(begun))} were being deployed: they stand as they are; "
                f"the same command goes on, `sandbox rollback {environment.name}` goes back"
            )
        raise
    return replace(report, seconds=time.monotonic() - started)


def _ended_early(report: Report, error: SandboxError, begun: Collection[str]) -> Report:
    """What failed where nothing could be mended: before the first write, or because the lease was lost."""
    stand = tuple(ServiceEnd(name, "stands", report.commit, "half deployed") for name in sorted(begun))
    return replace(report, outcome="incomplete" if stand else "refused", failure=Failure.of(error), services=stand)


async def _deploy(context: Context, report: Report) -> Report:
    """The steps in order; those of ``up`` where they are the same."""
    planned = await _plan(context)
    report = _about(report, planned.plan)
    if context.request.up.dry_run:
        return replace(report, outcome="planned", services=_ends(planned.plan, planned.plan.changed))
    made = await namespace.ensure(context.cluster, context.environment)
    async with deployment_lease(
        context.cluster,
        context.namespace,
        wait=context.request.wait_for_lease,
        on_wait=lambda text: context.reporter.info(f"waiting: {text}"),
    ):
        planned = await _with_newest_records(context, planned)
        planned = await _take_over(context, planned, made)
        return await _change(context, planned, made, _about(report, planned.plan))


# -- before anything is written ---------------------------------------------------------------------------------


async def _plan(context: Context) -> Planned:
    """Everything that can be known to fail is found here."""
    found = await namespace.find(context.cluster, context.environment)
    before = await records.load_records(context.cluster, context.namespace) if found else []
    _say_what_stands(context, before)
    planned = await make_plan(context.planner, context.environment, context.request, before)
    _say_what_neighbours_left(context, planned.plan)
    with context.reporter.step("Preflight"):
        checked = await preflight.check(context.cluster, planned.plan)
        foreign = await adoption.find_foreign(context.cluster, context.planner.helm, planned.plan) if found else []
    for warning in (*checked.warnings, *unmet_needs(planned.plan)):
        context.reporter.warn(warning)
    if context.request.adopt:
        adoption.refuse_blocking(foreign, context.environment.name)
    else:
        adoption.refuse(foreign, context.environment.name)
    return planned


def _say_what_stands(context: Context, before: Sequence[Record]) -> None:
    """Say what the last deployment left, where it did not come to an end."""
    if not before or before[-1].outcome == "deployed":
        return
    last, good = before[-1], records.last_deployed(before)
    half = [name for name in last.services if good is None or _differs(last.services[name], good.services.get(name))]
    stands = f"; half deployed are {', '.join(sorted(half))}" if half else ""
    back = f"; a failure now goes back to record {good.number}" if good else ""
    context.reporter.warn(f"record {last.number} by {last.by} did not come through: {last.failure}{stands}{back}")


def _say_what_neighbours_left(context: Context, plan: Plan) -> None:
    """Say which of the services that this deployment leaves alone nobody has brought to an end."""
    half = sorted(name for name, service in plan.kept.items() if service.unfinished)
    if half:
        context.reporter.warn(
            f"half deployed, and left alone: {', '.join(half)}; their own deployment goes on, or goes back if it fails"
        )


def _differs(one: ServiceRecord, other: ServiceRecord | None) -> bool:
    return other is None or one.lock.input_digest != other.lock.input_digest


async def _with_newest_records(context: Context, planned: Planned) -> Planned:
    """The plan held against the records again: another deployment may have ended since they were read."""
    newest = await records.load_records(context.cluster, context.namespace)
    known = planned.plan.before
    if [(r.number, r.outcome) for r in newest] == [(r.number, r.outcome) for r in known]:
        return planned
    planned = with_records(planned, newest)
    await preflight.check(context.cluster, planned.plan)
    return planned


# -- from the first write on ------------------------------------------------------------------------------------


async def _take_over(context: Context, planned: Planned, made: Manifest) -> Planned:
    """Adopt what others deployed, where that was asked for."""
    if not context.request.adopt:
        return planned
    foreign = await adoption.find_foreign(context.cluster, context.planner.helm, planned.plan)
    adoption.refuse_blocking(foreign, context.environment.name)
    if not foreign:
        return planned
    with context.reporter.step("Adopt") as step:
        record = await adoption.adopt(context.cluster, planned.plan, foreign, made["metadata"]["uid"])
        step.detail(f"{', '.join(one.service for one in foreign)} as record {record.number}")
    return with_records(planned, [*planned.plan.before, record])


async def _change(context: Context, planned: Planned, made: Manifest, report: Report) -> Report:
    """Deploy, test, and write down that it is good; what fails on the way is captured and rolled back."""
    plan = planned.plan
    broken = await not_running(context.cluster, plan)
    services = {name: service for name, service in plan.services.items() if name in plan.changed or name in broken}
    saved = await migrations.save(context, planned, services)
    await context.planner.copy_pull_secret(context.namespace)
    record = await steps.begin_record(context.cluster, plan, made["metadata"]["uid"])
    try:
        deployed = await _until_tested(context, plan, services, record)
        record = await steps.end_record(context.place(), plan, record, deployed)
    except SandboxError as error:
        return await _recover(context, planned, record, saved, error, report)
    migrations.forget(saved)
    return replace(report, outcome="deployed", record=record.number, services=_ends(plan, deployed))


async def _until_tested(
    context: Context, plan: Plan, services: dict[str, ServicePlan], record: Record
) -> dict[str, ServiceRecord]:
    place, request = context.place(), context.request
    deployed = await deploy_services(place, services, plan.applied, context.reporter, on_begin=context.begun.add)
    if request.command:
        with context.reporter.step(f"Test: {' '.join(request.command)}") as step:
            await run_test(
                context.cluster,
                context.namespace,
                context.environment.name,
                {**record.services, **deployed},
                request.command,
                timeout=request.command_timeout,
                on_line=step.detail,
            )
    # Last: what is removed is hard to bring back.
    context.begun.update(plan.removed)
    await steps.remove_surplus(place, plan, context.reporter)
    return deployed


async def _recover(
    context: Context,
    planned: Planned,
    record: Record,
    saved: migrations.Saved | None,
    error: SandboxError,
    report: Report,
) -> Report:
    """Capture, then roll back, then say how that ended."""
    context.reporter.warn(f"{error.what}: capturing, then rolling back")
    failed = await _noted(context, record, error)
    captured = await recovery.take_capture(context, error, planned.sources.project.fixtures, saved)
    back = await recovery.roll_back(context, planned, failed, saved)
    if back.complete:
        migrations.forget(saved)
    look, reproduce = commands(
        captured,
        named_store=_must_be_named(context, captured),
        can_reproduce=context.can_reproduce,
        commit=report.commit,
    )
    kept = _left_alone(planned.plan, {end.name for end in back.services})
    return replace(
        report,
        outcome="rolled back" if back.complete else "incomplete",
        record=back.record.number,
        back_at=back.back_at,
        rollback_seconds=back.seconds,
        services=(*back.services, *kept),
        failure=Failure.of(error).explained_by(captured),
        capture=captured,
        lost=tuple(back.lost),
        look=look,
        reproduce=reproduce,
    )


async def _noted(context: Context, record: Record, error: SandboxError) -> Record:
    try:
        return await steps.note_failure(context.cluster, context.namespace, record, error)
    except SandboxError as trouble:
        context.reporter.warn(f"the failure could not be written down: {trouble}")
        return record.model_copy(update={"failure": error.what})


def _must_be_named(context: Context, captured: Captured) -> bool:
    """Whether others need to be told the store: the platform's own they find, a folder of this machine none of them."""
    return not context.store.is_local and context.planner.platform.capture_store != captured.store


# -- how it ended -----------------------------------------------------------------------------------------------


def _about(report: Report, plan: Plan) -> Report:
    commit = plan.commit
    about = replace(report, commit=commit.sha, subject=commit.subject) if commit else report
    return replace(about, notes=plan.notes)


def _ends(plan: Plan, deployed: Collection[str]) -> tuple[ServiceEnd, ...]:
    """What happens to each service, and the commit that it is at then."""
    known = {**plan.removed, **plan.kept}
    return tuple(
        ServiceEnd(
            outcome.name,
            outcome.action,
            plan.services[outcome.name].lock.commit
            if outcome.name in plan.services
            else known[outcome.name].lock.commit,
        )
        for outcome in steps.outcomes(plan, deployed)
    )


def _left_alone(plan: Plan, touched: Collection[str]) -> list[ServiceEnd]:
    """The services that a failed deployment did not come to, at the commit that runs."""
    return [
        ServiceEnd(name, "unchanged" if name in plan.services else "kept", service.lock.commit)
        for name, service in plan.applied.items()
        if name not in touched
    ]
