"""``sandbox data``: the contents of databases and caches, out of a running place and into a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import AllowWrite, Common, Identity, Output, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from sandbox.capture.fixtures.model import Fixture
    from sandbox.cli.output import Column
    from sandbox.project.config import Fixtures
    from sandbox.reproduce.load import Loaded, Source

_MIB = 1024 * 1024

Timeout = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long it may take.")]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="STORES", help="These databases and caches (a,b).")]

app = typer.Typer(no_args_is_help=True, help="Copy the contents of databases and caches, masked as sandbox.yaml says.")


@app.command()
def export(
    common: Common,
    selection: Selection,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete_sandboxes,
            show_default=False,
            help="A sandbox, or an environment of the project; `-n` takes any namespace.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="That is not there yet; default: data-NAME.")
    ] = None,
    only: Only = None,
    max_fixture: Annotated[
        int, typer.Option("--max-fixture", metavar="MIB", min=1, help="Of one database; more is an error.")
    ] = 512,
    timeout: Timeout = "30m",
    store: StoreOption = None,
    allow_write: AllowWrite = False,
    output: Output = Format.TABLE,
) -> None:
    """Write what databases and caches hold into a folder.

    Changes nothing where it reads, but for the Job that `--allow-write` allows.

    The rules `fixtures.mask` of sandbox.yaml are those of the project around the current folder. Equal values are
    masked alike in all exports and captures of one store. What is written is not encrypted: only you may read it.
    """
    from sandbox.cli.arguments import comma_separated
    from sandbox.cli.output import show_list
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    place, exported = run(
        _export(
            common,
            selection,
            name,
            to,
            comma_separated(only or ()),
            max_fixture * _MIB,
            parse_duration(timeout),
            store,
            allow_write,
        )
    )
    show_list(exported, _exported_columns(), output, name=lambda fixture: fixture.name)
    _say_next(place)


def _say_next(place: Path) -> None:
    import shlex

    from sandbox.cli.reporter import say

    say(f"load it: sandbox data load NAME {shlex.quote(str(place))}")


async def _export(
    common: Common,
    selection: Selection,
    name: str | None,
    to: Path | None,
    only: tuple[str, ...],
    limit: int,
    timeout: timedelta,
    given: str | None,
    allow_write: bool,
) -> tuple[Path, list[Fixture]]:
    from sandbox.capture.fixtures.folder import export as write
    from sandbox.capture.fixtures.model import Limits
    from sandbox.capture.keys import masking_key, redaction_key
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.connect import reached
    from sandbox.cli.reporter import reporter
    from sandbox.cluster.client import Cluster

    declared = _declared(warn=True)
    key = masking_key(await redaction_key(await chosen_store(common, given)))

    async def written(cluster: Cluster, namespace: str, called: str) -> tuple[Path, list[Fixture]]:
        folder = to or Path(f"data-{called}")
        with reporter(verbose=common.verbose) as talk, talk.step(f"Export {namespace}"):
            found = await write(
                cluster,
                namespace,
                folder,
                declared,
                wanted=only,
                limits=Limits(max_fixture=limit),
                timeout=timeout.total_seconds(),
                hmac_key=key,
                allow_write=allow_write,
            )
        return folder, found

    if selection.namespace and name is None:
        async with Cluster.connect(common.context, common.kubeconfig) as cluster:
            return await written(cluster, selection.namespace, selection.namespace)
    async with reached(common, selection, name) as (cluster, found):
        return await written(cluster, found.namespace, found.name)


def _exported_columns() -> list[Column[Fixture]]:
    from sandbox.cli.output import Column

    return [
        Column("STORE", lambda f: f.name),
        Column("KIND", lambda f: f"{f.kind} {f.server_version}"),
        Column("BYTES", lambda f: str(f.size)),
        Column("MASKED", lambda f: ", ".join(f.masked)),
        Column("NOTES", lambda f: "; ".join(f.notes)),
    ]


@app.command()
def load(
    common: Common,
    selection: Selection,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_sandboxes, help="A sandbox.")],
    fixture: Annotated[
        str, typer.Argument(metavar="FIXTURE", help="A folder of `data export`, or a capture's id (`latest`).")
    ],
    only: Only = None,
    replace_data: Annotated[
        bool, typer.Option("--replace-data", help="What the databases hold may be lost; without it that is refused.")
    ] = False,
    identity: Identity = None,
    timeout: Timeout = "30m",
    store: StoreOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Fill the databases and caches of a sandbox, and compare them with what they are filled from.

    Each goes into the store of its kind and name. Roles get the passwords that the sandbox's services use. Never into
    an environment: others work there.
    """
    from sandbox.cli.arguments import comma_separated
    from sandbox.cli.output import show_list
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    done = run(
        _load(
            common,
            selection,
            name,
            fixture,
            comma_separated(only or ()),
            replace_data,
            identity,
            parse_duration(timeout),
            store,
        )
    )
    show_list(done, _loaded_columns(), output, name=lambda one: one.store)


async def _load(
    common: Common,
    selection: Selection,
    name: str,
    fixture: str,
    only: tuple[str, ...],
    replace: bool,
    identity: Path | None,
    timeout: timedelta,
    given: str | None,
) -> Sequence[Loaded]:
    from sandbox.cli.connect import chosen
    from sandbox.cli.reporter import reporter
    from sandbox.cluster.client import Cluster
    from sandbox.provision.workspace import workspace
    from sandbox.reproduce.load import load as fill

    declared = _declared(warn=False)
    with workspace() as folder:
        async with Cluster.connect(common.context, common.kubeconfig) as cluster:
            sandbox = await chosen(cluster, common, selection, name)
            source = await _source(common, fixture, folder, identity, given)
            with reporter(verbose=common.verbose) as talk:
                return await fill(
                    cluster,
                    sandbox,
                    source,
                    declared,
                    talk,
                    wanted=only,
                    replace=replace,
                    timeout=timeout.total_seconds(),
                )


async def _source(common: Common, fixture: str, workspace: Path, identity: Path | None, given: str | None) -> Source:
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.reproduce.load import of_capture, of_folder

    if Path(fixture).is_dir():
        return of_folder(Path(fixture))
    store = await chosen_store(common, given)
    return await of_capture(await open_bundle(store, await find(store, fixture)), workspace, identity)


def _declared(*, warn: bool) -> Fixtures:
    """The ``fixtures:`` of the project around the current folder."""
    from sandbox.cli.reporter import say
    from sandbox.project.config import Fixtures
    from sandbox.provision.environment import project_around

    project = project_around(Path.cwd())
    if project is None and warn:
        say("note: there is no sandbox.yaml here: nothing is masked")
    return project.fixtures if project else Fixtures()


def _loaded_columns() -> list[Column[Loaded]]:
    from sandbox.cli.output import Column

    return [
        Column("STORE", lambda one: one.store),
        Column("FROM", lambda one: one.name),
        Column("NOTES", lambda one: "; ".join(one.notes)),
    ]
