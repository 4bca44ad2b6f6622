"""``sandbox get``: what was deployed, as the record in the namespace has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.completion import complete_services
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Selection

if TYPE_CHECKING:
    from sandbox.model.objects import Manifest
    from sandbox.model.record import Record

get = typer.Typer(no_args_is_help=True, help="Show what was deployed: manifest, values, lock or record.")

ServiceName = Annotated[
    str | None,
    typer.Argument(metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="Default: all."),
]
Number = Annotated[
    int | None,
    typer.Option("--number", metavar="N", help="Of an earlier deployment (`sandbox history`); default: the newest."),
]
ShowSecrets = Annotated[bool, typer.Option("--show-secrets", help="Show the contents of Secrets.")]
Data = Annotated[Format, typer.Option("-o", "--output", help="yaml, json or name.", case_sensitive=False)]


@get.command("manifest")
def get_manifest(
    common: Common,
    selection: Selection,
    service: ServiceName = None,
    output: Data = Format.YAML,
    number: Number = None,
    hooks: Annotated[bool, typer.Option("--hooks/--no-hooks", help="Helm hooks too.")] = True,
    show_secrets: ShowSecrets = False,
) -> None:
    """Print the manifests that were deployed.

    The contents of Secrets are hidden: only with --show-secrets it is what `kubectl apply -f -` may be given.
    """
    from sandbox.cli.output import plain, show_data, to_yaml_documents, write
    from sandbox.cli.reporter import say
    from sandbox.model.objects import ObjectRef
    from sandbox.provision.masking import masked_manifest, secrets_of

    record = _record(common, selection, number)
    found: list[Manifest] = [
        manifest
        for entry in _services(record, service).values()
        for manifest in (*entry.manifests, *(entry.hooks if hooks else ()))
    ]
    if not show_secrets:
        known = secrets_of(record)
        masked = [masked_manifest(manifest, known) for manifest in found]
        hidden = [str(ObjectRef.of(m)) for m, before in zip(masked, found, strict=True) if m != before]
        found = masked
        if hidden and output is not Format.NAME:
            say(f"values are hidden in {', '.join(hidden)}: do not apply this; --show-secrets shows them")
    if output is Format.NAME:
        for manifest in found:
            write(str(ObjectRef.of(manifest)))
    elif output is Format.JSON:
        show_data({"apiVersion": "v1", "kind": "List", "items": plain(found)}, output)
    else:
        write(to_yaml_documents(found), newline=False)


@get.command("values")
def get_values(
    common: Common,
    selection: Selection,
    service: ServiceName = None,
    output: Data = Format.YAML,
    number: Number = None,
    show_secrets: ShowSecrets = False,
) -> None:
    """Print the values that the charts were deployed with, all files and --set merged.

    For one SERVICE its values, as `helm -f` reads them; for all, by service.
    """
    from sandbox.cli.output import show_data, write
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.masking import scrubbed, secrets_of

    record = _record(common, selection, number)
    found = {name: entry.values for name, entry in _services(record, service).items() if entry.lock.kind == "chart"}
    if service and not found:
        raise InvalidInput(
            f"service {service} has no values",
            why=f"it is deployed from {record.services[service].lock.kind}, not from a chart",
            hint=f"`sandbox get manifest {service}` shows what was deployed",
        )
    if not show_secrets:
        found = scrubbed(found, secrets_of(record))
    if output is Format.NAME:
        for name in found:
            write(name)
    else:
        show_data(found[service] if service else found, output)


@get.command("lock")
def get_lock(common: Common, selection: Selection, output: Data = Format.YAML, number: Number = None) -> None:
    """Print the lock of a deployment: `sandbox up --lock FILE` deploys exactly that."""
    from sandbox.cli.output import show_data, write

    lock = _record(common, selection, number).lock
    if output is Format.NAME:
        write(lock.digest)
    else:
        show_data(lock, output)


@get.command("record")
def get_record(
    common: Common,
    selection: Selection,
    service: ServiceName = None,
    output: Data = Format.YAML,
    number: Number = None,
    show_secrets: ShowSecrets = False,
) -> None:
    """Print everything that is known of a deployment.

    The contents of Secrets are hidden unless --show-secrets is given.
    """
    from sandbox.cli.output import show_data, write
    from sandbox.provision.masking import masked_record

    record = _record(common, selection, number)
    _services(record, service)
    if output is Format.NAME:
        write(str(record.number))
        return
    data: dict[str, Any] = record.model_dump(mode="json") if show_secrets else masked_record(record)
    show_data(data["services"][service] if service else data, output)


def _record(common: Common, selection: Selection, number: int | None) -> Record:
    from sandbox.cli.run import run

    return run(_read(common, selection, number))


async def _read(common: Common, selection: Selection, number: int | None) -> Record:
    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.reporter import say
    from sandbox.model.errors import InvalidInput, OperationFailed
    from sandbox.model.labels import RECORD_TYPE
    from sandbox.provision.records import load_records

    async with reached(common, selection) as (cluster, sandbox):
        same_as(common, cluster, "get", "secrets", f"--field-selector=type={RECORD_TYPE}", namespace=sandbox.namespace)
        found = await load_records(cluster, sandbox.namespace)
    if not found:
        raise OperationFailed(
            f"nothing was deployed into {sandbox.name} yet",
            why="its namespace holds no record",
            hint=f"`sandbox status {sandbox.name}` shows what is there",
        )
    by_number = {record.number: record for record in found}
    if number is not None and number not in by_number:
        raise InvalidInput(
            f"there is no deployment {number} in {sandbox.name}",
            why=f"the numbers that are kept: {', '.join(map(str, by_number))}",
        )
    record = found[-1] if number is None else by_number[number]
    if record.namespace_uid != sandbox.uid:
        say("warning: this record was made for another namespace and copied here", colour="yellow")
    if record.outcome == "failed":
        say(f"note: deployment {record.number} failed: {record.failure}", colour="yellow")
    return record


def _services(record: Record, service: str | None) -> dict[str, Any]:
    from sandbox.model.errors import InvalidInput

    if service is None:
        return dict(record.services)
    if service not in record.services:
        raise InvalidInput(
            f"deployment {record.number} has no service {service}",
            why=f"its services: {', '.join(record.services) or 'none'}",
        )
    return {service: record.services[service]}
