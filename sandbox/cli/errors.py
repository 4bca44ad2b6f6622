"""Maps every way in which a command can end to an exit code; nothing else does."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from sandbox.cli.output import OutputClosed, printable
from sandbox.model.errors import SandboxError

FAILED = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
# What a shell reports for a program that SIGPIPE ended: `sandbox logs | head` is no failure of ours.
OUTPUT_CLOSED = 128 + signal.SIGPIPE


def exit_code_of(command: Callable[[], Any], *, debug: bool) -> int:
    """Run a command and turn its end into an exit code, saying on stderr what went wrong.

    The codes are the contract of ``docs/commands.md``. A traceback is shown with ``debug`` only.
    """
    try:
        result = command()
    except SandboxError as error:
        _show(error, debug=debug)
        return error.exit_code
    except typer.TyperException as error:
        return _show_usage(error)
    except KeyboardInterrupt:
        _line("interrupted")
        return INTERRUPTED
    except OutputClosed:
        return _output_closed()
    except typer.Abort:
        _line("aborted")
        return FAILED
    except ExceptionGroup as group:
        return _output_closed() if group.subgroup(OutputClosed) else _show_group(group, debug=debug)
    except Exception as error:
        _show_unexpected(error, debug=debug)
        return FAILED
    # Typer hands back the code of `raise typer.Exit(code)` instead of raising it; 130 when it saw Ctrl-C itself.
    if isinstance(result, int):
        if result == INTERRUPTED:
            _line("interrupted")
        return result
    return 0


def _output_closed() -> int:
    # Python flushes stdout at exit; that must not fail a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OUTPUT_CLOSED


def _show_group(group: ExceptionGroup[Exception], *, debug: bool) -> int:
    """Show each error of tasks that ran side by side once; the first one decides on the exit code."""
    if debug:
        traceback.print_exception(group)
    leaves = _leaves(group)
    for _, error in {str(leaf): leaf for leaf in leaves}.items():
        if isinstance(error, SandboxError):
            _show(error, debug=False)
        else:
            _show_unexpected(error, debug=False)
    first = leaves[0]
    return first.exit_code if isinstance(first, SandboxError) else FAILED


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found


def _show(error: SandboxError, *, debug: bool) -> None:

    if debug:
        traceback.print_exception(error)
    _line(f"error: {printable(error.what)}")
    for line in error.why.splitlines():
        _line(f"  {printable(line)}")
    if error.hint:
        _line(f"hint: {printable(error.hint)}")


def _show_usage(error: typer.TyperException) -> int:
    show = getattr(error, "show", None)
    if callable(show):
        show(file=sys.stderr)
    else:
        _line(f"error: {error}")
    return error.exit_code


def _show_unexpected(error: Exception, *, debug: bool) -> None:

    if debug:
        traceback.print_exception(error)
        return
    text = " ".join(str(error).split())
    _line(f"error: unexpected {type(error).__name__}{': ' if text else ''}{printable(text)}")
    _line("hint: this is a defect of sandbox; run the command with --debug for the traceback")


def _line(text: str) -> None:
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        # Standard error is gone too; the exit code still tells.
        pass
