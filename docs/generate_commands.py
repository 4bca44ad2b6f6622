"""Write docs/commands.md from the commands themselves (`make docs`); a test holds them together."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sandbox.cli.main import COMMANDS, app, load

TARGET = Path(__file__).with_name("commands.md")

_HEAD = """\
# Commands

<!-- Written by `make docs` from the commands themselves; do not edit. -->

Every command takes the [common options](#common-options). Data goes to standard output, talk (progress,
warnings, errors) to standard error. `-o json|yaml|table|wide|name` chooses how data is written; colours and
live progress are for terminals only, and `NO_COLOR` is honoured.

A sandbox is chosen by `-s NAME` (or the environment variable `SANDBOX_NAME`); without it, the sandbox of the
current branch is meant. Commands about whole sandboxes also take names as arguments; for `logs`, `events`,
`open`, `port-forward` and `exec` the argument is the service. Durations are written `30m`, `8h`, `2d`, `1w`, `1d12h`.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | the operation failed |
| 2 | wrong usage, or an input file that is not valid |
| 3 | found something to report |
| 4 | refused by a guardrail, a quota, an ownership rule or drift in the way |
| 5 | cluster, registry or git not reachable, or credentials refused |
| 6 | partly done: what is left over is named |
| 7 | busy: another deployment holds the sandbox |
| 130 | interrupted (Ctrl-C, SIGTERM) |
| 141 | whoever read standard output has gone |

An error says what failed, why (in the cluster's or tool's own words) and what to do; `--debug` adds the traceback.
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD, _common_options()]
    for section in dict.fromkeys(entry.section for entry in COMMANDS):
        parts.append(f"## {section}\n")
        for entry in COMMANDS:
            if entry.section == section and not entry.hidden:
                parts += _command(load(entry), f"sandbox {entry.name}")
    return "\n".join(parts).rstrip() + "\n"


def _common_options() -> str:
    root = typer.main.get_command(app)
    return "## Common options\n\nThey may stand before the command or after it.\n\n" + _table(_options(root)) + "\n"


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"### {path}\n"
    if commands := getattr(command, "commands", None):
        yield f"{_paragraphs(command.help or '')}\n"
        for name, nested in commands.items():
            yield from _command(nested, f"{path} {name}")
        return
    yield f"```\n{' '.join([path, *command.collect_usage_pieces(_context(command))])}\n```\n"
    yield f"{_paragraphs(command.help or '')}\n"
    common = _options(typer.main.get_command(app))
    if rows := [row for row in _options(command) if row not in common]:
        yield _table(rows) + "\n"


def _options(command: Any) -> list[tuple[str, str]]:
    """Arguments and options with their help, as ``--help`` shows them."""
    context = _context(command)
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    return [(f"`{names}`", text) for names, text in filter(None, records) if text]


def _context(command: Any) -> typer.Context:
    """A command's context, as it is when it is run: what the root command sets holds for all."""
    root = typer.main.get_command(app)
    return typer.Context(command, parent=typer.Context(root, **root.context_settings))


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text).replace("\b\n", "")


def _table(rows: list[tuple[str, str]]) -> str:
    lines = ["| | |", "| --- | --- |", *(f"| {_cell(left)} | {_cell(right)} |" for left, right in rows)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    sys.stderr.write(f"wrote {TARGET}\n")
