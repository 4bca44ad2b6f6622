"""``sandbox quota``: the quota profiles that `up` can use, and what sandboxes use of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.completion import complete_sandboxes
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output
from sandbox.cli.output import Column

if TYPE_CHECKING:
    from sandbox.project.platform import Platform
    from sandbox.project.quotas import QuotaProfile
    from sandbox.provision.usage import GroupUse, ResourceUse, SandboxUse, Volume

_BAR = 10
_NEARLY_FULL = 0.9

app = typer.Typer(no_args_is_help=True, help="Quota profiles: how much a sandbox may use.")


@app.command("list")
def list_(common: Common, output_format: Output = Format.TABLE) -> None:
    """List the quota profiles: shipped ones, yours and the project's; or the cluster's, where it has its own."""
    from sandbox.model.durations import format_duration

    profiles = _profiles(common)
    columns: list[Column[QuotaProfile]] = [
        Column("NAME", lambda p: p.name),
        Column("CPU", lambda p: p.resource_quota.get("requests.cpu", "")),
        Column("MEMORY", lambda p: p.resource_quota.get("requests.memory", "")),
        Column("STORAGE", lambda p: p.resource_quota.get("requests.storage", "")),
        Column("PODS", lambda p: p.resource_quota.get("pods", "")),
        Column("MAX TTL", lambda p: p.max_ttl or ""),
        Column("LONGEST LIFE", lambda p: format_duration(p.lifetime)),
        Column("PER OWNER", lambda p: str(p.max_per_owner or ""), wide=True),
        Column("PER PROJECT", lambda p: str(p.max_per_project or ""), wide=True),
        Column("POD SECURITY", lambda p: p.pod_security, wide=True),
        Column("NETWORK", lambda p: p.network, wide=True),
        Column("DESCRIPTION", lambda p: p.description),
    ]
    output.show_list(list(profiles.values()), columns, output_format, name=lambda p: p.name, data=_as_written)


@app.command()
def show(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as small.")],
    output_format: Output = Format.YAML,
) -> None:
    """Show one quota profile in full."""
    from sandbox.project.quotas import choose_profile

    profile = choose_profile(name, _profiles(common))
    if output_format is Format.NAME:
        output.write(profile.name)
    else:
        output.show_data(_as_written(profile), Format.JSON if output_format is Format.JSON else Format.YAML)


class Grouping(StrEnum):
    """By what usage is added up."""

    OWNER = "owner"
    PROJECT = "project"


@app.command()
def usage(
    common: Common,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=complete_sandboxes, show_default=False, help="Of one sandbox."),
    ] = None,
    by: Annotated[Grouping | None, typer.Option("--by", help="Of all sandboxes, added up by owner or project.")] = None,
    idle: Annotated[
        str, typer.Option("--idle", metavar="DURATION", help="Without a deployment for so long, a sandbox is idle.")
    ] = "1d",
    output_format: Output = Format.TABLE,
) -> None:
    """Show how much of their quotas sandboxes use.

    With a NAME: every resource of its quota, and its volumes. Without: all sandboxes that you may see, one a line.
    """
    from sandbox.cli.run import run
    from sandbox.model.durations import parse_duration

    if name and by:
        raise typer.BadParameter("adds up all sandboxes; leave the name out", param_hint="--by")
    run(_usage(common, name, by, parse_duration(idle), output_format))


async def _usage(common: Common, name: str | None, by: Grouping | None, idle: timedelta, output_format: Format) -> None:
    from sandbox.cli.connect import found as found_sandbox
    from sandbox.cli.connect import same_as
    from sandbox.cluster.client import Cluster
    from sandbox.provision import usage as uses

    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        if name is not None:
            sandbox = await found_sandbox(cluster, common, name)
            same_as(common, cluster, "describe", "resourcequota", "sandbox", namespace=sandbox.namespace)
            one = await uses.of_sandbox(cluster, sandbox, idle_after=idle)
            _show_sandbox(one, output_format)
            return
        same_as(common, cluster, "get", "resourcequotas", "-A", "--field-selector", "metadata.name=sandbox")
        found = await uses.of_all(cluster, idle_after=idle)
    if by is None:
        output.show_list(
            found, _sandbox_columns(), output_format, name=lambda use: use.sandbox.name, data=_sandbox_data
        )
    else:
        groups = uses.grouped(found, by.value)
        output.show_list(groups, _group_columns(by.value), output_format, name=lambda use: use.name, data=_group_data)


def _show_sandbox(use: SandboxUse, output_format: Format) -> None:
    from sandbox.model.quota import shown

    if output_format in (Format.JSON, Format.YAML):
        output.show_data(_sandbox_data(use), output_format)
        return
    if output_format is Format.NAME:
        output.write(output.printable(use.sandbox.name))
        return
    columns: list[Column[ResourceUse]] = [
        Column("RESOURCE", lambda u: u.resource),
        Column("REQUESTED", lambda u: "unknown" if u.requested is None else shown(u.resource, u.requested)),
        Column("USED", lambda u: shown(u.resource, u.used)),
        Column("HARD", lambda u: shown(u.resource, u.hard)),
        Column("", _bar, colour=_fill_colour),
    ]
    coloured = output.stdout_colours()
    lines = [output.printable(_about(use)), ""]
    lines += output.table_lines(use.resources, columns, coloured=coloured) if use.resources else ["no quota"]
    if use.volumes:
        volumes: list[Column[Volume]] = [
            Column("VOLUME", lambda v: v.name),
            Column("STORAGE", lambda v: shown("storage", v.storage)),
            Column("CLASS", lambda v: v.storage_class),
            Column("PHASE", lambda v: v.phase),
        ]
        lines += ["", *output.table_lines(use.volumes, volumes)]
    for line in lines:
        output.write(line)


def _about(use: SandboxUse) -> str:
    sandbox = use.sandbox
    idle = f"; idle: {use.idle}" if use.idle else ""
    profile = sandbox.quota_profile or "none"
    return f"Sandbox {sandbox.name} of {sandbox.owner}, quota profile {profile}, phase {sandbox.phase}{idle}"


def _sandbox_columns() -> list[Column[SandboxUse]]:
    from sandbox.provision.identity import display_name

    return [
        Column("NAME", lambda use: use.sandbox.name),
        Column("OWNER", lambda use: display_name(use.sandbox.owner), wide_text=lambda use: use.sandbox.owner),
        Column("PROJECT", lambda use: use.sandbox.project, wide=True),
        Column("QUOTA", lambda use: use.sandbox.quota_profile),
        *_amount_columns(),
        Column("FULLEST", lambda use: use.fullest.resource if use.fullest else "unknown"),
        Column("", lambda use: _bar(use.fullest) if use.fullest else " ", colour=_fullest_colour),
        Column("IDLE", lambda use: use.idle or "no"),
    ]


def _group_columns(by: str) -> list[Column[GroupUse]]:
    return [
        Column(by.upper(), lambda use: use.name),
        Column("SANDBOXES", lambda use: str(use.sandboxes)),
        Column("IDLE", lambda use: str(use.idle)),
        *_amount_columns(),
        Column("PODS", lambda use: _of(use.resources, "pods"), wide=True),
    ]


def _amount_columns() -> list[Column[Any]]:
    """Used and hard of what there is in most quotas."""
    return [
        Column("CPU", lambda use: _of(use.resources, "requests.cpu")),
        Column("MEMORY", lambda use: _of(use.resources, "requests.memory")),
        Column("STORAGE", lambda use: _of(use.resources, "requests.storage")),
        Column("VOLUMES", lambda use: _of(use.resources, "persistentvolumeclaims")),
    ]


def _of(resources: Sequence[ResourceUse], name: str) -> str:
    from sandbox.model.quota import shown

    if not resources:
        return "unknown"
    use = next((use for use in resources if use.resource == name), None)
    return f"{shown(name, use.used)}/{shown(name, use.hard)}" if use else "unbounded"


def _bar(use: ResourceUse) -> str:
    """How full it is: ``████░░░░░░ 40%``; in plain characters where the terminal has no others."""
    full, empty = ("█", "░") if output.can_show("█░") else ("#", "-")
    filled = min(round(use.share * _BAR), _BAR)
    return f"{full * filled}{empty * (_BAR - filled)} {use.share:.0%}"


def _fill_colour(use: ResourceUse) -> str:
    return "red" if use.share >= 1 else "yellow" if use.share >= _NEARLY_FULL else ""


def _fullest_colour(use: SandboxUse) -> str:
    return _fill_colour(use.fullest) if use.fullest else ""


def _sandbox_data(use: SandboxUse) -> dict[str, Any]:
    sandbox = use.sandbox
    volumes = None if use.volumes is None else [{**vars(v), "storage": int(v.storage)} for v in use.volumes]
    return {
        "name": sandbox.name,
        "namespace": sandbox.namespace,
        "owner": sandbox.owner,
        "project": sandbox.project,
        "quota_profile": sandbox.quota_profile,
        "phase": sandbox.phase,
        "idle": use.idle,
        "last_deployed": use.last_deployed,
        "resources": [_resource_data(resource) for resource in use.resources],
        **({} if volumes is None else {"volumes": volumes}),
    }


def _group_data(use: GroupUse) -> dict[str, Any]:
    resources = [_resource_data(resource) for resource in use.resources]
    return {"name": use.name, "sandboxes": use.sandboxes, "idle": use.idle, "resources": resources}


def _resource_data(use: ResourceUse) -> dict[str, Any]:
    from sandbox.model.quantities import plain_quantity

    return {
        "resource": use.resource,
        "requested": None if use.requested is None else plain_quantity(use.requested),
        "used": plain_quantity(use.used),
        "hard": plain_quantity(use.hard),
        "share": round(use.share, 4),
    }


def _as_written(profile: QuotaProfile) -> dict[str, Any]:
    """A profile as its file says it: what is shown can be changed and kept as a profile of one's own."""
    return profile.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _profiles(common: Common) -> dict[str, QuotaProfile]:
    from sandbox.cli.reporter import say
    from sandbox.cli.run import run
    from sandbox.model.errors import SandboxError
    from sandbox.project.settings import load_settings
    from sandbox.provision.profiles import known_profiles
    from sandbox.source.git import repository_root

    try:
        tree = repository_root(Path.cwd())
    except SandboxError:
        # In no repository: there is no project to have profiles of its own.
        tree = None
    return known_profiles(load_settings(), tree, run(_platform(common)), say=say)


async def _platform(common: Common) -> Platform | None:
    """What the cluster's platform team decided; None where no cluster answers."""
    from sandbox.cli.reporter import say
    from sandbox.cluster.client import Cluster
    from sandbox.cluster.platform import read_platform
    from sandbox.model.errors import InvalidInput, Unreachable
    from sandbox.project.platform import parse_platform

    try:
        async with Cluster.connect(common.context, common.kubeconfig) as cluster:
            text = await read_platform(cluster)
    except (Unreachable, InvalidInput) as error:
        # Who names a cluster means it.
        if common.context or common.kubeconfig:
            raise
        say(f"the profiles that are known here, without a cluster: {error.what}")
        return None
    return parse_platform(text)
