"""Redis' snapshots: every kind of value, and damage of every kind."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture.fixtures.redis.rdb import BadSnapshot, Function, Key, Snapshot, checksum


def text(data: bytes) -> bytes:
    """A string as a snapshot has it, with a length of 6, 14 or 32 bits."""
    if len(data) < 64:
        return bytes([len(data)]) + data
    if len(data) < 2**14:
        return struct.pack(">H", 0x4000 | len(data)) + data
    return b"\x80" + struct.pack(">I", len(data)) + data


def snapshot(*entries: bytes, version: int = 11) -> bytes:
    body = b"REDIS%04d" % version + b"".join(entries) + b"\xff"
    return body + checksum(body).to_bytes(8, "little")


def read(data: bytes) -> list[Key | Function]:
    return list(Snapshot(io.BytesIO(data)).entries())


# The value without its type, by type; all are read over, and the key behind them is found.
VALUES = {
    0: text(b"plain"),
    1: b"\x02" + text(b"a") + text(b"b"),
    2: b"\x01" + text(b"member"),
    3: b"\x03" + text(b"a") + b"\x031.5" + text(b"b") + b"\xfe" + text(b"c") + b"\xfd",
    4: b"\x01" + text(b"field") + text(b"value"),
    5: b"\x01" + text(b"a") + struct.pack("<d", 1.5),
    7: b"\x81" + b"\x12" * 8 + b"\x02\x05\x01\x07\x03" + b"\0" * 4 + b"\x04" + b"\0" * 8 + b"\x05" + text(b"x") + b"\0",
    11: text(b"\x02\0\0\0\x01\0\0\0\x07\0"),
    14: b"\x02" + text(b"listpack") + text(b"another"),
    16: text(b"listpack"),
    18: b"\x01\x02" + text(b"listpack"),
    24: b"\0" * 8 + b"\x01\x05" + text(b"field") + text(b"value"),
    25: b"\0" * 8 + text(b"listpack"),
    15: b"\x01" + text(b"\0" * 16) + text(b"listpack") + b"\x01\x05\x00"
        + b"\x01" + text(b"group") + b"\x05\x00" + b"\x01" + b"\0" * 24 + b"\x02" + b"\x01" + text(b"reader")
        + b"\0" * 8 + b"\x01" + b"\0" * 16,
    21: b"\x01" + text(b"\0" * 16) + text(b"listpack") + b"\x01\x05\x00" + b"\x05\x00\x00\x00\x01"
        + b"\x01" + text(b"group") + b"\x05\x00\x01" + b"\x01" + b"\0" * 24 + b"\x02" + b"\x01" + text(b"reader")
        + b"\0" * 16 + b"\x01" + b"\0" * 16,
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_every_type_of_value_is_taken_whole(kind: int) -> None:
    found = read(snapshot(bytes([kind]) + text(b"one") + VALUES[kind], b"\0" + text(b"behind") + text(b"x")))
    assert found == [
        Key(0, b"one", None, bytes([kind]) + VALUES[kind]),
        Key(0, b"behind", None, b"\0\x01x"),
    ]


def test_databases_expiry_functions_and_what_is_told_beside() -> None:
    data = snapshot(
        b"\xfa" + text(b"redis-ver") + text(b"7.0.15"),
        b"\xfa" + text(b"redis-bits") + b"\xc0\x40",
        b"\xf5" + text(b"#!lua name=one\n"),
        b"\xfe\x03\xfb\x02\x01",
        b"\xfc" + (1234567890123).to_bytes(8, "little") + b"\xf9\x07\x00" + text(b"a") + text(b"1"),
        b"\xfd" + (1700000000).to_bytes(4, "little") + b"\xf8\x05\x00" + text(b"b") + b"\xc2\xff\xff\xff\xff",
        b"\x00" + text(b"c") + text(b"3"),
    )
    snapshot_ = Snapshot(io.BytesIO(data))
    assert snapshot_.version == 11
    assert list(snapshot_.entries()) == [
        Function(b"#!lua name=one\n"),
        Key(3, b"a", 1234567890123, b"\0\x011"),
        Key(3, b"b", 1700000000000, b"\0\xc2\xff\xff\xff\xff"),
        Key(3, b"c", None, b"\0\x013"),
    ]
    assert snapshot_.aux == {"redis-ver": "7.0.15", "redis-bits": "64"}


def test_packed_and_numeric_names_are_read() -> None:
    # "aaaaaaaaaaaaaaaaaaaaaaaaa" as LZF packs it: one letter, then 24 from one back.
    packed = b"\xc3\x05\x19" + b"\x00a" + b"\xe0\x0f\x00"
    found = read(snapshot(b"\0" + packed + text(b"x"), b"\0" + b"\xc1\xfe\xff" + text(b"y")))
    assert [entry.name for entry in found if isinstance(entry, Key)] == [b"a" * 25, b"-2"]


def test_the_payload_ends_as_dump_ends_it() -> None:
    # What Redis 7.0 answers to `SET k 10`, `DUMP k`.
    key = Key(0, b"k", None, b"\x00\xc0\n")
    assert key.payload(10) == b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb"


GOOD = snapshot(b"\0" + text(b"one") + text(b"1" * 100), b"\x02" + text(b"two") + VALUES[2])


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_is_noticed_wherever_it_is(end: int) -> None:
    with pytest.raises(BadSnapshot):
        read(GOOD[:end])


@given(st.integers(9, len(GOOD) - 9), st.integers(1, 255))
def test_a_byte_that_changed_is_noticed(position: int, change: int) -> None:
    damaged = bytearray(GOOD)
    damaged[position] ^= change
    with pytest.raises(BadSnapshot):
        read(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"NOAUTH Authentication required.", "it is no snapshot"),
        (GOOD + b"x", "something after its end"),
        (snapshot(b"\x63" + text(b"k")), "values of type 99 are not known"),
        (snapshot(b"\0" + text(b"k") + b"\x80\xff\xff\xff\xff"), "bytes are missing"),
        (snapshot(b"\0\xc3\x02\x05\x20\x00" + text(b"x")), "a packed string cannot be unpacked"),
        (snapshot(b"\xf0" + text(b"k")), "values of type 240 are not known"),
    ],
)
def test_what_is_no_snapshot_says_why(data: bytes, said: str) -> None:
    with pytest.raises(BadSnapshot) as raised:
        read(data)
    assert said in str(raised.value)


def test_a_snapshot_without_checksum_is_read() -> None:
    assert len(read(GOOD[:-8] + b"\0" * 8)) == 2


def test_values_longer_than_a_piece_of_the_file() -> None:
    value = bytes(range(256)) * 12000
    [found] = read(snapshot(b"\0" + text(b"big") + text(value)))
    assert isinstance(found, Key)
    assert found.value == b"\0" + text(value)
