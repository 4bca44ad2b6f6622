"""``sandbox up``: a commit, live in a sandbox."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.arguments import build_arguments, comma_separated, lock_given
from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import (
    BuildArgs,
    Builder,
    Common,
    DryRun,
    ForOwner,
    Output,
    Quota,
    Registry,
    ServiceTimeout,
    SetValues,
    TimeToLive,
    ValuesFiles,
)
from sandbox.cli.output import Column
from sandbox.cli.reporter import reporter, say
from sandbox.cli.run import run
from sandbox.model.durations import parse_duration
from sandbox.model.errors import InvalidInput

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox.model.images import ResolvedImage
    from sandbox.model.sandbox import Sandbox
    from sandbox.model.source import Commit
    from sandbox.provision.endpoints import Endpoint
    from sandbox.provision.plan import Plan, ServicePlan
    from sandbox.provision.steps import ServiceOutcome
    from sandbox.provision.up import UpResult

# Times are written in whole seconds, and asked for a little later than they are counted from.
_A_MOMENT = timedelta(minutes=1)


def up(
    common: Common,
    ref: Annotated[
        str | None,
        typer.Option(
            "--ref",
            metavar="REF",
            help="Branch, tag, SHA or expression (HEAD~2); default: the current branch's commit.",
        ),
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="URL", help="Git repository; default: the one around the current folder."),
    ] = None,
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Deploy the working tree as it is; the record holds the difference.")
    ] = False,
    lock: Annotated[
        str | None,
        typer.Option(
            "--lock", metavar="FILE|URL|NAME", help="Deploy exactly what a lock says, or the one of a deleted sandbox."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="ENV|NAME|LOCK",
            help="Take every other service as it runs in that environment or sandbox, or as a lock says.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SERVICES", help="These services (a,b) and what they need."),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="ENV", help="Whose values are used; default: from sandbox.yaml, else dev."),
    ] = None,
    values: ValuesFiles = None,
    set_values: SetValues = None,
    build_args: BuildArgs = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            envvar="SANDBOX_NAME",
            show_envvar=False,
            autocompletion=complete_sandboxes,
            help="What the sandbox is called, also SANDBOX_NAME; default: owner-project-branch.",
        ),
    ] = None,
    owner: ForOwner = None,
    owner_group: Annotated[
        str | None,
        typer.Option("--owner-group", metavar="GROUP", help="For all members of a group, of which you are one."),
    ] = None,
    quota: Quota = None,
    ttl: TimeToLive = None,
    builder: Builder = None,
    registry: Registry = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is ready.")] = True,
    timeout: ServiceTimeout = "5m",
    rollback_on_failure: Annotated[
        bool, typer.Option("--rollback-on-failure", help="Go back to the record before when it fails.")
    ] = False,
    allow_cluster_scoped: Annotated[
        bool,
        typer.Option("--allow-cluster-scoped", help="Allow cluster-scoped objects that project and profile permit."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Working tree; default: the current folder's.", file_okay=False),
    ] = None,
    dry_run: DryRun = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Deploy a commit into a sandbox of its own, or upgrade it.

    Running it again with the same commit changes nothing but the expiry. What fails stays for you to
    look into (`sandbox status`, `sandbox logs`); `sandbox rollback` goes back.
    """
    from sandbox.provision.request import UpRequest
    from sandbox.provision.up import up as deploy

    if only and not comma_separated(only):
        raise InvalidInput("--only names no service", hint="leave it out to deploy all of them")
    if repo is not None and (folder is not None or dirty):
        raise InvalidInput("--repo names another repository", hint="leave out --folder and --dirty")
    request = UpRequest(
        folder=None if repo else (folder or Path.cwd()),
        repo=repo,
        ref=ref,
        name=name,
        quota=quota,
        ttl=ttl,
        env=env,
        base=base,
        only=comma_separated(only or ()),
        values_files=tuple(path.absolute() for path in values or ()),
        set_values=tuple(set_values or ()),
        build_args=build_arguments(build_args or (), os.environ),
        lock=lock_given(lock, or_name=True),
        owner=owner,
        owner_group=owner_group,
        dirty=dirty,
        dry_run=dry_run,
        wait=wait,
        rollback_on_failure=rollback_on_failure,
        allow_cluster_scoped=allow_cluster_scoped,
        builder=builder,
        registry=registry,
        timeout=parse_duration(timeout),
    )
    with reporter(verbose=common.verbose) as talk:
        result = run(deploy(common.target(), request, talk))
    for note in result.notes:
        say(f"note: {note}")
    if result.plan is not None:
        _show_plan(result, result.plan, output_format)
    else:
        _show_result(result, output_format)


# --- showing what was done --------------------------------------------------------------------------


def _show_result(result: UpResult, output_format: Format) -> None:
    if output_format is Format.NAME:
        output.write(result.identity.name)
    elif output_format in (Format.JSON, Format.YAML):
        output.show_data(_result_data(result), output_format)
    else:
        columns: list[Column[ServiceOutcome]] = [
            Column("SERVICE", lambda s: s.name),
            Column("ACTION", lambda s: s.action),
            Column("ENDPOINTS", lambda s: ", ".join(_port(e) for e in result.endpoints if e.service == s.name)),
            Column("DETAIL", lambda s: s.detail, wide=True),
        ]
        output.show_list(result.services, columns, output_format, name=lambda s: s.name)
        _say_what_next(result)


def _port(endpoint: Endpoint) -> str:
    return f"{endpoint.service}:{endpoint.port}"


def _say_what_next(result: UpResult) -> None:
    sandbox = result.sandbox
    if sandbox is None:
        return
    what = f" at {result.commit.short}" if result.commit else ""
    say(f"{sandbox.name}{what} is up in namespace {sandbox.namespace} of {sandbox.context}", colour="green")
    if end := _end(sandbox, result.now):
        say(end)
    ways_in = [endpoint.command for endpoint in result.endpoints]
    for command in (*ways_in[:1], f"sandbox status {sandbox.name}", f"sandbox down {sandbox.name}"):
        say(f"  {command}")


def _end(sandbox: Sandbox, now: datetime | None) -> str:
    """When a sandbox ends, and by what: this deployment, or what keeps it for longer."""
    from sandbox.model.durations import relative, to_rfc3339

    end = sandbox.expires_at
    if end is None:
        return ""
    at = f"{relative(end, now)} ({to_rfc3339(end)})" if now else to_rfc3339(end)
    if sandbox.pinned_until:
        return f"kept until {to_rfc3339(end)} by a pin: {sandbox.pin_reason or 'no reason is given'}"
    if end == sandbox.max_expires_at:
        return f"expires {at}, the end of its longest life"
    try:
        is_extended = now is not None and end > now + parse_duration(sandbox.ttl) + _A_MOMENT
    except InvalidInput:
        is_extended = False
    return f"expires {at}, " + (
        "as an extension or a deployment before has it" if is_extended else "and the next `sandbox up` prolongs it"
    )


def _result_data(result: UpResult) -> dict[str, Any]:
    return {
        "sandbox": result.sandbox,
        "commit": _commit_data(result.commit),
        "record": result.record_number,
        "services": result.services,
        "endpoints": result.endpoints,
        "notes": result.notes,
    }


def _commit_data(commit: Commit | None) -> dict[str, Any] | None:
    """A commit without the patch of a dirty tree, which may be large: `get record` has it."""
    if commit is None:
        return None
    fields = ("repo", "ref", "branch", "sha", "author", "subject", "committed_at", "pushed", "dirty", "changed_files")
    return {field: getattr(commit, field) for field in fields}


# --- showing what would be done ---------------------------------------------------------------------


def _show_plan(result: UpResult, plan: Plan, output_format: Format) -> None:
    """The plan and the manifests; as text it is YAML that `kubectl diff -f -` reads, the plan in comments."""
    if output_format is Format.NAME:
        output.write(plan.identity.name)
        return
    manifests = _shown_manifests(result)
    if output_format in (Format.JSON, Format.YAML):
        output.show_data({"plan": _plan_data(result, plan), "manifests": manifests}, output_format)
        return
    for line in _plan_lines(result, plan):
        output.write(f"# {line}".rstrip())
    output.write(output.to_yaml_documents(manifests), newline=False)


def _shown_manifests(result: UpResult) -> list[Any]:
    """The manifests without the contents of Secrets: a dry run's output ends up in CI logs."""
    from sandbox.provision.masking import masked_manifest, secret_values

    known = secret_values(result.manifests)
    return [masked_manifest(manifest, known) for manifest in result.manifests]


def _plan_lines(result: UpResult, plan: Plan) -> list[str]:
    identity = plan.identity
    commit = plan.commit
    lines = [f"Sandbox {identity.name} in namespace {identity.namespace}, owner {identity.owner}"]
    if commit:
        pushed = {True: "", False: ", not pushed", None: ""}[commit.pushed]
        dirty = " with uncommitted changes" if commit.dirty else ""
        lines.append(f"Commit {commit.short} of {commit.repo} ({commit.ref}{pushed}){dirty}: {commit.subject}")
    lines += [
        f"Environment {plan.env}, quota profile {plan.profile.name}, expires {_duration(plan)} after it is deployed",
        "",
    ]
    services = [(outcome.name, outcome.action, plan.services.get(outcome.name)) for outcome in result.services]
    columns: list[Column[tuple[str, str, ServicePlan | None]]] = [
        Column("SERVICE", lambda row: row[0]),
        Column("ACTION", lambda row: row[1]),
        Column("KIND", lambda row: row[2].lock.kind if row[2] else ""),
        Column("OBJECTS", lambda row: str(len(row[2].manifests) + len(row[2].hooks)) if row[2] else ""),
        Column("IMAGES", lambda row: ", ".join(map(_image, row[2].images)) if row[2] else ""),
    ]
    lines += output.table_lines(services, columns)
    lines += ["", *output.table_lines(_quota_rows(result, plan), _QUOTA_COLUMNS)]
    return [output.printable(line) for line in [*lines, "", "Nothing was changed."]]


def _image(image: ResolvedImage) -> str:
    """An image as short as it can be told from others; a dry run builds none."""
    return f"{image.name} ({image.digest.removeprefix('sha256:')[:12] or 'to be built'})"


_QUOTA_COLUMNS: list[Column[tuple[str, str, str]]] = [
    Column("QUOTA", lambda row: row[0]),
    Column("REQUESTED", lambda row: row[1]),
    Column("LIMIT", lambda row: row[2]),
]


def _quota_rows(result: UpResult, plan: Plan) -> Sequence[tuple[str, str, str]]:
    """What all services ask of each resource that the profile bounds, as the preflight counts it."""
    from sandbox.model.quota import shown

    total: dict[str, Decimal] = {}
    for asked in result.asked:
        total[asked.resource] = total.get(asked.resource, Decimal(0)) + asked.amount
    return [
        (resource, shown(resource, total.get(resource, Decimal(0))), limit)
        for resource, limit in plan.profile.resource_quota.items()
    ]


def _duration(plan: Plan) -> str:
    from sandbox.model.durations import format_duration

    return format_duration(plan.ttl)


def _plan_data(result: UpResult, plan: Plan) -> dict[str, Any]:
    return {
        "sandbox": {"name": plan.identity.name, "namespace": plan.identity.namespace, "owner": plan.identity.owner},
        "commit": _commit_data(plan.commit),
        "env": plan.env,
        "quota_profile": plan.profile.name,
        "ttl": plan.ttl,
        "services": [
            {
                "name": outcome.name,
                "action": outcome.action,
                "lock": service.lock if (service := plan.services.get(outcome.name)) else None,
                "needs": service.needs if service else (),
            }
            for outcome in result.services
        ],
        "quota": [
            {"resource": name, "requested": requested, "hard": hard}
            for name, requested, hard in _quota_rows(result, plan)
        ],
        "notes": plan.notes,
    }
