"""``sandbox lock``: what `up` would deploy, as a file that deploys exactly that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import (
    BuildArgs,
    Builder,
    Common,
    Output,
    Registry,
)


def lock(
    common: Common,
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="REF", help="Branch, tag, SHA or expression; default: HEAD.")
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="URL", help="Git repository; default: the one around the current folder."),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="ENV", help="Whose values are used; default: from sandbox.yaml, else dev."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="ENV|NAME", help="Take every other service as it runs there."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SERVICES", help="These services (a,b) and what they need.")
    ] = None,
    build_args: BuildArgs = None,
    builder: Builder = None,
    registry: Registry = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Write it there; default: standard output.", dir_okay=False),
    ] = None,
    output: Output = Format.JSON,
) -> None:
    """Resolve a project's services to commits, digests and versions.

    `sandbox up --lock FILE` deploys exactly that. A lock is not edited by hand: it would be refused.
    """
    import os

    from sandbox.cli.arguments import build_arguments, comma_separated
    from sandbox.cli.output import show_data, write, write_file
    from sandbox.cli.reporter import reporter, say
    from sandbox.cli.run import run
    from sandbox.provision.lock import make_lock
    from sandbox.provision.locks import write_lock
    from sandbox.provision.request import UpRequest

    request = UpRequest(
        folder=None if repo else Path.cwd(),
        repo=repo,
        ref=ref,
        env=env,
        base=base,
        only=comma_separated(only or ()),
        build_args=build_arguments(build_args or (), os.environ),
        builder=builder,
        registry=registry,
    )
    with reporter(verbose=common.verbose) as talk:
        made = run(make_lock(common.target(), request, talk))
    if file is not None:
        write_file(file, write_lock(made))
        say(f"wrote {file}: {len(made.services)} services")
    elif output is Format.YAML:
        show_data(made, output)
    elif output is Format.NAME:
        write(made.digest)
    else:
        write(write_lock(made), newline=False)
