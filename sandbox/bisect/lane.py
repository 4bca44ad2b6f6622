"""One sandbox of a search: what is to be tested is put into it in the place of what was tested before."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

from sandbox.bisect.outcome import Outcome, of_command, of_findings, of_smoke
from sandbox.bisect.search import Changes
from sandbox.bisect.workbench import Planned, Workbench
from sandbox.cluster import objects
from sandbox.cluster.errors import Invalid
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.waiting import wait_ready
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.failure import Finding, NotReady
from sandbox.model.objects import Manifest, ObjectRef, canonical_json, pod_spec
from sandbox.model.record import HttpSmokeRecord, Record
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision import allowance, preflight, steps
from sandbox.provision import namespace as ns
from sandbox.provision.command import run_test
from sandbox.provision.contents import list_all
from sandbox.provision.guardrails import apply_guardrails
from sandbox.provision.identity import Identity, identify
from sandbox.provision.plan import Plan
from sandbox.provision.reporter import Reporter, Step
from sandbox.provision.services import Place, apply_manifests, deploy_services
from sandbox.provision.smoke import run_http_smoke
from sandbox.reproduce import data, isolation, state
from sandbox.reproduce.plan import SHARED, DataStore
from sandbox.reproduce.secrets import role_passwords
from sandbox.reproduce.state import Reproduction
from sandbox.reproduce.verdict import Wanted, Watch, cleaner, judged, wanted

# How long pods and volumes may take to go (seconds).
_GONE_S = 120.0
_LOOK_EVERY_S = 0.2
# For a smoke test that is run again; all services run by then.
_SMOKE_S = 15.0
# What ran longer than services have to stay up to be ready has to be watched; for how long beyond that.
_PATIENCE_S = 2.0
_WATCHED_S = 30.0
_WORKLOADS = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "ReplicationController"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
)
_CLAIM = ("v1", "PersistentVolumeClaim")
# What the API server says of a pod that a ResourceQuota does not let in.
_QUOTA = "exceeded quota"
_LAST = frozenset({"PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress"})


class Lane:
    """One sandbox of a search.

    Attributes:
        in_place: whether the last state that was put into it took the place of another one.
    """

    identity: Identity
    planned: Planned

    def __init__(self, bench: Workbench, key: str, number: int) -> None:
        """
        Args:
            key: of the two states: a sandbox that has another one is something else.
            number: of the sandbox, from 1.
        """
        self._bench = bench
        self._key = key
        self._number = number
        self._cluster = bench.cluster
        self._records: Sequence[Record] = ()
        self._uid = ""
        self._guarded = False
        self.in_place = False
        self._phase = Phase.PROVISIONING
        # What was tested last; None: nothing in this run, or it was interrupted.
        self._holds: Changes | None = None
        self._state: Reproduction | None = None

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def namespace(self) -> str:
        return self.identity.namespace

    # -- there it is

    async def open(self, reporter: Reporter) -> None:
        """Make the sandbox, or find the one that an earlier run of the search made.

        Raises:
            Refused: no other sandbox is allowed, or one of that name is there and is something else.
        """
        bench, request, planner = self._bench, self._bench.request, self._bench.planner
        self.identity = await identify(
            self._cluster,
            project=bench.project,
            branch=f"bisect-{self._key[:8]}-{self._number}",
            prefix=planner.target.namespace_prefix,
            owner=request.owner or planner.settings.owner,
            name=f"{request.name}-{self._number}" if request.name else None,
        )
        self._records = (await planner.records_of(self.identity, bench.profile, bench.ttl))[-1:]
        await allowance.check(self._cluster, bench.profile, planner.platform.limits, self.identity, reporter)
        there = await ns.find(self._cluster, self.namespace)
        found = await state.load(self._cluster, self.namespace) if there else None
        if self._records and (found is None or found.choices != self._key):
            raise Refused(
                f"the sandbox {self.name} is there and is something else",
                hint=f"`sandbox down {self.name}` first, or another name with --name",
            )
        if found is None or found.choices != self._key:
            entry = bench.bad.bundle.entry.id if bench.bad.bundle and bench.bad.digest else bench.bad.title
            found = state.begin(entry, bench.bad.digest, self._key)
        self._state = found
        host = f"{self.name}.{planner.settings.host_domain}"
        self.planned = await bench.planned(self.namespace, found.seed_bytes, host)

    async def check(self, made: Changes) -> tuple[str, ...]:
        """Hold a state against the guardrails; warnings.

        Raises:
            Refused: it does not keep to them.
        """
        return (await preflight.check(self._cluster, await self._plan(made), may_lack=True)).warnings

    async def make(self) -> None:
        """The namespace, with its expiry."""
        planner, bench = self._bench.planner, self._bench
        lifetime = ns.Lifetime(bench.ttl, bench.profile.lifetime, await self._cluster.server_time())
        known = (self.identity, bench.profile, lifetime, None, planner.tools)
        found = await ns.existing(self._cluster, self.identity)
        if found is None:
            found = await ns.create(self._cluster, *known)
            await planner.take_ownership(self.identity)
        else:
            found = await ns.begin(self._cluster, found, *known)
        self._uid = str(found["metadata"]["uid"])

    async def _guardrails(self) -> None:
        planner, profile = self._bench.planner, self._bench.profile
        await apply_guardrails(self._cluster, profile, self.namespace)
        await planner.until_admitted(self.identity)
        for policy in isolation.deny_egress(profile, self.namespace):
            await objects.apply(self._cluster, policy, namespace=self.namespace)
        await planner.copy_pull_secret(self.namespace)
        await self._save()

    async def _save(self, **update: object) -> None:
        assert self._state is not None
        self._state = self._state.model_copy(update=update)
        await state.save(self._cluster, self.namespace, self._state)

    # -- a state in it

    async def distance(self, made: Changes) -> int:
        """How many services would have to be deployed to have a state in it; -1: it has it, and was tested with it."""
        return -1 if made == self._holds else len((await self._plan(made)).changed)

    async def test(self, made: Changes, step: Step) -> Outcome:
        """Put a state into the sandbox, and test it.

        Raises:
            OperationFailed, Refused, Unreachable: it cannot be put there; this says nothing of the state.
            Busy: another deployment of the sandbox is under way.
        """
        async with deployment_lease(self._cluster, self.namespace):
            if not self._guarded:
                await self._guardrails()
                self._guarded = True
            self._holds, self._phase = None, Phase.FAILED
            try:
                record = await self._put(made, step)
            except NotReady as error:
                self._refuse_lack_of_room(error.findings)
                self._holds = made
                return of_findings([self._cleaned(finding) for finding in error.findings])
            self._phase = Phase.READY
            outcome = await self._judge(record, step)
            self._holds = made
            return outcome

    def _refuse_lack_of_room(self, findings: Sequence[Finding]) -> None:
        """Whether a state works is not told by a quota that is too small for it."""
        short = next((finding for finding in findings if _QUOTA in finding.message), None)
        if short is not None:
            raise Refused(
                f"the quota profile {self._bench.profile.name} leaves no room to test in {self.name}",
                why=short.lines()[0],
                hint="choose a larger one with --quota (old and new pods are there together for a while)",
            )

    async def _put(self, made: Changes, step: Step) -> Record:
        """Deploy what differs from what is there; all anew where that would not lead to the same."""
        plan = await self._plan(made)
        self.in_place = False
        if await self._must_begin_anew(plan):
            return await self._anew(plan, step)
        self.in_place = True
        if not (plan.changed or plan.removed):
            return self._records[-1]
        try:
            return await self._deploy(plan, plan.changed, step)
        except Invalid as error:
            # What cannot be changed in place (a selector, a bare pod) can be made anew.
            step.detail(f"anew: {error}")
            self.in_place = False
            return await self._anew(await self._plan(made), step)

    async def _anew(self, plan: Plan, step: Step) -> Record:
        if self._records:
            step.detail("begin anew")
            await self._empty()
        return await self._deploy(plan, plan.services, step, fill=True)

    async def _must_begin_anew(self, plan: Plan) -> bool:
        """Whether something is left of what was tested before that a deployment in its place would not take away."""
        if not self._records or self._records[-1].outcome != "deployed":
            return True
        stores = self._stores(plan)
        if not stores:
            return False
        assert self._state is not None
        if self._state.stage not in ("services", "done"):
            return True
        before = [m for service in self._records[-1].services.values() for m in service.manifests]
        applied = {str(ObjectRef.of(m)): m for m in before}
        wanted = [m for service in plan.services.values() for m in service.manifests]
        for store in stores:
            # Another version of a database would begin with the other one's files.
            there = applied.get(str(ObjectRef.of(store.workload)))
            if there is None or canonical_json(there) != canonical_json(store.workload):
                return True
            roles = store.fixture.facts.get("roles") or ()
            if role_passwords(roles, before) != role_passwords(roles, wanted):
                return True
        return await self._data_differ(stores)

    async def _data_differ(self, stores: Sequence[DataStore]) -> bool:
        declared = self._bench.declared
        with suppress(OperationFailed, InvalidInput):
            found = await asyncio.gather(
                *(data.differences(self._cluster, self.namespace, store, declared=declared) for store in stores)
            )
            return any(found)
        return True

    async def _empty(self) -> None:
        """Take away everything that runs or keeps data; configuration stays."""
        for version, kind in (*_WORKLOADS, _CLAIM):
            for item in await list_all(self._cluster, version, kind, self.namespace):
                await objects.delete(self._cluster, ObjectRef.of({**item, "apiVersion": version, "kind": kind}))
        await self._until_empty()
        await self._save(stage="begun")

    async def _until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _GONE_S
        while await self._holds_something():
            if loop.time() >= end:
                raise OperationFailed(
                    f"pods or volumes of {self.name} do not go within {_GONE_S:g} s",
                    hint=f"`sandbox down {self.name}`, then the same command again",
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _holds_something(self) -> bool:
        for version, kind in (("v1", "Pod"), _CLAIM):
            if await list_all(self._cluster, version, kind, self.namespace):
                return True
        return False

    async def _plan(self, made: Changes) -> Plan:
        bench, document = self._bench, self._bench.bad.captured.document
        return Plan.of_services(
            self.planned.comparison.mixed(made),
            identity=self.identity,
            project=bench.project,
            env=document.environment or document.namespace,
            profile=bench.profile,
            ttl=bench.ttl,
            before=self._records,
            tools=bench.planner.tools,
            at=self._cluster.known_time(),
        )

    async def _deploy(self, plan: Plan, services: Collection[str], step: Step, *, fill: bool = False) -> Record:
        """Deploy some services of a plan.

        Raises:
            NotReady: one of them does not become so.
        """
        timeout = self._bench.request.timeout.total_seconds()
        place = Place(self._cluster, self.namespace, self._bench.planner.helm, timeout)
        record = await steps.begin_record(self._cluster, plan, self._uid)
        self._records = (record,)
        await self._bench.planner.until_admitted(self.identity, with_record=True)
        quiet = _Quiet(step)
        try:
            if fill:
                await self._fill(place, plan, step)
            chosen = {name: plan.services[name] for name in services}
            deployed = await deploy_services(place, chosen, plan.applied, quiet)
            await steps.remove_surplus(place, plan, quiet)
        except NotReady as error:
            self._records = (await steps.note_failure(self._cluster, self.namespace, record, error),)
            raise
        record = await steps.end_record(place, plan, record, deployed)
        self._records = (record,)
        return record

    # -- contents

    def _stores(self, plan: Plan) -> list[DataStore]:
        """The databases of a plan that are filled, with their workloads as they are in it."""
        workloads = {
            m["metadata"]["name"]: (service.name, m)
            for service in plan.services.values()
            for m in service.manifests
            if pod_spec(m) is not None
        }
        return [
            replace(store, service=workloads[name][0], workload=workloads[name][1])
            for store in self.planned.stores
            if (name := store.workload["metadata"]["name"]) in workloads
        ]

    async def _fill(self, place: Place, plan: Plan, step: Step) -> None:
        """Databases and caches first, and their contents before anything else starts."""
        stores = self._stores(plan)
        if not stores:
            return
        manifests = [m for service in plan.services.values() for m in service.manifests]
        await apply_manifests(place, [m for m in manifests if pod_spec(m) is None and m["kind"] not in _LAST])
        await apply_manifests(place, [store.workload for store in stores])
        try:
            async with asyncio.TaskGroup() as group:
                for store in stores:
                    group.create_task(self._fill_one(store, manifests, step))
        except ExceptionGroup as several:
            raise _first(several) from None
        await self._save(stage="services")

    async def _fill_one(self, store: DataStore, manifests: Sequence[Manifest], step: Step) -> None:
        timeout = self._bench.request.timeout.total_seconds()
        folder = await self._bench.unpack(store)
        await wait_ready(
            self._cluster,
            self.namespace,
            {store.service: [store.workload]},
            timeout=timeout,
            on_change=lambda _service, message: step.detail(message),
            needs={store.service: ()},
        )
        step.detail(f"fill {store.fixture.name}")
        try:
            await data.fill(
                self._cluster,
                self.namespace,
                store,
                folder,
                role_passwords(store.fixture.facts.get("roles") or (), manifests),
                replace=True,
                timeout=timeout,
                declared=self._bench.declared,
            )
        except Refused as error:
            # Such as an older server than the contents are of.
            error.hint = "; ".join(filter(None, (error.hint, "--no-data tests with empty databases")))
            raise

    # -- the test

    async def _judge(self, record: Record, step: Step) -> Outcome:
        """What becomes of services that are ready."""
        bench = self._bench
        if bench.request.command:
            return await self._run_command(record, step)
        if bench.bad.smoke is not None:
            return await self._smoke(*bench.bad.smoke, record, step)
        target = wanted(bench.bad.captured.document, bench.bad.captured.pods)
        if target.signature is None or target.patience < _PATIENCE_S:
            return of_command(None)
        return await self._watch(target, record, step)

    async def _smoke(self, name: str, smoke: HttpSmokeRecord, record: Record, step: Step) -> Outcome:
        """Ask what the smoke test asked that had failed."""
        step.detail(f"smoke test of {name}")
        services = record.services
        manifests = [m for owner in (name, SHARED) if owner in services for m in services[owner].manifests]
        try:
            await run_http_smoke(self._cluster, self.namespace, name, smoke, manifests, _SMOKE_S)
        except NotReady as error:
            return of_smoke(self._cleaned(error.findings[0]))
        except OperationFailed as error:
            return Outcome(kind="skipped", line=str(error))
        return of_command(None)

    async def _watch(self, target: Wanted, record: Record, step: Step) -> Outcome:
        """Look for a failure that takes its time."""
        watch = Watch(self._cluster, self.namespace, record, self._clean)
        found = await judged(watch, target, bound=2 * target.patience + _WATCHED_S, on_look=step.detail)
        if not found.found:
            return of_command(None)
        signature = target.signature if found.is_same else None
        return Outcome(kind="not ready", line=found.found, evidence=found.evidence, signature=signature)

    async def _run_command(self, record: Record, step: Step) -> Outcome:
        command = self._bench.request.command
        step.detail("run the command")
        try:
            await run_test(
                self._cluster,
                self.namespace,
                self.name,
                record.services,
                command,
                timeout=self._bench.request.command_timeout,
                on_line=step.detail,
            )
        except NotReady as error:
            return of_command(error.findings[0])
        return of_command(None)

    def _cleaned(self, finding: Finding) -> Finding:
        """A finding in the words of the captured place, so that it is the same in every sandbox."""
        message, tail = self._clean(finding.message), tuple(map(self._clean, finding.log_tail))
        return replace(finding, message=message, log_tail=tail)

    def _clean(self, text: str) -> str:
        used = list(self.planned.values.used.items())
        return cleaner(used, (self._bench.bad.captured.document.namespace, self.namespace))(text)

    # -- its end

    async def leave(self, made: Changes, verdict: str, step: Step) -> Sandbox:
        """Have a state in the sandbox, for people to look at; as its test left it, where it was the last."""
        async with deployment_lease(self._cluster, self.namespace):
            if not self._guarded:
                await self._guardrails()
                self._guarded = True
            if made != self._holds:
                await self._put_to_look(made, step)
            await self._save(stage="done", outcome={"verdict": {"verdict": verdict}})
        return Sandbox.of(await self.rest(), self._cluster.context)

    async def _put_to_look(self, made: Changes, step: Step) -> None:
        self._phase = Phase.READY
        try:
            await self._put(made, step)
        except NotReady:
            self._phase = Phase.FAILED

    async def rest(self) -> Manifest:
        """Note on its namespace how it is now."""
        return await ns.finish(self._cluster, self.namespace, self._phase)

    async def is_there(self) -> bool:
        """Whether there is a namespace of it."""
        return await ns.find(self._cluster, self.namespace) is not None


class _Quiet:
    """Says of the steps of a deployment where they stand, in the line of the test that it is for."""

    def __init__(self, around: Step) -> None:
        self._around = around

    def step(self, title: str) -> AbstractContextManager[Step]:
        return self._step(title)

    @contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        self._around.detail(title)
        yield _Inner(self._around, title)

    def info(self, text: str) -> None:
        self._around.detail(text)

    def warn(self, text: str) -> None:
        self._around.detail(text)

    def command(self, argv: Sequence[str]) -> None:
        pass


class _Inner:
    """One of these steps."""

    def __init__(self, around: Step, title: str) -> None:
        self._around = around
        self._title = title

    def detail(self, text: str) -> None:
        self._around.detail(f"{self._title}: {text}")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
