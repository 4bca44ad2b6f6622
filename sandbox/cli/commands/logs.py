"""``sandbox logs``: what a service's containers write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.completion import complete_services
from sandbox.cli.options import Common, Selection

if TYPE_CHECKING:
    from datetime import timedelta

    from sandbox.cluster.pods import LogLine

# The kubelet answers with this, as if it were the log, about a container that it removed.
_KUBELETS_OWN = "unable to retrieve container logs for "
_COLOURS = ("green", "yellow", "blue", "magenta", "cyan", "red")


def logs(
    common: Common,
    selection: Selection,
    service: Annotated[
        str | None,
        typer.Argument(metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="Default: all."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what comes, from restarted and new pods too.")
    ] = False,
    previous: Annotated[bool, typer.Option("-p", "--previous", help="Of the last run that has ended.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines of each container.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DURATION", help="Only what is younger, such as 10m.")
    ] = None,
    container: Annotated[
        str | None, typer.Option("-c", "--container", metavar="NAME", help="Default: all containers.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="The time of each line.")] = False,
    prefix: Annotated[
        bool | None,
        typer.Option("--prefix/--no-prefix", help="Pod and container before each line; default: for several."),
    ] = None,
) -> None:
    """Print the logs of a service, or of all services.

    Lines are printed as they are. Pods come oldest first.
    """
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    age = parse_duration(since) if since else None
    run(_logs(common, selection, service, follow, previous, tail, age, container, timestamps, prefix))


async def _logs(
    common: Common,
    selection: Selection,
    service: str | None,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: timedelta | None,
    container: str | None,
    timestamps: bool,
    prefix: bool | None,
) -> None:
    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.output import write
    from sandbox.cli.reporter import say
    from sandbox.cluster import pods
    from sandbox.provision.contents import PodFinder, check_awake, inside

    async with reached(common, selection) as (cluster, sandbox):
        found = await inside(cluster, sandbox)
        known = found.pods(service)[::-1]
        if not follow and all("deletionTimestamp" in pod["metadata"] for pod in known):
            check_awake(sandbox, known)
        given = (
            *(("--follow",) if follow else ()),
            *(("--previous",) if previous else ()),
            *((f"--tail={tail}",) if tail is not None else ()),
            *((f"--since={int(since.total_seconds())}s",) if since else ()),
            *((f"--container={container}",) if container else ("--all-containers",)),
        )
        for pod in known:
            same_as(common, cluster, "logs", pod["metadata"]["name"], *given, namespace=sandbox.namespace)
        several = follow or sum(len(_containers(pod)) for pod in known) > 1
        lines = pods.logs(
            cluster,
            sandbox.namespace,
            PodFinder(cluster, sandbox, service, found) if follow else known,
            container=container,
            follow=follow,
            previous=previous,
            tail=tail,
            since=since,
            timestamps=timestamps,
        )
        shown = _Prefixes(several if prefix is None else prefix)
        any_line = False
        async for line in lines:
            any_line = True
            if line.text.startswith(_KUBELETS_OWN):
                say(f"{line.prefix}: {line.text}: the node has removed it")
            else:
                write(shown.line(line))
        if not any_line:
            say(_nothing(known, service, previous=previous))


def _containers(pod: dict[str, object]) -> list[object]:
    from sandbox.model.objects import containers

    spec = pod.get("spec")
    return list(containers(spec)) if isinstance(spec, dict) else []


def _nothing(known: list[dict[str, object]], service: str | None, *, previous: bool) -> str:
    what = f"service {service}" if service else "the sandbox"
    if not known:
        return f"{what} has no pods"
    return (
        f"no log of a previous run: no container of {what} was restarted" if previous else f"{what} has logged nothing"
    )


class _Prefixes:
    """Says before each line whose it is, each pod in a colour of its own."""

    def __init__(self, wanted: bool) -> None:
        from sandbox.cli.output import stdout_colours

        self._wanted = wanted
        self._coloured = stdout_colours()
        self._colours: dict[str, str] = {}

    def line(self, line: LogLine) -> str:
        from sandbox.cli.output import paint

        text = f"{line.at} {line.text}" if line.at else line.text
        if not self._wanted:
            return text
        colour = self._colours.setdefault(line.pod, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"{paint(f'[{line.prefix}]', colour if self._coloured else '')} {text}"
