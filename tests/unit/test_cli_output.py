"""cli/output.py: formats, colour, and text that tries to drive the terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cli import output
from sandbox.cli.formats import Format
from sandbox.cli.output import Column
from sandbox.model.record import ImageLock
from sandbox.model.sandbox import Phase


@dataclass(frozen=True)
class Row:
    name: str
    count: int = 1
    at: datetime = datetime(2030, 1, 31, 18, tzinfo=UTC)
    phase: Phase = Phase.READY


ROWS = [Row("web"), Row("orders", 12)]
COLUMNS: list[Column[Row]] = [
    Column("NAME", lambda row: row.name, colour=lambda row: "green"),
    Column("COUNT", lambda row: str(row.count), wide=True),
    Column("PHASE", lambda row: row.phase),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("feature/login", "feature/login"),
        ("größe ✓ 日本", "größe ✓ 日本"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("two\nlines\ttab", r"two\nlines\ttab"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\x7f", r"\x7f"),
        ("lone \ud800", r"lone \ud800"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert output.printable(text) == shown


def test_printable_keeps_what_it_is_told_to() -> None:
    assert output.printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text())
def test_printable_text_drives_no_terminal(text: str) -> None:
    shown = output.printable(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)
    shown.encode()


def test_a_table_is_kubectls(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(ROWS, COLUMNS, Format.TABLE, name=lambda row: row.name)
    assert capsys.readouterr().out == "NAME     PHASE\nweb      Ready\norders   Ready\n"


def test_a_wide_table_has_more_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(ROWS, COLUMNS, Format.WIDE, name=lambda row: row.name)
    assert capsys.readouterr().out.splitlines()[0].split() == ["NAME", "COUNT", "PHASE"]


def test_a_wide_table_says_in_full_what_a_table_says_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    owner: Column[Row] = Column("OWNER", lambda row: row.name, wide_text=lambda row: f"{row.name}@example.com")

    output.show_list(ROWS[:1], [owner], Format.TABLE, name=lambda row: row.name)
    output.show_list(ROWS[:1], [owner], Format.WIDE, name=lambda row: row.name)

    assert capsys.readouterr().out.split() == ["OWNER", "web", "OWNER", "web@example.com"]
    assert output.table_widths(ROWS[:1], [owner], wide=True) == [15]


def test_a_table_without_titles(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(ROWS[:1], COLUMNS, Format.TABLE, name=lambda row: row.name, header=False)
    assert capsys.readouterr().out == "web   Ready\n"


def test_json_has_absolute_times(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(ROWS, COLUMNS, Format.JSON, name=lambda row: row.name)
    assert json.loads(capsys.readouterr().out) == [
        {"name": "web", "count": 1, "at": "2030-01-31T18:00:00Z", "phase": "Ready"},
        {"name": "orders", "count": 12, "at": "2030-01-31T18:00:00Z", "phase": "Ready"},
    ]


def test_yaml_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_data(ROWS[0], Format.YAML)
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["name"] == "web"
    assert list(yaml.safe_load(text)) == ["name", "count", "at", "phase"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_formats_for_programs_drive_no_terminal_and_lose_nothing(text: str) -> None:
    for write, read in ((output.to_json, json.loads), (output.to_yaml, yaml.safe_load)):
        written = write({"a": text})
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", written)
        assert read(written) == {"a": text}


def test_names_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list(ROWS, COLUMNS, Format.NAME, name=lambda row: row.name)
    assert capsys.readouterr().out == "web\norders\n"


@pytest.mark.parametrize("form", [Format.TABLE, Format.WIDE, Format.NAME])
def test_no_format_for_people_lets_a_name_drive_the_terminal(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list([Row("\x1b[31mred\nrow")], COLUMNS, form, name=lambda row: row.name)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[31mred\nrow" in out


def test_cells_without_text_show_as_kubectls(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_list([Row("")], COLUMNS, Format.TABLE, name=lambda row: row.name)
    assert "<none>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal_only_and_never_with_no_color(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert output.colours(Terminal()) is coloured
    assert output.colours(io.StringIO()) is False


def test_colour_does_not_move_columns() -> None:
    plain = output.table_lines(ROWS, COLUMNS)
    coloured = output.table_lines(ROWS, COLUMNS, coloured=True)
    assert "\x1b[32m" in coloured[1]
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == plain


def test_a_watched_table_keeps_its_widths() -> None:
    widths = output.table_widths(ROWS, COLUMNS)
    assert output.table_lines(ROWS[:1], COLUMNS, header=False, widths=widths) == ["web      Ready"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Path("/a/b"), "/a/b"),
        (timedelta(hours=36), "1d12h"),
        ((1, "a"), [1, "a"]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1: None}, {"1": None}),
        (ImageLock(name="a", repository="r", digest="d"), {"name": "a", "repository": "r", "tag": "", "digest": "d"}),
    ],
)
def test_plain(value: object, plain: object) -> None:
    assert output.plain(value) == plain


def test_plain_refuses_what_no_command_should_show() -> None:
    with pytest.raises(TypeError, match="object"):
        output.plain(object())


def test_a_terminal_in_the_c_locale_still_gets_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.write("größe")
    assert raw.getvalue() == b"gr\\xf6\\xdfe\n"
