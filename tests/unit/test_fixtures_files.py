"""Files of fixtures: complete and within their limit, or not there; and checked before use."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sandbox.capture.fixtures.files import PartFile, TooLarge, check_part
from sandbox.capture.fixtures.redis.store import Databases, WithoutMark, _differences
from sandbox.model.errors import OperationFailed


def test_a_file_is_known_by_what_was_written(tmp_path: Path) -> None:
    with PartFile(tmp_path, "db/shop.dump", limit=100) as file:
        file.write(b"one ")
        file.write(b"two")
    part = file.part("archive", "application/x", "shop")
    assert check_part(tmp_path, part).read_bytes() == b"one two"
    assert (part.size, part.path, part.database) == (7, "db/shop.dump", "shop")
    assert (tmp_path / "db/shop.dump").stat().st_mode & 0o077 == 0


def test_a_compressed_file_is_counted_as_it_is_stored(tmp_path: Path) -> None:
    with PartFile(tmp_path, "rows.gz", limit=5000, compressed=True) as file:
        for _ in range(100):
            file.write(b"x" * 1000)
    assert gzip.decompress((tmp_path / "rows.gz").read_bytes()) == b"x" * 100_000
    assert file.part("rows", "text/x").size == (tmp_path / "rows.gz").stat().st_size < 5000


def test_a_file_over_its_limit_or_of_a_failure_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TooLarge), PartFile(tmp_path, "a", limit=10) as file:
        file.write(b"x" * 11)
    with pytest.raises(TypeError), PartFile(tmp_path, "b", limit=10) as file:
        file.write([b"x"])  # type: ignore[arg-type]
    with pytest.raises(TooLarge), PartFile(tmp_path, "c", limit=10, compressed=True) as file:
        # It is only known at the end how long it is.
        file.write(bytes(range(256)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["longer", "other", "link", "gone"])
def test_a_file_that_is_not_what_was_written_is_refused(tmp_path: Path, change: str) -> None:
    with PartFile(tmp_path, "a", limit=10) as file:
        file.write(b"x")
    path = tmp_path / "a"
    if change == "longer":
        path.write_bytes(b"xy")
    elif change == "other":
        path.write_bytes(b"y")
    else:
        path.unlink()
        if change == "link":
            (tmp_path / "b").write_bytes(b"x")
            path.symlink_to(tmp_path / "b")
    with pytest.raises(OperationFailed):
        check_part(tmp_path, file.part("x", "x"))


# -- Redis


@pytest.mark.parametrize("size", [1, 7, 41, 1000])
@pytest.mark.parametrize("mark", [b"", b"0123456789abcdef0123456789abcdef01234567"])
@pytest.mark.parametrize("data", [b"", b"REDIS0010\xff12345678", b"REDIS0010" + b"a" * 100 + b"\xff12345678"])
def test_the_mark_behind_a_snapshot_is_left_out(data: bytes, mark: bytes, size: int) -> None:
    written = bytearray()
    unmarked = WithoutMark(written.extend)
    whole = data + mark
    for start in range(0, len(whole), size):
        unmarked.write(whole[start : start + size])
    unmarked.end()
    assert bytes(written) == data


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({0: Databases(keys=10, expiring=4)}, []),
        # Some have expired since.
        ({0: Databases(keys=7, expiring=1)}, []),
        ({0: Databases(keys=9, expiring=4)}, ["database 0 has 5 keys that do not expire instead of 6"]),
        ({0: Databases(keys=11, expiring=5)}, ["database 0 has 5 keys that expire instead of 4 at most"]),
        ({}, ["database 0 has 0 keys that do not expire instead of 6"]),
        (
            {0: Databases(keys=10, expiring=4), 1: Databases(keys=1, expiring=0)},
            ["database 1 has 1 keys that do not expire instead of 0"],
        ),
    ],
)
def test_how_keys_are_compared(found: dict[int, Databases], said: list[str]) -> None:
    assert list(_differences({0: Databases(keys=10, expiring=4)}, found)) == said
