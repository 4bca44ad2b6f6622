"""``sandbox bisect``: the guilty change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.formats import Format
from sandbox.cli.options import (
    AllowTags,
    Common,
    ForOwner,
    Identity,
    Output,
    Quota,
    ServiceTimeout,
    TimeToLive,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.bisect.report import Found, Guilty
    from sandbox.bisect.request import BisectRequest

_MOST_COMMITS = 10


def bisect(
    common: Common,
    good: Annotated[
        str,
        typer.Argument(
            metavar="GOOD", help="Where CMD passes: a capture, environment, sandbox, record (qa@3) or lock."
        ),
    ],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="The same, where it fails.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD...]",
            show_default=False,
            help="The test: run here, with SANDBOX_<SERVICE>_URL and KUBECONFIG. Exit code 125: it cannot tell. "
            "Without it, the failure is the captured one: a service that is not ready, or its smoke test.",
        ),
    ] = None,
    store: StoreOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What the sandboxes are called, with a number; default: owner-project-…."
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            "--parallel", metavar="N", min=1, max=16, help="Tests at the same time; default: 2, where so many may be."
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option("--parts/--no-parts", help="Take guilty services apart: images, configuration, manifests."),
    ] = True,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Fill databases and caches with what they hold in BAD.")
    ] = True,
    identity: Identity = None,
    allow_tags: AllowTags = False,
    quota: Quota = None,
    ttl: TimeToLive = None,
    owner: ForOwner = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the answers of an interrupted search.")] = False,
    timeout: ServiceTimeout = "5m",
    command_timeout: Annotated[
        str, typer.Option("--command-timeout", metavar="DURATION", help="How long CMD may take.")
    ] = "10m",
    output_format: Output = Format.TABLE,
) -> None:
    """Find which of the changes between two states makes a test fail.

    Combinations of the changes are tried in sandboxes until a smallest set is left that makes CMD fail; the sandbox
    with it stays. The same command goes on with a search that was interrupted.
    """
    from sandbox.bisect.request import BisectRequest
    from sandbox.cli.run import run
    from sandbox.cluster.providers.places import state_dir
    from sandbox.model.durations import parse_duration

    request = BisectRequest(
        good=good,
        bad=bad,
        command=tuple(command or ()),
        folder=Path.cwd(),
        state=state_dir(),
        name=name,
        quota=quota,
        ttl=ttl,
        owner=owner,
        parallel=parallel,
        parts=parts,
        data=data,
        identity=identity,
        allow_tags=allow_tags,
        fresh=fresh,
        command_timeout=parse_duration(command_timeout),
        timeout=parse_duration(timeout),
    )
    _show(run(_bisect(common, store, request)), output_format)


async def _bisect(common: Common, given: str | None, request: BisectRequest) -> Found:
    from sandbox.bisect.bisect import bisect as search
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.reporter import reporter

    with reporter(verbose=common.verbose) as talk:
        return await search(common.target(), lambda: chosen_store(common, given), request, talk)


def _show(found: Found, output_format: Format) -> None:
    from sandbox.bisect.report import as_data
    from sandbox.cli import output
    from sandbox.cli.reporter import say

    if output_format is Format.NAME:
        for one in found.guilty:
            output.write(one.change.name)
        return
    if output_format in (Format.JSON, Format.YAML):
        output.show_data(as_data(found), output_format)
        return
    for line in _lines(found, wide=output_format is Format.WIDE):
        output.write(output.printable(line))
    name = found.sandbox.name
    say(f"the sandbox {name} has it:")
    for command in (f"sandbox status {name}", f"sandbox open -s {name} SERVICE", f"sandbox down {name}"):
        say(f"  {command}")


def _lines(found: Found, *, wide: bool) -> Iterator[str]:
    together = ", together" if len(found.guilty) > 1 else ""
    yield f"{', '.join(one.change.name for one in found.guilty)} made it fail{together}"
    yield f"  {found.failure.said}"
    yield from (f"    {line}" for line in found.failure.evidence)
    for one in found.guilty:
        yield ""
        yield from _guilty_lines(one, wide=wide)
    yield ""
    unresolved = f", {found.unresolved} unresolved" if found.unresolved else ""
    yield f"{len(found.tests)} tests in {found.rounds} rounds, of {len(found.changes)} changes{unresolved}"


def _guilty_lines(one: Guilty, *, wide: bool) -> Iterator[str]:
    from sandbox.cli.commands.diff import shortened

    good, bad = (lock.commit[:12] if lock else "" for lock in (one.good, one.bad))
    versions = f" {good or 'not there'} → {bad or 'not there'}" if good != bad else ""
    yield f"{one.change.name}:{versions} ({', '.join(one.change.objects)})"
    if one.history.unread and (good or bad):
        yield f"  commits: {one.history.unread}"
    commits = one.history.commits if wide else one.history.commits[:_MOST_COMMITS]
    for commit in commits:
        yield f"  {commit.sha[:12]} {commit.author}: {commit.subject}"
    if rest := len(one.history.commits) - len(commits) + one.history.more:
        yield f"  and {rest} more"
    for difference in one.differences:
        before, after = (shortened(text) or "-" for text in (difference.before, difference.after))
        path = f" {difference.path}" if difference.path else ""
        yield f"  {difference.area} {difference.where}{path}: {before} → {after}"
    if one.without is not None and one.without.kind not in ("passed",):
        yield f"  without it: {one.without.said}"
