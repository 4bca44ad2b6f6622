"""Masking: the same value becomes the same replacement everywhere, and rows stay rows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture.fixtures.masking import KINDS, Mask, RowMasker, escaped, longest, unescaped
from sandbox.model.errors import InvalidInput

KEY = b"k" * 32
MAKING = sorted(KINDS - {"null"})


@pytest.mark.parametrize(
    ("kind", "value", "shape"),
    [
        ("email", "dana@corp.example", r"[0-9a-f]{20}@example\.com"),
        ("name", "Dana", r"[A-Z][a-z]+ [0-9a-f]{20}"),
        ("phone", "+49 30 123", r"\+0\d{14}"),
        ("text", "anything", r"[0-9a-f]{20}"),
        ("number", "42", r"\d+"),
        ("number", "-42", r"-\d+"),
        ("number", "12.50", r"\d+"),
        ("uuid", "5f1b", r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    ],
)
def test_what_a_value_becomes(kind: str, value: str, shape: str) -> None:
    made = Mask(kind, KEY)(value)
    assert made is not None
    assert re.fullmatch(shape, made)
    assert value not in made


def test_null_is_no_value_and_what_is_empty_stays_so() -> None:
    assert Mask("null", KEY)("x") is None
    assert [Mask(kind, KEY)("") for kind in MAKING] == [""] * len(MAKING)


def test_a_kind_that_is_not_there_is_said() -> None:
    with pytest.raises(InvalidInput, match="no mask 'hash'"):
        Mask("hash", KEY)


@given(st.sampled_from(MAKING), st.text(min_size=1), st.binary(min_size=16))
def test_the_same_value_and_key_give_the_same_replacement(kind: str, value: str, key: bytes) -> None:
    assert Mask(kind, key)(value) == Mask(kind, key)(value)


@given(st.sampled_from(sorted({*MAKING} - {"number", "phone"})), st.lists(st.text(min_size=1), unique=True))
def test_different_values_stay_different(kind: str, values: list[str]) -> None:
    assert len({Mask(kind, KEY)(value) for value in values}) == len(values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_different_numbers_stay_different_and_fit_the_same_column(numbers: list[int]) -> None:
    made = [int(Mask("number", KEY)(str(number)) or "") for number in numbers]
    assert len(set(made)) == len(numbers)
    for number, masked in zip(numbers, made, strict=True):
        for bits in (15, 31, 63):
            assert (-(2**bits) <= number < 2**bits) <= (-(2**bits) <= masked < 2**bits)


def test_all_small_numbers_stay_different() -> None:
    assert len({Mask("number", KEY)(str(number)) for number in range(2**15)}) == 2**15


@given(st.sampled_from(sorted({*MAKING} - {"number"})), st.text(min_size=1))
def test_no_replacement_is_longer_than_is_said(kind: str, value: str) -> None:
    assert len(Mask(kind, KEY)(value) or "") <= longest(kind)


@given(st.text(min_size=6, alphabet="abcdefgh"))
def test_another_key_gives_another_replacement(value: str) -> None:
    assert Mask("email", KEY)(value) != Mask("email", b"another key")(value)


# -- rows


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"plain", b"plain"),
        (b"", b""),
        (b"\\N", None),
        (b"a\\tb\\nc\\rd", b"a\tb\nc\rd"),
        (b"a\\\\N", b"a\\N"),
        (b"\\\\", b"\\"),
        (b"\\\\\\\\n", b"\\\\n"),
        (b"x\\\\\\ty", b"x\\\ty"),
    ],
)
def test_fields_of_rows(field: bytes, value: bytes | None) -> None:
    assert unescaped(field) == value
    assert escaped(value) == field


@given(st.one_of(st.none(), st.binary()))
def test_every_value_comes_back(value: bytes | None) -> None:
    field = escaped(value)
    assert b"\t" not in field
    assert b"\n" not in field
    assert unescaped(field) == value


texts = st.one_of(st.none(), st.text(alphabet="ab\\\t\n\r\x0bé", max_size=6))


@given(st.lists(st.lists(texts, min_size=3, max_size=3), min_size=1, max_size=20), st.integers(1, 7))
def test_rows_are_masked_whatever_pieces_they_come_in(rows: list[list[str | None]], size: int) -> None:
    encoded = [[escaped(None if v is None else v.encode()) for v in row] for row in rows]
    data = b"".join(b"\t".join(row) + b"\n" for row in encoded)
    written = bytearray()
    mask = Mask("email", KEY)
    masker = RowMasker({1: mask}, written.extend)
    for start in range(0, len(data), size):
        masker.write(data[start : start + size])
    assert masker.whole
    assert masker.rows == len(rows)
    found = [[unescaped(field) for field in line.split(b"\t")] for line in bytes(written).split(b"\n")[:-1]]
    for (first, second, third), row in zip(found, rows, strict=True):
        assert (first, third) == tuple(None if v is None else v.encode() for v in (row[0], row[2]))
        assert second == (None if row[1] is None else (mask(row[1]) or "").encode())


def test_half_a_row_is_noticed() -> None:
    masker = RowMasker({0: Mask("text", KEY)}, bytearray().extend)
    masker.write(b"one\ttwo\nthr")
    assert not masker.whole
