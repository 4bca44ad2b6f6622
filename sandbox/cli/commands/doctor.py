"""``sandbox doctor``: is everything here that `up` needs, and how to mend what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import output
from sandbox.cli.errors import FAILED
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output
from sandbox.cli.output import Column
from sandbox.cli.reporter import say
from sandbox.cli.run import run

if TYPE_CHECKING:
    from sandbox.provision.doctor import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    common: Common,
    builder: Annotated[
        str | None, typer.Option("--builder", metavar="NAME", help="Look for this builder; default: from settings.")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option("--registry", metavar="HOST/PATH", help="Look at this registry; default: from settings."),
    ] = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Check client, cluster, permissions and tools, and say how to mend each.

    Builder, registry, default storage class and quota profiles too.

    Ends with 0 when nothing failed (warnings are no failures), else with 1.
    """
    from sandbox.provision.doctor import Verdict, examine

    checks = run(examine(common.target(), builder=builder, registry=registry))
    columns: list[Column[Check]] = [
        Column("CHECK", lambda c: c.name),
        Column("STATUS", lambda c: c.status, colour=lambda c: _COLOURS[c.status]),
        Column("DETAIL", lambda c: c.detail),
    ]
    output.show_list(checks, columns, output_format, name=lambda c: c.name)
    if output_format in (Format.TABLE, Format.WIDE):
        for check in checks:
            if check.mend:
                say(f"{check.name}: {check.mend}", colour=_COLOURS[check.status])
    if any(check.status is Verdict.FAIL for check in checks):
        raise typer.Exit(FAILED)
