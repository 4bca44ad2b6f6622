"""``sandbox quota``: the quota profiles that `up` can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli import output
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output
from sandbox.cli.output import Column

if TYPE_CHECKING:
    from sandbox.project.quotas import QuotaProfile

app = typer.Typer(no_args_is_help=True, help="Quota profiles: how much a sandbox may use.")


@app.command("list")
def list_(common: Common, output_format: Output = Format.TABLE) -> None:
    """List the quota profiles: shipped ones, yours and the project's."""
    profiles = _profiles()
    columns: list[Column[QuotaProfile]] = [
        Column("NAME", lambda p: p.name),
        Column("CPU", lambda p: p.resource_quota.get("requests.cpu", "")),
        Column("MEMORY", lambda p: p.resource_quota.get("requests.memory", "")),
        Column("STORAGE", lambda p: p.resource_quota.get("requests.storage", "")),
        Column("PODS", lambda p: p.resource_quota.get("pods", "")),
        Column("MAX TTL", lambda p: p.max_ttl or ""),
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

    profile = choose_profile(name, _profiles())
    if output_format is Format.NAME:
        output.write(profile.name)
    else:
        output.show_data(_as_written(profile), Format.JSON if output_format is Format.JSON else Format.YAML)


def _as_written(profile: QuotaProfile) -> dict[str, Any]:
    """A profile as its file says it: what is shown can be changed and kept as a profile of one's own."""
    return profile.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _profiles() -> dict[str, QuotaProfile]:
    from sandbox.model.errors import SandboxError
    from sandbox.project.settings import load_settings
    from sandbox.provision.profiles import known_profiles
    from sandbox.source.git import repository_root

    try:
        tree = repository_root(Path.cwd())
    except SandboxError:
        # In no repository: there is no project to have profiles of its own.
        tree = None
    return known_profiles(load_settings(), tree)
