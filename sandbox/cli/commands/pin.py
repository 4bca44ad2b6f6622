"""``sandbox pin`` and ``sandbox unpin``: keep sandboxes for a reason, and stop doing so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Names, Output, Selection

if TYPE_CHECKING:
    from sandbox.cluster.client import Cluster
    from sandbox.lifecycle.expiry import Moved
    from sandbox.model.sandbox import Sandbox


def pin(
    common: Common,
    selection: Selection,
    names: Names = None,
    until: Annotated[
        str,
        typer.Option(
            "--until",
            metavar="DATE",
            help="A date (its end, UTC), a duration from now (3d), or an RFC 3339 time.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; everybody sees it.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Keep sandboxes until a date, whatever their expiry says.

    A pin ends: a year ahead at most, and never after what the quota profile allows.
    """
    from sandbox.cli.commands.extend import show
    from sandbox.cli.connect import change_each
    from sandbox.cli.run import run
    from sandbox.lifecycle.expiry import pin as pin_one
    from sandbox.model.errors import InvalidInput

    if not reason.strip():
        raise InvalidInput("--reason says nothing", hint="whoever finds the sandbox later wants to know why it is kept")

    async def change(cluster: Cluster, sandbox: Sandbox) -> Moved:
        by = (await cluster.whoami()).username
        return await pin_one(cluster, sandbox, until, reason.strip(), by, dry_run=dry_run)

    show(run(change_each(common, selection, names or [], change)), output, dry_run=dry_run)


def unpin(
    common: Common,
    selection: Selection,
    names: Names = None,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Let the expiry of sandboxes count again.

    Half an hour is left at the least.
    """
    from sandbox.cli.commands.extend import show
    from sandbox.cli.connect import change_each
    from sandbox.cli.run import run
    from sandbox.lifecycle.expiry import unpin as unpin_one

    moved = run(change_each(common, selection, names or [], lambda c, s: unpin_one(c, s, dry_run=dry_run)))
    show(moved, output, dry_run=dry_run)
