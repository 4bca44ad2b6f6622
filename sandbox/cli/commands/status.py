"""``sandbox status``: how a sandbox, its services and its quota are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.commands.list import PHASE_COLOURS
from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output, Selection, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cli.output import Column
    from sandbox.cluster.client import Cluster
    from sandbox.provision.status import SandboxStatus, ServiceStatus

_STATE_COLOURS = {"ready": "green", "progressing": "yellow", "failed": "red", "sleeping": "grey"}
_WATCH_SECONDS = 2.0


def status(
    common: Common,
    selection: Selection,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=complete_sandboxes, show_default=False)
    ] = None,
    output: Output = Format.TABLE,
    watch: Watch = False,
) -> None:
    """Show a sandbox's services, findings, quota and expiry.

    Without a NAME it is the current branch's sandbox.
    """
    from sandbox.cli.run import run

    run(_status(common, selection, names or [], output, watch))


async def _status(common: Common, selection: Selection, names: list[str], output: Format, watch: bool) -> None:
    import asyncio

    from sandbox.cli.connect import chosen, reached, same_as

    async with reached(common, selection, names[0] if names else None) as (cluster, first):
        sandboxes = [first, *[await chosen(cluster, common, selection, name) for name in names[1:]]]
        single = len(names) < 2
        for sandbox in sandboxes:
            kinds = "all,pvc,ingress,resourcequota,events"
            same_as(common, cluster, "get", kinds, namespace=sandbox.namespace)

        async def look() -> list[SandboxStatus]:
            from sandbox.provision.status import status as status_of

            found = await asyncio.gather(*(status_of(cluster, sandbox) for sandbox in sandboxes))
            return list(await asyncio.gather(*(_with_reproduction(cluster, status) for status in found)))

        if not watch:
            _show(await look(), output, single=single)
            return
        await _watch(cluster, look, output, single=single)


async def _with_reproduction(cluster: Cluster, status: SandboxStatus) -> SandboxStatus:
    """A status that says so where the sandbox brings a capture back; what comes of a repository does not."""
    from dataclasses import replace

    if status.sandbox.repo:
        return status
    from sandbox.reproduce.state import load

    found = await load(cluster, status.sandbox.namespace)
    return replace(status, notes=(*status.notes, found.line())) if found else status


async def _watch(cluster: Cluster, look: object, output: Format, *, single: bool) -> None:
    """Show the status again whenever it changes; on a terminal in place."""
    import asyncio
    import sys

    from sandbox.cli.output import clear_screen, colours

    assert callable(look)
    before = None
    while True:
        found: list[SandboxStatus] = await look()
        # Times pass; that is no change.
        facts = [(s.sandbox, s.services, s.quota, s.outcome, s.waits_for) for s in found]
        live = colours(sys.stdout) and output in (Format.TABLE, Format.WIDE)
        if live:
            clear_screen()
        if live or facts != before:
            _show(found, output, single=single)
        before = facts
        await asyncio.sleep(_WATCH_SECONDS)


def _show(found: Sequence[SandboxStatus], output: Format, *, single: bool) -> None:
    from sandbox.cli.output import printable, show_data, write

    if output in (Format.JSON, Format.YAML):
        show_data(found[0] if single else list(found), output)
    elif output is Format.NAME:
        for status in found:
            write(printable(status.sandbox.name))
    else:
        for number, status in enumerate(found):
            if number:
                write("")
            for line in status_lines(status, wide=output is Format.WIDE):
                write(line)


def status_lines(status: SandboxStatus, *, wide: bool = False) -> list[str]:
    """A status as people read it."""
    from sandbox.cli.output import printable, stdout_colours, table_lines

    coloured = stdout_colours()
    lines = [f"{title + ':' if title else '':<11}{text}" for title, text in _facts(status, coloured=coloured)]
    for note in status.notes:
        lines.append(f"{'Note:':<11}{printable(note)}")
    lines.append("")
    if status.services:
        lines += table_lines(status.services, _columns(), wide=wide, coloured=coloured)
    else:
        lines.append("no services yet")
    reasons = [line for service in status.services for line in _reasons(service)]
    if reasons and not _ends(status):
        lines += ["", "Findings:", *(f"  {line}" for line in reasons)]
    return lines


def _facts(status: SandboxStatus, *, coloured: bool) -> list[tuple[str, str]]:
    from sandbox.cli.output import paint, printable
    from sandbox.model.durations import relative, to_rfc3339

    sandbox = status.sandbox
    phase = paint(sandbox.phase, PHASE_COLOURS.get(sandbox.phase, "") if coloured else "")
    facts = [
        ("Name", printable(sandbox.name)),
        ("Namespace", f"{printable(sandbox.namespace)} (context {printable(sandbox.context)})"),
        ("Owner", printable(sandbox.owner)),
        ("Source", printable(f"{sandbox.repo} {sandbox.ref} {sandbox.commit[:12]}".strip())),
        ("Phase", phase),
    ]
    if status.outcome == "failed":
        facts.append(("Last up", printable(f"failed: {status.failure}")))
    if _ends(status):
        facts += [
            (title, printable(line)) for title, line in zip(("Waits for", *[""] * 9), status.waits_for, strict=False)
        ]
    elif sandbox.expires_at:
        facts.append(("Expires", f"{relative(sandbox.expires_at, status.now)} ({to_rfc3339(sandbox.expires_at)})"))
    else:
        facts.append(("Expires", printable(f"unknown: {sandbox.expiry_problem or 'it carries no expiry'}")))
    if sandbox.pinned_until:
        facts.append(("Pinned", printable(f"until {to_rfc3339(sandbox.pinned_until)}: {sandbox.pin_reason}")))
    profile, *uses = _quota(status, coloured=coloured)
    return [*facts, ("Quota", profile), *(("", use) for use in uses)]


def _ends(status: SandboxStatus) -> bool:
    from sandbox.model.sandbox import Phase

    return status.sandbox.phase is Phase.TERMINATING


def _quota(status: SandboxStatus, *, coloured: bool) -> list[str]:
    """The profile, then a line for each resource that may be used."""
    from sandbox.cli.output import paint, printable
    from sandbox.model.quantities import parse_quantity

    # What may not be used at all, and is not, says nothing.
    uses = [use for use in status.quota if parse_quantity(use.hard) or parse_quantity(use.used)]
    width = max((len(use.resource) for use in uses), default=0)
    lines = [printable(status.sandbox.quota_profile) or "none"]
    for use in uses:
        text = printable(f"  {use.resource:<{width}}   {use.used}/{use.hard}")
        lines.append(paint(text, "yellow" if coloured and use.share >= 0.9 else ""))
    return lines


def _columns() -> list[Column[ServiceStatus]]:
    from sandbox.cli.output import Column

    return [
        Column("SERVICE", lambda s: s.name or "(none)"),
        Column("STATE", lambda s: s.state, colour=lambda s: _STATE_COLOURS[s.state]),
        Column("READY", lambda s: f"{s.ready}/{s.desired}"),
        Column("RESTARTS", lambda s: str(s.restarts)),
        Column("KIND", lambda s: s.kind, wide=True),
        Column("COMMIT", lambda s: s.commit[:12]),
        Column("ENDPOINTS", _endpoints),
        Column("OBJECTS", lambda s: ", ".join(w.object for w in s.workloads), wide=True),
    ]


def _endpoints(service: ServiceStatus) -> str:
    return ", ".join(e.url or f"{e.object.partition('/')[2]}:{e.port}" for e in service.endpoints)


def _reasons(service: ServiceStatus) -> list[str]:
    """Why a service is not ready: what was found, else what its objects say."""
    from sandbox.cli.output import printable

    if service.findings:
        return [printable(line) for finding in service.findings for line in finding.lines()]
    title = f"service {service.name} · " if service.name else ""
    return [
        printable(f"{title}{workload.object}: {workload.message}")
        for workload in service.workloads
        if workload.state not in ("ready", "sleeping")
    ]
