"""``sandbox rollback``: go back to an earlier deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Output, Selection, Yes

if TYPE_CHECKING:
    from sandbox.model.record import Record
    from sandbox.model.sandbox import Sandbox


def rollback(
    common: Common,
    selection: Selection,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=complete_sandboxes, show_default=False)
    ] = None,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="NUMBER", help="Record to go back to (`sandbox history`); default: the one before."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Go back to an earlier deployment of a sandbox or a shared environment.

    By default to the one before. What its record holds is applied again, as a deployment of its own.
    """
    from sandbox.cli.confirm import confirm
    from sandbox.cli.reporter import say
    from sandbox.cli.run import run

    sandbox, wanted = run(_roll_back(common, selection, name, to, dry_run=True))
    if not dry_run:
        confirm(f"Bring {sandbox.name} back to record {wanted.number}?", yes=yes)
        sandbox, done = run(_roll_back(common, selection, name, wanted.number, dry_run=False))
        say(f"{sandbox.name} is back at what record {wanted.number} deployed; this is record {done.number}")
        wanted = done
    _show(wanted, output)


async def _roll_back(
    common: Common, selection: Selection, name: str | None, to: int | None, *, dry_run: bool
) -> tuple[Sandbox, Record]:
    from sandbox.cli.connect import reached
    from sandbox.cli.reporter import reporter
    from sandbox.provision.rollback import rollback as go_back

    async with reached(common, selection, name) as (cluster, sandbox):
        with reporter(verbose=common.verbose) as talk:
            return sandbox, await go_back(cluster, sandbox, to=to, reporter=talk, dry_run=dry_run)


def _show(record: Record, output: Format) -> None:
    from sandbox.cli.commands.history import summary
    from sandbox.cli.output import Column, show_data, show_list, write

    if output is Format.NAME:
        write(str(record.number))
        return
    if output in (Format.JSON, Format.YAML):
        show_data(summary(record), output)
        return
    rows = list(record.services.items())
    columns: list[Column[tuple[str, object]]] = [
        Column("SERVICE", lambda row: row[0]),
        Column("COMMIT", lambda row: record.services[row[0]].lock.commit[:12]),
        Column("REF", lambda row: record.services[row[0]].lock.ref),
    ]
    show_list(rows, columns, output, name=lambda row: row[0])
