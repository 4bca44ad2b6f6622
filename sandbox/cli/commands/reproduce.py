"""``sandbox reproduce``: a captured moment, again."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.formats import Format
from sandbox.cli.options import AllowTags, Common, DryRun, ForOwner, Identity, Output, Quota, TimeToLive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cli.output import Column
    from sandbox.reproduce.report import Line
    from sandbox.reproduce.reproduce import Reproduced
    from sandbox.reproduce.request import ReproduceRequest
    from sandbox.reproduce.verdict import Verdict

NOT_THE_SAME = 3


class State(StrEnum):
    """Which contents of databases and caches."""

    BEFORE = "before"
    AT_FAILURE = "at-failure"


_COLOURS = {"reproduced": "green", "substituted": "yellow", "unavailable": "red"}


def reproduce(
    common: Common,
    identifier: Annotated[
        str, typer.Argument(metavar="CAPTURE", help="Its id, or how it begins; `latest`: the newest.")
    ],
    store: StoreOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What the sandbox is called; default: owner-project-capture."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SERVICES", help="These services (a,b) and what they need.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            "--replace",
            metavar="SERVICE=REF",
            help="This service at a branch, tag or commit of its repository instead: a fix tried (repeatable).",
        ),
    ] = None,
    build_args: Annotated[
        list[str] | None,
        typer.Option(
            "--build-arg",
            metavar="NAME=VALUE",
            help="Of the images that --replace builds; also SANDBOX_BUILD_ARG_NAME in the environment.",
        ),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Bring the contents of databases and caches back.")
    ] = True,
    state: Annotated[
        State,
        typer.Option("--state", help="The contents at the failure, or those that `deploy` had taken before it."),
    ] = State.AT_FAILURE,
    identity: Identity = None,
    allow_tags: AllowTags = False,
    quota: Quota = None,
    ttl: TimeToLive = None,
    owner: ForOwner = None,
    verdict_timeout: Annotated[
        str, typer.Option("--verdict-timeout", metavar="DURATION", help="How long the failure may take to show.")
    ] = "2m",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long a database may take to start, and to fill.")
    ] = "10m",
    run_command: Annotated[
        bool,
        typer.Option(
            "--run-command/--no-command",
            help="Run the command that the capture names on this machine, where its failure was that command's.",
        ),
    ] = False,
    command_timeout: Annotated[
        str, typer.Option("--command-timeout", metavar="DURATION", help="How long that command may take.")
    ] = "10m",
    dry_run: DryRun = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Bring a capture back in a sandbox, and say whether its failure shows again.

    Ends with exit code 0 where the same failure shows, and 3 where another one or none does. The report says of every
    item of the capture whether it is reproduced, substituted or unavailable, and why.
    """
    import os

    from sandbox.cli.arguments import build_arguments, comma_separated
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration
    from sandbox.model.errors import InvalidInput
    from sandbox.reproduce.request import ReproduceRequest

    if only and not comma_separated(only):
        raise InvalidInput("--only names no service", hint="leave it out to bring all of them back")
    request = ReproduceRequest(
        name=name,
        quota=quota,
        ttl=ttl,
        owner=owner,
        only=comma_separated(only or ()),
        replace=_replacements(replace or ()),
        build_args=build_arguments(build_args or (), os.environ),
        data=data,
        before=state is State.BEFORE,
        identity=identity,
        allow_tags=allow_tags,
        run_command=run_command,
        dry_run=dry_run,
        verdict_timeout=parse_duration(verdict_timeout),
        timeout=parse_duration(timeout),
        command_timeout=parse_duration(command_timeout),
        folder=Path.cwd(),
    )
    ended = run(_reproduce(common, identifier, store, request))
    if dry_run:
        _show_plan(ended, output_format)
        return
    _show(ended, output_format)
    if ended.verdict is not None and not _is_as_captured(ended.verdict):
        raise typer.Exit(NOT_THE_SAME)


def _replacements(arguments: Sequence[str]) -> dict[str, str]:
    """Ref by service of ``--replace``.

    Raises:
        InvalidInput: an argument that is not SERVICE=REF, or a service named twice.
    """
    from sandbox.model.errors import InvalidInput

    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, ref = argument.partition("=")
        if not (name and equals and ref):
            raise InvalidInput(f"--replace {argument!r}: expected SERVICE=REF, such as web=main")
        if name in found:
            raise InvalidInput(f"--replace names the service {name} twice")
        found[name] = ref
    return found


async def _reproduce(common: Common, identifier: str, given: str | None, request: ReproduceRequest) -> Reproduced:
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.reporter import reporter
    from sandbox.reproduce.reproduce import reproduce as bring_back

    store = await chosen_store(common, given)
    bundle = await open_bundle(store, await find(store, identifier))
    with reporter(verbose=common.verbose) as talk:
        return await bring_back(common.target(), bundle, request, talk)


def _is_as_captured(verdict: Verdict) -> bool:
    """Whether it is what was captured: the same failure, or nothing fails where nothing did."""
    return verdict.is_same or (verdict.verdict == "nothing to compare" and not verdict.captured and not verdict.found)


# -- showing it -------------------------------------------------------------------------------------------------------


def _show(ended: Reproduced, output_format: Format) -> None:
    from sandbox.cli import output
    from sandbox.cli.reporter import say

    if output_format is Format.NAME:
        output.write(ended.identity.name)
        return
    if output_format in (Format.JSON, Format.YAML):
        output.show_data(_data(ended), output_format)
        return
    assert ended.verdict is not None
    for note in ended.notes:
        say(f"note: {note}")
    for line in _verdict_lines(ended.verdict):
        output.write(line)
    output.write("")
    told = [line for line in ended.lines if line.outcome != "reproduced" or output_format is Format.WIDE]
    for line in output.table_lines(told, _columns(), coloured=output.stdout_colours()):
        output.write(line)
    output.write(_summary(ended.lines))
    for mention in ended.blueprint.unresolved:
        say(f"left as it is: {output.printable(mention)}", colour="yellow")
    if ended.command:
        import shlex

        say(f"its command was not run: {output.printable(shlex.join(ended.command))}")
    name = ended.identity.name
    for command in (f"sandbox status {name}", f"sandbox down {name}"):
        say(f"  {command}")


def _verdict_lines(verdict: Verdict) -> list[str]:
    from sandbox.cli.output import paint, printable, stdout_colours

    coloured = stdout_colours()
    head = f"{verdict.verdict}, {verdict.after:g} s after the services were started"
    lines = [paint(head, ("green" if verdict.is_same else "red") if coloured else "")]
    lines += [f"captured: {printable(verdict.captured)}"] if verdict.captured else []
    lines += [f"now:      {printable(verdict.found)}"] if verdict.found else []
    lines += [f"          {printable(verdict.why)}"] if verdict.why else []
    return lines + [f"    {printable(line)}" for line in verdict.evidence]


def _columns() -> list[Column[Line]]:
    from sandbox.cli.output import Column

    return [
        Column("ITEM", lambda line: line.name),
        Column("OUTCOME", lambda line: line.outcome, colour=lambda line: _COLOURS[line.outcome]),
        Column("WHY", lambda line: line.why),
    ]


def _summary(lines: Sequence[Line]) -> str:
    from sandbox.reproduce.report import counts

    return ", ".join(f"{count} {outcome}" for outcome, count in counts(lines).items())


def _data(ended: Reproduced) -> dict[str, Any]:
    from sandbox.reproduce import report, verdict
    from sandbox.reproduce.reproduce import replaced_data

    return {
        "capture": ended.capture,
        "sandbox": ended.sandbox,
        "verdict": verdict.as_data(ended.verdict) if ended.verdict else None,
        "counts": report.counts(ended.lines),
        "report": report.as_data(ended.lines),
        "renamed": [mention.line() for mention in ended.blueprint.renamed],
        "unresolved": list(ended.blueprint.unresolved),
        "replaced": replaced_data(ended.blueprint.replaced),
        "command": list(ended.command),
        "notes": list(ended.notes),
    }


def _show_plan(ended: Reproduced, output_format: Format) -> None:
    """What would be applied, without the contents of Secrets; as text the plan is in comments."""
    from sandbox.cli import output
    from sandbox.provision.masking import masked_manifest, secret_values

    if output_format is Format.NAME:
        output.write(ended.identity.name)
        return
    known = secret_values(ended.manifests)
    manifests = [masked_manifest(manifest, known) for manifest in ended.manifests]
    if output_format in (Format.JSON, Format.YAML):
        output.show_data({"plan": _plan_data(ended), "manifests": manifests}, output_format)
        return
    for line in _plan_lines(ended):
        output.write(f"# {output.printable(line)}".rstrip())
    output.write(output.to_yaml_documents(manifests), newline=False)


def _plan_data(ended: Reproduced) -> dict[str, Any]:
    from sandbox.reproduce.reproduce import replaced_data

    planned = ended.blueprint
    return {
        "capture": ended.capture,
        "sandbox": {"name": ended.identity.name, "namespace": ended.identity.namespace, "owner": ended.identity.owner},
        "quota_profile": ended.plan.profile.name,
        "ttl": ended.plan.ttl,
        "services": {
            name: [pin.reference for pin in planned.pins if pin.workload == name] for name in planned.services
        },
        "fill": [store.fixture.name for store in planned.stores],
        "replaced": replaced_data(planned.replaced),
        "changes": planned.changes,
        "left_out": planned.left_out,
        "unfilled": planned.unfilled,
        "renamed": [mention.line() for mention in planned.renamed],
        "unresolved": planned.unresolved,
    }


def _plan_lines(ended: Reproduced) -> list[str]:
    from sandbox.model.durations import format_duration

    planned, identity = ended.blueprint, ended.identity
    profile, ttl = ended.plan.profile.name, format_duration(ended.plan.ttl)
    lines = [
        f"Capture {ended.capture} into sandbox {identity.name}, namespace {identity.namespace}, owner {identity.owner}",
        f"Quota profile {profile}, expires {ttl} after it is made; nothing gets out of it but DNS",
        f"Services: {', '.join(planned.services)}",
    ]
    lines += [f"{name}: {other.line}" for name, other in planned.replaced.items()]
    lines += [f"Filled before the services start: {store.fixture.name}" for store in planned.stores]
    lines += [f"Not filled: {name}: {why}" for name, why in planned.unfilled.items()]
    lines += [f"Left out: {name}: {why}" for name, why in planned.left_out.items()]
    lines += [f"{change.object} {change.path}: {change.why}" for change in planned.changes]
    lines += [f"Left as it is: {mention}" for mention in planned.unresolved]
    return [*lines, "Nothing was changed."]
