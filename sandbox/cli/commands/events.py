"""``sandbox events``: what the cluster says about a sandbox's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.completion import complete_services
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output, Selection, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sandbox.cli.output import Column
    from sandbox.cluster.client import Cluster
    from sandbox.model.objects import Manifest
    from sandbox.model.sandbox import Sandbox


def events(
    common: Common,
    selection: Selection,
    service: Annotated[
        str | None,
        typer.Argument(metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="Default: all."),
    ] = None,
    output: Output = Format.TABLE,
    types: Annotated[
        str | None, typer.Option("--types", metavar="A,B", help="Only these types: Normal, Warning.")
    ] = None,
    watch: Watch = False,
) -> None:
    """Show the cluster's events in a sandbox, the newest last.

    Kubernetes keeps events for an hour.
    """
    from sandbox.cli.run import run

    wanted = {kind.strip().lower() for kind in types.split(",")} if types else set()
    run(_events(common, selection, service, output, wanted, watch))


async def _events(
    common: Common, selection: Selection, service: str | None, output: Format, types: set[str], watch: bool
) -> None:
    from sandbox.cli.connect import reached, same_as
    from sandbox.cluster import objects

    async with reached(common, selection) as (cluster, sandbox):
        watching = ("--watch",) if watch else ()
        same_as(common, cluster, "get", "events", "--sort-by=.lastTimestamp", *watching, namespace=sandbox.namespace)
        members = await _members(cluster, sandbox, service)
        found = [event async for event in objects.list_(cluster, "v1", "Event", sandbox.namespace)]
        shown = sorted((e for e in found if _wanted(e, types, members)), key=_last_seen)
        await _show(cluster, shown, output, several=not watch)
        if watch:
            known = {event["metadata"]["uid"]: event["metadata"]["resourceVersion"] for event in found}
            await _watch(cluster, sandbox, service, output, types, known)


async def _members(cluster: Cluster, sandbox: Sandbox, service: str | None) -> set[str] | None:
    """UIDs of a service's objects; None: of whatever."""
    if service is None:
        return None
    from sandbox.provision.contents import inside

    return {manifest["metadata"]["uid"] for manifest in (await inside(cluster, sandbox)).of(service)}


def _wanted(event: Manifest, types: set[str], members: set[str] | None) -> bool:
    if types and str(event.get("type", "")).lower() not in types:
        return False
    return members is None or (event.get("involvedObject") or {}).get("uid") in members


async def _watch(
    cluster: Cluster, sandbox: Sandbox, service: str | None, output: Format, types: set[str], known: dict[str, str]
) -> None:
    from sandbox.cluster import objects

    members = await _members(cluster, sandbox, service)
    async for kind, event in objects.watch(cluster, "v1", "Event", sandbox.namespace):
        if kind not in ("ADDED", "MODIFIED"):
            continue
        uid, version = event["metadata"]["uid"], event["metadata"]["resourceVersion"]
        if known.get(uid) == version:
            continue
        known[uid] = version
        about = (event.get("involvedObject") or {}).get("uid")
        if members is not None and about not in members:
            # It may be about an object that came meanwhile.
            members = await _members(cluster, sandbox, service)
        if _wanted(event, types, members):
            await _show(cluster, [event], output, several=False, header=False)


async def _show(
    cluster: Cluster, found: Sequence[Manifest], output: Format, *, several: bool, header: bool = True
) -> None:
    from sandbox.cli.output import show_data, show_list, to_yaml_documents, write
    from sandbox.cli.reporter import say

    if not several and output in (Format.JSON, Format.YAML):
        # A stream of documents, as `kubectl get -w -o json` gives.
        for event in found:
            if output is Format.JSON:
                show_data(summary(event), output)
            else:
                write(to_yaml_documents([summary(event)]), newline=False)
        return
    if not found and header and output in (Format.TABLE, Format.WIDE):
        say("no events; Kubernetes keeps them for an hour")
        return
    columns = _columns(await cluster.server_time())
    show_list(found, columns, output, name=lambda e: f"event/{e['metadata']['name']}", data=summary, header=header)


def summary(event: Manifest) -> dict[str, Any]:
    """An event's facts, the same for events of the old and the new form."""
    from sandbox.cluster.readiness import event_times

    first, last = event_times(event)
    series = event.get("series") or {}
    source = event.get("source") or {}
    return {
        "type": event.get("type", ""),
        "reason": event.get("reason", ""),
        "object": _about(event),
        "message": (event.get("message") or event.get("note") or "").strip(),
        "count": series.get("count") or event.get("count") or 1,
        "first_seen": first,
        "last_seen": last,
        "source": event.get("reportingComponent") or source.get("component", ""),
    }


def _last_seen(event: Manifest) -> float:
    from sandbox.cluster.readiness import event_times

    last = event_times(event)[1]
    return last.timestamp() if last else 0.0


def _about(event: Manifest) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    group = about.get("apiVersion", "").rpartition("/")[0]
    return f"{about.get('kind', '').lower()}{'.' + group if group else ''}/{about.get('name', '')}"


def _columns(now: datetime) -> list[Column[Manifest]]:
    from sandbox.cli.output import Column
    from sandbox.model.durations import short_duration

    def age(event: Manifest, which: str) -> str:
        when = summary(event)[which]
        return short_duration(now - when) if when else ""

    return [
        Column("LAST SEEN", lambda e: age(e, "last_seen")),
        Column("TYPE", lambda e: e.get("type", ""), colour=lambda e: "yellow" if e.get("type") == "Warning" else ""),
        Column("REASON", lambda e: e.get("reason", "")),
        Column("OBJECT", _about),
        Column("SOURCE", lambda e: str(summary(e)["source"]), wide=True),
        Column("FIRST SEEN", lambda e: age(e, "first_seen"), wide=True),
        Column("COUNT", lambda e: str(summary(e)["count"]), wide=True),
        Column("MESSAGE", lambda e: " ".join(str(summary(e)["message"]).split())),
    ]
