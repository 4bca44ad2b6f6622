"""Asking before something is deleted or overwritten."""

from __future__ import annotations

import sys

import typer

from sandbox.model.errors import InvalidInput


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal; with ``yes`` (``--yes``) do not.

    Raises:
        InvalidInput: there is no terminal to ask on, and ``--yes`` was not given.
        typer.Abort: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} There is no terminal to ask on", hint="say --yes, or look first with --dry-run")
    typer.confirm(question, abort=True, err=True)
