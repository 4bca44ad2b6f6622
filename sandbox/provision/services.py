"""Putting services into a namespace, in the order of their needs, and waiting until they are ready."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Invalid, NotFound
from sandbox.cluster.helm import Helm, is_hook
from sandbox.cluster.view import namespace_view
from sandbox.cluster.waiting import wait_ready, while_watching
from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import ServiceRecord
from sandbox.provision import equivalents, smoke
from sandbox.provision.plan import ServicePlan, in_order
from sandbox.provision.reporter import Reporter
from sandbox.render.transform import belongs_to

# As `helm install` orders kinds (InstallOrder in helm.sh/helm): what others refer to comes first.
_FIRST = (
    "PriorityClass",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
)
# Kinds of hooks that run and end; others are there to be used.
_RUNS = ("Job", "Pod")
_GONE_WITHIN_S = 30.0
DEPLOY_HOOKS = ("pre-install", "post-install", "pre-upgrade", "post-upgrade")
ROLLBACK_HOOKS = ("pre-rollback", "post-rollback")
_LAST = ("HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "APIService")


@dataclass(frozen=True)
class Place:
    """Where services are deployed, and with what."""

    cluster: Cluster
    namespace: str
    helm: Helm
    timeout: float
    wait: bool = True
    # Whether the project says who needs whom; where it does not, a crash may only mean that another is not up yet.
    needs_known: bool = True
    # The first pods start while Helm is still at work on the last charts; all at once, none would start before the end.
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore((os.cpu_count() or 1) + 1))


async def deploy_services(
    place: Place,
    services: Mapping[str, ServicePlan],
    before: Mapping[str, ServiceRecord],
    reporter: Reporter,
    *,
    on_begin: Callable[[str], None] = lambda _name: None,
) -> dict[str, ServiceRecord]:
    """Deploy services in parallel, each as soon as what it needs is ready.

    Args:
        before: what earlier deployments put there, for pruning what a service does not have any more.
        on_begin: told the name of each service before anything of it is written.

    Returns:
        What the cluster stored, by service.

    Raises:
        NotReady: one failed or was not ready in time; the others are stopped where they stand.
    """
    place = replace(place, needs_known=any(service.needs for service in services.values()))
    ready = {name: asyncio.Event() for name in services}
    deployed: dict[str, ServiceRecord] = {}

    async def one(name: str) -> None:
        service = services[name]
        for need in service.needs:
            if need in ready:
                await ready[need].wait()
        on_begin(name)
        with reporter.step(f"Deploy {name}") as step:
            reporter.command(equivalents.deploy(place.cluster.context, place.namespace, service))
            deployed[name] = await _deploy(place, service, before.get(name), step.detail)
        ready[name].set()

    # One view of the namespace for all who wait there, for as long as any of them will.
    async with namespace_view(place.cluster, place.namespace):
        await _all_or_first_error([one(name) for name in in_order({n: s.needs for n, s in services.items()})])
    return deployed


async def _all_or_first_error(work: Sequence[Awaitable[None]]) -> None:
    """Run all; at the first error stop the others and raise that error alone."""
    tasks = [asyncio.ensure_future(item) for item in work]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _deploy(
    place: Place, service: ServicePlan, before: ServiceRecord | None, detail: Callable[[str], None]
) -> ServiceRecord:
    await run_hooks(place, service, "before")
    if service.chart_path is not None:
        record = await _install_chart(place, service, service.chart_path, detail)
    else:
        record = await _apply_manifests(place, service, detail)
    if before is not None:
        await prune(place, service.name, before, record)
    if place.wait:
        await _wait(place, service, record.manifests, detail)
        await run_hooks(place, service, "after")
        await run_smoke(place, service, record.manifests)
    return record


async def _install_chart(
    place: Place, service: ServicePlan, chart: Path, detail: Callable[[str], None]
) -> ServiceRecord:
    """Install by Helm, watching what its hooks wait for: it would wait out its whole timeout on a crash loop."""
    assert service.release is not None
    detail(f"helm upgrade --install {service.release}")
    hooks = [hook for hook in service.hooks if _runs_on(hook, DEPLOY_HOOKS)]
    install = partial(
        place.helm.install_or_upgrade,
        service.release,
        chart,
        service.values,
        place.namespace,
        timeout=place.timeout,
    )
    if hooks:
        await remove_leftovers(place, hooks, DEPLOY_HOOKS)
        # Nobody waits for the hooks of others.
        revision = await while_watching(
            install(),
            place.cluster,
            place.namespace,
            service.name,
            [*hooks, *service.manifests],
            needs=_known_needs(place, service),
        )
    else:
        # Helm waits for nothing then: what goes wrong shows when it has ended.
        async with place.turns:
            revision = await install()
    release = await place.helm.release(service.release, place.namespace)
    manifests = release.manifests if release is not None else service.manifests
    return service.record(manifests, revision)


async def remove_leftovers(place: Place, hooks: Sequence[Manifest], events: Collection[str]) -> None:
    """Remove what an earlier deployment left of hooks that are going to run at some events.

    Helm does so itself, unless the chart names a policy of its own without ``before-hook-creation``, such as
    ``hook-succeeded``: then a run that failed, or was killed, would stand in the way of every later one.
    """
    for hook in hooks:
        policy = str((hook["metadata"].get("annotations") or {}).get("helm.sh/hook-delete-policy") or "")
        by_helm = not policy or "before-hook-creation" in policy
        if by_helm or hook["kind"] not in _RUNS or not _runs_on(hook, events):
            continue
        ref = replace(ObjectRef.of(hook), namespace=place.namespace)
        found = await objects.get(place.cluster, ref)
        if found is not None and is_hook(found):
            await objects.delete(place.cluster, ref)
            await smoke.gone(place.cluster, ref, timeout=_GONE_WITHIN_S)


def _known_needs(place: Place, service: ServicePlan) -> dict[str, tuple[str, ...]] | None:
    return {service.name: service.needs} if place.needs_known else None


def _runs_on(hook: Manifest, events: Collection[str]) -> bool:
    """Whether Helm makes this hook at one of these events."""
    said = (hook["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return any(event.strip() in events for event in str(said).split(","))


async def _apply_manifests(place: Place, service: ServicePlan, detail: Callable[[str], None]) -> ServiceRecord:
    await apply_manifests(place, service.manifests, detail)
    return service.record()


async def apply_manifests(
    place: Place, manifests: Sequence[Manifest], detail: Callable[[str], None] = lambda _text: None
) -> None:
    """Apply manifests, kind after kind as Helm orders them; those of one kind side by side."""
    for kind, group in groupby(install_order(manifests), key=lambda manifest: str(manifest["kind"])):
        detail(f"apply {kind}")
        await asyncio.gather(*(_apply(place, manifest) for manifest in group))


async def _apply(place: Place, manifest: Manifest) -> None:
    try:
        await objects.apply(place.cluster, manifest, namespace=place.namespace)
    except Invalid as error:
        # A finished Job cannot be changed, only run again.
        if manifest["kind"] != "Job" or "immutable" not in str(error):
            raise
        ref = ObjectRef.of(manifest)
        await objects.delete(place.cluster, ref)
        await smoke.gone(place.cluster, ref, timeout=_GONE_WITHIN_S)
        await objects.apply(place.cluster, manifest, namespace=place.namespace)


def install_order(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Manifests in the order in which they are applied; stable among equals."""

    def rank(manifest: Manifest) -> int:
        kind = manifest["kind"]
        if kind in _FIRST:
            return _FIRST.index(kind)
        return len(_FIRST) + (1 + _LAST.index(kind) if kind in _LAST else 0)

    return sorted(manifests, key=rank)


async def prune(place: Place, service: str, before: ServiceRecord, now: ServiceRecord | None) -> list[str]:
    """Delete what a service had and has not any more; Helm does so itself for its releases.

    Returns:
        The objects deleted, as kubectl writes them.
    """
    release_before, release_now = before.release, now.release if now else None
    if release_before and release_before != release_now:
        await place.helm.uninstall(release_before, place.namespace)
    if release_before:
        return [f"release/{release_before}"] if release_before != release_now else []
    wanted = {item.ref.identity for item in now.inventory} if now else set()
    deleted = []
    for item in reversed(before.inventory):
        # The record is its owner's to rewrite: it may name objects of this namespace and the cluster's only.
        if item.ref.identity in wanted or item.ref.namespace not in (place.namespace, ""):
            continue
        with suppress(NotFound):
            if await is_ours(place.cluster, item.ref, place.namespace, service) and await objects.delete(
                place.cluster, item.ref
            ):
                deleted.append(str(item.ref))
    return deleted


async def is_ours(cluster: Cluster, ref: ObjectRef, namespace: str, service: str) -> bool:
    """Whether an object is there and was applied by us as that service's (it may be another's by now).

    Outside of the namespace it must be marked as the sandbox's too.
    """
    found = await objects.get(cluster, ref)
    if found is None or (found["metadata"].get("labels") or {}).get(labels.SERVICE) != service:
        return False
    return bool(ref.namespace) or belongs_to(found, namespace)


async def _wait(
    place: Place, service: ServicePlan, manifests: Sequence[Manifest], detail: Callable[[str], None]
) -> None:
    await wait_ready(
        place.cluster,
        place.namespace,
        {service.name: manifests},
        timeout=place.timeout,
        on_change=lambda _service, message: detail(message),
        needs=_known_needs(place, service),
    )


async def run_smoke(place: Place, service: ServicePlan, manifests: Sequence[Manifest]) -> None:
    """Run the smoke test that the project declares for a service; nothing where it declares none.

    Raises:
        NotReady: it failed.
        OperationFailed: it cannot be run.
    """
    if service.spec is not None and service.spec.smoke is not None:
        await smoke.run_smoke(place.cluster, place.namespace, service.name, service.spec, manifests, service.images)


async def run_hooks(place: Place, service: ServicePlan, stage: Literal["before", "after"]) -> None:
    """Run the commands that the project declares before or after a service's deployment.

    Raises:
        NotReady: one failed.
    """
    if service.spec is None:
        return
    hooks = service.spec.hooks.before_deploy if stage == "before" else service.spec.hooks.after_deploy
    for hook in hooks:
        await smoke.run_command(place.cluster, place.namespace, service.name, stage, hook, service.images)
