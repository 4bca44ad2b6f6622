"""Reading options that hold several things in one text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from sandbox.model.errors import InvalidInput

# `SANDBOX_BUILD_ARG_BASE_IMAGE=…` is `--build-arg BASE_IMAGE=…` for every command of a shell or CI job.
_VARIABLE = "SANDBOX_BUILD_ARG_"
# Of a sandbox or its namespace.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


def comma_separated(texts: Iterable[str]) -> tuple[str, ...]:
    """``--only a,b --only c`` → a, b, c."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def build_arguments(given: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments of the environment, then those of the command line, which win.

    Raises:
        InvalidInput: one has no ``=`` or no name.
    """
    arguments = {n.removeprefix(_VARIABLE): v for n, v in environment.items() if n.startswith(_VARIABLE)}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput(f"--build-arg {text!r} is not of the form NAME=VALUE")
        arguments[name] = value
    return {name: value for name, value in arguments.items() if name}


def lock_given(text: str | None, *, or_name: bool = False) -> Path | str | None:
    """What ``--lock`` names: a file, a URL in a store, or (``or_name``) a sandbox that was deleted.

    Raises:
        typer.BadParameter: there is no such file.
    """
    if text is None or "://" in text:
        return text
    if Path(text).is_file():
        return Path(text).absolute()
    if or_name and _NAME.fullmatch(text):
        return text
    raise typer.BadParameter(f"{text}: there is no such file", param_hint="--lock")
