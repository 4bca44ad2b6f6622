"""Lock files, which come from anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock, ServiceLock
from sandbox.model.source import Commit
from sandbox.provision.locks import parse_lock, write_lock
from sandbox.provision.sources import Source, as_it_was_called

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


@pytest.mark.parametrize(
    ("ref", "branch"),
    [
        ("main", "main"),
        ("feature/notes", "feature/notes"),
        ("v1.2", "v1.2"),
        ("HEAD", None),
        ("HEAD~2", None),
        ("c" * 40, None),
        ("1e5cafe", None),
        ("", None),
    ],
)
def test_a_sandbox_made_of_a_lock_is_called_as_the_one_before(ref: str, branch: str | None) -> None:
    commit = Commit("r", "c" * 40, None, "c" * 40, "Dana <d@example.com>", "Say hello", LOCK.created_at)
    service = SERVICE.model_copy(update={"ref": ref, "declared_repo": "r", "declared_commit": "c" * 40})
    lock = LOCK.model_copy(update={"services": {"other": SERVICE, "web": service}})

    found = as_it_was_called(Source(commit, "r", Path()), lock, ("r", "c" * 40)).commit

    assert found.branch == branch
    assert found.sha == commit.sha
