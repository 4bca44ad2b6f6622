"""``sandbox sleep`` and ``sandbox wake``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Names, Output, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cluster.client import Cluster
    from sandbox.lifecycle.sleep import Slept
    from sandbox.model.sandbox import Sandbox


def sleep(
    common: Common,
    selection: Selection,
    names: Names = None,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Stop the pods of sandboxes until they are woken; everything else stays.

    What has replicas gets none, CronJobs and Jobs are suspended. `sandbox wake` and `sandbox up` wake it.
    """
    from sandbox.cli.connect import change_each
    from sandbox.cli.run import run
    from sandbox.lifecycle.sleep import fall_asleep

    done = run(change_each(common, selection, names or [], lambda c, s: fall_asleep(c, s, dry_run=dry_run)))
    _show(done, output)


def wake(
    common: Common,
    selection: Selection,
    names: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until what was woken is ready.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long that may take.")] = "5m",
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Start sandboxes again that were put to sleep.

    Everything gets the replicas that it had. What somebody has started by hand meanwhile stays as it is.
    """
    from sandbox.cli.connect import change_each
    from sandbox.cli.reporter import reporter
    from sandbox.cli.run import run
    from sandbox.lifecycle.sleep import wait_awake, wake_up
    from sandbox.model.durations import parse_duration

    bound = parse_duration(timeout).total_seconds()
    with reporter(verbose=common.verbose) as talk:

        async def one(cluster: Cluster, sandbox: Sandbox) -> Slept:
            woken = await wake_up(cluster, sandbox, dry_run=dry_run)
            if wait and not dry_run:
                with talk.step(f"Wake {sandbox.name}") as step:
                    await wait_awake(cluster, woken, bound, step.detail)
            return woken

        done = run(change_each(common, selection, names or [], one))
    _show(done, output)


def _show(outcomes: Sequence[Slept | Exception], output: Format) -> None:
    """Say what was done before what was not.

    Raises:
        what stood in the way, where something did.
    """
    from sandbox.cli.connect import done_of, raise_failures
    from sandbox.cli.output import Column, show_list
    from sandbox.cli.reporter import say

    columns: list[Column[Slept]] = [
        Column("NAME", lambda s: s.sandbox.name),
        Column("PHASE", lambda s: s.sandbox.phase),
        Column("CHANGED", lambda s: str(len(s.changed))),
        Column("WHICH", lambda s: ", ".join(s.changed), wide=True),
    ]
    done = done_of(outcomes)
    if done:
        show_list(done, columns, output, name=lambda s: s.sandbox.name, data=_data)
    for slept in done:
        for thing, why in slept.awake.items():
            say(f"warning: {slept.sandbox.name}: {thing} goes on running: {why}", colour="yellow")
    raise_failures(outcomes)


def _data(slept: Slept) -> dict[str, object]:
    return {
        "name": slept.sandbox.name,
        "namespace": slept.sandbox.namespace,
        "phase": slept.sandbox.phase,
        "changed": slept.changed,
        "awake": slept.awake,
    }
