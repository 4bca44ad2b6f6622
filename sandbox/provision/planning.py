"""From a request to a plan: sources, choices, images, manifests. Writes nothing but missing images."""

from __future__ import annotations

import asyncio
import difflib
import importlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import yaml

import sandbox
from sandbox.cluster import discovery, objects, tools
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden, NotFound
from sandbox.cluster.helm import Helm
from sandbox.cluster.platform import read_platform
from sandbox.images.build import ImageRequest, resolve_images
from sandbox.images.registry import digest_of
from sandbox.model.deadline import parse_ttl
from sandbox.model.durations import format_duration, parse_duration
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest, ObjectRef, digest
from sandbox.model.record import ImageLock, Lock, Record, ServiceLock, ServiceRecord
from sandbox.model.sandbox import Sandbox
from sandbox.project.config import Project, Service
from sandbox.project.platform import Platform, parse_platform
from sandbox.project.quotas import QuotaProfile, choose_profile
from sandbox.project.settings import Settings, load_settings
from sandbox.project.variables import variables
from sandbox.project.yamlfile import near, near_any
from sandbox.provision import mocks, preflight, records
from sandbox.provision import namespace as ns
from sandbox.provision.base import Base, base_services, shared_services
from sandbox.provision.identity import Identity
from sandbox.provision.inspect import find_sandbox
from sandbox.provision.locks import LockPlaces, fetch_lock, find_lock, is_name, namespaces_of, read_lock
from sandbox.provision.ownership import take_ownership, wait_until_admitted
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.profiles import known_profiles
from sandbox.provision.reporter import Reporter
from sandbox.provision.request import UpRequest
from sandbox.provision.selection import Selection, select
from sandbox.provision.sources import Declared, Source, Sources, resolve_locked, resolve_others, resolve_own
from sandbox.provision.target import Target
from sandbox.render.render import Rendered, RenderRequest, render
from sandbox.render.setvalues import given_to, refuse_set_for_others
from sandbox.render.transform import label, place

_LOCAL_REGISTRY = ObjectRef("", "v1", "ConfigMap", "local-registry-hosting", "kube-public")
# Each takes a process; more at once than this only makes each slower.
_RENDERED_AT_ONCE = 4


@dataclass(frozen=True)
class Settled:
    """All choices made: the user's, else the project's, else the product's defaults."""

    env: str
    profile: QuotaProfile
    ttl: timedelta
    base: str | None
    selection: Selection
    lock: Lock | None

    def line(self) -> str:
        return f"env {self.env}, quota {self.profile.name}, ttl {format_duration(self.ttl)}, base {self.base or 'none'}"


class Planner:
    """Makes the parts of a plan; holds what they all need."""

    def __init__(self, cluster: Cluster, target: Target, workspace: Path, reporter: Reporter) -> None:
        self.cluster = cluster
        self.target = target
        self.workspace = workspace
        self.reporter = reporter
        self.settings: Settings = load_settings()
        self.platform = Platform()
        self.helm = Helm(cluster.kubeconfig_path, cluster.context, cluster=cluster)
        self.tools: dict[str, str] = {}
        self.lock: Lock | None = None
        self.pull_secret: Manifest | None = None
        self._notes: list[str] = []

    async def read_platform(self, request: UpRequest) -> None:
        """What the cluster's platform team decided; nothing where the chart is not installed.

        Raises:
            InvalidInput: a quota profile was asked for that is none of the platform's, and only those count.
        """
        self.platform = parse_platform(await read_platform(self.cluster))
        self.target = self._settled_target()
        if request.quota and self.platform.governs_profiles:
            choose_profile(request.quota, self.platform.profiles)

    def _settled_target(self) -> Target:
        """The target with the platform's namespace prefix, where it has one: nothing else would be let in."""
        prefix, own = self.platform.namespace_prefix, self.target.namespace_prefix
        if prefix and own not in ("", prefix):
            self._notes.append(
                f"namespaces of sandboxes begin with {prefix} on this cluster; your {own} does not count"
            )
        return replace(self.target, namespace_prefix=prefix or own)

    async def declared(self, request: UpRequest) -> Declared:
        """The project at the commit that was asked for, and the tools' versions held against it."""
        # git takes its time; what the cluster and the tools say, and the module that runs Helm, are there when it is
        # done.
        ahead = asyncio.ensure_future(self._look_ahead())
        try:
            declared = await self._resolve(request)
            await ahead
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        preflight.check_requirements(declared.project.requires, self.tools)
        self._say_dirt(declared.own, request)
        self._notes += declared.loaded.notes
        return declared

    async def sources(self, declared: Declared, wanted: Collection[str]) -> Sources:
        """The same with the files of other repositories; a lock has named them all.

        Args:
            wanted: services; the files of others are not asked for.
        """
        if isinstance(declared, Sources):
            return declared
        return await resolve_others(
            declared, wanted, settings=self.settings, workspace=self.workspace, say=self._notes.append
        )

    async def _look_ahead(self) -> None:
        """Ask for the tools' versions, and for what is remembered when it is asked for again."""
        found, kubernetes, *_ = await asyncio.gather(
            asyncio.to_thread(tools.tool_versions),
            self.cluster.version(),
            discovery.all_resources(self.cluster),
            discovery.api_versions(self.cluster),
            asyncio.to_thread(importlib.import_module, "sandbox.cluster.helm_command"),
        )
        self.tools = {"sandbox": sandbox.__version__, **found, "kubernetes": kubernetes}

    async def _resolve(self, request: UpRequest) -> Declared:
        if request.lock:
            self.lock = await fetch_lock(self.cluster, await self._place_of(request.lock, request.owner))
            _check_names(request.only, self.lock)
            _check_given(request, self.lock)
            return await resolve_locked(
                self.lock, settings=self.settings, workspace=self.workspace, say=self._notes.append
            )
        return await resolve_own(
            request.folder,
            request.repo,
            request.ref,
            dirty=request.dirty,
            settings=self.settings,
            workspace=self.workspace,
            say=self._notes.append,
        )

    async def _place_of(self, lock: Path | str, owner: str | None) -> Path | str:
        """Where a lock is; by a name, the newest that is kept of the user's or the asked-for owner's."""
        if isinstance(lock, Path) or not is_name(lock):
            return lock
        namespaces = namespaces_of(lock, self.target.namespace_prefix)
        users = {(await self.cluster.whoami()).username, owner or self.settings.owner or ""}
        places = LockPlaces(self.cluster, self.platform, self.settings.capture_store)
        found = await find_lock(places, namespaces, users)
        self._notes.append(f"the lock that is kept of {lock}, of {found.owner}, is {found.url}")
        return found.url

    def _say_dirt(self, own: Source, request: UpRequest) -> None:
        changed = own.commit.changed_files
        if not changed:
            return
        if own.commit.dirty:
            self.reporter.warn(f"the working tree is deployed as it is, with {len(changed)} uncommitted changes")
        elif request.ref is None:
            self.reporter.warn(
                f"{len(changed)} uncommitted changes are not deployed ({', '.join(changed[:3])}"
                f"{', …' if len(changed) > 3 else ''}): --dirty deploys them"
            )

    def settle(self, request: UpRequest, declared: Declared) -> Settled:
        """Fill in what the user left open.

        Raises:
            InvalidInput: an unknown environment, profile or service, or a TTL over the profile's.
        """
        project, defaults = declared.project, declared.project.defaults
        lock = self.lock
        env = request.env or (lock.env if lock else defaults.env)
        if request.env:
            _check_environment(project, request.env)
        profile = choose_profile(request.quota or defaults.quota, self._profiles(declared))
        ttl = parse_ttl(request.ttl or defaults.ttl)
        check_ttl(ttl, profile)
        base = None if lock else request.base or defaults.base
        wanted = request.only or (tuple(lock.services) if lock else ())
        selection = select(project, wanted, has_base=base is not None)
        self.check_set_values(request, project, selection)
        return Settled(env, profile, ttl, base, selection, lock)

    def check_set_values(self, request: UpRequest, project: Project, selection: Selection) -> None:
        """Refuse values that reach no chart, and say which look misspelt."""
        charts = [name for name in selection.deployed if project.services[name].chart is not None]
        refuse_set_for_others(request.set_values, tuple(project.services), charts)
        self._say_misspelt(request.set_values, tuple(project.services))

    def _say_misspelt(self, arguments: Sequence[str], services: Sequence[str]) -> None:
        """A service's name with a typing error in it is a key for all charts; that is hardly ever meant."""
        for argument in arguments:
            first, dot, _ = argument.partition("=")[0].partition(".")
            near = difflib.get_close_matches(first, services, n=1, cutoff=0.75) if dot and first not in services else []
            if near:
                self.reporter.warn(f"--set {first}.… is set for all charts: did you mean the service {near[0]}?")

    def _profiles(self, declared: Declared) -> dict[str, QuotaProfile]:
        return known_profiles(self.settings, declared.own.tree, self.platform, say=self._notes.append)

    async def records_of(self, identity: Identity, profile: QuotaProfile | None, ttl: timedelta) -> list[Record]:
        """The sandbox's records; none where it is not there yet.

        Args:
            profile: that it is going to have; None: nothing is deployed.
            ttl: how long it is going to live.

        Raises:
            Refused: it is not there, and we may not make it; or it has another quota profile for good.
        """
        namespace = await ns.find(self.cluster, identity.namespace)
        if namespace is None:
            await ns.check_may_create(self.cluster, identity, profile, ttl)
            return []
        ns.check_is_meant(self.cluster, identity, namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            # Another one of that name will be made when it is gone.
            return []
        if profile is not None:
            self._check_profile_stays(namespace, profile)
        try:
            return await records.load_records(self.cluster, identity.namespace)
        except Forbidden:
            # An `up` that was killed between the namespace and the rights in it.
            if self.platform.owner_role is None:
                raise
            await self.take_ownership(identity)
            return await records.load_records(self.cluster, identity.namespace)

    def _check_profile_stays(self, namespace: Manifest, profile: QuotaProfile) -> None:
        """Say now what the platform's policies would refuse when everything is built."""
        found = Sandbox.of(namespace, self.cluster.context)
        if self.platform.governs_profiles and found.quota_profile not in ("", profile.name):
            raise Refused(
                f"the sandbox {found.name} has the quota profile {found.quota_profile}, and keeps it on this cluster",
                why="a profile is more than its quota: how long the sandbox may live was counted by it",
                hint=f"go on with --quota {found.quota_profile}; for {profile.name}, `sandbox down {found.name}` first",
            )

    async def take_ownership(self, identity: Identity) -> None:
        """The rights of the sandbox's owner in it, where the platform gives them."""
        await take_ownership(self.cluster, identity, self.platform.owner_role)

    async def until_admitted(self, identity: Identity, *, with_record: bool = False) -> None:
        """Until the platform's policies, where there are any, have seen the guardrails (and the record)."""
        if self.platform.governs_profiles:
            await wait_until_admitted(self.cluster, identity.namespace, with_record=with_record)

    async def images(
        self, request: UpRequest, settled: Settled, sources: Sources, say: Callable[[str], None]
    ) -> dict[tuple[str, str], ResolvedImage]:
        """The digest of each image that the project's services bring, built where it does not exist yet."""
        wanted = [name for name in settled.selection.deployed if name in sources.project.services]
        locked = await _present(_images_of(settled.lock, wanted)) if settled.lock else {}
        requests = [
            ImageRequest(
                service=name,
                image=image,
                tree=sources.by_service[name].tree,
                commit=sources.by_service[name].commit,
                build_args={**self.settings.build_args, **request.build_args},
            )
            for name in wanted
            for image in sources.project.services[name].images
            if (name, image.name) not in locked
        ]
        if requests and not request.rebuild:
            gone = ", ".join(f"{order.service}: {order.image.name}" for order in requests)
            raise Refused(
                "images of the lock are gone from their registries",
                why=gone,
                hint="nothing is built on the way to the next environment: deploy the commit where it came from again",
            )
        config = sources.project.images
        # A user's setting is not for projects without images of their own; a project's is for whatever it deploys.
        if requests or locked or settled.base or config.pull_secret:
            self.pull_secret = await self._find_pull_secret(
                self.platform.images.pull_secret or config.pull_secret or self.settings.pull_secret
            )
        if not requests:
            return locked
        built = await resolve_images(
            requests,
            registry=request.registry
            or self.platform.registry
            or config.registry
            or self.settings.registry
            or await local_registry(self.cluster),
            builder=request.builder
            or (config.builder if config.builder != "auto" else self.settings.builder or "auto"),
            wait=parse_duration(config.wait),
            progress=say,
            dry_run=request.dry_run,
        )
        self._note_rebuilt(settled, built)
        return {**locked, **built}

    def _note_rebuilt(self, settled: Settled, built: Mapping[tuple[str, str], ResolvedImage]) -> None:
        """Say where an image of the lock was gone and what is deployed instead."""
        for (service, name), image in built.items():
            before = {i.name: i for i in settled.lock.services[service].images} if settled.lock else {}
            if name in before and before[name].digest != image.digest:
                self._notes.append(
                    f"{service}: {before[name].repository}@{before[name].digest} is gone from its registry; "
                    f"built again from its commit it is {image.digest}"
                )

    async def render(
        self,
        request: UpRequest,
        settled: Settled,
        sources: Sources,
        identity: Identity,
        images: Mapping[tuple[str, str], ResolvedImage],
    ) -> dict[str, ServicePlan]:
        """Manifests of the project's own services, placed in the sandbox, and of the stand-ins of others."""
        names = [name for name in settled.selection.deployed if name in sources.project.services]
        plans = await self._render_services(names, request, settled, sources, identity, images)
        for name in settled.selection.mocked:
            service, source = sources.project.services[name], sources.by_service[name]
            plans[name] = mocks.plan(name, service, source, identity.namespace)
        return plans

    async def _render_services(
        self,
        names: Sequence[str],
        request: UpRequest,
        settled: Settled,
        sources: Sources,
        identity: Identity,
        images: Mapping[tuple[str, str], ResolvedImage],
    ) -> dict[str, ServicePlan]:
        namespaced = await self._namespaced()
        versions = await self.cluster.version(), await discovery.api_versions(self.cluster)
        at_once = asyncio.Semaphore(_RENDERED_AT_ONCE)

        async def one(name: str) -> ServicePlan:
            spec = sources.project.service_in(name, settled.env)
            mine = tuple(image for (service, _), image in images.items() if service == name)
            source = sources.by_service[name]
            order = RenderRequest(
                env=settled.env,
                namespace=identity.namespace,
                variables=variables(
                    name=identity.name,
                    namespace=identity.namespace,
                    host_domain=self.settings.host_domain,
                    env=settled.env,
                    commit=source.commit.sha,
                    owner=identity.owner,
                ),
                images=mine,
                extra_values=request.values_files,
                set_values=request.set_values,
                overrides=request.overrides.get(name, {}),
                services=tuple(sources.project.services),
                kube_version=versions[0],
                api_versions=versions[1],
            )
            async with at_once:
                rendered = await render(name, spec, source.tree, order, self.helm)
            declared = sources.declared_by[name]
            return self._service_plan(name, spec, source, declared, rendered, mine, identity, namespaced)

        return {plan.name: plan for plan in await asyncio.gather(*(one(name) for name in names))}

    def _service_plan(
        self,
        name: str,
        spec: Service,
        source: Source,
        declared: Source,
        rendered: Rendered,
        images: tuple[ResolvedImage, ...],
        identity: Identity,
        is_namespaced: Callable[[str, str], bool],
    ) -> ServicePlan:
        movable = spec.chart is None
        manifests, moved = place(
            rendered.manifests, identity.namespace, is_namespaced=is_namespaced, movable=movable, service=name
        )
        hooks, _ = place(rendered.hooks, identity.namespace, is_namespaced=is_namespaced, movable=movable, service=name)
        if movable:
            manifests = label(manifests, name)
        self._notes += [f"{name}: {note}" for note in (*rendered.notes, *moved)]
        lock = ServiceLock(
            kind=spec.kind,
            repo=source.commit.repo,
            ref=source.commit.branch or source.commit.ref,
            commit=source.commit.sha,
            pushed=source.commit.pushed,
            dirty=source.commit.dirty,
            declared_repo=declared.commit.repo,
            declared_commit=declared.commit.sha,
            path=spec.paths[0],
            chart=rendered.chart,
            images=tuple(ImageLock(name=i.name, repository=i.repository, tag=i.tag, digest=i.digest) for i in images),
            values_files=tuple(rendered.values_files),
            given=rendered.given,
            input_digest=rendered.input_digest,
            manifest_digest=digest([*manifests, *hooks]),
        )
        return ServicePlan(
            name=name,
            lock=lock,
            manifests=manifests,
            spec=spec,
            hooks=hooks,
            chart_path=rendered.chart_path,
            values=rendered.values,
            overrides=rendered.overrides,
            images=images,
            needs=tuple(need.service for need in spec.needs if need.as_ != "skip"),
            ports=spec.ports,
        )

    async def _namespaced(self) -> Callable[[str, str], bool]:
        known = {(r.api_version, r.kind): r for r in await discovery.all_resources(self.cluster)}

        def is_namespaced(api_version: str, kind: str) -> bool:
            resource = known.get((api_version, kind))
            # A kind that the cluster does not know is named by the preflight.
            return resource is None or resource.namespaced

        return is_namespaced

    async def from_base(
        self,
        request: UpRequest,
        settled: Settled,
        sources: Sources,
        identity: Identity,
    ) -> dict[str, ServicePlan]:
        """The services that come from the base, and ways to those that are shared with it.

        Raises:
            InvalidInput: there is no such base, or it lacks a service that is taken from it.
        """
        if settled.base is None:
            return {}
        selection = settled.selection
        without = {*selection.deployed, *selection.mocked, *selection.shared, *selection.skipped}
        with self.reporter.step(f"Base {settled.base}"):
            if Path(settled.base).is_file():
                return await self._from_lock(request, settled, Path(settled.base), without, identity)
            async with self._base(settled.base, sources.project) as base:
                found = await base_services(base, selection.from_base, without, self.workspace)
                namespaced = await self._namespaced()
                plans = {name: self._adopt(plan, identity, namespaced) for name, plan in found.items()}
                for name in selection.shared:
                    plans[name] = await self._share(base, name, identity)
                return plans

    async def _from_lock(
        self, request: UpRequest, settled: Settled, path: Path, without: set[str], identity: Identity
    ) -> dict[str, ServicePlan]:
        if settled.selection.shared:
            raise InvalidInput(
                f"{', '.join(settled.selection.shared)} is needed as `shared`, and a lock runs nowhere",
                hint="name a running environment with --base",
            )
        lock = await asyncio.to_thread(read_lock, path)
        wanted = set(lock.services if settled.selection.from_base is None else settled.selection.from_base) - without
        if missing := wanted - set(lock.services):
            raise InvalidInput(
                f"the lock {path} has no service {', '.join(sorted(missing))}{near_any(missing, lock.services)}"
            )
        part = lock.model_copy(update={"services": {n: s for n, s in lock.services.items() if n in wanted}})
        if not part.services:
            return {}
        _check_given(request, part)
        sources = await resolve_locked(part, settings=self.settings, workspace=self.workspace, say=self._notes.append)
        images = _images_of(part, wanted)
        return await self._render_services(sorted(wanted), request, settled, sources, identity, images)

    def _adopt(self, plan: ServicePlan, identity: Identity, is_namespaced: Callable[[str, str], bool]) -> ServicePlan:
        manifests, _ = place(
            plan.manifests, identity.namespace, is_namespaced=is_namespaced, movable=True, service=plan.name
        )
        hooks, _ = place(plan.hooks, identity.namespace, is_namespaced=is_namespaced, movable=True, service=plan.name)
        if plan.chart_path is None:
            manifests = label(manifests, plan.name)
        return replace(plan, manifests=manifests, hooks=hooks)

    async def plan(
        self,
        request: UpRequest,
        settled: Settled,
        sources: Sources,
        identity: Identity,
        services: Mapping[str, ServicePlan],
        before: Sequence[Record],
    ) -> Plan:
        """Put the parts together."""
        applied = before[-1].services if before else {}
        kept = {n: s for n, s in applied.items() if request.only and n not in services and _stays(n, sources, s)}
        lock = Lock(
            project=sources.project.project,
            env=settled.env,
            services={name: plan.lock for name, plan in services.items()},
            tools=self.tools,
            created_at=await self.cluster.server_time(),
            created_by=identity.created_by,
        )
        return Plan(
            identity=identity,
            commit=sources.own.commit,
            env=settled.env,
            profile=settled.profile,
            ttl=settled.ttl,
            lock=lock.sealed(),
            services=services,
            kept=kept,
            before=before,
            cluster_scoped=sources.project.allow_cluster_scoped if request.allow_cluster_scoped else (),
            pull_secrets=(self.pull_secret["metadata"]["name"],) if self.pull_secret else (),
            notes=tuple(self._notes),
        )

    @asynccontextmanager
    async def _base(self, name: str, project: Project) -> AsyncIterator[Base]:
        """Where ``--base`` points: an environment of the project, else a sandbox of this cluster."""
        environment = project.environments.get(name)
        if environment is None:
            found = await self._base_sandbox(name, project)
            yield Base(self.cluster, self.helm, found.namespace, f"sandbox {found.name}")
            return
        if environment.namespace is None:
            raise InvalidInput(
                f"the environment {name} has no namespace, so it cannot be a base",
                hint=f"add `namespace:` under environments.{name} in sandbox.yaml",
            )
        if environment.context in (None, self.cluster.context):
            yield Base(self.cluster, self.helm, environment.namespace, f"environment {name}")
            return
        async with Cluster.connect(environment.context, self.target.kubeconfig) as cluster:
            helm = Helm(cluster.kubeconfig_path, cluster.context, cluster=cluster)
            yield Base(cluster, helm, environment.namespace, f"environment {name}")

    async def _base_sandbox(self, name: str, project: Project) -> Sandbox:
        try:
            return await find_sandbox(self.cluster, name)
        except NotFound as error:
            raise InvalidInput(
                f"the base {name!r} is neither an environment of the project nor a sandbox"
                f"{near(name, project.environments)}",
                why=error.what,
                hint=error.hint,
            ) from None

    async def _share(self, base: Base, name: str, identity: Identity) -> ServicePlan:
        if base.cluster.server != self.cluster.server:
            raise InvalidInput(
                f"{name} cannot be shared with {base.title}: it runs in another cluster",
                hint="need it as `sandbox` or `mock`",
            )
        manifests = await shared_services(base, name, identity.namespace)
        lock = ServiceLock(
            kind="manifests",
            repo="",
            ref=base.title,
            commit="",
            input_digest=digest(manifests),
            manifest_digest=digest(manifests),
        )
        return ServicePlan(name=name, lock=lock, manifests=manifests)

    async def _find_pull_secret(self, name: str | None) -> Manifest | None:
        """The configured pull secret, in the context's own namespace.

        Raises:
            InvalidInput: there is none of that name there.
        """
        if name is None:
            return None
        source = ObjectRef("", "v1", "Secret", name, self.cluster.default_namespace)
        found = await objects.get(self.cluster, source)
        if found is None:
            raise InvalidInput(
                f"there is no pull secret {name} in the namespace {source.namespace}",
                hint=f"kubectl create secret docker-registry {name} -n {source.namespace}",
            )
        copied = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": found["type"]}
        return {**copied, "data": found["data"]}

    async def copy_pull_secret(self, namespace: str) -> None:
        """Bring the configured pull secret into a sandbox, and let its pods use it."""
        if self.pull_secret is None:
            return
        await objects.apply(self.cluster, self.pull_secret, namespace=namespace)
        # Applied, not patched: in a new namespace the controller may not have made the account yet.
        account: Manifest = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default"},
            "imagePullSecrets": [{"name": self.pull_secret["metadata"]["name"]}],
        }
        await objects.apply(self.cluster, account, namespace=namespace)


def _images_of(lock: Lock, services: Collection[str]) -> dict[tuple[str, str], ResolvedImage]:
    """The images of some services of a lock."""
    return {
        (name, image.name): ResolvedImage(image.name, image.repository, image.tag, image.digest, "locked")
        for name in services
        for image in lock.services[name].images
    }


async def _present(
    images: Mapping[tuple[str, str], ResolvedImage],
) -> dict[tuple[str, str], ResolvedImage]:
    """Those of some locked images that their registries still have; the others are built again."""
    digests = await asyncio.gather(*(digest_of(f"{i.repository}@{i.digest}") for i in images.values()))
    return {key: image for (key, image), found in zip(images.items(), digests, strict=True) if found}


def _check_names(only: Collection[str], lock: Lock) -> None:
    """Refuse services that a lock does not name.

    Raises:
        InvalidInput: which.
    """
    if missing := set(only) - set(lock.services):
        raise InvalidInput(
            f"the lock has no service {', '.join(sorted(missing))}{near_any(missing, lock.services)}",
            why=f"it has {', '.join(lock.services)}",
        )


def _check_given(request: UpRequest, lock: Lock) -> None:
    """Refuse a lock that was made with values of the command line and does not hold them, unless they are given again.

    Raises:
        InvalidInput: which service lacks what.
    """
    lacking = {}
    for name, service in lock.services.items():
        if service.given and (not request.only or name in request.only):
            now = given_to(name, request.values_files, request.set_values, tuple(lock.services))
            lacking[name] = [item for item in service.given if item not in now]
    missing = [f"{name}: {', '.join(items)}" for name, items in lacking.items() if items]
    if missing:
        raise InvalidInput(
            "the lock was made with values from the command line, which it does not hold",
            why="\n".join(missing),
            hint="give them again: a lock names their keys only, since values may be secret",
        )


def check_ttl(ttl: timedelta, profile: QuotaProfile) -> None:
    """Hold a time to live against a profile.

    Raises:
        Refused: it is longer than the profile allows.
    """
    if profile.max_ttl and ttl > parse_duration(profile.max_ttl):
        raise Refused(
            f"a TTL of {format_duration(ttl)} is over what the quota profile {profile.name} allows",
            why=f"at most {profile.max_ttl}",
            hint="ask for less with --ttl, and prolong it later by running `sandbox up` again",
        )
    if ttl > profile.lifetime:
        raise Refused(
            f"a TTL of {format_duration(ttl)} is over the longest life of the quota profile {profile.name}",
            why=f"at most {format_duration(profile.lifetime)} from its creation, however often it is extended",
            hint="ask for less with --ttl",
        )


def _check_environment(project: Project, env: str) -> None:
    """Refuse an environment that was asked for and that nothing in the project can mean.

    Raises:
        InvalidInput: naming those that there are.
    """
    known = project.environment_names() | {project.defaults.env}
    if env in known or project.takes_any_environment():
        return
    raise InvalidInput(
        f"the project {project.project} has no environment {env!r}{near(env, known)}",
        hint=f"sandbox.yaml names {', '.join(sorted(known))}",
    )


def _said(builder: str | None) -> str | None:
    return None if builder == "auto" else builder


def _stays(name: str, sources: Sources, service: ServiceRecord) -> bool:
    """Whether a service that ``--only`` leaves out is still part of the sandbox: the project, or a base, has it."""
    return name in sources.project.services or service.lock.commit != sources.own.commit.sha


async def local_registry(cluster: Cluster) -> str | None:
    """The registry that a local cluster says it has (KEP-1755: ConfigMap local-registry-hosting), or None."""
    try:
        found = await objects.get(cluster, _LOCAL_REGISTRY)
    except Forbidden:
        # Not every cluster lets everybody read kube-public; one that has such a registry does.
        return None
    text = ((found or {}).get("data") or {}).get("localRegistryHosting.v1", "")
    try:
        hosting = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    host = hosting.get("host") if isinstance(hosting, dict) else None
    return host if isinstance(host, str) else None
