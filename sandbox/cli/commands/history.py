"""``sandbox history``: the deployments into a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sandbox.cli.output import Column
    from sandbox.model.record import Record


def history(
    common: Common,
    selection: Selection,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=complete_sandboxes, show_default=False)
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the deployments into a sandbox or a shared environment, the newest last.

    `sandbox rollback --to NUMBER` goes back to one of them.
    """
    from sandbox.cli.run import run

    run(_history(common, selection, name, output))


async def _history(common: Common, selection: Selection, name: str | None, output: Format) -> None:
    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.output import show_list
    from sandbox.cli.reporter import say
    from sandbox.model.labels import RECORD_TYPE
    from sandbox.provision.records import readable_records

    async with reached(common, selection, name) as (cluster, sandbox):
        same_as(common, cluster, "get", "secrets", f"--field-selector=type={RECORD_TYPE}", namespace=sandbox.namespace)
        found, unreadable = await readable_records(cluster, sandbox.namespace)
        now = await cluster.server_time()
    for error in unreadable:
        say(f"warning: {error}", colour="yellow")
    if not found and not unreadable and output in (Format.TABLE, Format.WIDE):
        say("no deployments yet")
        return
    show_list(found, _columns(found, now), output, name=lambda r: str(r.number), data=summary)


def summary(record: Record) -> dict[str, Any]:
    """A record without its manifests."""
    return {
        "number": record.number,
        "at": record.at,
        "by": record.by,
        "outcome": record.outcome,
        "failure": record.failure,
        "dirty": bool(record.patch),
        "services": {
            name: {
                "repo": service.lock.repo,
                "ref": service.lock.ref,
                "commit": service.lock.commit,
                "revision": service.revision,
                "images": {image.name: f"{image.repository}@{image.digest}" for image in service.lock.images},
            }
            for name, service in record.services.items()
        },
    }


def _columns(found: Sequence[Record], now: datetime) -> list[Column[Record]]:
    from sandbox.cli.output import Column
    from sandbox.model.durations import relative, to_rfc3339
    from sandbox.provision.identity import display_name

    before = dict(zip((r.number for r in found), [None, *found], strict=False))
    return [
        Column("NUMBER", lambda r: str(r.number)),
        Column("WHEN", lambda r: relative(r.at, now)),
        Column("AT", lambda r: to_rfc3339(r.at), wide=True),
        Column("BY", lambda r: display_name(r.by)),
        Column("OUTCOME", lambda r: r.outcome, colour=lambda r: "green" if r.outcome == "deployed" else "red"),
        Column("COMMITS", _commits),
        Column("CHANGED", lambda r: ", ".join(changed(before[r.number], r))),
        Column("FAILURE", lambda r: r.failure, wide=False),
    ]


def _commits(record: Record) -> str:
    """The commits of its services, each once."""
    dirty = "-dirty" if record.patch else ""
    return ", ".join(dict.fromkeys(service.lock.commit[:12] for service in record.services.values())) + dirty


def changed(before: Record | None, record: Record) -> list[str]:
    """The services that a deployment added, changed or removed (``-name``)."""
    old = before.services if before else {}
    new = record.services
    different = [n for n in new if n not in old or old[n].lock.input_digest != new[n].lock.input_digest]
    return [*different, *(f"-{name}" for name in old if name not in new)]
