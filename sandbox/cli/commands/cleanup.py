"""``sandbox cleanup``: what has expired is deleted, whose time is running out is warned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Output, Yes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cli.output import Column
    from sandbox.lifecycle.metrics import Metrics
    from sandbox.lifecycle.report import Line, Pass
    from sandbox.lifecycle.rounds import Place, Round

_MOST_SHOWN = 20
_COLOURS = {"deleted": "green", "failed": "red", "stuck": "red", "flagged": "yellow", "warned": "yellow"}


def cleanup(
    common: Common,
    every: Annotated[
        str | None, typer.Option("--every", metavar="DURATION", help="Again and again, such as 5m, until stopped.")
    ] = None,
    contexts: Annotated[
        str | None, typer.Option("--contexts", metavar="A,B", help="The clusters of these kubeconfig contexts.")
    ] = None,
    kubeconfig_dir: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig-dir",
            metavar="FOLDER",
            help="One cluster for each kubeconfig in it (its current context).",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    selector: Annotated[
        str, typer.Option("-l", "--selector", metavar="LABELS", help="Only namespaces with these labels.")
    ] = "",
    warn_before: Annotated[
        str | None,
        typer.Option(
            "--warn-before",
            metavar="DURATION",
            help="Warn owners this long before; at most half the time to live. Default: platform configuration, 30m.",
        ),
    ] = None,
    stuck_after: Annotated[
        str,
        typer.Option("--stuck-after", metavar="DURATION", help="Report what has been being deleted for longer."),
    ] = "10m",
    alert_url: Annotated[
        str | None,
        typer.Option(
            "--alert-url",
            metavar="URL",
            envvar="SANDBOX_ALERT_URL",
            show_envvar=False,
            help="POST a JSON document there for each warning. With a token in it: set SANDBOX_ALERT_URL instead.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Keep locks there; default: the platform's captureStore, else its cluster; without a platform, yours.",
        ),
    ] = None,
    cluster_scoped: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster-scoped",
            metavar="KIND.GROUP",
            help="Kinds outside of namespaces that sandboxes may have left (a,b). Default: those that the platform's "
            "profiles allow, else ClusterRole and ClusterRoleBinding.",
        ),
    ] = None,
    custom_resources: Annotated[
        list[str] | None,
        typer.Option(
            "--custom-resources",
            metavar="RESOURCE.GROUP",
            help="Delete these before the namespace they are in, so that their operators can finish them (a,b); "
            "besides those of the platform configuration.",
        ),
    ] = None,
    janitor_annotations: Annotated[
        bool,
        typer.Option("--janitor-annotations", help="Honour kube-janitor's annotations on other namespaces too."),
    ] = False,
    janitor_namespaces: Annotated[
        list[str] | None,
        typer.Option("--janitor-namespaces", metavar="PATTERN", help="… of these names: 'pr-*,preview-*'."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=0, max=65535, help="Serve Prometheus metrics there."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete the sandboxes that have expired, and warn the owners of those that soon will.

    `-o json` writes one object a line as it happens, the last of each pass about the pass. Exit code 0: nothing is
    left to do; 3: something wants a look (in a dry run: would be done); 6: something could not be done, or does not
    end.
    """
    from sandbox.cli.arguments import comma_separated
    from sandbox.cli.run import run
    from sandbox.lifecycle.janitor import check_patterns
    from sandbox.lifecycle.rounds import Rounds, Wishes
    from sandbox.model.durations import parse_duration
    from sandbox.model.errors import InvalidInput

    patterns = comma_separated(janitor_namespaces or ())
    if janitor_annotations:
        check_patterns(patterns)
    elif patterns:
        raise InvalidInput("--janitor-namespaces says which, and not whether", hint="add --janitor-annotations")
    if every and not (yes or dry_run):
        raise InvalidInput("--every cannot ask each time", hint="add --yes, or look first with --dry-run")
    period = parse_duration(every) if every else None
    wishes = Wishes(
        selector=selector,
        dry_run=dry_run,
        warn_before=parse_duration(warn_before) if warn_before else None,
        stuck_after=parse_duration(stuck_after),
        janitor=patterns,
        cluster_scoped=comma_separated(cluster_scoped or ()),
        custom_resources=_kinds(comma_separated(custom_resources or ())),
        store=store,
        alert_url=alert_url,
    )
    show = _Show(output, at_once=period is not None)
    rounds = Rounds(_places(common, contexts, kubeconfig_dir), wishes, show.line)
    metrics = _metrics(metrics_port)
    if period is not None:
        run(rounds.forever(period, show.round, metrics))
        return
    done = run(rounds.once(None if yes or dry_run else _ask))
    show.round(done)
    _end(done)


def _ask(due: Sequence[str]) -> None:
    from sandbox.cli.confirm import confirm

    shown = ", ".join(due[:10]) + (f" and {len(due) - 10} others" if len(due) > 10 else "")
    confirm(f"Delete {shown}, which expired?", yes=False)


def _places(common: Common, names: str | None, folder: Path | None) -> list[Place]:
    from sandbox.cluster.client import contexts
    from sandbox.lifecycle.rounds import Place
    from sandbox.model.errors import InvalidInput

    if folder is not None:
        if names is not None or common.context or common.kubeconfig:
            raise InvalidInput("--kubeconfig-dir says which clusters", hint="leave out --contexts and --context")
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        if not files:
            raise InvalidInput(f"there is no kubeconfig in {folder}")
        return [Place(None, path) for path in files]
    if names is None:
        return [Place(common.context, common.kubeconfig)]
    wanted = list(dict.fromkeys(name for name in names.split(",") if name))
    unknown = sorted(set(wanted) - set(contexts(common.kubeconfig)))
    if unknown or not wanted:
        raise InvalidInput(f"there is no context {', '.join(unknown)}" if unknown else "--contexts names no context")
    return [Place(name, common.kubeconfig) for name in wanted]


def _kinds(names: tuple[str, ...]) -> tuple[str, ...]:
    """Custom resources as kubectl names them.

    Raises:
        InvalidInput: one is of Kubernetes' own, or has no group.
    """
    import re

    from sandbox.model.errors import InvalidInput
    from sandbox.project.config import LABEL
    from sandbox.project.platform import API_GROUP

    for name in names:
        resource, _, group = name.partition(".")
        if not (re.search(LABEL, resource) and re.search(API_GROUP, group)):
            raise InvalidInput(
                f"--custom-resources {name} is not of the form RESOURCE.GROUP", hint="such as postgresqls.acid.zalan.do"
            )
    return names


def _metrics(port: int | None) -> Metrics | None:
    if port is None:
        return None
    from sandbox.cli.reporter import say
    from sandbox.lifecycle.metrics import Metrics

    metrics = Metrics()
    say(f"metrics on port {metrics.serve(port)}")
    return metrics


def _end(done: Round) -> None:
    """Leave with the exit code that the round deserves."""
    from sandbox.lifecycle.report import exit_code
    from sandbox.model.errors import PartlyDone

    failures = list(done.failures.items())
    if failures and not done.passes and len(failures) == 1:
        raise failures[0][1]
    if failures:
        raise PartlyDone(
            f"{len(failures)} of {len(failures) + len(done.passes)} clusters were not cleaned up",
            why="\n".join(f"{place}: {error}" for place, error in failures),
            hint="mend that, then run it again",
        )
    if code := exit_code(done.passes):
        raise typer.Exit(code)


class _Show:
    """Shows what is done: as it happens, or as a table at the end."""

    def __init__(self, output: Format, *, at_once: bool) -> None:
        self._output = output
        self._at_once = at_once
        self._lines: list[Line] = []

    def line(self, line: Line) -> None:
        from sandbox.cli import output

        if self._output is Format.JSON:
            output.write(output.to_json_line(line))
        elif self._output is Format.YAML:
            output.write(output.to_yaml_documents([line]), newline=False)
        elif self._output is Format.NAME:
            if line.action in ("deleted", "would-delete"):
                output.write(output.printable(line.namespace))
        elif self._at_once:
            self._table([line], header=False)
            _say_way_back([line])
        else:
            self._lines.append(line)

    def round(self, done: Round) -> None:
        """Show the end of a round."""
        from sandbox.cli import output
        from sandbox.cli.reporter import say

        if self._output is Format.JSON:
            for one in done.passes:
                output.write(output.to_json_line(_summary(one)))
        elif self._lines:
            self._table(self._lines, header=True)
            _say_way_back(self._lines)
            self._lines = []
        for one in done.passes:
            counted = ", ".join(f"{number} {action}" for action, number in sorted(one.actions.items()))
            say(f"{one.context}: {one.looked_at} sandboxes in {one.seconds:.1f} s: {counted or 'nothing to do'}")
        if self._at_once:
            for place, error in done.failures.items():
                say(f"error: {place}: {error}", colour="red")

    def _table(self, lines: Sequence[Line], *, header: bool) -> None:
        from sandbox.cli.output import show_list

        show_list(lines, _columns(), self._output, name=lambda line: line.namespace, header=header)


def _say_way_back(lines: Sequence[Line]) -> None:
    """How to bring back what was deleted."""
    from sandbox.cli.reporter import say

    ways = [line for line in lines if line.restore]
    for line in ways[:_MOST_SHOWN]:
        say(f"{line.sandbox} comes back with: {line.restore}")
    if len(ways) > _MOST_SHOWN:
        say(f"and {len(ways) - _MOST_SHOWN} others: -o wide shows their locks")


def _columns() -> list[Column[Line]]:
    from sandbox.cli.output import Column
    from sandbox.model.durations import to_rfc3339
    from sandbox.provision.identity import display_name

    return [
        Column("TIME", lambda line: to_rfc3339(line.time), wide=True),
        Column("ACTION", lambda line: line.action, colour=lambda line: _COLOURS.get(line.action, "")),
        Column("NAMESPACE", lambda line: line.namespace),
        Column("CONTEXT", lambda line: line.context, wide=True),
        Column("OWNER", lambda line: display_name(line.owner), wide_text=lambda line: line.owner),
        Column("WHY", lambda line: line.why),
        Column("LOCK", lambda line: line.lock, wide=True),
    ]


def _summary(done: Pass) -> dict[str, object]:
    return {
        "action": "pass",
        "context": done.context,
        "sandboxes": done.looked_at,
        "phases": dict(done.phases),
        "actions": dict(done.actions),
        "overdue_seconds": round(done.overdue),
        "seconds": round(done.seconds, 3),
    }
