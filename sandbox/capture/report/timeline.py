"""What happened when, by service: containers that ran and ended, events, rollouts, releases. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Literal, TypeVar

from sandbox.cluster.readiness import container_statuses, event_times, time_of
from sandbox.model.objects import Manifest

S = TypeVar("S")
T = TypeVar("T")

# The cluster keeps its events for an hour: what is older is told by little else.
_LONGEST = timedelta(minutes=75)
_SHORTEST = timedelta(seconds=30)
_MARGIN = 0.04
# Rollouts and revisions that are no further apart belong to one deployment of several services.
_ONE_DEPLOYMENT = timedelta(minutes=10)

SpanState = Literal["running", "completed", "crashed", "waiting"]
MarkKind = Literal["event", "warning", "rollout", "release", "record"]
_DEPLOYED: frozenset[MarkKind] = frozenset({"rollout", "release", "record"})


@dataclass(frozen=True)
class Span:
    """A time that lasted: one run of a container, or its wait for the next.

    Attributes:
        lane: the service it is of; empty where it is nobody's.
        title: what it was, in one line.
    """

    lane: str
    begin: datetime
    end: datetime
    state: SpanState
    title: str


@dataclass(frozen=True)
class Mark:
    """A moment."""

    lane: str
    at: datetime
    kind: MarkKind
    title: str


@dataclass(frozen=True)
class Timeline:
    """Everything between two times.

    Attributes:
        lanes: services, those with warnings or crashes first.
        captured: when the capture was begun and ended.
    """

    begin: datetime
    end: datetime
    lanes: tuple[str, ...]
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]
    captured: tuple[datetime, datetime]


@dataclass(frozen=True)
class Happenings:
    """What a timeline is made from, as it is in a bundle.

    Attributes:
        releases: ``release.json`` of each stored revision.
        records: the stored records, as plain data.
        services: names of workloads (``deployment.apps/web``) by service.
    """

    pods: Sequence[Manifest]
    events: Sequence[Manifest]
    replica_sets: Sequence[Manifest]
    releases: Sequence[Mapping[str, Any]]
    records: Sequence[Mapping[str, Any]]
    services: Mapping[str, Sequence[str]]


def timeline(happenings: Happenings, captured: tuple[datetime, datetime]) -> Timeline:
    """Put everything since the last deployment into one picture, of at most 75 minutes before the capture's end.

    Args:
        captured: when the capture was begun and ended.
    """
    owner = _Owners(happenings)
    spans = list(chain(*readable(lambda pod: list(_runs(pod, owner.of(pod), captured[0])), happenings.pods)))
    marks = chain(
        readable(lambda event: _event(event, owner), happenings.events),
        readable(lambda replica_set: _rollout(replica_set, owner), happenings.replica_sets),
        readable(lambda release: _release(release, owner), happenings.releases),
        readable(_record, happenings.records),
    )
    known = [mark for mark in marks if mark is not None and mark.at <= captured[1]]
    begin = _beginning(spans, known, captured)
    known = [mark for mark in known if mark.at >= begin]
    clipped = [replace(span, begin=max(span.begin, begin)) for span in spans if span.end > begin]
    return Timeline(begin, captured[1], _lanes(clipped, known), tuple(clipped), tuple(_distinct(known)), captured)


def readable(read: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What is read of each item; those that are not what they should be are left out: bundles come from anybody."""
    for item in items:
        try:
            yield read(item)
        except (AttributeError, TypeError, ValueError, LookupError, OverflowError):
            continue


class _Owners:
    """Which service an object is of, by its workload."""

    def __init__(self, happenings: Happenings) -> None:
        self._services = {
            workload.partition(".")[0].partition("/")[0] + "/" + workload.rpartition("/")[2]: service
            for service, workloads in happenings.services.items()
            for workload in workloads
        }
        self._known: dict[str, Mapping[str, Any]] = {}
        for kind, manifests in (("pod", happenings.pods), ("replicaset", happenings.replica_sets)):
            self._known |= readable(lambda m, kind=kind: (f"{kind}/{m['metadata']['name']}", m["metadata"]), manifests)  # type: ignore[misc]
        self._releases = set(happenings.services)

    def of(self, manifest: Manifest) -> str:
        metadata = manifest.get("metadata") or {}
        return self.named(str(manifest.get("kind") or "Pod"), str(metadata.get("name")), metadata)

    def named(self, kind: str, name: str, metadata: Mapping[str, Any] | None = None, depth: int = 0) -> str:
        """The service of an object by its kind and name: its own, or that of the controller above it."""
        own = self._services.get(f"{kind}/{name}".lower())
        if own is not None:
            return own
        if metadata is None:
            metadata = self._known.get(f"{kind}/{name}".lower()) or {}
        owners = metadata.get("ownerReferences") or ()
        if not owners or depth > 4:
            return self._by_prefix(kind, name)
        return self.named(str(owners[0].get("kind")), str(owners[0].get("name")), depth=depth + 1)

    def _by_prefix(self, kind: str, name: str) -> str:
        """Of what is gone: pods and ReplicaSets are called after the workload that made them."""
        if kind not in ("Pod", "ReplicaSet", "Job"):
            return ""
        fitting = [workload for workload in self._services if name.startswith(f"{workload.rpartition('/')[2]}-")]
        return self._services[max(fitting, key=len)] if fitting else ""

    def release(self, name: str) -> str:
        return name if name in self._releases else ""


def _runs(pod: Manifest, lane: str, until: datetime) -> Iterator[Span]:
    """The last run of each container, the current one, and the wait between."""
    name = (pod.get("metadata") or {}).get("name")
    for container in container_statuses(pod):
        title = f"{name}, container {container.get('name')}"
        state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated") or {}
        if before := _ended(last, lane, title):
            yield before
        if (running := state.get("running")) and (began := time_of(running.get("startedAt"))):
            yield Span(lane, began, max(until, began), "running", f"{title}: runs, restarts: {_restarts(container)}")
        elif ended := _ended(state.get("terminated") or {}, lane, title):
            yield ended
        elif (waiting := state.get("waiting")) and before:
            why = f"{title}: {waiting.get('reason') or 'waiting'}, restarts: {_restarts(container)}"
            yield Span(lane, before.end, max(until, before.end), "waiting", why)


def _ended(state: Mapping[str, Any], lane: str, title: str) -> Span | None:
    began, ended = time_of(state.get("startedAt")), time_of(state.get("finishedAt"))
    if began is None or ended is None:
        return None
    code = state.get("exitCode")
    said = f"{title}: {state.get('reason') or 'ended'}, exit code {code}"
    return Span(lane, began, max(ended, began), "crashed" if code else "completed", said)


def _restarts(container: Mapping[str, Any]) -> int:
    return int(container.get("restartCount") or 0)


def _event(event: Manifest, owners: _Owners) -> Mark | None:
    first, last = event_times(event)
    at = last or first
    if at is None:
        return None
    about = event.get("involvedObject") or {}
    kind, name = str(about.get("kind")), str(about.get("name"))
    count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
    often = f" ({count} times)" if count > 1 else ""
    title = f"{event.get('reason')} {kind.lower()}/{name}{often}: {event.get('message')}"
    return Mark(owners.named(kind, name), at, "warning" if event.get("type") == "Warning" else "event", title)


def _rollout(replica_set: Manifest, owners: _Owners) -> Mark | None:
    metadata = replica_set.get("metadata") or {}
    at = time_of(metadata.get("creationTimestamp"))
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("kind") == "Deployment"]
    if at is None or not controllers:
        return None
    revision = (metadata.get("annotations") or {}).get("deployment.kubernetes.io/revision", "?")
    title = f"rollout of deployment/{controllers[0].get('name')}, revision {revision}"
    return Mark(owners.of({"kind": "ReplicaSet", **replica_set}), at, "rollout", title)


def _release(release: Mapping[str, Any], owners: _Owners) -> Mark | None:
    at = time_of(release.get("updated"))
    if at is None:
        return None
    name = str(release.get("name"))
    chart = f"{release.get('chart')}-{release.get('chartVersion')}"
    title = f"Helm release {name}, revision {release.get('revision')} ({chart}): {release.get('status')}"
    return Mark(owners.release(name), at, "release", title)


def _record(record: Mapping[str, Any]) -> Mark | None:
    at = time_of(record.get("at"))
    if at is None:
        return None
    return Mark("", at, "record", f"deployment number {record.get('number')}: {record.get('outcome')}")


def _beginning(spans: Iterable[Span], marks: Sequence[Mark], captured: tuple[datetime, datetime]) -> datetime:
    """Where the last deployment began, else the first thing that can be seen; and a little before it."""
    start, end = captured
    earliest = end - _LONGEST
    deployed = [mark.at for mark in marks if mark.kind in _DEPLOYED and mark.at >= earliest]
    if deployed:
        times = [at for at in deployed if at >= max(deployed) - _ONE_DEPLOYMENT]
    else:
        times = [mark.at for mark in marks if mark.at >= earliest]
        times += [time for s in spans if s.state != "running" for time in (s.begin, s.end) if earliest <= time < start]
    begin = min([*times, start, end - _SHORTEST])
    return begin - (end - begin) * _MARGIN


def _lanes(spans: Iterable[Span], marks: Iterable[Mark]) -> tuple[str, ...]:
    """Services, those with most to look at first; what is nobody's comes last."""
    trouble: dict[str, int] = {}
    for span in spans:
        trouble[span.lane] = trouble.get(span.lane, 0) + (2 if span.state in ("crashed", "waiting") else 0)
    for mark in marks:
        trouble[mark.lane] = trouble.get(mark.lane, 0) + (1 if mark.kind == "warning" else 0)
    return tuple(sorted(trouble, key=lambda lane: (not lane, -trouble[lane], lane)))


def _distinct(marks: Iterable[Mark]) -> Iterable[Mark]:
    return sorted({(m.lane, m.at, m.title): m for m in marks}.values(), key=lambda mark: (mark.at, mark.title))
