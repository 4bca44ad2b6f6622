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
    commands = getattr(command, "commands", None)
    yield f"### {path}\n"
    if commands:
        yield f"{_paragraphs(command.help or '')}\n"
        for name, nested in commands.items():
            yield from _command(nested, f"{path} {name}")
        return
    yield f"```\n{_usage(command, path)}\n```\n"
    yield f"{_paragraphs(command.help or '')}\n"
    rows = [row for row in _options(command) if row[0] not in _common_names()]
    arguments = [
        (f"`{_metavar(p)}`", p.help or "") for p in command.params if p.param_type_name == "argument" and p.help
    ]
    if arguments or rows:
        yield _table([*arguments, *rows]) + "\n"


def _usage(command: Any, path: str) -> str:
    return " ".join([path, "[OPTIONS]", *(_metavar(p) for p in _arguments(command))])


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _metavar(parameter: Any) -> str:
    text = str(parameter.metavar or parameter.name.upper())
    if not parameter.required and not text.startswith("["):
        text = f"[{text}]"
    return f"{text}..." if parameter.nargs == -1 and not text.endswith("...") else text


def _options(command: Any) -> list[tuple[str, str]]:
    rows = []
    for option in command.params:
        if option.param_type_name != "option" or option.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in option.opts)
        if option.secondary_opts:
            names += " / " + ", ".join(f"`{name}`" for name in option.secondary_opts)
        if not (option.is_flag or option.count):
            names += f" `{_value(option)}`"
        default = _default(option)
        rows.append((names, f"{option.help or ''}{f' Default: `{default}`.' if default else ''}"))
    return rows


def _value(option: Any) -> str:
    choices = getattr(option.type, "choices", None)
    if option.metavar:
        return str(option.metavar)
    return "|".join(str(getattr(c, "value", c)) for c in choices) if choices else option.type.name.upper()


def _default(option: Any) -> str:
    value = option.default
    if option.is_flag and not option.secondary_opts:
        return ""
    if option.is_flag:
        return str((option.opts if value else option.secondary_opts)[0])
    if value is None or callable(value) or value in ((), []) or type(value).__name__ == "Sentinel":
        return ""
    return str(getattr(value, "value", value))


def _common_names() -> set[str]:
    return {names for names, _ in _options(typer.main.get_command(app))}


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
