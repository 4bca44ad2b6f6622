"""``sandbox schema``: the JSON Schema of the files that people write."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sandbox.cli import output
from sandbox.cli.formats import Format
from sandbox.cli.options import Common, Output
from sandbox.model.errors import InvalidInput


class Subject(StrEnum):
    """Which file's schema."""

    PROJECT = "project"
    QUOTA = "quota"
    PLATFORM = "platform"


def schema(
    common: Common,
    subject: Annotated[
        Subject, typer.Argument(help="sandbox.yaml, a quota profile, or the platform configuration.")
    ] = Subject.PROJECT,
    output_format: Output = Format.JSON,
) -> None:
    """Print the JSON Schema of sandbox.yaml, of quota profiles or of the platform configuration.

    An editor with the YAML language server takes it from the first line of the file:
    `# yaml-language-server: $schema=sandbox.schema.json`.
    """
    from sandbox.project.schema import platform_schema, project_schema, quota_schema

    if output_format not in (Format.JSON, Format.YAML):
        raise InvalidInput(f"a schema cannot be shown as {output_format}", hint="use -o json or -o yaml")
    schemas = {Subject.PROJECT: project_schema, Subject.QUOTA: quota_schema, Subject.PLATFORM: platform_schema}
    output.show_data(schemas[subject](), output_format)
