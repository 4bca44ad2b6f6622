"""Lock files, which come from anywhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock, ServiceLock
from sandbox.provision.locks import parse_lock, write_lock

SERVICE = ServiceLock(kind="manifests", repo="r", ref="1e5", commit="c" * 40, input_digest="i", manifest_digest="m")
LOCK = Lock(project="shop", env="dev", services={"y": SERVICE}, created_at=datetime(2030, 1, 1, tzinfo=UTC)).sealed()


def test_a_lock_comes_back_as_json_and_as_yaml() -> None:
    assert parse_lock(write_lock(LOCK).encode(), "x") == LOCK
    assert parse_lock(yaml.safe_dump(LOCK.model_dump(mode="json")).encode(), "x") == LOCK
    assert parse_lock(yaml.safe_dump(LOCK.model_dump()).encode(), "x") == LOCK


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "- " * 100_000 + "a",
        "project: &a " + "x" * 1_000_000 + "\nservices: [" + "*a, " * 5_000 + "]",
        "project: a\ncreated_at: 2020-13-45",
        "project: a\ncreated_at: 0001-01-01T00:00:00+23:59",
        "project: " + "9" * 5_000,
        "project: !!bool x",
        "project: !!timestamp x",
        "[" + "1," * 300_000 + "]",
        "? {}\n: a",
        "project: a\n---\nproject: b",
        "project: \udcff",
        "",
        "- a",
    ],
)
def test_what_is_no_lock_is_refused_before_it_takes_memory_or_stack(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a lock") as refused:
        parse_lock(text.encode(errors="surrogateescape"), "x")
    assert len(str(refused.value)) < 1000
