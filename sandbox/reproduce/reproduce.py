"""``sandbox reproduce``: a captured moment, again, in a sandbox of its own."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sandbox import __version__
from sandbox.capture.bundle import Bundle
from sandbox.capture.model import Document
from sandbox.cluster import discovery, objects, tools
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.waiting import wait_ready
from sandbox.images.registry import digest_of
from sandbox.model.deadline import parse_ttl
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.failure import Finding, NotReady
from sandbox.model.objects import Manifest, digest, pod_spec
from sandbox.model.quota import Asked
from sandbox.model.record import Record
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.project.config import Fixtures, Project
from sandbox.project.quotas import QuotaProfile, choose_profile
from sandbox.project.yamlfile import near_any
from sandbox.provision import allowance, preflight, records, steps
from sandbox.provision import namespace as ns
from sandbox.provision.command import run_test
from sandbox.provision.contents import list_all
from sandbox.provision.environment import project_around
from sandbox.provision.guardrails import apply_guardrails, guardrails
from sandbox.provision.identity import Identity, identify
from sandbox.provision.plan import Plan, in_order
from sandbox.provision.planning import Planner, check_ttl
from sandbox.provision.profiles import known_profiles
from sandbox.provision.reporter import Reporter, Step
from sandbox.provision.request import UpRequest
from sandbox.provision.services import Place, apply_manifests
from sandbox.provision.smoke import run_http_smoke
from sandbox.provision.target import Target
from sandbox.provision.workspace import workspace
from sandbox.reproduce import data, isolation, report, start, state, verdict
from sandbox.reproduce.captured import Captured, read_captured
from sandbox.reproduce.images import found_in_registries
from sandbox.reproduce.plan import SHARED, Blueprint, Choices, DataStore, blueprint
from sandbox.reproduce.portable import Surroundings
from sandbox.reproduce.replacement import Replacement, replacements
from sandbox.reproduce.report import Facts, Line
from sandbox.reproduce.request import ReproduceRequest
from sandbox.reproduce.secrets import Values, role_passwords, values_of
from sandbox.reproduce.state import Reproduction, Stage
from sandbox.reproduce.verdict import Verdict, Wanted

DEFAULT_QUOTA = "small"
DEFAULT_TTL = "8h"
# What others start from is there before it; what acts on the rest comes after it.
_LAST = frozenset({"PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress"})
_LONGEST_ID = 12
# For a smoke test that is run again; all services run by then.
_SMOKE_S = 6.0


@dataclass(frozen=True)
class Reproduced:
    """What a reproduction ends with.

    Attributes:
        sandbox: None in a dry run.
        verdict, lines: None and empty in a dry run.
        command: of the capture, which was not run; empty: there is none, or it was.
        asked: of the quota; in a dry run only.
    """

    capture: str
    identity: Identity
    plan: Plan
    blueprint: Blueprint
    sandbox: Sandbox | None = None
    verdict: Verdict | None = None
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()

    @property
    def manifests(self) -> list[Manifest]:
        """Everything that would be applied, guardrails first."""
        namespace = self.identity.namespace
        rails = [*guardrails(self.plan.profile, namespace), *isolation.deny_egress(self.plan.profile, namespace)]
        return [*rails, *(m for stage in _stages(self.blueprint) for m in stage)]


async def reproduce(target: Target, bundle: Bundle, request: ReproduceRequest, reporter: Reporter) -> Reproduced:
    """Bring a capture back in a new sandbox, and say whether its failure shows again.

    Raises:
        InvalidInput: the capture or the request do not say what they must.
        Refused: a guardrail stands in the way, or the sandbox is there and has data; nothing was written.
        NotReady, OperationFailed: a database did not start or could not be filled; the sandbox stays, marked as failed.
        Unreachable: cluster or store do not answer.
        Busy: another deployment of the same sandbox is under way.
    """
    if request.ttl:
        parse_ttl(request.ttl)
    with workspace() as folder:
        async with Cluster.connect(target.context, target.kubeconfig) as cluster:
            planner = Planner(cluster, target, folder, reporter)
            work = _Work(planner, bundle, request)
            with reporter.step(f"Read {bundle.entry.id}"):
                await work.read()
            with reporter.step("Plan"):
                await work.make_plan()
            with reporter.step("Preflight"):
                asked = await work.check()
            if request.dry_run:
                return work.result(asked=asked)
            return await work.carry_out()


class _Work:
    """One reproduction, step by step."""

    captured: Captured
    identity: Identity
    profile: QuotaProfile
    before: Sequence[Record]
    state: Reproduction
    values: Values
    blueprint: Blueprint
    plan: Plan

    def __init__(self, planner: Planner, bundle: Bundle, request: ReproduceRequest) -> None:
        self._planner = planner
        self._cluster = planner.cluster
        self._bundle = bundle
        self._request = request
        self._ttl = parse_ttl(DEFAULT_TTL)
        self._project: Project | None = None
        self._reporter = planner.reporter
        self._fresh = False
        self._notes: list[str] = []
        # What a service at another commit said of itself before anybody looked.
        self._findings: list[Finding] = []

    @property
    def _document(self) -> Document:
        return self.captured.document

    @property
    def _namespace(self) -> str:
        return self.identity.namespace

    # -- before anything is written

    async def read(self) -> None:
        """The capture, and what the cluster says of us."""
        await self._planner.read_platform(UpRequest(quota=self._request.quota))
        found, kubernetes, self.captured = await asyncio.gather(
            asyncio.to_thread(tools.tool_versions),
            self._cluster.version(),
            read_captured(self._bundle, self._request.identity),
        )
        self._planner.tools = {"sandbox": __version__, **found, "kubernetes": kubernetes}
        await self._settle()
        settings, platform = self._planner.settings, self._planner.platform
        self.identity = await identify(
            self._cluster,
            project=self._document.project or self._bundle.entry.place,
            branch=self._branch(),
            prefix=self._planner.target.namespace_prefix,
            owner=self._request.owner or settings.owner,
            name=self._request.name,
        )
        self.before = await self._planner.records_of(self.identity, self.profile, self._ttl)
        await allowance.check(self._cluster, self.profile, platform.limits, self.identity, self._reporter)
        await self._find_state()

    async def _settle(self) -> None:
        """What the user left open: the project's defaults, where the command runs in the captured one's working tree.

        Raises:
            InvalidInput: there is no such quota profile.
            Refused: the profile does not allow the TTL.
        """
        request = self._request
        project = await asyncio.to_thread(project_around, request.folder) if request.folder else None
        if project is not None and self._document.project in ("", project.project):
            self._project = project
        defaults = self._project.defaults if self._project else None
        profiles = known_profiles(
            self._planner.settings, request.folder, self._planner.platform, say=self._notes.append
        )
        self.profile = choose_profile(request.quota or (defaults.quota if defaults else DEFAULT_QUOTA), profiles)
        self._ttl = parse_ttl(request.ttl or (defaults.ttl if defaults else DEFAULT_TTL))
        check_ttl(self._ttl, self.profile)

    def _branch(self) -> str:
        """What tells this reproduction from others of the same project."""
        others = [f"{name}-{ref}" for name, ref in sorted(self._request.replace.items())]
        return "-".join([self._bundle.entry.id.partition("-")[0][:_LONGEST_ID], *others])

    def _choices(self) -> str:
        request = self._request
        chosen = [sorted(request.only), request.data, request.allow_tags]
        return digest([*chosen, request.identity is not None, sorted(request.replace.items()), request.before])

    async def _find_state(self) -> None:
        """Whether this goes on with a reproduction that was interrupted, or begins one.

        Raises:
            Refused: the sandbox is there, and is something else or complete.
        """
        entry, choices = self._bundle.entry, self._choices()
        there = await ns.find(self._cluster, self._namespace)
        found = await state.load(self._cluster, self._namespace) if there else None
        if there is None:
            self._fresh = True
        elif found is not None and found.is_of(entry.digest, choices) and found.stage != "done":
            self._reporter.info(f"going on with what was begun in {self._namespace}")
            self.state, self._fresh = found, True
            return
        elif self.before or found is not None:
            is_it = found is not None and found.stage == "done" and found.digest == entry.digest
            what = f"it is a reproduction of {found.capture}" if found else "something was deployed into it"
            raise Refused(
                f"the sandbox {self.identity.name} is there and has data already",
                why=f"{what}; what is in it is not thrown away" + (" (and it is complete)" if is_it else ""),
                hint=f"`sandbox down {self.identity.name}` first, or another name with --name",
            )
        self.state = state.begin(entry.id, entry.digest, choices)

    async def make_plan(self) -> None:
        """What is going to be in the sandbox."""
        self.values = values_of(self.state.seed_bytes, self.captured.secrets, self.captured.true_secrets)
        place = await self._surroundings()
        choices = Choices(
            only=self._request.only,
            data=self._request.data,
            identity=self._request.identity is not None,
            allow_tags=self._request.allow_tags,
            before=self._request.before,
        )
        draft = await asyncio.to_thread(blueprint, self.captured, self.values, place, choices)
        images = await found_in_registries(
            draft.pins, digest_of, mirror=self._planner.platform.registry, allow_tags=self._request.allow_tags
        )
        others = await self._replacements(draft)
        if others or any(pin != found for pin, found in images.items()):
            draft = await asyncio.to_thread(blueprint, self.captured, self.values, place, choices, images, others)
        self.blueprint = draft
        self._check_failing_service()
        self.plan = await self._as_plan()

    async def _replacements(self, draft: Blueprint) -> dict[str, Replacement]:
        """The services that are wanted at another commit, built and rendered.

        Raises:
            InvalidInput: the capture has no such service, or nobody knows where it comes from.
        """
        wanted = self._request.replace
        if not wanted:
            return {}
        there = [name for name in draft.services if name != SHARED]
        if unknown := sorted(set(wanted) - set(there)):
            left = " that is brought back (--only leaves the others out)" if self._request.only else ""
            raise InvalidInput(
                f"the capture has no service {', '.join(unknown)}{left}{near_any(unknown, there)}",
                hint=f"it has {', '.join(there)}",
            )
        record = self.captured.record
        return await replacements(
            self._planner,
            wanted,
            record,
            self.identity,
            env=self._document.environment or (record.lock.env if record else ""),
            profile=self.profile,
            request=UpRequest(
                folder=self._request.folder,
                build_args=self._request.build_args,
                dry_run=self._request.dry_run,
                overrides=self._overrides(wanted),
            ),
        )

    def _overrides(self, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
        """What `-f` and `--set` gave the charts of these services when the captured environment was deployed."""
        record = self.captured.record
        services = record.services if record else {}
        given = {name: s.overrides for name, s in services.items() if name in wanted and s.overrides}
        for name, overrides in given.items():
            self._notes.append(f"{name}: -f and --set of the captured deployment are kept: {', '.join(overrides)}")
        return {name: self.values.in_data(overrides) for name, overrides in given.items()}

    def _check_failing_service(self) -> None:
        """Refuse where what failed could not even start."""
        signature = self._document.signature
        gone = {
            name: why
            for name, why in self.blueprint.left_out.items()
            if signature and why.startswith("image of ") and self._is_failing(name, signature.service)
        }
        if gone:
            raise Refused(
                "the images of the service that failed are not to be had",
                why="\n".join(f"{name}: {why}" for name, why in gone.items()),
                hint="--allow-tags takes whatever their tags are now; the report says so",
            )

    def _is_failing(self, name: str, service: str) -> bool:
        workloads = next((s.workloads for s in self._document.services if s.name == service), ())
        return name in workloads or name.rpartition("/")[2] == service

    async def _surroundings(self) -> Surroundings:
        resources = {(r.api_version, r.kind) for r in await discovery.all_resources(self._cluster)}
        return Surroundings(
            namespace=self._namespace,
            host=f"{self.identity.name}.{self._planner.settings.host_domain}",
            storage_classes=await self._storage_classes(),
            serves=lambda version, kind: (version, kind) in resources,
        )

    async def _storage_classes(self) -> set[str] | None:
        try:
            found = objects.list_(self._cluster, "storage.k8s.io/v1", "StorageClass")
            return {item["metadata"]["name"] async for item in found}
        except Forbidden:
            return None

    async def _as_plan(self) -> Plan:
        return Plan.of_services(
            self.blueprint.services,
            identity=self.identity,
            project=self.identity.project,
            env=self._document.environment or self._document.namespace,
            profile=self.profile,
            ttl=self._ttl,
            before=self.before,
            tools=self._planner.tools,
            at=await self._cluster.server_time(),
        )

    async def check(self) -> tuple[Asked, ...]:
        """Hold the plan against the guardrails, which bound whatever a bundle brings.

        Raises:
            Refused: it does not keep to them.
        """
        checked = await preflight.check(self._cluster, self.plan, may_lack=True)
        for warning in checked.warnings:
            self._reporter.warn(warning)
        return checked.asked

    # -- carrying it out

    async def carry_out(self) -> Reproduced:
        """Make the sandbox, fill its databases, start the rest, and look."""
        with self._reporter.step(f"Namespace {self._namespace}"):
            uid = await self._make_namespace()
        async with deployment_lease(self._cluster, self._namespace):
            with self._reporter.step(f"Guardrails: {self.profile.name}"):
                await apply_guardrails(self._cluster, self.profile, self._namespace)
                await self._planner.until_admitted(self.identity)
                for policy in isolation.deny_egress(self.profile, self._namespace):
                    await objects.apply(self._cluster, policy, namespace=self._namespace)
                await self._planner.copy_pull_secret(self._namespace)
            await state.save(self._cluster, self._namespace, self.state)
            record = await steps.begin_record(self._cluster, self.plan, uid)
            await self._planner.until_admitted(self.identity, with_record=True)
            try:
                restored = await self._deploy()
                return await self._judge(record, restored)
            except SandboxError as error:
                await self._failed(record, error)
                raise

    async def _make_namespace(self) -> str:
        lifetime = ns.Lifetime(self._ttl, self.profile.lifetime, await self._cluster.server_time())
        found = await ns.existing(self._cluster, self.identity)
        if found is None:
            made = await ns.create(self._cluster, self.identity, self.profile, lifetime, None, self._planner.tools)
            await self._planner.take_ownership(self.identity)
        else:
            made = await ns.begin(
                self._cluster, found, self.identity, self.profile, lifetime, None, self._planner.tools
            )
        return str(made["metadata"]["uid"])

    async def _deploy(self) -> dict[str, str]:
        """Everything in order; the fixtures that were restored, with notes."""
        place = self._place()
        configuration, stores, services, last = _stages(self.blueprint)
        with self._reporter.step("Configuration") as step:
            await apply_manifests(place, configuration, step.detail)
        if self.state.stage in ("begun", "data"):
            await self._enter("data")
            with self._reporter.step("Databases and caches") as step:
                await apply_manifests(place, stores, step.detail)
                filled = await self._fill()
            self.state = self.state.model_copy(update={"filled": filled})
            await self._enter("services")
        others = tuple(self.blueprint.replaced)
        with self._reporter.step("Services") as step:
            await apply_manifests(place, [m for m in services if not start.mine(m, others)], step.detail)
            await apply_manifests(place, last, step.detail)
        for name in in_order({name: self.blueprint.services[name].needs for name in others}):
            await self._start(place, name, [m for m in services if start.mine(m, [name])])
        return self.state.filled

    async def _start(self, place: Place, name: str, manifests: Sequence[Manifest]) -> None:
        """A service at another commit; that its hook fails is an answer, and no error."""
        replacement = self.blueprint.replaced[name]
        with self._reporter.step(f"Service {name} at {replacement.commit[:12]}") as step:
            try:
                await start.start(place, self.blueprint.services[name], manifests, self._event(name))
            except NotReady as error:
                self._findings += error.findings
                step.detail(error.findings[0].lines()[0] if error.findings else error.what)

    def _event(self, name: str) -> start.Event:
        """Whether the captured environment had a service before: its chart has other hooks then."""
        revisions = [service.revision or 0 for service in self._document.services if service.name == name]
        return "upgrade" if max(revisions, default=0) > 1 else "install"

    def _place(self) -> Place:
        timeout = self._request.timeout.total_seconds()
        return Place(self._cluster, self._namespace, self._planner.helm, timeout, wait=False)

    async def _enter(self, stage: Stage) -> None:
        self.state = self.state.model_copy(update={"stage": stage})
        await state.save(self._cluster, self._namespace, self.state)

    async def _fill(self) -> dict[str, str]:
        """All stores side by side, each as soon as it is ready; the first that fails ends all."""
        turns: dict[str, asyncio.Task[tuple[str, ...]]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for store in self.blueprint.stores:
                    turns[store.fixture.name] = group.create_task(self._fill_one(store))
        except ExceptionGroup as several:
            raise _first(several) from None
        return {name: "; ".join(task.result()) for name, task in turns.items()}

    async def _fill_one(self, store: DataStore) -> tuple[str, ...]:
        fixture = store.fixture
        folder = self._planner.workspace / "fixtures"
        timeout = self._request.timeout.total_seconds()
        with self._reporter.step(f"Fill {fixture.name}") as step:
            step.detail("reading its contents")
            await data.unpack(self._bundle, store.root, fixture, folder, self._request.identity)
            step.detail("waiting until it runs")
            await wait_ready(
                self._cluster,
                self._namespace,
                {store.service: [store.workload]},
                timeout=timeout,
                on_change=lambda _service, message: step.detail(message),
                needs={store.service: ()},
            )
            step.detail("restoring and comparing")
            return await data.fill(
                self._cluster,
                self._namespace,
                store,
                folder,
                role_passwords(fixture.facts.get("roles") or (), self.blueprint.manifests),
                replace=self._fresh,
                timeout=timeout,
                declared=self._project.fixtures if self._project else Fixtures(),
            )

    # -- what became of it

    async def _judge(self, record: Record, restored: Mapping[str, str]) -> Reproduced:
        clean = verdict.cleaner(list(self.values.used.items()), (self._document.namespace, self._namespace))
        target = verdict.wanted(self._document, self.captured.pods)
        watch = verdict.Watch(self._cluster, self._namespace, record, clean)
        bound = self._request.verdict_timeout.total_seconds()
        if self._findings:
            found = verdict.of_findings(self._findings, target, clean)
        else:
            with self._reporter.step("Look for the failure") as step:
                # Of a test that failed nothing can be seen: first all has to run, as it did.
                found = await verdict.judged(watch, target.unseen, bound=bound, on_look=step.detail)
        if self.blueprint.replaced and not found.found:
            found = await self._finish_replaced(record, found, target, clean)
        if target.of_command:
            found = await self._judge_command(record, found, target, clean)
        elif target.smoke_of and target.smoke_of not in self.blueprint.replaced:
            found = await self._judge_smoke(found, target, clean)
        with self._reporter.step("Compare with the capture"):
            lines = report.fidelity(self.captured, self.blueprint, await self._read_back(restored))
        sandbox = await self._finish(record, found, lines)
        return self.result(sandbox=sandbox, found=found, lines=tuple(lines))

    async def _finish_replaced(
        self, record: Record, seen: Verdict, target: Wanted, clean: Callable[[str], str]
    ) -> Verdict:
        """The verdict when services at other commits have run their smoke tests too, as they do when deployed."""
        place = self._place()
        try:
            for name in self.blueprint.replaced:
                service = self.blueprint.services[name]
                if service.spec is None or not (service.hooks or service.spec.smoke or service.spec.hooks.after_deploy):
                    continue
                with self._reporter.step(f"Hooks and smoke test of {name}"):
                    await start.finish(place, service, self._event(name))
        except NotReady as error:
            return replace(verdict.of_findings(error.findings, target, clean), after=seen.after)
        if target.smoke_of in self.blueprint.replaced:
            return replace(seen, verdict="no failure", why="the smoke test passed")
        return seen

    async def _judge_smoke(self, seen: Verdict, target: Wanted, clean: Callable[[str], str]) -> Verdict:
        """The verdict where a smoke test had failed: it asks again what it asked then."""
        if seen.found:
            return replace(seen, verdict="different failure", why="")
        name, record = target.smoke_of, self.captured.record
        service = record.services.get(name) if record else None
        smoke = service.smoke if service else None
        if smoke is None:
            why = f"the capture's record does not say what the smoke test of {name} is"
            return Verdict("not known", target.line, after=seen.after, why=why)
        services = self.blueprint.services
        manifests = [m for owner in (name, SHARED) if owner in services for m in services[owner].manifests]
        try:
            with self._reporter.step(f"Smoke test of {name}"):
                await run_http_smoke(self._cluster, self._namespace, name, smoke, manifests, _SMOKE_S)
        except NotReady as error:
            return replace(verdict.of_findings(error.findings, target, clean), after=seen.after)
        except OperationFailed as error:
            return Verdict("not known", target.line, after=seen.after, why=str(error))
        return Verdict("no failure", target.line, after=seen.after, why="the smoke test passed")

    async def _judge_command(
        self, record: Record, seen: Verdict, target: Wanted, clean: Callable[[str], str]
    ) -> Verdict:
        """The verdict where a test had failed: it runs again on this machine, if the user said so."""
        command = [self.values.in_text(word) for word in self._document.command]
        if seen.found:
            return replace(seen, verdict="different failure", why="")
        if not command or not self._request.run_command:
            why = "it is the failure of a command" + (", which --run-command runs on this machine" if command else "")
            return Verdict("not known", target.line, after=seen.after, why=why)
        with self._reporter.step(f"Run {shlex.join(self._document.command)}") as step:
            failed = await self._run(command, record, step)
        return replace(verdict.of_command(failed, target, clean, command=self._document.command), after=seen.after)

    async def _run(self, command: Sequence[str], record: Record, step: Step) -> Finding | None:
        try:
            await run_test(
                self._cluster,
                self._namespace,
                self.identity.name,
                record.services,
                command,
                timeout=self._request.command_timeout,
                on_line=step.detail,
            )
        except NotReady as error:
            return error.findings[0]
        return None

    async def _read_back(self, restored: Mapping[str, str]) -> Facts:
        """What the sandbox holds."""
        wanted = {(m["apiVersion"], m["kind"]) for m in self.blueprint.manifests} | {("v1", "Pod")}
        lists = await asyncio.gather(
            *(list_all(self._cluster, version, kind, self._namespace) for version, kind in sorted(wanted))
        )
        return Facts(
            objects=[manifest for found in lists for manifest in found],
            restored=restored,
            failed={},
            tools=self._planner.tools,
            profile=self.profile.name,
        )

    async def _finish(self, record: Record, found: Verdict, lines: Sequence[Line]) -> Sandbox:
        """Write down what became of it; a sandbox in which something fails is not called ready."""
        failed = bool(found.found)
        outcome = {"outcome": "failed" if failed else "deployed", "failure": found.found}
        await records.save(self._cluster, self._namespace, record.model_copy(update=outcome))
        self.state = self.state.model_copy(
            update={
                "stage": "done",
                "outcome": {
                    "verdict": verdict.as_data(found),
                    "counts": report.counts(lines),
                    "report": report.as_data(lines),
                    "replaced": replaced_data(self.blueprint.replaced),
                },
            }
        )
        await state.save(self._cluster, self._namespace, self.state)
        phase = Phase.FAILED if failed else Phase.READY
        namespace = await ns.finish(self._cluster, self._namespace, phase)
        return Sandbox.of(namespace, self._cluster.context)

    async def _failed(self, record: Record, error: SandboxError) -> None:
        """Note that it did not come through."""
        again = "the same command goes on from there"
        if isinstance(error, Unreachable):
            error.hint = error.hint or f"when the cluster answers: {again}"
            return
        await steps.note_failure(self._cluster, self._namespace, record, error)
        await ns.finish(self._cluster, self._namespace, Phase.FAILED)
        name = self.identity.name
        down = f"the sandbox {name} is not complete: {again}, `sandbox down {name}` removes it"
        error.hint = "; ".join(filter(None, (error.hint, down)))

    def result(
        self,
        *,
        sandbox: Sandbox | None = None,
        found: Verdict | None = None,
        lines: tuple[Line, ...] = (),
        asked: tuple[Asked, ...] = (),
    ) -> Reproduced:
        return Reproduced(
            capture=self._bundle.entry.id,
            identity=self.identity,
            plan=self.plan,
            blueprint=self.blueprint,
            sandbox=sandbox,
            verdict=found,
            lines=lines,
            notes=tuple(self._notes),
            command=() if self._request.run_command else self._document.command,
            asked=asked,
        )


def replaced_data(replaced: Mapping[str, Replacement]) -> dict[str, dict[str, str]]:
    """Which services are at which other commits."""
    return {
        name: {"repo": other.repo, "ref": other.ref, "commit": other.commit, "subject": other.subject}
        for name, other in replaced.items()
    }


def _stages(planned: Blueprint) -> tuple[list[Manifest], list[Manifest], list[Manifest], list[Manifest]]:
    """Configuration, databases that are filled, services, and what comes last."""
    stores = {store.workload["metadata"]["name"] for store in planned.stores}
    found: tuple[list[Manifest], list[Manifest], list[Manifest], list[Manifest]] = ([], [], [], [])
    for manifest in planned.manifests:
        if manifest["kind"] in _LAST:
            found[3].append(manifest)
        elif pod_spec(manifest) is None:
            found[0].append(manifest)
        else:
            found[1 if manifest["metadata"]["name"] in stores else 2].append(manifest)
    return found


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
