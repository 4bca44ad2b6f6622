"""``sandbox extend``: let sandboxes live longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Output, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.lifecycle.expiry import Moved


def extend(
    common: Common,
    selection: Selection,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME]... DURATION",
            autocompletion=complete_sandboxes,
            show_default=False,
            help="Sandboxes (default: the current branch's), and how long from now: 4h, 2d.",
        ),
    ],
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Let sandboxes live for a time from now on.

    One that lives longer already stays as it is. What its quota profile allows at the latest is not exceeded.
    """
    from sandbox.cli.connect import change_each
    from sandbox.cli.run import run
    from sandbox.lifecycle.expiry import extend as extend_one
    from sandbox.model.deadline import parse_ttl

    *names, text = words
    ttl = parse_ttl(text)
    moved = run(change_each(common, selection, names, lambda c, s: extend_one(c, s, ttl, dry_run=dry_run)))
    show(moved, output, dry_run=dry_run)


def show(outcomes: Sequence[Moved | Exception], output: Format, *, dry_run: bool) -> None:
    """Say when sandboxes end now; what was done before what was not.

    Raises:
        what stood in the way, where something did.
    """
    from sandbox.cli.connect import done_of, raise_failures
    from sandbox.cli.output import Column, show_list
    from sandbox.cli.reporter import say
    from sandbox.model.durations import relative, to_rfc3339

    moved = done_of(outcomes)
    columns: list[Column[Moved]] = [
        Column("NAME", lambda m: m.sandbox.name),
        Column("EXPIRES", lambda m: relative(m.sandbox.expires_at, m.now) if m.sandbox.expires_at else "unknown"),
        Column("AT", lambda m: to_rfc3339(m.sandbox.expires_at) if m.sandbox.expires_at else ""),
        Column("PINNED", lambda m: m.sandbox.pin_reason if m.sandbox.pinned_until else ""),
    ]
    if moved:
        show_list(moved, columns, output, name=lambda m: m.sandbox.name, data=_data)
    for one in moved:
        if one.sandbox.expiry_problem:
            say(f"warning: nobody can say when {one.sandbox.name} ends: {one.sandbox.expiry_problem}", colour="yellow")
        elif not one.changed:
            say(f"{one.sandbox.name} needed no change")
        elif dry_run:
            say(f"{one.sandbox.name} was not changed (--dry-run)")
        if one.note:
            say(f"note: {one.sandbox.name}: {one.note}")
    raise_failures(outcomes)


def _data(moved: Moved) -> dict[str, object]:
    sandbox = moved.sandbox
    return {
        "name": sandbox.name,
        "namespace": sandbox.namespace,
        "changed": moved.changed,
        "expires_at": sandbox.expires_at,
        "pinned_until": sandbox.pinned_until,
        "pin_reason": sandbox.pin_reason,
        "max_expires_at": sandbox.max_expires_at,
    }
