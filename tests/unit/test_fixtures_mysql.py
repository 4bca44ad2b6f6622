"""A dump of MySQL, read line by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture.fixtures.masking import Mask
from sandbox.capture.fixtures.mysql.statements import (
    DumpReader,
    Insert,
    identifier,
    masked,
    read_insert,
    statements,
    text_of,
)
from sandbox.model.errors import OperationFailed

KEY = b"a key of these tests, 32 bytes.."


def quoted(text: str) -> bytes:
    """As mysql_real_escape_string writes it."""
    table = {"\0": "\\0", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "'": "\\'", '"': '\\"', "\x1a": "\\Z"}
    return b"'" + "".join(table.get(c, c) for c in text).encode() + b"'"


names = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1, max_size=20)
texts = st.text(st.characters(codec="utf-8"))
values = st.one_of(
    texts.map(quoted),
    texts.map(lambda text: b"_binary " + quoted(text)),
    texts.map(lambda text: b"'" + text.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").encode() + b"'"),
    st.integers().map(lambda n: str(n).encode()),
    st.sampled_from([b"NULL", b"1.50", b"-3e-05", b"0xC4CA", b"''", b"'('", b"');'"]),
)


@given(names, st.lists(st.tuples(names, values), min_size=1, max_size=5))
def test_a_row_is_read_as_it_was_written(table: str, cells: list[tuple[str, bytes]]) -> None:
    row = Insert(table, tuple(name for name, _ in cells), tuple(value for _, value in cells))
    assert b"\n" not in row.line()
    assert read_insert(row.line()) == row


@given(texts)
def test_a_value_is_read_as_the_text_that_it_is(text: str) -> None:
    assert text_of(quoted(text)) == text


@pytest.mark.parametrize(
    "line",
    [
        b"INSERT INTO `t` VALUES (1);",
        b"INSERT INTO `t` (`a`) VALUES (1,2);",
        b"INSERT INTO `t` (`a`) VALUES (1)",
        b"INSERT INTO `t` (`a`) VALUES ('open);",
        b"INSERT INTO `t` (`a`",
    ],
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(OperationFailed, match="a row of the dump cannot be read"):
        read_insert(line)


def test_masks_leave_no_value_alone_and_change_nothing_else() -> None:
    row = Insert("t", ("id", "email", "name"), (b"1", quoted("o'neil@corp.example"), b"NULL"))
    found = masked(row, {"email": Mask("email", KEY), "name": Mask("name", KEY)})
    assert (found.values[0], found.values[2]) == (b"1", b"NULL")
    assert text_of(found.values[1]) == Mask("email", KEY)("o'neil@corp.example")


DUMP = b"""/*M!999999\\- enable the sandbox mode */
-- MariaDB dump
LOCK TABLES `t` WRITE;
INSERT INTO `t` (`a`) VALUES (1);
INSERT INTO `t` (`a`) VALUES (2);
INSERT INTO `u` (`a`) VALUES (3);
UNLOCK TABLES;
DELIMITER ;;
LOCK TABLES `t` WRITE;
INSERT INTO `t` (`a`) VALUES (4);
INSERT INTO `t` (`a`) VALUES (5);
;;
DELIMITER ;
INSERT INTO `t` (`a`) VALUES (6);
-- Dump completed
"""


@given(st.integers(1, len(DUMP)))
def test_only_rows_are_counted_however_the_dump_comes(size: int) -> None:
    passed = bytearray()
    reader = DumpReader(passed.extend, {})
    for start in range(0, len(DUMP), size):
        assert not reader.whole or start > len(DUMP) - size
        reader.write(DUMP[start : start + size])
    assert {name: table.rows for name, table in reader.tables.items()} == {"t": 2, "u": 1}
    assert bytes(passed) == DUMP.split(b"\n", 1)[1]
    assert reader.whole


def test_a_dump_that_breaks_off_is_not_whole() -> None:
    reader = DumpReader(lambda _data: None, {})
    reader.write(DUMP[: DUMP.index(b"-- Dump completed")])
    assert not reader.whole


def test_rows_are_restored_together_and_nothing_else_is_changed() -> None:
    lines = DUMP.split(b"\n", 1)[1].splitlines(keepends=True)
    together = b"".join(statements(lines))
    assert b"INSERT INTO `t` (`a`) VALUES (1),(2);\nINSERT INTO `u` (`a`) VALUES (3);\n" in together
    assert b"VALUES (4);\nINSERT INTO `t` (`a`) VALUES (5);\n" in together


@given(names)
def test_names_are_quoted(name: str) -> None:
    assert identifier(name)[1:-1].replace("``", "`") == name
