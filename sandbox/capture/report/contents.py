"""What of a capture goes on the page: read from its bundle, checked, and cut where it would be too much."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml

from sandbox.capture.bundle import Bundle, Damaged
from sandbox.capture.model import Document
from sandbox.capture.report.timeline import Happenings, Timeline, readable, timeline
from sandbox.cluster.readiness import event_times
from sandbox.model.durations import to_rfc3339
from sandbox.store.store import NotStored

# A page has to open at once, and to fit into a mail: the end of each log is what tells.
_LONGEST_LOG = 256 * 1024
_ALL_LOGS = 8 * 1024 * 1024
_MOST_EVENTS = 1000
_LONGEST_DIFF = 400
_LARGEST_PACKED_LOG = 64 * 1024 * 1024


@dataclass(frozen=True)
class Log:
    """What one container wrote.

    Attributes:
        title: its path in the bundle.
        text: its end; control characters are as they were written.
        cut: bytes that were left out before it.
        failed: whether it is of a container that the capture found to be failing.
    """

    title: str
    pod: str
    container: str
    previous: bool
    text: str
    cut: int
    failed: bool


@dataclass(frozen=True)
class Event:
    """One event of the cluster."""

    at: str
    warning: bool
    reason: str
    object: str
    count: int
    message: str


@dataclass(frozen=True)
class Change:
    """What differs from the last good deployment, as a unified diff.

    Attributes:
        what: such as ``Helm release web: values, revision 1 to 2``.
        lines: each with its sign.
        cut: lines that were left out after them.
    """

    what: str
    lines: tuple[str, ...]
    cut: int


@dataclass(frozen=True)
class Contents:
    """Everything that the page shows besides the capture's description.

    Attributes:
        problems: items that could not be read, and why.
    """

    timeline: Timeline
    logs: tuple[Log, ...]
    logs_left_out: int
    events: tuple[Event, ...]
    events_left_out: int
    changes: tuple[Change, ...]
    problems: tuple[str, ...]


async def read_contents(bundle: Bundle) -> Contents:
    """Read what the page shows; what is damaged is named and left out."""
    reader = _Reader(bundle)
    pods = await reader.listed("pods.json")
    events = await reader.listed("events.json")
    releases = {title: await reader.plain(title) for title in reader.titles(r"helm/[^/]+/\d+/release\.json")}
    records = {title: await reader.plain(title) for title in reader.titles(r"records/\d+\.json")}
    happenings = Happenings(
        pods=pods,
        events=events,
        replica_sets=await reader.listed("objects/replicasets.apps.json"),
        releases=list(releases.values()),
        records=list(records.values()),
        services={service.name: service.workloads for service in bundle.document.services},
    )
    logs, left_out = await _logs(reader, bundle.document)
    shown = sorted(readable(_event, events), key=lambda event: event.at)
    document = bundle.document
    return Contents(
        timeline=timeline(happenings, (document.started_at, document.ended_at)),
        logs=tuple(logs),
        logs_left_out=left_out,
        events=tuple(shown[-_MOST_EVENTS:]),
        events_left_out=max(len(shown) - _MOST_EVENTS, 0),
        changes=(
            *await _release_changes(reader, releases),
            *chain(*readable(_record_changes, [list(records.values())])),
        ),
        problems=tuple(reader.problems),
    )


class _Reader:
    """Reads items; one that is damaged costs that item, and is told."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.problems: list[str] = []

    def titles(self, pattern: str) -> list[str]:
        return sorted(title for title in self._bundle.layers if re.fullmatch(pattern, title))

    async def text(self, title: str, *, at_most: int | None = None) -> str | None:
        if title not in self._bundle.layers:
            return None
        bound = {} if at_most is None else {"at_most": at_most}
        try:
            return await self._bundle.read_text(title, **bound)
        except (Damaged, NotStored) as error:
            self.problems.append(str(error))
            return None

    async def plain(self, title: str) -> dict[str, Any]:
        """A JSON object; empty where it is none."""
        text = await self.text(title)
        if text is None:
            return {}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{title} is not JSON: {str(error)[:200]}")
            return {}
        return value if isinstance(value, dict) else {}

    async def listed(self, title: str) -> list[dict[str, Any]]:
        items = (await self.plain(title)).get("items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


async def _logs(reader: _Reader, document: Document) -> tuple[list[Log], int]:
    """Logs, those of failing containers first, as many as fit; and how many did not."""
    failing = {(why.pod, why.container) for why in document.findings if why.pod}
    titles = [
        (title, match[1], match[2], bool(match[3]))
        for title in reader.titles(r"logs/.+\.log\.gz")
        if (match := re.fullmatch(r"logs/([^/]+)/(.+?)(\.previous)?\.log\.gz", title))
    ]
    # Of a failing container the run before the current one is the one that failed.
    titles.sort(key=lambda t: ((t[1], t[2]) not in failing, t[1], t[2], not t[3]))
    logs: list[Log] = []
    room, left_out = _ALL_LOGS, 0
    for title, pod, container, previous in titles:
        if room <= 0:
            left_out += 1
            continue
        whole = await reader.text(title, at_most=_LARGEST_PACKED_LOG)
        if whole is None:
            continue
        kept = whole[-min(_LONGEST_LOG, room) :]
        if len(kept) < len(whole):
            kept = kept.partition("\n")[2]
        room -= len(kept)
        logs.append(
            Log(title, pod, container, previous, kept, len(whole) - len(kept), failed=(pod, container) in failing)
        )
    return logs, left_out


def _event(event: Mapping[str, Any]) -> Event:
    first, last = event_times(dict(event))
    about = event.get("involvedObject") or {}
    return Event(
        at=to_rfc3339(when) if (when := last or first) else "",
        warning=event.get("type") == "Warning",
        reason=str(event.get("reason") or ""),
        object=f"{str(about.get('kind') or '').lower()}/{about.get('name') or ''}",
        count=int((event.get("series") or {}).get("count") or event.get("count") or 1),
        message=str(event.get("message") or event.get("note") or ""),
    )


async def _release_changes(reader: _Reader, releases: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """Of each release with two stored revisions: what its values and its manifest differ in."""
    revisions: dict[str, list[int]] = {}
    for title in releases:
        _, name, revision, _ = title.split("/")
        revisions.setdefault(name, []).append(int(revision))
    found: list[Change] = []
    for name, numbers in sorted(revisions.items()):
        if len(numbers) < 2:
            continue
        before, after = sorted(numbers)[-2:]
        for part in ("values.json", "manifest.yaml", "hooks.yaml"):
            sides = [await reader.text(f"helm/{name}/{number}/{part}") or "" for number in (before, after)]
            if part.endswith(".json"):
                sides = [_as_yaml(side) for side in sides]
            what = f"Helm release {name}: {part.partition('.')[0]}, revision {before} to {after}"
            found += _change(what, *(side.splitlines() for side in sides))
    return found


def _record_changes(records: Sequence[Mapping[str, Any]]) -> list[Change]:
    """What the manifests of the newest record differ in from those of the last one that came through."""
    if len(records) < 2:
        return []
    before, after = sorted(records, key=lambda record: int(record.get("number") or 0))[-2:]
    old, new = (record.get("services") or {} for record in (before, after))
    found: list[Change] = []
    for name in sorted({*old, *new}):
        sides = [_manifests(side.get(name)) for side in (old, new)]
        what = f"service {name}: manifests, deployment {before.get('number')} to {after.get('number')}"
        found += _change(what, *(side.splitlines() for side in sides))
    return found


def _manifests(service: Any) -> str:
    if not isinstance(service, Mapping):
        return ""
    parts = [*(service.get("manifests") or ()), *(service.get("hooks") or ())]
    return _dumped(parts) if parts else ""


def _as_yaml(text: str) -> str:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text
    return _dumped([value]) if value else ""


def _dumped(parts: Sequence[Any]) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump_all(parts, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000))


def _change(what: str, before: Sequence[str], after: Sequence[str]) -> Iterable[Change]:
    lines = list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]
    if lines:
        yield Change(what, tuple(lines[:_LONGEST_DIFF]), max(len(lines) - _LONGEST_DIFF, 0))
