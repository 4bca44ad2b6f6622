"""``sandbox init``: a first ``sandbox.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli import output
from sandbox.cli.options import Common, DryRun
from sandbox.cli.reporter import say
from sandbox.model.errors import Refused

FILE_NAME = "sandbox.yaml"


def init(
    common: Common,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Default: the root of the current repository.", file_okay=False, exists=True
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a first sandbox.yaml from what is found.

    Looks for charts, kustomizations and manifests. With --dry-run the file goes to standard output.
    """
    from sandbox.project.detect import detect
    from sandbox.project.init import render_initial
    from sandbox.source.git import repository_root

    root = folder.absolute() if folder else repository_root(Path.cwd())
    project = detect(root, root.name)
    text = render_initial(project)
    if dry_run:
        output.write(text, newline=False)
        return
    path = root / FILE_NAME
    if not force and path.exists():
        raise Refused(
            f"{path} exists",
            hint="`sandbox init --dry-run` prints what would be written; --force overwrites the file",
        )
    output.write_file(path, text)
    say(f"wrote {path}: {len(project.services)} services found ({', '.join(project.services)})")
    say(
        f"look through it and commit it (`git add {FILE_NAME}`), for `sandbox up` deploys commits; then run "
        "`sandbox up --dry-run`"
    )
