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
    """Go back to an earlier deployment of a sandbox.

    By default to the one before. What its record holds is applied again, as a deployment of its own.
    """
    from sandbox.cli.confirm import confirm
    from sandbox.cli.reporter import reporter, say
    from sandbox.cli.run import run
    from sandbox.provision.rollback import rollback as go_back

    sandbox = run(_chosen(common, selection, name))
    with reporter(verbose=common.verbose) as talk:
        wanted = run(go_back(common.target(), sandbox.namespace, to=to, reporter=talk, dry_run=True))
    if not dry_run:
        confirm(f"Bring {sandbox.name} back to record {wanted.number}?", yes=yes)
        with reporter(verbose=common.verbose) as talk:
            done = run(go_back(common.target(), sandbox.namespace, to=wanted.number, reporter=talk, dry_run=False))
        say(f"{sandbox.name} is back at what record {wanted.number} deployed; this is record {done.number}")
        wanted = done
    _show(wanted, output)


async def _chosen(common: Common, selection: Selection, name: str | None) -> Sandbox:
    from sandbox.cli.connect import chosen
    from sandbox.cluster.client import Cluster

    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        return await chosen(cluster, common, selection, name)


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
