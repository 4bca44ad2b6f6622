"""When a deployment failed: capture first, then bring every service back that it changed, and say what stands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sandbox.capture.capture import Options, capture
from sandbox.capture.collect.data import Before
from sandbox.deploy import migrations
from sandbox.deploy.context import Context
from sandbox.deploy.planning import Planned
from sandbox.deploy.report import Captured, ServiceEnd
from sandbox.model.errors import SandboxError
from sandbox.model.failure import Finding, NotReady
from sandbox.model.record import Record, ServiceRecord
from sandbox.project.config import Fixtures
from sandbox.provision import records
from sandbox.provision.rollback import Restored, restore_services, save_rollback, wait_restored
from sandbox.provision.services import Place

# Beyond the capture's own deadline, before it is given up as a whole (seconds).
_GRACE_S = 15.0
_FINDINGS = 3
_CAPTURE_FAILURES = (SandboxError, OSError, TimeoutError)


@dataclass
class RolledBack:
    """What the rollback came to.

    Attributes:
        record: the newest one now.
        lost: rows and keys that a restore took away.
        back_at: the record whose deployment is there again; None where there was none before, or it is not complete.
        seconds: that it took.
    """

    record: Record
    back_at: int | None
    complete: bool
    seconds: float
    services: list[ServiceEnd] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def take_capture(
    context: Context, error: SandboxError, declared: Fixtures, saved: migrations.Saved | None
) -> Captured:
    """Capture the environment as it failed, for at most the time that was given; it never stands in the way.

    Args:
        saved: what stores held before the deployment.
    """
    started = time.monotonic()
    try:
        async with asyncio.timeout(context.request.capture_timeout.total_seconds() + _GRACE_S):
            taken = await capture(
                context.cluster,
                context.namespace,
                store=context.store,
                reason=f"the deployment into {context.environment.name} failed: {error.what}",
                command=context.request.command,
                deadline=context.request.capture_timeout,
                fixtures=context.request.fixtures,
                progress=context.reporter,
                options=Options(
                    environment=context.environment.name,
                    findings=findings_of(error),
                    recipients=context.request.recipients,
                    declared=declared,
                    limits=context.request.limits,
                    before=Before(saved.folder, saved.fixtures) if saved else None,
                    # Who deploys writes there; a database that the deployment itself broke is what is wanted most.
                    allow_write=True,
                ),
            )
    except _CAPTURE_FAILURES as trouble:
        said = str(trouble) or "it did not end in time"
        context.reporter.warn(f"no capture: {said}")
        return Captured(store=context.store.url, seconds=time.monotonic() - started, error=said)
    missing = tuple(
        f"{item.name}: {item.status}{': ' if item.why else ''}{item.why}" for item in taken.document.missing
    )
    return Captured(
        id=taken.id,
        store=context.store.url,
        partial=taken.document.partial,
        seconds=time.monotonic() - started,
        missing=missing,
        findings=tuple(why.finding for why in taken.document.findings[:_FINDINGS]),
    )


def findings_of(error: SandboxError) -> list[Finding]:
    """What the capture is told of the failure; where it was no pod's, the capture finds out itself."""
    return error.findings if isinstance(error, NotReady) else []


async def roll_back(context: Context, planned: Planned, failed: Record, saved: migrations.Saved | None) -> RolledBack:
    """Bring the changed services back to the last record that was deployed, and wait until they are ready.

    With them go those of its own that an earlier deployment left half done and this one did not come to.

    Args:
        failed: this deployment's own record.
        saved: what stores held before it.
    """
    place, applied = context.place(), planned.plan.applied
    names = {*context.begun, *(n for n in planned.plan.services if n in applied and applied[n].unfinished)}
    good = records.last_deployed(planned.plan.before)
    wanted = good.services if good else {}
    lost: list[str] = []

    async def step_back(name: str) -> None:
        if name in planned.plan.services and name in wanted:
            spec = planned.plan.services[name].spec
            await migrations.step_back(context, name, spec, failed.services[name], wanted[name])

    started = time.monotonic()
    title = f"Roll back to record {good.number}" if good else "Remove what was deployed"
    try:
        with context.reporter.step(title):
            restored = await restore_services(place, failed.services, wanted, names, before_each=step_back)
            if saved is not None:
                # After the code: what starts anew would migrate again. Before it is waited for: it may need its data.
                lost = await migrations.restore(context, planned.sources.project.fixtures, saved, names, restored)
            await _wait(place, restored)
    except SandboxError as error:
        restored = Restored(failures=dict.fromkeys(names, str(error)))
    seconds = time.monotonic() - started
    ends = ends_of(restored, failed.services, names)
    untouched = {name: service for name, service in applied.items() if name not in names}
    record = await _write_down(context, failed, good, restored, untouched)
    back_at = good.number if good and not restored.failures else None
    return RolledBack(record, back_at, not restored.failures, seconds, ends, lost)


async def _wait(place: Place, restored: Restored) -> None:
    """Readiness decides too; what does not become ready is noted under its service."""
    try:
        await wait_restored(place, restored)
    except NotReady as error:
        for finding in error.findings:
            name = finding.service if finding.service in restored.services else next(iter(restored.services), "")
            restored.failures.setdefault(name, "\n".join(finding.lines()))


def ends_of(restored: Restored, present: Mapping[str, ServiceRecord], names: Collection[str]) -> list[ServiceEnd]:
    """Where each changed service stands after the rollback."""
    ends = []
    for name in sorted(names):
        if name in restored.failures:
            at = restored.services.get(name) or present.get(name)
            ends.append(ServiceEnd(name, "stands", at.lock.commit if at else "", restored.failures[name]))
        elif name in restored.services:
            ends.append(ServiceEnd(name, "rolled back", restored.services[name].lock.commit))
        else:
            ends.append(ServiceEnd(name, "removed"))
    return ends


async def _write_down(
    context: Context,
    failed: Record,
    good: Record | None,
    restored: Restored,
    untouched: Mapping[str, ServiceRecord],
) -> Record:
    """Record what stands now; where the cluster does not take it, the record of the failure stays the newest."""
    left = {n: failed.services[n] for n in restored.failures if n not in restored.services and n in failed.services}
    services = {**untouched, **left, **restored.services}
    place = context.place()
    by = failed.by
    try:
        if good is not None and not restored.failures:
            return await save_rollback(place, failed.number + 1, good, services, by=by)
        why = f"{failed.failure}; rolled back" if not restored.failures else f"rollback incomplete: {failed.failure}"
        record = failed.with_services(services).model_copy(update={"failure": why})
        await records.save(context.cluster, context.namespace, record)
        return record
    except SandboxError as error:
        context.reporter.warn(f"the rollback could not be written down: {error}")
        return failed
