"""``sandbox capture``: keep what runs in a namespace, and look at what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.capture_store import StoreOption
from sandbox.cli.formats import Format
from sandbox.cli.options import AllowWrite, Common, DryRun, Output, Selection, Yes

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox.capture.bundle import Bundle, Entry
    from sandbox.capture.catalogue import Listed
    from sandbox.capture.model import Document, Image, Item, Service
    from sandbox.cli.output import Column
    from sandbox.store.store import Store

_MIB = 1024 * 1024
_STATE_COLOURS = {"ready": "green", "progressing": "yellow", "failed": "red"}

Id = Annotated[str, typer.Argument(metavar="ID", help="Of a capture, or how it begins; `latest`: the newest.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Of captures, or how they begin.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="oci://: plain HTTP and unverified certificates are fine.")]

app = typer.Typer(no_args_is_help=True, help="Keep everything about a namespace at a moment, and look at it later.")


# -- create -----------------------------------------------------------------------------------------------------


@app.command()
def create(
    common: Common,
    selection: Selection,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, one line.")] = "",
    environment: Annotated[str, typer.Option("--env", metavar="NAME", help="What the place is called.")] = "",
    store: StoreOption = None,
    capture_timeout: Annotated[
        str, typer.Option("--capture-timeout", metavar="DURATION", help="After it the capture is partial, and says so.")
    ] = "60s",
    recipient: Annotated[
        list[str] | None,
        typer.Option("--recipient", metavar="KEY", help="age or SSH public key of who may read what is encrypted."),
    ] = None,
    include_secrets: Annotated[
        bool, typer.Option("--include-secrets", help="The values of Secrets too, encrypted to the recipients.")
    ] = False,
    fixtures: Annotated[
        bool, typer.Option("--fixtures/--no-fixtures", help="The contents of databases and caches too.")
    ] = True,
    max_fixture: Annotated[
        int,
        typer.Option("--max-fixture", metavar="MIB", min=1, help="Of one database; over it, schema and row counts."),
    ] = 512,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Ask the registries whether they still have the images.")
    ] = True,
    max_log: Annotated[
        int, typer.Option("--max-log", metavar="MIB", min=1, max=1024, help="Of one container; its end is kept.")
    ] = 5,
    allow_write: AllowWrite = False,
    output: Output = Format.TABLE,
) -> None:
    """Capture a namespace: pods, logs, events, releases, objects, versions.

    Changes nothing in it, but for the Job that `--allow-write` allows.

    `-n` takes any namespace, whoever deployed into it. What could not be had is named in the capture. Secrets are kept
    out: their keys are there, and a fingerprint of each value. `fixtures` of the sandbox.yaml around the current folder
    says what else is a database, and which columns are masked.
    """
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    asked = _Asked(
        reason=reason,
        environment=environment,
        deadline=parse_duration(capture_timeout),
        recipients=recipient or [],
        include_secrets=include_secrets,
        fixtures=fixtures,
        max_fixture=max_fixture * _MIB,
        images=images,
        max_log=max_log * _MIB,
        allow_write=allow_write,
    )
    run(_create(common, selection, store, asked, output))


@dataclass(frozen=True)
class _Asked:
    """What `create` was asked for; sizes in bytes."""

    reason: str
    environment: str
    deadline: timedelta
    recipients: Sequence[str]
    include_secrets: bool
    fixtures: bool
    max_fixture: int
    images: bool
    max_log: int
    allow_write: bool


async def _create(common: Common, selection: Selection, given: str | None, asked: _Asked, output: Format) -> None:
    from sandbox.capture.capture import Options, capture
    from sandbox.capture.collect.collection import Bounds
    from sandbox.capture.fixtures.model import Limits
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.connect import chosen, same_as
    from sandbox.cli.output import show_data, write
    from sandbox.cli.reporter import reporter, say
    from sandbox.cluster.client import Cluster
    from sandbox.model.errors import Refused
    from sandbox.provision.environment import project_around

    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        namespace = selection.namespace or (await chosen(cluster, common, selection)).namespace
        project = project_around(Path.cwd()) if asked.fixtures else None
        same_as(common, cluster, "cluster-info", "dump", "--namespaces", namespace)
        store = await chosen_store(common, given, cluster)
        if asked.fixtures and not asked.recipients and not store.is_local:
            raise Refused(
                f"contents of databases go to {store.url} encrypted only",
                why="it is not a folder of this machine, and nobody was named who may read them",
                hint="--recipient age1… (`age-keygen` makes a pair), or --no-fixtures",
            )
        options = Options(
            environment=asked.environment,
            recipients=asked.recipients,
            include_secrets=asked.include_secrets,
            images=asked.images,
            bounds=Bounds(log=asked.max_log),
            declared=project.fixtures if project else None,
            limits=Limits(max_fixture=asked.max_fixture),
            allow_write=asked.allow_write,
        )
        with reporter(verbose=common.verbose) as talk:
            taken = await capture(
                cluster,
                namespace,
                store=store,
                reason=asked.reason,
                deadline=asked.deadline,
                fixtures=asked.fixtures,
                progress=talk,
                options=options,
            )
    for item in taken.document.missing:
        say(f"  {item.name}: {item.status}{': ' if item.why else ''}{item.why}", colour="yellow")
    if output in (Format.JSON, Format.YAML):
        show_data(_as_data(taken.entry, taken.document), output)
        return
    if output is not Format.NAME:
        say(f"{taken.document.headline}\nlook at it: sandbox capture show {taken.id}")
        if taken.document.findings:
            say(f"reproduce it: sandbox reproduce {taken.id}")
    write(taken.id)


# -- list, show, diff -------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    common: Common,
    store: StoreOption = None,
    environment: Annotated[
        str | None, typer.Option("--env", metavar="NAME", help="Of one environment or namespace.")
    ] = None,
    commit: Annotated[
        str | None,
        typer.Option("--commit", metavar="SHA", help="With a service at this commit (its beginning will do)."),
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Of one owner, or by them.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the captures of the store, the newest last."""
    from sandbox.cli.run import run

    run(_list(common, store, environment, commit, owner, output))


async def _list(
    common: Common, given: str | None, environment: str | None, commit: str | None, owner: str | None, output: Format
) -> None:
    from datetime import UTC, datetime

    from sandbox.capture.catalogue import entries
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import show_list
    from sandbox.cli.reporter import say

    store = await chosen_store(common, given)
    listed, wrong = await entries(store)
    for problem in wrong:
        say(f"warning: {problem}", colour="yellow")
    wanted = [item for item in listed if _matches(item.entry, environment, commit, owner)]
    if not wanted and output in (Format.TABLE, Format.WIDE):
        say(f"no captures in {store.url}")
        return
    show_list(wanted, _columns(datetime.now(UTC)), output, name=lambda item: item.entry.id, data=_listed_data)


def _matches(entry: Entry, environment: str | None, commit: str | None, owner: str | None) -> bool:
    from sandbox.provision.identity import display_name

    people = {entry.owner, entry.by, display_name(entry.owner), display_name(entry.by)}
    return (
        (environment is None or environment in (entry.environment, entry.namespace))
        and (commit is None or any(known.startswith(commit.lower()) for known in entry.commits))
        and (owner is None or owner in people)
    )


def _columns(now: datetime) -> list[Column[Listed]]:
    from sandbox.cli.output import Column
    from sandbox.model.durations import relative, to_rfc3339
    from sandbox.provision.identity import display_name

    return [
        Column("ID", lambda i: i.entry.id),
        Column("WHEN", lambda i: relative(i.entry.created_at, now)),
        Column("AT", lambda i: to_rfc3339(i.entry.created_at), wide=True),
        Column("OF", lambda i: i.entry.place),
        Column("BY", lambda i: display_name(i.entry.by)),
        Column("SIZE", lambda i: _size(i.entry.total)),
        Column("COMMITS", lambda i: ", ".join(commit[:12] for commit in i.entry.commits), wide=True),
        Column("NOTE", _note, colour=lambda i: "yellow" if i.entry.partial else ""),
        Column("WHAT", lambda i: _shortened(i.entry.headline, 100)),
    ]


def _note(item: Listed) -> str:
    from sandbox.model.durations import to_rfc3339

    pinned = f"pinned until {to_rfc3339(item.pin.until)[:10]}" if item.pin else ""
    return ", ".join(filter(None, ("partial" if item.entry.partial else "", pinned)))


def _listed_data(item: Listed) -> object:
    from dataclasses import asdict

    return {**asdict(item.entry), "pin": asdict(item.pin) if item.pin else None}


@app.command()
def show(
    common: Common,
    identifier: Id,
    store: StoreOption = None,
    item: Annotated[
        str | None, typer.Option("--item", metavar="PATH", help="Write the contents of one item to standard output.")
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="List everything that was looked at.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one self-contained page for a browser: timeline, logs, …"),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a capture: what failed and why, in which versions, and what is missing."""
    from sandbox.cli.run import run
    from sandbox.model.errors import InvalidInput

    if sum((item is not None, items, html is not None)) > 1:
        raise InvalidInput("--item, --items and --html do not go together", hint="choose one")
    if html is not None:
        run(_write_page(common, identifier, store, html))
        return
    run(_show(common, identifier, store, item, items, output))


async def _write_page(common: Common, identifier: str, given: str | None, target: Path) -> None:
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import write

    store = await chosen_store(common, given)
    await write_page(store, await find(store, identifier), target, given)
    write(str(target))


async def write_page(store: Store, entry: Entry, target: Path, given: str | None) -> None:
    """Write the page of a capture.

    Args:
        given: the store as it was named; None where whoever reads the page finds it by themselves.

    Raises:
        Damaged: the capture is not what it says.
        OperationFailed: the page cannot be written.
    """
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.report.page import page
    from sandbox.cli.output import write_file

    bundle = await open_bundle(store, entry)
    write_file(target, await page(bundle, commands=_next_commands(entry, given)))


def _next_commands(entry: Entry, store: str | None) -> tuple[tuple[str, str], ...]:
    """What whoever reads a capture does next, as it works on another machine too."""
    import shlex

    where = f" --store {shlex.quote(store)}" if store else ""
    return (
        ("Reproduce it", f"sandbox reproduce {entry.id}{where}"),
        ("Read an item", f"sandbox capture show {entry.id}{where} --item events.json"),
    )


async def _show(
    common: Common, identifier: str, given: str | None, item: str | None, items: bool, output: Format
) -> None:
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import show_data, show_list, write, write_bytes
    from sandbox.cli.reporter import say

    store = await chosen_store(common, given)
    entry = await find(store, identifier)
    bundle = await open_bundle(store, entry)
    if item is not None:
        write_bytes(await _contents(bundle, item))
    elif items:
        show_list(bundle.document.items, _item_columns(), output, name=lambda i: i.name)
    elif output in (Format.JSON, Format.YAML):
        show_data(_as_data(entry, bundle.document), output)
    elif output is Format.NAME:
        write(entry.id)
    else:
        for line in show_lines(entry, bundle.document, wide=output is Format.WIDE):
            write(line)
        if bundle.document.findings:
            say(f"reproduce it: {_next_commands(entry, given)[0][1]}")


async def _contents(bundle: Bundle, title: str) -> bytes:
    """An item's contents, logs unpacked."""
    if title.endswith(".gz"):
        return (await bundle.read_text(title)).encode()
    return await bundle.read(title)


def _item_columns() -> list[Column[Item]]:
    from sandbox.cli.output import Column

    colours = {"ok": "green", "absent": ""}
    return [
        Column("ITEM", lambda i: i.name),
        Column("STATUS", lambda i: i.status, colour=lambda i: colours.get(i.status, "yellow")),
        Column("COUNT", lambda i: "" if i.count is None else str(i.count)),
        Column("SIZE", lambda i: _size(i.size) if i.size else ""),
        Column("TOOK", lambda i: f"{(i.ended_at - i.started_at).total_seconds():.1f}s", wide=True),
        Column("WHY", lambda i: i.why),
    ]


def show_lines(entry: Entry, document: Document, *, wide: bool = False) -> list[str]:
    """A capture as people read it: what failed comes first."""
    from sandbox.cli.output import paint, printable, stdout_colours, table_lines

    coloured = stdout_colours()
    lines = []
    if document.findings:
        head, *log = document.findings[0].finding.lines()
        lines += [paint(printable(head), "red" if coloured else ""), *(printable(line) for line in log), ""]
    lines += [f"{title + ':':<11}{printable(text)}" for title, text in _facts(entry, document)]
    lines.append("")
    if document.services:
        lines += table_lines(document.services, _service_columns(), wide=wide, coloured=coloured)
    else:
        lines.append("no services")
    if len(document.findings) > 1:
        lines += ["", "Also:"]
        lines += [f"  {printable(line)}" for why in document.findings[1:] for line in why.finding.lines()[:4]]
    if document.fixtures:
        lines += ["", "Data:", *(f"  {printable(line)}" for line in _fixture_lines(document))]
    if document.missing:
        lines += ["", "Not complete:"]
        lines += [f"  {line}" for line in table_lines(document.missing, _item_columns(), header=False)]
    return lines


def _fixture_lines(document: Document) -> list[str]:
    """Each database and cache: what it is, how much, and how that went."""
    sizes = {item.name: item.size for item in document.items}
    lines = []
    for fixture in document.fixtures:
        name, kind, version = (str(fixture.get(key) or "") for key in ("name", "kind", "server_version"))
        size = _size(sizes.get(f"fixtures/{name}", 0))
        why = f": {fixture['why']}" if fixture.get("why") else ""
        lines.append(f"{name}: {kind} {version}, {fixture.get('status')}, {size}{why}")
    return lines


def _facts(entry: Entry, document: Document) -> list[tuple[str, str]]:
    import shlex
    from datetime import UTC, datetime

    from sandbox.model.durations import relative, to_rfc3339

    place = f"namespace {document.namespace} (context {document.context}, Kubernetes {document.server_version})"
    took = (document.ended_at - document.started_at).total_seconds()
    when = f"{to_rfc3339(document.started_at)} ({relative(document.started_at, datetime.now(UTC))}), in {took:.1f} s"
    gaps = ", partial" if document.partial else ""
    quota = [f"{line.resource} {line.used}/{line.hard}" for line in document.quota if line.hard != "0"]
    facts = [
        ("Capture", f"{entry.id} ({_size(entry.total)}, {len(document.items)} items{gaps})"),
        ("Of", f"{document.environment}, {place}" if document.environment else place),
        ("When", f"{when}, by {document.by or 'somebody'}"),
        ("Reason", document.reason),
        ("Command", shlex.join(document.command)),
        ("Record", f"{document.project} number {document.record}" if document.record is not None else ""),
        ("Quota", ", ".join(quota)),
        ("Secrets", "" if document.redaction.complete else "not readable: their values could not be looked for"),
    ]
    return [(title, text) for title, text in facts if text]


def _service_columns() -> list[Column[Service]]:
    from sandbox.cli.output import Column

    return [
        Column("SERVICE", lambda s: s.name),
        Column("STATE", lambda s: s.state, colour=lambda s: _STATE_COLOURS.get(s.state, "")),
        Column("READY", lambda s: f"{s.ready}/{s.desired}"),
        Column("RESTARTS", lambda s: str(s.restarts)),
        Column("VERSION", _version),
        Column("CHANGED", lambda s: ", ".join(s.changed)),
        Column("IMAGES", lambda s: ", ".join(dict.fromkeys(map(_image, s.images)))),
        Column("FROM", lambda s: s.commit_from, wide=True),
        Column("REPOSITORY", lambda s: s.repo, wide=True),
    ]


def _version(service: Service) -> str:
    chart = f"{service.chart}-{service.chart_version} r{service.revision}" if service.chart else ""
    return " ".join(filter(None, (service.commit[:12], chart)))


def _image(image: Image) -> str:
    name = image.named.partition("@")[0].rpartition("/")[2]
    digest = f"@{image.digest.removeprefix('sha256:')[:12]}" if image.digest else " (no digest)"
    gone = " (gone from its registry)" if image.available is False else ""
    return f"{name}{digest}{gone}"


@app.command()
def diff(
    common: Common,
    before: Annotated[str, typer.Argument(metavar="A", help="A capture's id, or how it begins.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another's; `latest`: the newest.")],
    store: StoreOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Say which services, images, values, configuration, data and tools differ between two captures.

    Ends with exit code 3 where something does.
    """
    from sandbox.cli.run import run

    if run(_diff(common, before, after, store, output)):
        raise typer.Exit(3)


async def _diff(common: Common, before: str, after: str, given: str | None, output: Format) -> bool:
    import asyncio

    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.catalogue import find
    from sandbox.capture.difference import difference
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.commands.diff import show_differences
    from sandbox.cli.reporter import say

    store = await chosen_store(common, given)

    async def opened(name: str) -> Bundle:
        return await open_bundle(store, await find(store, name))

    one, other = await asyncio.gather(opened(before), opened(after))
    found = await difference(one, other)
    if one.document.redaction.key_id != other.document.redaction.key_id:
        say("warning: they were captured with different keys: values of Secrets cannot be compared", colour="yellow")
    return show_differences(found, output)


# -- pull, push -------------------------------------------------------------------------------------------------


@app.command()
def push(
    common: Common,
    identifier: Id,
    destination: Annotated[
        str,
        typer.Argument(metavar="DESTINATION", help="oci://REGISTRY/REPOSITORY[:TAG], FILE.tar, or another store."),
    ],
    store: StoreOption = None,
    plain_fixtures: Annotated[
        bool, typer.Option("--plain-fixtures", help="Contents of databases may leave this machine unencrypted.")
    ] = False,
    insecure: Insecure = False,
) -> None:
    """Copy a capture to an OCI registry, an archive or another store."""
    from sandbox.cli.run import run

    run(_push(common, identifier, destination, store, plain_fixtures, insecure))


async def _push(
    common: Common, identifier: str, destination: str, given: str | None, plain: bool, insecure: bool
) -> None:
    from sandbox.capture import transfer
    from sandbox.capture.bundle import open_bundle
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import write
    from sandbox.store.store import Store

    store = await chosen_store(common, given)
    entry = await find(store, identifier)
    bundle = await open_bundle(store, entry)
    if destination.startswith(transfer.REGISTRY):
        if not plain:
            transfer.refuse_plain_fixtures(bundle, None)
        reference = transfer.registry_reference(destination)
        write(await transfer.to_registry(store, entry, reference, insecure=insecure))
    elif destination.endswith(".tar"):
        await transfer.to_archive(store, entry, Path(destination))
        write(destination)
    else:
        other = Store.open(destination)
        if not plain:
            transfer.refuse_plain_fixtures(bundle, other)
        write((await transfer.to_store(store, entry, other)).id)


@app.command()
def pull(
    common: Common,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="oci://REGISTRY/REPOSITORY:TAG, FILE.tar, or another store.")
    ],
    identifier: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Which one, of another store.", show_default=False)
    ] = None,
    store: StoreOption = None,
    max_size: Annotated[
        int, typer.Option("--max-size", metavar="GIB", min=1, max=1024, help="What it may unpack to.")
    ] = 20,
    insecure: Insecure = False,
) -> None:
    """Take a capture from an OCI registry, an archive or another store into the store.

    Everything in it is checked first; what is damaged, or made to do harm, is refused.
    """
    from sandbox.cli.run import run

    run(_pull(common, source, identifier, store, max_size * 1024**3, insecure))


async def _pull(
    common: Common, source: str, identifier: str | None, given: str | None, at_most: int, insecure: bool
) -> None:
    from sandbox.capture import transfer
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import write
    from sandbox.model.errors import InvalidInput
    from sandbox.store.store import Store

    store = await chosen_store(common, given)
    if source.startswith(transfer.REGISTRY):
        reference = transfer.registry_reference(source)
        found = [await transfer.from_registry(store, reference, insecure=insecure, at_most=at_most)]
    elif "://" not in source and (Path(source).is_file() or source.endswith((".tar", ".tar.gz", ".tgz"))):
        found = await transfer.from_archive(store, Path(source), at_most=at_most)
    elif identifier is None:
        raise InvalidInput(f"which capture of {source}?", hint=f"`sandbox capture list --store {source}` shows them")
    else:
        other = Store.open(source)
        found = [await transfer.to_store(other, await find(other, identifier), store)]
    for entry in found:
        write(entry.id)


# -- keeping and removing ---------------------------------------------------------------------------------------


@app.command()
def pin(
    common: Common,
    identifiers: Ids,
    store: StoreOption = None,
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long.")] = "90d",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What for.")] = "",
) -> None:
    """Keep captures for a time, whatever `prune` is told."""
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    run(_pin(common, identifiers, store, parse_duration(duration).total_seconds(), why))


async def _pin(common: Common, identifiers: Sequence[str], given: str | None, seconds: float, why: str) -> None:
    import getpass
    from datetime import UTC, datetime, timedelta

    from sandbox.capture import catalogue
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import write
    from sandbox.model.durations import to_rfc3339

    store = await chosen_store(common, given)
    found = [await catalogue.find(store, name) for name in identifiers]
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    for entry in found:
        await catalogue.pin(store, entry.id, catalogue.Pin(until, getpass.getuser(), why))
        write(f"{entry.id} is kept until {to_rfc3339(until)}")


@app.command()
def unpin(common: Common, identifiers: Ids, store: StoreOption = None) -> None:
    """Let retention count for captures again."""
    from sandbox.cli.run import run

    run(_unpin(common, identifiers, store))


async def _unpin(common: Common, identifiers: Sequence[str], given: str | None) -> None:
    from sandbox.capture import catalogue
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import write

    store = await chosen_store(common, given)
    for name in identifiers:
        entry = await catalogue.find(store, name)
        was = await catalogue.unpin(store, entry.id)
        write(f"{entry.id} {'is not pinned any more' if was else 'was not pinned'}")


@app.command()
def rm(
    common: Common,
    identifiers: Ids,
    store: StoreOption = None,
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="That one is not there is no error.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Remove captures. Pinned ones are refused."""
    from sandbox.cli.run import run

    wanted = run(_found(common, identifiers, store, missing_ok))
    _remove(common, store, wanted, dry_run=dry_run, yes=yes)


async def _found(common: Common, identifiers: Sequence[str], given: str | None, missing_ok: bool) -> list[str]:
    from sandbox.capture.catalogue import find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.store.store import NotStored

    store = await chosen_store(common, given)
    found = []
    for name in identifiers:
        try:
            found.append((await find(store, name)).id)
        except NotStored:
            # The entry of a damaged capture is there, though it cannot be read.
            if await store.exists(f"captures/{name}.json"):
                found.append(name)
            elif not missing_ok:
                raise
    return list(dict.fromkeys(found))


@app.command()
def prune(
    common: Common,
    store: StoreOption = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=0, help="Keep the N newest of each environment.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="DURATION", help="Remove only what is older.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Remove what retention says, and blobs that nothing refers to. Pinned captures stay.

    Without `--keep` and `--older-than` only such blobs go, of captures that were removed or never finished.
    """
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    age = parse_duration(older_than) if older_than else None
    wanted = run(_surplus(common, store, keep, age.total_seconds() if age else None))
    _remove(common, store, wanted, dry_run=dry_run, yes=yes or not wanted)


async def _surplus(common: Common, given: str | None, keep: int | None, seconds: float | None) -> list[str]:
    from datetime import UTC, datetime, timedelta

    from sandbox.capture.catalogue import entries, surplus
    from sandbox.cli.capture_store import chosen_store

    listed, _ = await entries(await chosen_store(common, given))
    age = timedelta(seconds=seconds) if seconds is not None else None
    return [entry.id for entry in surplus(listed, keep=keep, older_than=age, now=datetime.now(UTC))]


def _remove(common: Common, given: str | None, wanted: Sequence[str], *, dry_run: bool, yes: bool) -> None:
    from sandbox.cli.confirm import confirm
    from sandbox.cli.output import write
    from sandbox.cli.reporter import say
    from sandbox.cli.run import run

    if dry_run:
        for name in wanted:
            write(f"{name} would be removed")
        return
    if wanted:
        confirm(f"Remove {', '.join(wanted)}?", yes=yes)
    freed = run(_removed(common, given, wanted))
    for name in wanted:
        write(f"{name} removed")
    say(f"{freed[0]} blobs removed, {_size(freed[1])}; what is younger than an hour goes with the next `prune`")


async def _removed(common: Common, given: str | None, wanted: Sequence[str]) -> tuple[int, int]:
    from sandbox.capture.catalogue import remove
    from sandbox.cli.capture_store import chosen_store

    freed = await remove(await chosen_store(common, given), wanted)
    return freed.blobs, freed.bytes


@app.command()
def verify(
    common: Common,
    identifiers: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Default: all captures.", show_default=False)
    ] = None,
    store: StoreOption = None,
) -> None:
    """Compare every blob of captures with its digest. Ends with exit code 1 where something is damaged."""
    from sandbox.cli.run import run

    run(_verify(common, identifiers or [], store))


async def _verify(common: Common, identifiers: Sequence[str], given: str | None) -> None:
    from sandbox.capture.bundle import problems
    from sandbox.capture.catalogue import entries, find
    from sandbox.cli.capture_store import chosen_store
    from sandbox.cli.output import printable, write
    from sandbox.model.errors import OperationFailed

    store = await chosen_store(common, given)
    wrong: list[str] = []
    if identifiers:
        wanted = [await find(store, name) for name in identifiers]
    else:
        listed, wrong = await entries(store)
        wanted = [item.entry for item in listed]
    for entry in wanted:
        found = await problems(store, entry)
        wrong += [f"{entry.id}: {problem}" for problem in found]
        write(f"{entry.id} {'damaged' if found else 'ok'}")
    if wrong:
        raise OperationFailed(
            "not all captures are complete",
            why="\n".join(printable(problem) for problem in wrong),
            hint="pull them again from where they are whole, or remove them: `sandbox capture rm ID`",
        )


# -- words ------------------------------------------------------------------------------------------------------


def _as_data(entry: Entry, document: Document) -> dict[str, object]:
    return {"id": entry.id, "digest": entry.digest, "total": entry.total, **document.model_dump(mode="json")}


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit has no bound")


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
