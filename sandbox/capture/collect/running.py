"""What is gone first: pods, what their containers wrote, and the cluster's events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp

from sandbox.capture.collect.collection import Collection, gathered
from sandbox.cluster import objects
from sandbox.cluster.client import Query
from sandbox.cluster.errors import NotFound, RequestFailed, ServerUnavailable
from sandbox.cluster.pods import is_complaint
from sandbox.cluster.readiness import container_statuses
from sandbox.model import labels
from sandbox.model.objects import Manifest

# What tells why a container ended stands at the end of its log.
_TAIL_BYTES = 16_000
_RUNS = ("", "previous")
# How far a log may grow over its bound before its beginning is dropped.
_SLACK = 256 * 1024


@dataclass
class Running:
    """What ran.

    Attributes:
        tails: the end of each log, without secrets, by pod, container and run (empty: the current one; previous).
    """

    pods: list[Manifest] = field(default_factory=list)
    events: list[Manifest] = field(default_factory=list)
    tails: dict[tuple[str, str, str], str] = field(default_factory=dict)
    pods_known: asyncio.Event = field(default_factory=asyncio.Event)


async def collect_pods(collection: Collection, running: Running) -> None:
    """Pods with the images that they run."""
    try:
        async with collection.looking_at("pods.json", "pods") as look:
            others = f"!{labels.VOLUME_COPY}"
            async for pod in objects.list_(collection.cluster, "v1", "Pod", collection.namespace, others):
                running.pods.append(pod)
            running.pods_known.set()
            look.count = len(running.pods)
            if running.pods:
                await collection.store_json("pods.json", as_list(running.pods), look)
            else:
                look.end("absent", "no pods")
    finally:
        # Also where they cannot be listed: nobody may wait for them in vain.
        running.pods_known.set()


async def collect_logs(collection: Collection, running: Running) -> None:
    """All logs of all containers of all pods, of their previous runs too."""
    await running.pods_known.wait()
    await gathered(
        _log(collection, running, pod["metadata"]["name"], status, run)
        for pod in running.pods
        for status in _statuses(pod)
        for run in _RUNS
    )


async def collect_events(collection: Collection, running: Running) -> None:
    """Events, which the cluster forgets after an hour."""
    async with collection.looking_at("events.json", "events") as look:
        async for event in objects.list_(collection.cluster, "v1", "Event", collection.namespace):
            running.events.append(event)
        look.count = len(running.events)
        if running.events:
            await collection.store_json("events.json", as_list(running.events), look)
        else:
            look.end("absent", "no events")


def as_list(items: list[Manifest]) -> Manifest:
    """Objects as ``kubectl get -o json`` writes them, so that its friends read them."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}


def _statuses(pod: Manifest) -> list[Manifest]:
    return [*container_statuses(pod), *((pod.get("status") or {}).get("ephemeralContainerStatuses") or ())]


async def _log(collection: Collection, running: Running, pod: str, status: Manifest, run: str) -> None:
    """One log; a run that there never was is no item."""
    container = status["name"]
    if run and not status.get("restartCount") and not status.get("lastState"):
        return
    started = bool((status.get("state") or {}).keys() & {"running", "terminated"} or status.get("lastState"))
    title = f"logs/{pod}/{container}{'.previous' if run else ''}.log.gz"
    async with collection.logs, collection.looking_at(title, "logs") as look:
        if not started:
            waiting = (status.get("state") or {}).get("waiting") or {}
            look.end("absent", f"the container has not started: {waiting.get('reason') or 'waiting'}")
            return
        data, cut = await _read(collection, pod, container, previous=bool(run))
        if data is None:
            look.end("absent", cut)
            return
        safe = await collection.store_log(title, data, look)
        look.count = safe.count(b"\n")
        running.tails[(pod, container, run)] = safe[-_TAIL_BYTES:].decode(errors="replace")
        if cut:
            look.end("truncated", cut)


async def _read(collection: Collection, pod: str, container: str, *, previous: bool) -> tuple[bytes | None, str]:
    """The end of a log within the bound, and what was cut off; None, and why, where there is no log.

    ``limitBytes`` keeps the beginning, which tells nothing of the end: so the end is asked for by lines, and more than
    the bound is dropped from the front as it comes.
    """
    path = f"/api/v1/namespaces/{quote(collection.namespace, safe='')}/pods/{quote(pod, safe='')}/log"
    query: Query = {"container": container, "previous": previous or None, "timestamps": True}
    most = collection.bounds.log
    kept, dropped = bytearray(), 0
    try:
        async with collection.cluster.open("GET", path, query=query, accept="*/*", read_timeout=30.0) as response:
            async for chunk in response.content.iter_any():
                kept += chunk
                if len(kept) > most + _SLACK:
                    dropped += len(kept) - most
                    del kept[: len(kept) - most]
    except RequestFailed as error:
        # 400: no previous run, or not started yet.
        if error.status == 400:
            return None, error.why
        raise
    except NotFound:
        return None, "the pod went away"
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError) and not kept:
            raise
        return (bytes(kept) or None), f"the log broke off: {str(error) or type(error).__name__}"
    except ServerUnavailable as error:
        return (bytes(kept) or None), error.why
    if len(kept) > most:
        dropped += len(kept) - most
        del kept[: len(kept) - most]
    if is_complaint(said := bytes(kept[:200]).decode(errors="replace")):
        return None, said
    if dropped:
        # Begin with a whole line.
        kept = kept[kept.find(b"\n") + 1 :]
        return bytes(kept), f"the first {dropped} bytes are left out (--max-log)"
    return bytes(kept), ""


def tail_of(tails: Mapping[tuple[str, str, str], str], pod: str, container: str, *, lines: int) -> tuple[str, ...]:
    """The last lines that a container wrote before it ended: of the previous run where there was one."""
    text = tails.get((pod, container, "previous")) or tails.get((pod, container, "")) or ""
    return tuple(_without_time(line) for line in text.splitlines()[-lines:])


def _without_time(line: str) -> str:
    time, space, rest = line.partition(" ")
    return rest if space and re.fullmatch(r"\d{4}-\d\d-\d\dT\S+", time) else line
