"""``sandbox down``: delete sandboxes and all that belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Names, Output, Selection, Yes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.provision.down import DownResult
    from sandbox.store.store import Store


def down(
    common: Common,
    selection: Selection,
    names: Names = None,
    all_: Annotated[bool, typer.Option("--all", help="All sandboxes of one owner: --all --owner me.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is gone.")] = True,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="A NAME that there is not is no error.")
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long being gone may take.")] = "5m",
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete sandboxes and everything that their records name.

    What you deleted before is no error, while its lock is kept; nor is the current branch's sandbox that there is not.
    What cannot be deleted is named with the reason.
    """
    from sandbox.cli.confirm import confirm
    from sandbox.cli.connect import done_of, raise_failures
    from sandbox.cli.reporter import reporter
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.down import down as delete

    if names and selection.given:
        raise InvalidInput("NAME and --sandbox or --namespace say which twice", hint="leave one of them out")
    bound = parse_duration(timeout)
    wanted = run(_all_of(common, selection, names) if all_ else _names(common, selection, names))
    if not dry_run and wanted:
        confirm(f"Delete {', '.join(wanted)} and everything in {'them' if len(wanted) > 1 else 'it'}?", yes=yes)
    store = None if dry_run or not wanted else _store(common)
    with reporter(verbose=common.verbose) as talk:
        results = run(
            delete(
                common.target(),
                wanted,
                reporter=talk,
                store=store,
                dry_run=dry_run,
                wait=wait,
                timeout=bound.total_seconds(),
                must_exist=not all_ and bool(names or selection.given) and not ignore_not_found,
            )
        )
    _show(done_of(results), output, dry_run=dry_run)
    raise_failures([*results, *_stuck(done_of(results))])


def _store(common: Common) -> Store | None:
    """Where locks are kept; None where that place is none, which keeps nothing from being deleted."""
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.reporter import say
    from sandbox.cli.run import run
    from sandbox.model.errors import InvalidInput

    try:
        return run(chosen_store(common, None))
    except InvalidInput as error:
        say(f"warning: no lock is kept: {error}", colour="yellow")
        return None


async def _names(common: Common, selection: Selection, names: Sequence[str] | None) -> list[str]:
    """The sandboxes that are meant; the current branch's needs the cluster, which knows who we are."""
    if names:
        return list(dict.fromkeys(names))
    if selection.given:
        return [selection.given]
    from sandbox.cluster.client import Cluster
    from sandbox.provision.inspect import default_sandbox_name

    prefix = common.target().namespace_prefix
    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        return [await default_sandbox_name(cluster, owner=selection.owner, prefix=prefix)]


async def _all_of(common: Common, selection: Selection, names: Sequence[str] | None) -> list[str]:
    """The namespaces of all of an owner's sandboxes: of names there may be two."""
    from sandbox.cli.reporter import say
    from sandbox.cluster.client import Cluster
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.inspect import Filter, list_sandboxes

    if names or selection.given:
        raise InvalidInput("--all means all of them", hint="leave out the names, or --all")
    if not selection.owner:
        raise InvalidInput("--all does not say whose", hint="say --all --owner me, or --all --owner NAME")
    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        owner = (await cluster.whoami()).username if selection.owner == "me" else selection.owner
        found = await list_sandboxes(cluster, Filter(owner=owner))
    if not found:
        say(f"there are no sandboxes of {owner}")
    return [sandbox.namespace for sandbox in found]


def _show(results: Sequence[DownResult], output: Format, *, dry_run: bool) -> None:
    from sandbox.cli.output import Column, show_list
    from sandbox.cli.reporter import say

    def state(result: DownResult) -> str:
        if result.stuck:
            return "stuck"
        if not result.deleted:
            return "not there"
        if dry_run:
            return "would be deleted"
        return "deleted" if result.ended else "deleting"

    columns: list[Column[DownResult]] = [
        Column("NAME", lambda r: r.name),
        Column("STATE", state, colour=lambda r: "red" if r.stuck else ""),
        Column("OBJECTS", lambda r: str(len(r.objects))),
        Column("WHICH", lambda r: ", ".join(r.objects), wide=True),
        Column("LOCK", lambda r: r.lock, wide=True),
    ]
    if results or output in (Format.JSON, Format.YAML):
        show_list(results, columns, output, name=lambda r: r.name)
    for result in results:
        if result.restore and not result.stuck:
            say(f"{result.name} comes back with: {result.restore}")


def _stuck(results: Sequence[DownResult]) -> list[Exception]:
    from sandbox.model.errors import PartlyDone

    stuck = [f"{result.name}: {reason}" for result in results for reason in result.stuck]
    hint = "mend that, then run `sandbox down` again"
    return [PartlyDone("not everything is gone", why="\n".join(stuck), hint=hint)] if stuck else []
