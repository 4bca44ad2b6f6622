"""``sandbox deploy`` and ``sandbox promote``: into a shared environment, with the way back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.formats import Format
from sandbox.cli.options import (
    BuildArgs,
    Builder,
    Common,
    DryRun,
    Output,
    Registry,
    ServiceTimeout,
    SetValues,
    ValuesFiles,
)

if TYPE_CHECKING:
    from sandbox.deploy.report import Report, ServiceEnd
    from sandbox.deploy.request import DeployRequest
    from sandbox.provision.environment import EnvironmentPlace
    from sandbox.provision.request import UpRequest
    from sandbox.store.store import Store

Environment = Annotated[str, typer.Argument(metavar="ENV", help="One of `environments:` in sandbox.yaml.")]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[-- CMD...]",
        show_default=False,
        help="The test that decides: run here, with SANDBOX_<SERVICE>_URL and KUBECONFIG.",
    ),
]

Adopt = Annotated[
    bool,
    typer.Option("--adopt", help="Take over what plain Helm or kubectl deployed there; a rollback restores it."),
]


@dataclass(frozen=True)
class Care:
    """How a deployment into an environment is tested, captured and told of."""

    timeout: ServiceTimeout = "5m"
    test_timeout: Annotated[str, typer.Option("--test-timeout", metavar="DURATION", help="How long CMD may take.")] = (
        "10m"
    )
    wait_for_lease: Annotated[
        str | None,
        typer.Option(
            "--wait-for-lease",
            metavar="DURATION",
            help="How long to wait for another deployment of ENV; default: refuse at once (exit code 7).",
        ),
    ] = None
    capture_timeout: Annotated[
        str,
        typer.Option("--capture-timeout", metavar="DURATION", help="After it the rollback starts; it goes on partial."),
    ] = "60s"
    fixtures: Annotated[
        bool, typer.Option("--fixtures/--no-fixtures", help="The contents of databases in the capture too.")
    ] = True
    recipient: Annotated[
        list[str] | None,
        typer.Option("--recipient", metavar="KEY", help="age or SSH public key of who may read what is encrypted."),
    ] = None
    store: StoreOption = None
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report.", dir_okay=False)
    ] = None
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            metavar="FILE",
            help="Write a summary in Markdown; added to the file that GITHUB_STEP_SUMMARY names.",
            dir_okay=False,
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the page of the capture, if one was taken.", dir_okay=False),
    ] = None


def deploy(
    common: Common,
    care: Care,
    environment: Environment,
    command: Command = None,
    ref: Annotated[
        str | None,
        typer.Option("--ref", metavar="REF", help="Branch, tag, SHA or expression; default: what is checked out."),
    ] = None,
    lock: Annotated[
        str | None, typer.Option("--lock", metavar="FILE|URL", help="Deploy exactly what a lock says.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SERVICES", help="These services (a,b) and no others.")
    ] = None,
    values: ValuesFiles = None,
    set_values: SetValues = None,
    build_args: BuildArgs = None,
    builder: Builder = None,
    registry: Registry = None,
    adopt: Adopt = False,
    allow_cluster_scoped: Annotated[
        bool, typer.Option("--allow-cluster-scoped", help="Allow cluster-scoped objects that the project permits.")
    ] = False,
    dry_run: DryRun = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Deploy this repository's services into a shared environment; roll back when it fails.

    On any failure, of CMD too, everything is captured first, then every service that was changed goes back to the
    record before. Exit codes: 1 rolled back, 6 rollback incomplete, 7 another deployment is under way.
    """
    from sandbox.cli.arguments import build_arguments, comma_separated, lock_given
    from sandbox.provision.request import UpRequest

    request = UpRequest(
        folder=Path.cwd(),
        ref=ref,
        env=environment,
        only=comma_separated(only or ()),
        values_files=tuple(path.absolute() for path in values or ()),
        set_values=tuple(set_values or ()),
        build_args=build_arguments(build_args or (), os.environ),
        lock=lock_given(lock),
        allow_cluster_scoped=allow_cluster_scoped,
        builder=builder,
        registry=registry,
        dry_run=dry_run,
    )
    _run(common, care, environment, request, command or (), adopt=adopt, output_format=output_format)


def promote(
    common: Common,
    care: Care,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Environment where it passed.")],
    environment: Annotated[str, typer.Argument(metavar="TO", help="Environment that it goes to.")],
    command: Command = None,
    adopt: Adopt = False,
    dry_run: DryRun = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Deploy what passed in one environment into the next one; nothing is built.

    The same commits and image digests, with the values of TO. It is tested, captured and rolled back as by `deploy`.
    """
    from sandbox.cli.reporter import reporter
    from sandbox.cli.run import run
    from sandbox.deploy.promote import passed_lock, write
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.request import UpRequest
    from sandbox.provision.workspace import workspace

    if source == environment:
        raise InvalidInput(f"{source} has it already", hint="name the environment that it goes to")
    with workspace() as folder:
        with reporter(verbose=common.verbose) as talk:
            place, repository = run(_source(common, source))
            lock = run(passed_lock(place, repository, talk))
        request = UpRequest(
            folder=Path.cwd(), env=environment, lock=write(lock, folder), dry_run=dry_run, rebuild=False
        )
        _run(common, care, environment, request, command or (), adopt=adopt, output_format=output_format)


async def _source(common: Common, name: str) -> tuple[EnvironmentPlace, str]:
    """An environment of the current folder's project, and the address of its repository."""
    from sandbox.provision.environment import find_environment
    from sandbox.source import git
    from sandbox.source.command import in_thread

    place = await find_environment(common.target(), name)
    return place, (await in_thread(git.resolve, Path.cwd(), None)).repo


def _run(
    common: Common,
    care: Care,
    name: str,
    up: UpRequest,
    command: Sequence[str],
    *,
    adopt: bool,
    output_format: Format,
) -> None:
    """Deploy, tell how it ended in every way that was asked for, and end with the exit code that it has."""
    from sandbox.cli.main import COMMANDS
    from sandbox.cli.reporter import reporter, say
    from sandbox.cli.run import run
    from sandbox.deploy.deploy import deploy as deploy_to

    request = _request(care, up, command, adopt=adopt)
    request.validate()
    place, store = run(_place(common, care, name))
    with reporter(verbose=common.verbose) as talk:
        can_reproduce = any(entry.name == "reproduce" for entry in COMMANDS)
        report = run(deploy_to(place, request, store, talk, can_reproduce=can_reproduce))
    for note in report.notes:
        say(f"note: {note}")
    _write_pages(care, report)
    if care.html is not None and report.capture and report.capture.id:
        run(_write_html(care, store, report.capture.id))
    _show(report, output_format)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _request(care: Care, up: UpRequest, command: Sequence[str], *, adopt: bool) -> DeployRequest:
    from sandbox.deploy.request import DeployRequest
    from sandbox.model.durations import parse_duration

    return DeployRequest(
        up=replace(up, timeout=parse_duration(care.timeout)),
        command=tuple(command),
        command_timeout=parse_duration(care.test_timeout),
        wait_for_lease=parse_duration(care.wait_for_lease) if care.wait_for_lease else timedelta(0),
        capture_timeout=parse_duration(care.capture_timeout),
        fixtures=care.fixtures,
        recipients=tuple(care.recipient or ()),
        adopt=adopt,
    )


async def _place(common: Common, care: Care, name: str) -> tuple[EnvironmentPlace, Store]:
    """Where the environment is, and where its captures go.

    Raises:
        InvalidInput: no such environment; in CI, captures that would be gone with the machine.
    """
    from sandbox.cli.capture_store import chosen_store
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.environment import find_environment

    place = await find_environment(common.target(), name)
    store = await chosen_store(replace(common, context=place.target.context), care.store)
    if store.is_local and care.store is None and os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        raise InvalidInput(
            "captures would stay on this machine, which is CI's and is thrown away",
            why=f"no platform configuration or setting names a store; the default is the folder {store.folder}",
            hint="name one: --store s3://bucket/captures, or --store FOLDER that the job keeps",
        )
    return place, store


def _write_pages(care: Care, report: Report) -> None:
    from sandbox.deploy.pages import junit, markdown

    if care.junit is not None:
        _write_page(care.junit, junit(report))
    if care.summary is not None:
        # GitHub's file holds what other steps of the job said.
        shared = os.environ.get("GITHUB_STEP_SUMMARY", "")
        append = bool(shared) and Path(shared).absolute() == care.summary.absolute()
        _write_page(care.summary, markdown(report), append=append)


def _write_page(target: Path, text: str, *, append: bool = False) -> None:
    """Write it; what keeps it from that is told, and changes nothing of how the deployment ended."""
    from sandbox.cli.output import write_file
    from sandbox.cli.reporter import say
    from sandbox.model.errors import OperationFailed

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if append:
            with target.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            write_file(target, text)
    except (OSError, OperationFailed) as error:
        say(f"warning: {target} was not written: {error}", colour="yellow")


async def _write_html(care: Care, store: Store, capture: str) -> None:
    """Write the page; what keeps it from that is told, and changes nothing of how the deployment ended."""
    from sandbox.capture.catalogue import find
    from sandbox.cli.commands.capture import write_page
    from sandbox.cli.reporter import say
    from sandbox.model.errors import SandboxError

    assert care.html is not None
    try:
        await write_page(store, await find(store, capture), care.html, care.store)
    except SandboxError as error:
        say(f"warning: no page of the capture: {error}", colour="yellow")


def _show(report: Report, output_format: Format) -> None:
    from sandbox.cli.output import Column, show_data, show_list, write
    from sandbox.cli.reporter import say
    from sandbox.deploy.report import lines

    if output_format is Format.NAME:
        write(report.capture.id if report.capture else report.environment)
    elif output_format in (Format.JSON, Format.YAML):
        show_data(as_data(report), output_format)
    elif report.services:
        columns: list[Column[ServiceEnd]] = [
            Column("SERVICE", lambda s: s.name),
            Column("ACTION", lambda s: s.action, colour=lambda s: "red" if s.action == "stands" else ""),
            Column("COMMIT", lambda s: s.commit[:12]),
            Column("DETAIL", lambda s: s.detail.splitlines()[0] if s.detail else ""),
        ]
        show_list(report.services, columns, output_format, name=lambda s: s.name)
    head, *rest = lines(report)
    say(head, colour="red" if report.exit_code else "green")
    for line in rest:
        say(line)


def as_data(report: Report) -> dict[str, Any]:
    """The report for machines."""
    from dataclasses import asdict

    return {**asdict(report), "exit_code": report.exit_code, "headline": report.headline}
