"""``sandbox up``: any commit, live in a namespace of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from sandbox.cluster import sleeping
from sandbox.cluster.client import Cluster
from sandbox.cluster.lease import deployment_lease
from sandbox.model import labels
from sandbox.model.deadline import parse_ttl
from sandbox.model.durations import format_duration, relative, to_rfc3339
from sandbox.model.errors import InvalidInput, SandboxError, Unreachable
from sandbox.model.failure import NotReady
from sandbox.model.objects import Manifest
from sandbox.model.quota import Asked
from sandbox.model.record import Record
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.model.source import Commit
from sandbox.project.config import BuilderName
from sandbox.provision import allowance, equivalents, preflight, records, steps
from sandbox.provision import namespace as ns
from sandbox.provision.endpoints import Endpoint, endpoints_of
from sandbox.provision.guardrails import apply_guardrails, guardrails
from sandbox.provision.identity import Identity, identify
from sandbox.provision.locks import is_name
from sandbox.provision.namespace import Lifetime
from sandbox.provision.plan import Plan
from sandbox.provision.planning import Planner
from sandbox.provision.reporter import Reporter
from sandbox.provision.request import UpRequest
from sandbox.provision.rollback import go_back
from sandbox.provision.services import Place, deploy_services
from sandbox.provision.steps import ServiceOutcome
from sandbox.provision.target import Target
from sandbox.provision.unchanged import not_running
from sandbox.provision.workspace import workspace


@dataclass(frozen=True)
class UpResult:
    """What a command ends with.

    Attributes:
        sandbox: as its namespace tells it; None in a dry run of a new one.
        record_number: of the deployment that is in the namespace now.
        plan: what would be done; in a dry run only.
        asked: what that asks of the quota; in a dry run only.
        now: the server's time at the end.
    """

    sandbox: Sandbox | None
    identity: Identity
    commit: Commit | None
    record_number: int | None
    services: tuple[ServiceOutcome, ...]
    endpoints: tuple[Endpoint, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    asked: tuple[Asked, ...] = ()
    now: datetime | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """Everything that would be applied, guardrails first; in a dry run only."""
        if self.plan is None:
            return []
        rails = guardrails(self.plan.profile, self.plan.identity.namespace)
        return rails + [m for s in self.plan.services.values() for m in [*s.hooks, *s.manifests]]


async def up(target: Target, request: UpRequest, reporter: Reporter) -> UpResult:
    """Deploy a commit into its sandbox, making the sandbox where it is not there yet.

    Raises:
        InvalidInput: the request or the project's files do not say what they must.
        Refused: a guardrail stands in the way; nothing was written.
        NotReady: services failed; the sandbox stays as it is, or was rolled back when asked.
        Unreachable: cluster, registry or git do not answer.
        Busy: another deployment of the same sandbox is under way.
    """
    validate(request)
    with workspace() as folder:
        async with Cluster.connect(target.context, target.kubeconfig) as cluster:
            planner = Planner(cluster, target, folder, reporter)
            plan = await make_plan(planner, request)
            with reporter.step("Preflight"):
                checked = await preflight.check(cluster, plan)
            for warning in checked.warnings:
                reporter.warn(warning)
            if request.dry_run:
                return replace(_planned(plan), asked=checked.asked)
            broken = await not_running(cluster, plan)
            if not broken and (namespace := await _nothing_to_do(cluster, plan)):
                return await _prolong(cluster, plan, namespace, reporter)
            return await _deploy(planner, plan, broken, request, reporter)


def validate(request: UpRequest) -> None:
    """Refuse what contradicts itself, before anything is asked of anybody.

    Raises:
        InvalidInput: which options do not go together.
    """
    if request.lock and (request.ref or request.repo or request.base or request.dirty):
        raise InvalidInput(
            "--lock says everything that is deployed", hint="leave out --ref, --repo, --base and --dirty"
        )
    if request.owner and request.owner_group:
        raise InvalidInput("--owner and --owner-group", why="a sandbox is a user's or a group's", hint="leave out one")
    for file in request.values_files:
        if not file.is_file():
            raise InvalidInput(f"{file}: there is no such values file")
    if request.ttl:
        parse_ttl(request.ttl)
    builders = get_args(BuilderName)
    if request.builder is not None and request.builder not in builders:
        raise InvalidInput(f"{request.builder!r} is no builder", hint=f"there are {', '.join(builders)}")


async def make_plan(planner: Planner, request: UpRequest, *, deploys: bool = True) -> Plan:
    """Resolve and render everything; writes nothing but images that do not exist yet.

    Args:
        deploys: whether a sandbox is going to be made of it, which counts.
    """
    sources, settled = await steps.resolve_sources(planner, request, lambda found: planner.settle(request, found))
    planner.reporter.info(settled.line())
    prefix = planner.target.namespace_prefix
    identity = await identify(
        planner.cluster,
        project=sources.project.project,
        branch=sources.own.commit.branch or sources.own.commit.short,
        prefix=prefix,
        owner=request.owner or planner.settings.owner,
        owner_group=request.owner_group,
        # What comes back by its name has that name again, and no other.
        name=request.name or (str(request.lock).removeprefix(prefix) if is_name(request.lock) else None),
    )
    if request.name and identity.name != request.name:
        planner.reporter.info(f"the sandbox is called {identity.name}: {request.name!r} is no name for a namespace")
    before = await planner.records_of(identity, settled.profile if deploys else None, settled.ttl)
    if deploys:
        await allowance.check(planner.cluster, settled.profile, planner.platform.limits, identity, planner.reporter)
    services = await steps.resolve_services(planner, request, settled, sources, identity)
    return await planner.plan(request, settled, sources, identity, services, before)


def _planned(plan: Plan) -> UpResult:
    outcomes = steps.outcomes(plan, plan.changed)
    return UpResult(None, plan.identity, plan.commit, None, outcomes, notes=plan.notes, plan=plan)


async def _nothing_to_do(cluster: Cluster, plan: Plan) -> Manifest | None:
    """The namespace, when all of the plan is deployed already."""
    if not plan.before or plan.changed or plan.removed or plan.before[-1].outcome != "deployed":
        return None
    namespace = await ns.existing(cluster, plan.identity)
    if namespace is None:
        return None
    found = Sandbox.of(namespace, cluster.context)
    # The same services from another commit are a deployment of that commit: it is written down.
    same = found.quota_profile == plan.profile.name and (plan.commit is None or found.commit == plan.commit.sha)
    return namespace if same and found.phase != Phase.SLEEPING else None


async def _prolong(cluster: Cluster, plan: Plan, namespace: Manifest, reporter: Reporter) -> UpResult:
    """Nothing is written but the expiry."""
    lifetime = await _lifetime(cluster, plan)
    prolonged = await ns.prolong(cluster, namespace, lifetime)
    _say_when_capped(prolonged, lifetime, reporter)
    return _result(cluster, plan, prolonged, plan.before[-1])


async def _deploy(
    planner: Planner, plan: Plan, broken: Collection[str], request: UpRequest, reporter: Reporter
) -> UpResult:
    """Deploy what changed, and what does not run although it did not change."""
    cluster = planner.cluster
    with reporter.step(f"Namespace {plan.identity.namespace}"):
        reporter.command(equivalents.create_namespace(cluster.context, plan.identity.namespace))
        namespace = await _ensure_namespace(planner, plan, reporter)
    services = {name: service for name, service in plan.services.items() if name in plan.changed or name in broken}
    async with deployment_lease(cluster, plan.identity.namespace):
        with reporter.step(f"Guardrails: {plan.profile.name}"):
            reporter.command(equivalents.apply(cluster.context, plan.identity.namespace, "guardrails"))
            await apply_guardrails(cluster, plan.profile, plan.identity.namespace)
            await planner.until_admitted(plan.identity)
            await planner.copy_pull_secret(plan.identity.namespace)
        if labels.AWAKE in namespace["metadata"]["annotations"]:
            with reporter.step("Wake"):
                await sleeping.wake(cluster, plan.identity.namespace)
        record = await steps.begin_record(cluster, plan, namespace["metadata"]["uid"])
        await planner.until_admitted(plan.identity, with_record=True)
        place = Place(
            cluster, plan.identity.namespace, planner.helm, request.timeout.total_seconds(), wait=request.wait
        )
        try:
            deployed = await deploy_services(place, services, plan.applied, reporter)
            await steps.remove_surplus(place, plan, reporter)
            record = await steps.end_record(place, plan, record, deployed)
        except SandboxError as error:
            await _failed(place, plan, record, error, request, reporter)
            raise
        namespace = await ns.finish(cluster, plan.identity.namespace, Phase.READY)
    return _result(cluster, plan, namespace, record, services)


async def _ensure_namespace(planner: Planner, plan: Plan, reporter: Reporter) -> Manifest:
    """The namespace with its expiry, in which we may work."""
    cluster = planner.cluster
    lifetime = await _lifetime(cluster, plan)
    namespace = await ns.existing(cluster, plan.identity)
    if namespace is None:
        created = await ns.create(cluster, plan.identity, plan.profile, lifetime, plan.commit, planner.tools)
        await planner.take_ownership(plan.identity)
        return created
    begun = await ns.begin(cluster, namespace, plan.identity, plan.profile, lifetime, plan.commit, planner.tools)
    _say_when_capped(begun, lifetime, reporter)
    return begun


async def _lifetime(cluster: Cluster, plan: Plan) -> Lifetime:
    return Lifetime(plan.ttl, plan.profile.lifetime, await cluster.server_time())


def _say_when_capped(namespace: Manifest, lifetime: Lifetime, reporter: Reporter) -> None:
    end = ns.longest_life(namespace, lifetime.longest)
    if end < lifetime.expires_at:
        reporter.warn(
            f"it expires {relative(end, lifetime.now)} ({to_rfc3339(end)}), not in {format_duration(lifetime.ttl)}: "
            "that is its longest life, however often it is extended"
        )


async def _failed(
    place: Place, plan: Plan, record: Record, error: SandboxError, request: UpRequest, reporter: Reporter
) -> None:
    """Note the failure; go back to the deployment before, when asked and when there is one."""
    if isinstance(error, Unreachable):
        # There is nobody to note it down: the record says "interrupted" already.
        error.hint = error.hint or "run the same command again when the cluster answers: it goes on from there"
        return
    failed = await steps.note_failure(place.cluster, place.namespace, record, error)
    await ns.finish(place.cluster, place.namespace, Phase.FAILED)
    good = records.last_deployed(plan.before)
    if not request.rollback_on_failure:
        error.hint = "; ".join(filter(None, (error.hint, _what_now(plan, good, error))))
        return
    if good is None:
        error.hint = "there is no deployment before to roll back to; the sandbox stays for a look into it"
        return
    with reporter.step(f"Roll back to record {good.number}"):
        await go_back(place, [*plan.before, failed], good, by=plan.identity.created_by)
        await ns.finish(place.cluster, place.namespace, Phase.READY)
    error.hint = f"the sandbox was rolled back to record {good.number}"


def _what_now(plan: Plan, good: Record | None, error: SandboxError) -> str:
    name = plan.identity.name
    failed = (error.findings[0].service if isinstance(error, NotReady) else "") or "SERVICE"
    back = f"; `sandbox rollback -s {name}` goes back to record {good.number}" if good else ""
    return f"the sandbox stays as it is: look with `sandbox status {name}`, `sandbox logs -s {name} {failed}`{back}"


def _result(
    cluster: Cluster, plan: Plan, namespace: Manifest, record: Record, deployed: Collection[str] = ()
) -> UpResult:
    return UpResult(
        sandbox=Sandbox.of(namespace, cluster.context),
        identity=plan.identity,
        commit=plan.commit,
        record_number=record.number,
        services=steps.outcomes(plan, deployed),
        endpoints=endpoints_of(plan.identity.name, record),
        notes=plan.notes,
        now=cluster.known_time(),
    )
