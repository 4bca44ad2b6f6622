"""Writes standard output; nothing else does.

Data goes to stdout, talk to stderr (``reporter.py``). Tables look like kubectl's: no borders, three
spaces between columns. Text that others wrote (refs, annotations, log lines in a status) cannot
drive the terminal: :func:`printable`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Generic, TextIO, TypeVar

from sandbox.cli.formats import Format
from sandbox.model.durations import format_duration, to_rfc3339
from sandbox.model.errors import OperationFailed

T = TypeVar("T")

NONE = "<none>"
_GAP = "   "
# C0 and C1 controls, DEL, and the Unicode controls that reorder text (Trojan Source) or are line ends to some readers.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ANSI = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "grey": "90",
}


class OutputClosed(Exception):
    """Whoever read our standard output has gone; there is nobody left to tell anything."""


def unwritable(error: OSError) -> OutputClosed | OperationFailed:
    """What it means that standard output did not take what was written: its reader has gone, or its disk is full."""
    if isinstance(error, BrokenPipeError):
        return OutputClosed()
    return OperationFailed("standard output cannot be written", why=error.strerror or str(error))


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table.

    Attributes:
        text: what a row shows; empty shows as ``<none>``.
        wide: whether it is shown with ``-o wide`` only.
        wide_text: what a row shows with ``-o wide`` instead, where that is more.
        colour: a colour's name (red, green, yellow, …) for a row, or empty.
    """

    title: str
    text: Callable[[T], str]
    wide: bool = False
    wide_text: Callable[[T], str] | None = None
    colour: Callable[[T], str] | None = None

    def cell(self, row: T, *, wide: bool) -> str:
        """What a row shows, safe for a terminal."""
        text = self.wide_text if wide and self.wide_text is not None else self.text
        return printable(text(row)) or NONE


def printable(text: str, *, keep: str = "") -> str:
    r"""Text with control characters written as escapes (``\x1b``); those in ``keep`` stay."""
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0] in keep else _escape(m[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def write_file(target: Path, text: str) -> None:
    """Write a file that somebody named, whole or not at all.

    Raises:
        OperationFailed: it cannot be written there.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            # Such as /dev/stdout: there is nothing to replace.
            target.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.replace(target)
    except OSError as error:
        raise OperationFailed(f"{target} cannot be written", why=error.strerror or str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write(text: str, *, newline: bool = True) -> None:
    """Write text as it is.

    Raises:
        OutputClosed: the reader has gone.
        OperationFailed: it cannot be written, such as to a full disk.
    """
    data = text + "\n" if newline else text
    try:
        try:
            sys.stdout.write(data)
        except UnicodeEncodeError:
            # A terminal in the C locale.
            encoding = sys.stdout.encoding or "ascii"
            sys.stdout.write(data.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        raise unwritable(error) from None


def write_bytes(data: bytes) -> None:
    """Write bytes as they are (logs, output of ``exec``).

    Raises:
        OutputClosed, OperationFailed: as :func:`write`.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise unwritable(error) from None


class Stdout:
    """Standard output as a binary file, for what writes to one as it comes (``exec``)."""

    def write(self, data: bytes, /) -> None:
        write_bytes(data)

    def flush(self) -> None:
        """Nothing is held back."""


def show_list(
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    output: Format,
    *,
    name: Callable[[T], str],
    data: Callable[[T], Any] | None = None,
    header: bool = True,
) -> None:
    """Show several of a kind: a table, a JSON or YAML array, or their names."""
    if output is Format.NAME:
        for row in rows:
            write(printable(name(row)))
    elif output in (Format.JSON, Format.YAML):
        show_data([data(row) if data else row for row in rows], output)
    else:
        wide = output is Format.WIDE
        for line in table_lines(rows, columns, wide=wide, header=header, coloured=colours(sys.stdout)):
            write(line)


def show_data(value: Any, output: Format) -> None:
    """Show a value as JSON (default) or YAML. Dataclasses and pydantic models become objects, times RFC 3339."""
    if output is Format.YAML:
        write(to_yaml(value), newline=False)
    else:
        write(to_json(value))


def to_json(value: Any) -> str:
    """JSON; control characters, which only texts can hold, as its own escapes."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0] == "\n" else f"\\u{ord(m[0]):04x}", text)


def to_json_line(value: Any) -> str:
    """JSON on one line, for logs; control characters as its own escapes."""
    text = json.dumps(plain(value), ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def to_yaml(value: Any) -> str:
    """YAML; control characters as its own escapes."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    def dump(*, unicode: bool) -> str:
        return str(
            yaml.dump(plain(value), Dumper=dumper, sort_keys=False, allow_unicode=unicode, default_flow_style=False)
        )

    text = dump(unicode=True)
    # YAML takes characters that reorder text for printable ones.
    return dump(unicode=False) if _UNPRINTABLE.search(text.replace("\n", "")) else text


def to_yaml_documents(values: Iterable[Any]) -> str:
    """Several documents, as ``kubectl apply -f -`` reads them."""
    return "".join(f"---\n{to_yaml(value)}" for value in values)


def plain(value: Any) -> Any:
    """A value in the terms of JSON.

    Raises:
        TypeError: something that no command should show.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return to_rfc3339(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    raise TypeError(f"cannot show a {type(value).__name__}")


def table_lines(
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    *,
    wide: bool = False,
    header: bool = True,
    coloured: bool = False,
    widths: Sequence[int] | None = None,
) -> list[str]:
    """The lines of a table; control characters in cells are escaped.

    Args:
        widths: least widths of the columns, such as those of a table shown before (``--watch``).
    """
    shown = [column for column in columns if wide or not column.wide]
    cells = [[column.cell(row, wide=wide) for column in shown] for row in rows]
    titles = [[column.title for column in shown]] if header else []
    sizes = [max((len(line[i]) for line in [*titles, *cells]), default=0) for i in range(len(shown))]
    if widths:
        sizes = [max(size, least) for size, least in zip(sizes, widths, strict=True)]
    lines = [_join(line, sizes) for line in titles]
    for row, line in zip(rows, cells, strict=True):
        styles = [column.colour(row) if coloured and column.colour else "" for column in shown]
        lines.append(_join(line, sizes, styles))
    return lines


def table_widths(rows: Sequence[T], columns: Sequence[Column[T]], *, wide: bool = False) -> list[int]:
    """How wide each column of a table is."""
    shown = [column for column in columns if wide or not column.wide]
    return [max([len(c.title), *(len(c.cell(row, wide=wide)) for row in rows)]) for c in shown]


def _join(cells: Sequence[str], sizes: Sequence[int], styles: Sequence[str] = ()) -> str:
    last = len(cells) - 1
    parts = []
    for i, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
        padding = "" if i == last else " " * (size - len(cell))
        style = styles[i] if styles else ""
        parts.append((paint(cell, style) if style else cell) + padding)
    return _GAP.join(parts)


def paint(text: str, colour: str, *, stream: TextIO | None = None) -> str:
    """Text in a colour; as it is when ``stream`` is given and does not show colours."""
    if not colour or (stream is not None and not colours(stream)):
        return text
    return f"\x1b[{_ANSI[colour]}m{text}\x1b[0m"


def colours(stream: TextIO) -> bool:
    """Whether to colour what goes to a stream: a terminal that can, and no NO_COLOR (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def clear_screen() -> None:
    """Start over at the top of the terminal, for ``--watch``."""
    write("\x1b[H\x1b[2J", newline=False)


def can_show(text: str) -> bool:
    """Whether standard output's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def stdout_colours() -> bool:
    """Whether what is written here may be coloured."""
    return colours(sys.stdout)
