"""``sandbox list``: the sandboxes that one can see, in one cluster or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.completion import complete_owners
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output, Watch

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox.cli.output import Column
    from sandbox.cluster.client import Cluster
    from sandbox.model.errors import SandboxError
    from sandbox.model.sandbox import Sandbox
    from sandbox.provision.inspect import Filter


def list_(
    common: Common,
    output: Output = Format.TABLE,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="me|NAME", autocompletion=complete_owners, help="Only those of one owner."),
    ] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only those of one project.")] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option("--phase", metavar="PHASE", help="Only those in a phase (Ready, Failed, …); may be repeated."),
    ] = None,
    expiring: Annotated[
        str | None, typer.Option("--expiring", metavar="DURATION", help="Only those that expire within, such as 2h.")
    ] = None,
    selector: Annotated[
        str,
        typer.Option("-l", "--selector", metavar="LABELS", help="Only namespaces with these labels."),
    ] = "",
    contexts: Annotated[
        str | None, typer.Option("--contexts", metavar="A,B", help="Look in these kubeconfig contexts.")
    ] = None,
    all_contexts: Annotated[bool, typer.Option("--all-contexts", help="Look in all kubeconfig contexts.")] = False,
    all_: Annotated[
        bool, typer.Option("-A", "--all", help="All owners' sandboxes: the default, accepted as in kubectl.")
    ] = False,
    sort_by: Annotated[
        str, typer.Option("--sort-by", metavar="KEY", help="name, namespace, owner, project, phase, expires or age.")
    ] = "name",
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Leave out the table's titles.")] = False,
    watch: Watch = False,
) -> None:
    """List sandboxes.

    Shows the sandboxes of all owners in the current context; `--owner me` shows yours.
    """
    from sandbox.cli.run import run
    from sandbox.provision.inspect import sort_sandboxes

    if all_ and owner:
        raise typer.BadParameter("-A shows the sandboxes of all owners; leave one of the two out", param_hint="--owner")
    wanted = _filter(project, phase, expiring, selector)
    places = _contexts(common, contexts, all_contexts)
    sort_sandboxes((), sort_by)
    if watch:
        run(_watch(common, places, owner, wanted, output))
    else:
        run(_list(common, places, owner, wanted, output, sort_by, header=not no_headers))


def _filter(project: str | None, phases: list[str] | None, expiring: str | None, selector: str) -> Filter:
    from sandbox.model.durations import parse_duration
    from sandbox.model.errors import InvalidInput
    from sandbox.model.sandbox import Phase
    from sandbox.provision.inspect import Filter

    by_name = {phase.lower(): phase for phase in Phase}
    chosen = set()
    for text in phases or ():
        for name in text.split(","):
            if name.lower() not in by_name:
                raise InvalidInput(f"{name!r} is not a phase", hint=f"one of {', '.join(Phase)}")
            chosen.add(by_name[name.lower()])
    return Filter(
        project=project,
        phases=frozenset(chosen),
        label_selector=selector,
        expiring_within=parse_duration(expiring) if expiring else None,
    )


def _contexts(common: Common, names: str | None, everywhere: bool) -> list[str | None]:
    from sandbox.cluster.client import contexts
    from sandbox.model.errors import InvalidInput

    if not everywhere and names is None:
        return [common.context]
    if everywhere and names is not None:
        raise InvalidInput("--contexts and --all-contexts exclude each other")
    known = contexts(common.kubeconfig)
    if everywhere:
        return list(known)
    chosen = [name for name in (names or "").split(",") if name]
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        raise InvalidInput(
            f"there is no context {', '.join(unknown)}" if unknown else "--contexts names no context",
            why=f"the kubeconfig has {', '.join(known) or 'none'}",
        )
    return list(dict.fromkeys(chosen))


async def _list(
    common: Common,
    places: list[str | None],
    owner: str | None,
    wanted: Filter,
    output: Format,
    sort_by: str,
    *,
    header: bool,
) -> None:
    import asyncio
    from datetime import UTC, datetime

    from sandbox.cli.output import show_list
    from sandbox.cli.reporter import say
    from sandbox.model.errors import PartlyDone, SandboxError
    from sandbox.provision.inspect import sort_sandboxes

    async def one(place: str | None) -> list[Sandbox] | SandboxError:
        try:
            return await _in_context(common, place, owner, wanted)
        except SandboxError as error:
            return error

    results = await asyncio.gather(*(one(place) for place in places))
    failed: dict[str, SandboxError] = {
        str(place): result for place, result in zip(places, results, strict=True) if isinstance(result, SandboxError)
    }
    if failed and len(failed) == len(places):
        raise next(iter(failed.values()))
    found = sort_sandboxes((s for result in results if isinstance(result, list) for s in result), sort_by)
    now = datetime.now(UTC)
    if not found and output in (Format.TABLE, Format.WIDE):
        say("no sandboxes found")
    else:
        shown = columns(now, several_contexts=len(places) > 1)
        show_list(found, shown, output, name=lambda s: s.name, header=header)
    if failed:
        raise PartlyDone(
            f"{len(failed)} of {len(places)} contexts could not be listed",
            why="\n".join(f"{place}: {error}" for place, error in failed.items()),
        )


async def _in_context(common: Common, place: str | None, owner: str | None, wanted: Filter) -> list[Sandbox]:
    from sandbox.cli.connect import same_as
    from sandbox.cluster.client import Cluster
    from sandbox.provision.inspect import list_sandboxes

    async with Cluster.connect(place, common.kubeconfig) as cluster:
        wanted = await _of_owner(cluster, owner, wanted)
        same_as(common, cluster, "get", "namespaces", "-l", wanted.selector())
        return await list_sandboxes(cluster, wanted)


async def _of_owner(cluster: Cluster, owner: str | None, wanted: Filter) -> Filter:
    from dataclasses import replace

    if owner == "me":
        owner = (await cluster.whoami()).username
    return replace(wanted, owner=owner)


async def _watch(common: Common, places: list[str | None], owner: str | None, wanted: Filter, output: Format) -> None:
    """Print a row for each sandbox, then one for each change, as kubectl does."""
    import asyncio

    from sandbox.cli.connect import same_as
    from sandbox.cluster.client import Cluster
    from sandbox.provision.inspect import watch_sandboxes

    table = _WatchedTable(output, several_contexts=len(places) > 1)

    async def one(place: str | None) -> None:
        async with Cluster.connect(place, common.kubeconfig) as cluster:
            mine = await _of_owner(cluster, owner, wanted)
            same_as(common, cluster, "get", "namespaces", "-l", mine.selector(), "--watch")
            async for _, sandbox in watch_sandboxes(cluster, mine):
                table.show(sandbox)

    async with asyncio.TaskGroup() as group:
        for place in places:
            group.create_task(one(place))


class _WatchedTable:
    """A table that grows; a row is shown when it says something new."""

    def __init__(self, output: Format, *, several_contexts: bool) -> None:
        self._output = output
        self._several = several_contexts
        self._header = True
        self._widths: list[int] | None = None
        self._last: dict[str, Sandbox] = {}

    def show(self, sandbox: Sandbox) -> None:
        from datetime import UTC, datetime

        from sandbox.cli import output

        if self._last.get(sandbox.uid) == sandbox:
            return
        self._last[sandbox.uid] = sandbox
        if self._output is Format.JSON:
            output.show_data(sandbox, self._output)
            return
        if self._output is Format.YAML:
            output.write(output.to_yaml_documents([sandbox]), newline=False)
            return
        if self._output is Format.NAME:
            output.write(output.printable(sandbox.name))
            return
        shown = columns(datetime.now(UTC), several_contexts=self._several)
        wide = self._output is Format.WIDE
        widths = output.table_widths([sandbox], shown, wide=wide)
        self._widths = [max(pair) for pair in zip(widths, self._widths or widths, strict=True)]
        coloured = output.stdout_colours()
        for line in output.table_lines(
            [sandbox], shown, wide=wide, header=self._header, coloured=coloured, widths=self._widths
        ):
            output.write(line)
        self._header = False


def columns(now: datetime, *, several_contexts: bool = False) -> list[Column[Sandbox]]:
    """The table of sandboxes."""
    from sandbox.cli.output import Column
    from sandbox.model.durations import relative, short_duration
    from sandbox.provision.identity import display_name

    return [
        Column("NAME", lambda s: s.name),
        Column("CONTEXT", lambda s: s.context, wide=not several_contexts),
        Column("OWNER", lambda s: display_name(s.owner), wide_text=lambda s: s.owner),
        Column("PROJECT", lambda s: s.project, wide=True),
        Column("PHASE", lambda s: s.phase, colour=lambda s: PHASE_COLOURS.get(s.phase, "")),
        Column("REF", lambda s: s.ref),
        Column("COMMIT", lambda s: s.commit[:12]),
        Column(
            "EXPIRES",
            lambda s: relative(s.expires_at, now) if s.expires_at else "",
            colour=lambda s: "yellow" if s.expires_at and (s.expires_at - now).total_seconds() < 3600 else "",
        ),
        Column("PINNED", lambda s: s.pin_reason or "yes" if s.pinned_until else "", wide=True),
        Column("AGE", lambda s: short_duration(now - s.created_at) if s.created_at else ""),
        Column("NAMESPACE", lambda s: s.namespace, wide=True),
        Column("QUOTA", lambda s: s.quota_profile, wide=True),
        Column("REPO", lambda s: s.repo, wide=True),
    ]


PHASE_COLOURS = {
    "Ready": "green",
    "Failed": "red",
    "Provisioning": "yellow",
    "Expiring": "yellow",
    "Terminating": "yellow",
    "Sleeping": "grey",
}
