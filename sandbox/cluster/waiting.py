"""Wait until services are ready, and say within seconds when they will not be.

Everything is read from a live view of the namespace (watches), judged by :mod:`sandbox.cluster.readiness` at each
change and each second, for what only time decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

from sandbox.cluster import objects, pods
from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import Resource, resource_for
from sandbox.cluster.errors import Forbidden
from sandbox.cluster.readiness import (
    STAYS_UP_S,
    Status,
    Symptom,
    condition,
    container_statuses,
    event_symptoms,
    event_times,
    failed_pod_symptom,
    is_final,
    pod_symptoms,
    probe_failure,
    retries_are_chosen,
    status,
    time_of,
    workload_symptoms,
)
from sandbox.cluster.view import NamespaceView, namespace_view
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.failure import Finding, NotReady
from sandbox.model.objects import Manifest, ObjectRef, containers, pod_spec, split_api_version

OnChange = Callable[[str, str], None]
_Result = TypeVar("_Result")

_TICK_S = 1.0
# Changes come in bursts; judging each of them would only cost time.
_BURST_S = 0.05
_LOG_LINES = 20
# A symptom may vanish for a moment (an image is tried again) and is still the same when it comes back.
_MEMORY_S = 5.0
_ABSENT_GRACE_S = 10.0
# How long the cluster may take to show why an operation failed that has said so itself.
_TELLING_S = 3.0
# A custom resource without a status has a controller that is yet to write one, or none that ever will.
_STATUS_GRACE_S = 5.0

_WORKLOADS = {
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "ReplicationController"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
}
_OTHERS_WAITED_FOR = {("v1", "PersistentVolumeClaim"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")}
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


async def wait_ready(
    cluster: Cluster,
    namespace: str,
    targets: Mapping[str, Sequence[Manifest]],
    *,
    timeout: float,
    on_change: OnChange | None = None,
    needs: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Wait until everything in the manifests is there and ready.

    Args:
        targets: the manifests of each service, as they were applied.
        timeout: seconds.
        on_change: told a service and how it stands, each time that this changes.
        needs: which services each one needs, where that is known: then a crash is not blamed on others that are
            still starting, and is said at once. Without it every pod of the namespace may be what it waits for.

    Raises:
        NotReady: some of it failed (said at once), or is not ready in time.
    """
    deadline = time.monotonic() + timeout
    async with namespace_view(cluster, namespace) as view:
        watcher = await _Watcher.start(cluster, namespace, view, targets, needs)
        try:
            told: dict[str, str] = {}
            while True:
                revision = view.revision
                await watcher.look()
                for service, message in watcher.messages().items():
                    if on_change and told.get(service) != message:
                        told[service] = message
                        on_change(service, message)
                findings = await watcher.final_findings()
                if findings:
                    raise _failed(findings)
                if watcher.all_ready():
                    return
                if time.monotonic() >= deadline:
                    raise _timed_out(await watcher.unready_findings(), timeout)
                await view.changed(revision, min(_TICK_S, max(deadline - time.monotonic(), 0.0)))
                await asyncio.sleep(_BURST_S)
        finally:
            await watcher.close()


async def watch_failures(
    cluster: Cluster,
    namespace: str,
    service: str,
    targets: Sequence[Manifest],
    *,
    needs: Mapping[str, Collection[str]] | None = None,
) -> NoReturn:
    """Watch while somebody else (helm) applies a service and runs its hooks; cancelled when that is done.

    Only what is created or changed from now on counts: not the Job of the last try, nor what crashes since then.
    So it has to look before the other begins, as :func:`while_watching` sees to.

    Args:
        targets: manifests and hooks of the service.

    Raises:
        NotReady: a workload or hook of it failed for good.
    """
    await _watch_failures(cluster, namespace, service, targets, needs, asyncio.Event())


async def _watch_failures(
    cluster: Cluster,
    namespace: str,
    service: str,
    targets: Sequence[Manifest],
    needs: Mapping[str, Collection[str]] | None,
    looked: asyncio.Event,
) -> NoReturn:
    async with namespace_view(cluster, namespace) as view:
        watcher = await _Watcher.start(cluster, namespace, view, {service: targets}, needs, only_changes=True)
        looked.set()
        try:
            while True:
                revision = view.revision
                await watcher.look()
                findings = await watcher.final_findings()
                if findings:
                    raise _failed(findings)
                await view.changed(revision, _TICK_S)
                await asyncio.sleep(_BURST_S)
        finally:
            await watcher.close()


async def while_watching(
    operation: Coroutine[Any, Any, _Result],
    cluster: Cluster,
    namespace: str,
    service: str,
    targets: Sequence[Manifest],
    *,
    needs: Mapping[str, Collection[str]] | None = None,
) -> _Result:
    """Run an operation (a Helm upgrade with hooks) and end it as soon as what it made has failed for good.

    Raises:
        NotReady: it failed: the operation was cancelled and has ended, or failed itself for that reason.
        Exception: whatever else the operation raises.
    """
    looked = asyncio.Event()
    guard = asyncio.create_task(_watch_failures(cluster, namespace, service, targets, needs, looked))
    first_look = asyncio.create_task(looked.wait())
    work: asyncio.Task[_Result] | None = None
    try:
        await asyncio.wait((guard, first_look), return_when=asyncio.FIRST_COMPLETED)
        work = asyncio.create_task(operation)
        await asyncio.wait((work, guard), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            _raise_if_not_ready(guard)
            # Not being able to watch is no reason to stop what works.
            return await work
        if isinstance(work.exception(), OperationFailed):
            # What the cluster says of a failed hook tells more than "job failed".
            await asyncio.wait((guard,), timeout=_TELLING_S)
            if guard.done():
                _raise_if_not_ready(guard)
        return work.result()
    finally:
        tasks = [task for task in (guard, first_look, work) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        operation.close()


def _raise_if_not_ready(guard: asyncio.Task[NoReturn]) -> None:
    error = guard.exception()
    if isinstance(error, NotReady):
        raise error


def _failed(findings: list[Finding]) -> NotReady:
    return NotReady(f"{_services(findings)} failed", findings, hint="mend it and run the same command again")


def _timed_out(findings: list[Finding], timeout: float) -> NotReady:
    return NotReady(
        f"{_services(findings)} not ready after {timeout:g} s",
        findings,
        hint="give it more time with --timeout if it is only slow",
    )


def _services(findings: Iterable[Finding]) -> str:
    names = sorted({finding.service for finding in findings if finding.service})
    return f"service{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else "the deployment"


@dataclass
class _Target:
    """One object that is waited for, and what was last seen of it."""

    service: str
    manifest: Manifest
    ref: ObjectRef
    live: Manifest | None = None
    standing: Status = field(default_factory=lambda: Status("progressing", "not there yet"))
    symptoms: list[Symptom] = field(default_factory=list)
    pods: list[Manifest] = field(default_factory=list)
    finished: bool = False
    # UID and generation of what was there before: no concern of somebody who waits for changes.
    before: tuple[str, int] | None = None

    @property
    def kind(self) -> tuple[str, str]:
        return (self.ref.api_version, self.ref.kind)

    @property
    def custom(self) -> bool:
        return self.kind not in _WORKLOADS | _OTHERS_WAITED_FOR


class _Watcher:
    """Judges a set of targets against the view, again and again."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        view: NamespaceView,
        targets: list[_Target],
        needs: Mapping[str, Collection[str]] | None,
        polled: frozenset[tuple[str, str]],
        began: datetime,
        only_changes: bool,
    ) -> None:
        self._cluster = cluster
        self._view = view
        self._targets = targets
        self._needs = needs
        self._polled = polled
        self._began = self._now = began
        self._began_monotonic = time.monotonic()
        self._only_changes = only_changes
        self._tails = _LogTails(cluster, namespace)
        # Since when, and until when, each symptom was seen (monotonic).
        self._seen: dict[tuple[str, ...], tuple[float, float]] = {}

    @classmethod
    async def start(
        cls,
        cluster: Cluster,
        namespace: str,
        view: NamespaceView,
        services: Mapping[str, Sequence[Manifest]],
        needs: Mapping[str, Collection[str]] | None,
        *,
        only_changes: bool = False,
    ) -> _Watcher:
        targets = [
            _Target(service, manifest, replace(ObjectRef.of(manifest), namespace=namespace))
            for service, manifests in services.items()
            for manifest in manifests
            if _is_waited_for(manifest)
        ]
        kinds = {target.kind for target in targets}
        if any(target.custom for target in targets):
            # What an operator makes of them is found by its owners.
            kinds |= _WORKLOADS - {("v1", "ReplicationController"), ("v1", "Pod")}
        if ("apps/v1", "Deployment") in kinds:
            kinds.add(("apps/v1", "ReplicaSet"))
        polled = set()
        followed = []
        for kind in kinds:
            resource = await _resource_or_none(cluster, *kind)
            if resource is None or not resource.namespaced or not {"list", "watch"} <= resource.verbs:
                polled.add(kind)
            else:
                followed.append(kind)
        if targets:
            if any(
                (pod_spec(t.manifest) or {}).get("volumes") or "volumeClaimTemplates" in t.manifest.get("spec", {})
                for t in targets
            ):
                followed.append(("v1", "PersistentVolumeClaim"))
            followed += [("v1", "Pod")]
        await asyncio.gather(*(view.follow(*kind) for kind in dict.fromkeys(followed)))
        if targets:
            # Some may not read events: the pods still tell most of it.
            with contextlib.suppress(Forbidden):
                await view.follow("v1", "Event")
        began = await cluster.server_time()
        watcher = cls(cluster, namespace, view, targets, needs, frozenset(polled), began, only_changes)
        if only_changes:
            for target in targets:
                live = await watcher._live(target)
                if live:
                    target.before = (live["metadata"]["uid"], live["metadata"].get("generation") or 0)
        return watcher

    async def close(self) -> None:
        await self._tails.close()

    # -- looking

    async def look(self) -> None:
        """Judge every target as the view has it now."""
        self._now = now = self._began + timedelta(seconds=time.monotonic() - self._began_monotonic)
        for target in self._targets:
            target.live = await self._live(target)
            target.pods = list(self._pods_of(target)) if target.live and not target.finished else []
            target.standing = await self._standing(target)
            target.symptoms = []
        for target in self._targets:
            if target.standing.state != "ready" and self._counts(target):
                target.symptoms = list(self._symptoms(target))
                for symptom in target.symptoms:
                    self._note(symptom, now)
                    self._tails.note(symptom)

    async def _live(self, target: _Target) -> Manifest | None:
        if target.kind in self._polled:
            try:
                return await objects.get(self._cluster, target.ref)
            except InvalidInput:
                # Its kind comes with the same chart and is not there yet.
                return None
        return self._view.named(*target.kind, target.ref.name)

    async def _standing(self, target: _Target) -> Status:
        live = target.live
        if target.finished:
            return Status("ready", "complete")
        if live is None:
            return self._absent(target)
        standing = status(live)
        if target.kind == ("batch/v1", "Job") and standing.state == "ready":
            # It may remove itself (ttlSecondsAfterFinished) before the others are ready.
            target.finished = True
        if target.kind == ("v1", "PersistentVolumeClaim") and standing.state == "progressing" and self._unused(live):
            return Status("ready", "bound when a pod first uses it")
        if target.custom and standing.state == "ready" and not live.get("status"):
            resource = await resource_for(self._cluster, *target.kind)
            if resource.has_status and time.monotonic() - self._began_monotonic < _STATUS_GRACE_S:
                return Status("progressing", "nothing is known of it yet")
        if standing.state == "ready" and not target.custom and self._just_started(target):
            return Status("progressing", f"{standing.message}; it has to stay up for a moment")
        return standing

    def _just_started(self, target: _Target) -> bool:
        """Whether it is ready only because nothing probes it, and began so lately that nobody knows if it stays up."""
        spec = pod_spec(target.live or {})
        if spec is None or target.kind == ("batch/v1", "Job"):
            return False
        unprobed = {c["name"] for c in containers(spec, kinds=("containers",)) if not c.get("readinessProbe")}
        if not unprobed:
            return False
        alive = [pod for pod in target.pods if not _is_over(pod)]
        if not alive and target.kind == ("apps/v1", "Deployment"):
            # Counted by its controller, and not yet seen here.
            return bool((target.live or {}).get("spec", {}).get("replicas") != 0)
        return any(self._begins(pod, unprobed) for pod in alive)

    def _begins(self, pod: Manifest, names: Collection[str]) -> bool:
        """Whether one of these containers of a pod does not run, or only since a moment."""
        if (pod.get("status") or {}).get("phase") == "Succeeded":
            return False
        for found in container_statuses(pod):
            if found["name"] in names:
                began = time_of(((found.get("state") or {}).get("running") or {}).get("startedAt"))
                if began is None or (self._now - began).total_seconds() < STAYS_UP_S:
                    return True
        return False

    def _absent(self, target: _Target) -> Status:
        if target.kind == ("batch/v1", "Job") and "ttlSecondsAfterFinished" in (target.manifest.get("spec") or {}):
            return Status("ready", "finished and removed")
        return Status("progressing", "it does not exist")

    def _unused(self, claim: Manifest) -> bool:
        """Whether a claim waits for its first pod, and there is none that uses it."""
        name = claim["metadata"]["name"]
        waits = any(
            event.get("reason") == "WaitForFirstConsumer"
            and (event.get("involvedObject") or {}).get("uid") == claim["metadata"]["uid"]
            for event in self._view.of("v1", "Event")
        )
        return waits and not any(name in _claims(pod) for pod in self._view.of("v1", "Pod"))

    def _counts(self, target: _Target) -> bool:
        """Whether what is wrong with it is of this time."""
        if target.live is None:
            # Helm makes it in its turn, or never: a hook of another occasion (pre-rollback, test).
            return not self._only_changes
        if target.before is None:
            return True
        metadata = target.live["metadata"]
        created = time_of(metadata.get("creationTimestamp"))
        if created and created > self._began:
            return True
        return (metadata["uid"], metadata.get("generation") or 0) != target.before

    # -- which pods and events belong to it

    def _pods_of(self, target: _Target) -> Iterator[Manifest]:
        """The pods that the target's newest revision made; those of former ones are on their way out."""
        live = target.live
        assert live is not None
        uid = live["metadata"]["uid"]
        if target.kind == ("v1", "Pod"):
            yield live
            return
        generation, observed = live["metadata"].get("generation"), (live.get("status") or {}).get("observedGeneration")
        if isinstance(observed, int) and observed < (generation or 0):
            return
        owners = {uid}
        if target.kind == ("apps/v1", "Deployment"):
            newest = _revision(live)
            owners = {
                rs["metadata"]["uid"] for rs in self._owned("apps/v1", "ReplicaSet", {uid}) if _revision(rs) == newest
            }
        elif target.custom:
            for _ in range(3):
                made = (o["metadata"]["uid"] for kind in _WORKLOADS for o in self._owned(*kind, owners))
                owners |= set(made)
        for pod in self._owned("v1", "Pod", owners):
            labels = pod["metadata"].get("labels") or {}
            if target.kind == ("apps/v1", "StatefulSet"):
                newest = (live.get("status") or {}).get("updateRevision")
                if newest and labels.get("controller-revision-hash") != newest:
                    continue
            if target.kind == ("apps/v1", "DaemonSet") and labels.get("pod-template-generation") not in (
                None,
                (live["metadata"].get("annotations") or {}).get("deprecated.daemonset.template.generation"),
            ):
                continue
            yield pod

    def _owned(self, api_version: str, kind: str, owners: Collection[str]) -> Iterator[Manifest]:
        for item in self._view.of(api_version, kind):
            if any(owner.get("uid") in owners for owner in item["metadata"].get("ownerReferences") or ()):
                yield item

    def _symptoms(self, target: _Target) -> Iterator[Symptom]:
        live = target.live
        if live is None:
            finding = Finding("NotFound", "it is not in the cluster; was it deleted?", str(target.ref), target.service)
            yield Symptom(finding, _ABSENT_GRACE_S)
            return
        job = target.kind == ("batch/v1", "Job")
        for pod in target.pods:
            for symptom in pod_symptoms(pod, target.service):
                if not (job and symptom.crash and retries_are_chosen(live)) and not self._excused(symptom, pod):
                    yield self._explained(symptom)
        if job:
            yield from self._job_symptoms(target, live)
        else:
            yield from workload_symptoms(live, target.service)
        yield from self._event_symptoms(target, live)

    def _job_symptoms(self, target: _Target, job: Manifest) -> Iterator[Symptom]:
        failed = [pod for pod in target.pods if (pod.get("status") or {}).get("phase") == "Failed"]
        failed.sort(key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        last = failed_pod_symptom(failed[-1], target.service, len(failed)) if failed else None
        if last and not retries_are_chosen(job):
            yield last
        crashes = [symptom for pod in target.pods for symptom in pod_symptoms(pod, target.service) if symptom.crash]
        last = last or (crashes[-1] if crashes else None)
        for symptom in workload_symptoms(job, target.service):
            if last:
                # The Job says that it failed, its last pod says why.
                pod = last.finding
                told = replace(symptom.finding, pod=pod.pod, container=pod.container, exit_code=pod.exit_code)
                symptom = replace(symptom, finding=told)
            yield symptom

    def _excused(self, symptom: Symptom, pod: Manifest) -> bool:
        """Whether an unschedulable pod is being helped: nodes are on their way, or room is being made."""
        if symptom.finding.reason != "Unschedulable":
            return False
        uid = pod["metadata"]["uid"]
        helped = any(
            event.get("reason") == "TriggeredScaleUp" and (event.get("involvedObject") or {}).get("uid") == uid
            for event in self._view.of("v1", "Event")
        )
        return helped or any(self._is_ending(other) for other in self._view.of("v1", "Pod"))

    def _is_ending(self, pod: Manifest) -> bool:
        """Whether a pod is about to give its room back; one that is stuck does not."""
        until = time_of(pod["metadata"].get("deletionTimestamp"))
        return until is not None and self._now < until + timedelta(seconds=10)

    def _explained(self, symptom: Symptom) -> Symptom:
        """Add what only events tell: which probe a container was killed for, why an image cannot be pulled."""
        finding = symptom.finding
        mine = [e for e in self._view.of("v1", "Event") if (e.get("involvedObject") or {}).get("name") == finding.pod]
        if symptom.crash and symptom.crashed_at and finding.reason != "OOMKilled":
            around = [event for event in mine if _is_around(event, symptom.crashed_at)]
            probe = probe_failure((event for event in around if _ends_containers(event)), finding.pod)
            # A process that ends by itself fails its startup probe as well: that is no reason.
            if probe and any(_is_kill_for_probe(event) for event in around):
                told = "; ".join(part for part in (probe, finding.message) if part)
                return replace(symptom, finding=replace(finding, message=told))
        if finding.reason == "ImagePullBackOff" and not re.search(r":\s", finding.message):
            pulls = [
                e for e in mine if e.get("reason") == "Failed" and "Failed to pull image" in (e.get("message") or "")
            ]
            if pulls:
                latest = max(pulls, key=lambda event: str(event_times(event)[1]))
                return replace(symptom, finding=replace(finding, message=str(latest["message"])))
        return symptom

    def _event_symptoms(self, target: _Target, live: Manifest) -> Iterator[Symptom]:
        pods_ = {pod["metadata"]["uid"]: pod for pod in target.pods}
        claims = {name for pod in target.pods for name in _claims(pod)}
        for event in self._view.of("v1", "Event"):
            about = event.get("involvedObject") or {}
            uid = about.get("uid")
            if uid in pods_:
                relevant = event.get("reason") != "FailedScheduling" and not _started(pods_[uid])
            elif uid == live["metadata"]["uid"]:
                relevant = _lacks_pods(live)
            elif about.get("kind") == "PersistentVolumeClaim" and about.get("name") in claims:
                claim = self._view.named("v1", "PersistentVolumeClaim", about["name"])
                relevant = claim is not None and claim["metadata"]["uid"] == uid and status(claim).state != "ready"
            else:
                relevant = False
            if relevant:
                for symptom in event_symptoms(event, target.service):
                    # From before this wait it may tell of something mended since.
                    yield replace(symptom, since=max(symptom.since or self._began, self._began))

    # -- judging

    def _note(self, symptom: Symptom, now: datetime) -> None:
        key, at = _key(symptom), time.monotonic()
        first, last = self._seen.get(key, (at, at))
        if at - last > _MEMORY_S:
            first = at
        if symptom.since:
            # The object says when it began, by the server's clock.
            first = min(first, at - max((now - symptom.since).total_seconds(), 0.0))
        self._seen[key] = (first, at)

    def all_ready(self) -> bool:
        return all(target.standing.state == "ready" for target in self._targets)

    def messages(self) -> dict[str, str]:
        """How each service stands, in a line."""
        said: dict[str, str] = {}
        for service in {target.service: None for target in self._targets}:
            waiting = [t for t in self._targets if t.service == service and t.standing.state != "ready"]
            if not waiting:
                said[service] = "ready"
                continue
            first = waiting[0]
            more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
            trouble = next((s.finding.reason for t in waiting for s in t.symptoms), "")
            said[service] = f"{first.ref}: {first.standing.message}{f' ({trouble})' if trouble else ''}{more}"
        return said

    async def final_findings(self) -> list[Finding]:
        """What failed for good, one finding for each cause, with log lines; empty while nothing did."""
        final = []
        for target in self._targets:
            for symptom in target.symptoms:
                lasted = time.monotonic() - self._seen[_key(symptom)][0]
                settled = self._settled_at(target, symptom) if symptom.crash else None
                if is_final(symptom, lasted=lasted, settled_at=settled):
                    final.append(symptom)
        return await self._told(final)

    async def unready_findings(self) -> list[Finding]:
        """Why what is not ready is not: its symptoms, else what it waits for and what its pods last said."""
        symptoms = []
        for target in self._targets:
            if target.standing.state == "ready":
                continue
            symptoms += target.symptoms or [self._slow(target)]
        return await self._told(symptoms)

    def _slow(self, target: _Target) -> Symptom:
        message = target.standing.message
        finding = Finding("NotReady", message, str(target.ref), target.service)
        late = next((pod for pod in target.pods if not pods.is_ready(pod)), None)
        if late is None:
            return Symptom(finding)
        name = late["metadata"]["name"]
        probe = probe_failure(self._view.of("v1", "Event"), name)
        container = next((c["name"] for c in container_statuses(late) if not c.get("ready")), "")
        waiting = next(((c.get("state") or {}).get("waiting") for c in container_statuses(late)), None) or {}
        stated = probe or ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
        told = "; ".join(part for part in (message, stated) if part)
        return Symptom(replace(finding, message=told, pod=name, container=container))

    def _settled_at(self, target: _Target, symptom: Symptom) -> datetime | None:
        """When the last of what a crashing container may depend on became ready; None: something is not."""
        times = [_LONG_AGO]
        mine = {pod["metadata"]["uid"] for pod in target.pods}
        own = next((pod for pod in target.pods if pod["metadata"]["name"] == symptom.finding.pod), None)
        for status_ in container_statuses(own) if own else ():
            running = (status_.get("state") or {}).get("running")
            if status_["name"] != symptom.finding.container and running:
                if not status_.get("ready"):
                    return None
                times.append(time_of(running.get("startedAt")) or _LONG_AGO)
        for other in self._targets:
            if other is target or not self._may_need(target.service, other.service) or not self._counts(other):
                continue
            mine |= {pod["metadata"]["uid"] for pod in other.pods}
            if other.standing.state == "progressing" and not any(s.crash for s in other.symptoms):
                return None
            times += (_ready_since(pod) or _LONG_AGO for pod in other.pods)
        if self._needs is None:
            for pod in self._view.of("v1", "Pod"):
                if pod["metadata"]["uid"] in mine or _is_over(pod) or any(s.crash for s in pod_symptoms(pod, "")):
                    continue
                since = _ready_since(pod)
                if since is None:
                    return None
                times.append(since)
        return max(times)

    def _may_need(self, service: str, other: str) -> bool:
        if self._needs is None or service == other:
            return True
        known, todo = set(), [service]
        while todo:
            for need in self._needs.get(todo.pop(), ()):
                if need not in known:
                    known.add(need)
                    todo.append(need)
        return other in known

    async def _told(self, symptoms: list[Symptom]) -> list[Finding]:
        """Findings without repetition (replicas fail alike), the most telling first, with log lines."""
        chosen: dict[tuple[str, ...], Symptom] = {}
        for symptom in sorted(symptoms, key=_tellingness):
            finding = symptom.finding
            chosen.setdefault((finding.service, finding.container, finding.reason), symptom)
        kept = list(chosen.values())
        tails = await asyncio.gather(*(self._tails.of(symptom) for symptom in kept))
        return [replace(symptom.finding, log_tail=tail) for symptom, tail in zip(kept, tails, strict=True)]


class _LogTails:
    """Fetches the last log lines of containers that crashed as soon as that is seen: their pods may not stay."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._tasks: dict[tuple[str, str, int], asyncio.Task[tuple[str, ...]]] = {}

    def note(self, symptom: Symptom) -> None:
        if symptom.crash or symptom.finding.exit_code is not None:
            self._task(symptom)

    async def of(self, symptom: Symptom) -> tuple[str, ...]:
        finding = symptom.finding
        if not finding.pod or not finding.container or finding.reason in _NEVER_RAN:
            return ()
        lines = await self._task(symptom)
        if lines or not symptom.crash:
            return lines
        # Fetched while the next run was about to begin: once more.
        self._tasks.pop(self._key(symptom), None)
        return await self._task(symptom)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @staticmethod
    def _key(symptom: Symptom) -> tuple[str, str, int]:
        return (symptom.finding.pod, symptom.finding.container, symptom.restarts)

    def _task(self, symptom: Symptom) -> asyncio.Task[tuple[str, ...]]:
        key = self._key(symptom)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._fetch(symptom.finding))
        return self._tasks[key]

    async def _fetch(self, finding: Finding) -> tuple[str, ...]:
        # While it waits to be started again the log asked for is that of the run that ended; where it runs again,
        # that of the run before is.
        place = (self._cluster, self._namespace, finding.pod, finding.container)
        lines = await pods.log_tail(*place, lines=_LOG_LINES)
        return lines or await pods.log_tail(*place, previous=True, lines=_LOG_LINES)


_NEVER_RAN = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
)


def _tellingness(symptom: Symptom) -> int:
    """Causes before consequences: a container's own end, then what kept it from starting, then what followed."""
    if symptom.crash or symptom.finding.exit_code is not None:
        return 0
    return 1 if symptom.finding.container else 2


def _is_around(event: Manifest, crashed_at: datetime) -> bool:
    """Whether an event fits the time of a crash: a container that is told to end may take a while."""
    seen = event_times(event)[1]
    return seen is not None and timedelta(seconds=-2) <= crashed_at - seen < timedelta(seconds=90)


def _ends_containers(event: Manifest) -> bool:
    """Whether an event is of a probe for which containers are ended."""
    return str(event.get("message") or "").startswith(("Liveness", "Startup"))


def _is_kill_for_probe(event: Manifest) -> bool:
    """Whether the kubelet says that it ends a container for a probe (``Container x failed liveness probe, …``)."""
    return event.get("reason") == "Killing" and "probe" in str(event.get("message") or "")


def _key(symptom: Symptom) -> tuple[str, ...]:
    finding = symptom.finding
    reason = "pull" if finding.reason in ("ErrImagePull", "ImagePullBackOff") else finding.reason
    # `used: pods=9` changes as other pods come and go: then it is another matter.
    message = finding.message if "quota" in finding.message else ""
    return (finding.object, finding.container, reason, message)


def _is_waited_for(manifest: Manifest) -> bool:
    kind = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
    if kind in _WORKLOADS | _OTHERS_WAITED_FOR:
        return True
    group, _ = split_api_version(kind[0])
    # Groups of Kubernetes itself have no dot or end with its domain; their other kinds are ready when applied.
    return "." in group and not group.endswith(".k8s.io")


async def _resource_or_none(cluster: Cluster, api_version: str, kind: str) -> Resource | None:
    try:
        return await resource_for(cluster, api_version, kind)
    except InvalidInput:
        return None


def _claims(pod: Manifest) -> set[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return {v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")}


def _revision(obj: Manifest) -> str | None:
    annotations = obj["metadata"].get("annotations") or {}
    return annotations.get("deployment.kubernetes.io/revision")


def _started(pod: Manifest) -> bool:
    """Whether any container of a pod ever began."""
    return any(
        (found.get("state") or {}).keys() & {"running", "terminated"} or found.get("lastState")
        for found in container_statuses(pod)
    )


def _lacks_pods(workload: Manifest) -> bool:
    """Whether a workload has fewer pods than it should (so that an event about creating them is still true)."""
    state, spec = workload.get("status") or {}, workload.get("spec") or {}
    match workload["kind"]:
        case "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Deployment":
            wanted = spec.get("replicas")
            return bool(state.get("replicas", 0) < (1 if wanted is None else wanted))
        case "DaemonSet":
            return bool(state.get("currentNumberScheduled", 0) < state.get("desiredNumberScheduled", 1))
        case "Job":
            return not any(state.get(key) for key in ("active", "succeeded", "failed"))
        case _:
            return True


def _is_over(pod: Manifest) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp")) or (pod.get("status") or {}).get("phase") == "Failed"


def _ready_since(pod: Manifest) -> datetime | None:
    """When a pod became ready, or completed; None: it is not."""
    if (pod.get("status") or {}).get("phase") == "Succeeded":
        ends = [
            time_of(((c.get("state") or {}).get("terminated") or {}).get("finishedAt")) for c in container_statuses(pod)
        ]
        return max((end for end in ends if end), default=_LONG_AGO)
    ready = condition(pod, "Ready")
    return (time_of(ready.get("lastTransitionTime")) or _LONG_AGO) if ready.get("status") == "True" else None
