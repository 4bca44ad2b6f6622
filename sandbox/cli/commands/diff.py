"""``sandbox diff``: what differs between two things that a system can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.capture.difference import Difference
    from sandbox.capture.sides import Compared
    from sandbox.cli.output import Column

DIFFERENT = 3
_LONGEST = 60


def diff(
    common: Common,
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An environment, a sandbox, a record of one (qa@3), a capture, a lock file or a git ref.",
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    store: StoreOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what differs between captures, running places, records, locks and commits.

    That is services, images, values, configuration, objects, data and tools, from A to B. Commits are rendered, without
    a cluster: two of them for all environments of the project, one and something else as the environment of the latter.
    What is secret is compared by fingerprints and never shown. `KIND:NAME` says what a name means where it could mean
    several things (env, sandbox, record, capture, lock, ref). Ends with exit code 3 where something differs.
    """
    from sandbox.cli.reporter import say
    from sandbox.cli.run import run

    compared = run(_diff(common, before, after, store))
    for note in compared.notes:
        say(f"note: {note}")
    if show_differences(compared.differences, output):
        raise typer.Exit(DIFFERENT)


async def _diff(common: Common, before: str, after: str, given: str | None) -> Compared:
    from sandbox.capture.sides import Surroundings, compare
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.reporter import reporter
    from sandbox.provision.workspace import workspace

    with workspace() as folder, reporter(verbose=common.verbose) as talk:
        place = Surroundings(common.target(), Path.cwd(), folder, lambda: chosen_store(common, given), talk)
        return await compare(place, before, after)


def show_differences(found: Sequence[Difference], output: Format) -> bool:
    """Write them; whether there are any."""
    from sandbox.cli.output import printable, show_list, write
    from sandbox.cli.reporter import say

    if not found and output in (Format.TABLE, Format.WIDE):
        say("no difference")
        return False
    several = any(one.environment for one in found)
    shown = found
    if output in (Format.TABLE, Format.WIDE):
        # In whole, and before what may be why.
        shown = [one for one in found if one.area != "failure"]
        for failure in (one for one in found if one.area == "failure"):
            write(f"failing before: {printable(failure.before)}")
            write(f"failing after:  {printable(failure.after)}")
    show_list(shown, _columns(several=several), output, name=lambda one: f"{one.area}/{one.where}")
    return bool(found)


def _columns(*, several: bool) -> list[Column[Difference]]:
    from sandbox.cli.output import Column

    return [
        *([Column[Difference]("ENV", lambda d: d.environment or "all")] if several else []),
        Column("WHAT", lambda d: d.area),
        Column("WHERE", lambda d: d.where),
        Column("PATH", lambda d: d.path),
        Column("BEFORE", lambda d: shortened(d.before), colour=lambda d: "red"),
        Column("AFTER", lambda d: shortened(d.after), colour=lambda d: "green"),
    ]


def shortened(text: str) -> str:
    """A value as it is shown beside another one."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
