"""``sandbox version``: which versions of what."""

from __future__ import annotations

import platform
from typing import Annotated, Any

import typer

from sandbox import __version__
from sandbox.cli import output
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output
from sandbox.cli.run import run


def version(
    common: Common,
    server: Annotated[bool, typer.Option("--server", help="Ask the cluster too.")] = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Show the versions of sandbox and of the tools it uses.

    With --server, of the cluster too. Every record keeps them.
    """
    from sandbox.cluster.tools import tool_versions

    versions = {"sandbox": __version__, "python": platform.python_version(), **tool_versions()}
    if server:
        versions["server"] = run(_server_version(common))
    if output_format is Format.NAME:
        output.write(__version__)
    elif output_format in (Format.JSON, Format.YAML):
        output.show_data(versions, output_format)
    else:
        columns: list[output.Column[Any]] = [
            output.Column("TOOL", lambda row: row[0]),
            output.Column("VERSION", lambda row: row[1]),
        ]
        output.show_list(list(versions.items()), columns, output_format, name=lambda row: row[0])


async def _server_version(common: Common) -> str:
    from sandbox.cluster.client import Cluster

    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        return await cluster.version()
