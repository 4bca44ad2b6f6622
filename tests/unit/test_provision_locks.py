"""Lock files, which come from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from sandbox.cluster import keptlocks
from sandbox.cluster.client import Cluster
from sandbox.cluster.keptlocks import Kept
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.owner import Owner
from sandbox.model.record import Lock, ServiceLock
from sandbox.model.source import Commit
from sandbox.project.platform import Platform
from sandbox.provision.locks import KeptLock, LockPlaces, find_lock, parse_lock, write_lock
from sandbox.provision.sources import Source, as_it_was_called
from sandbox.store.locks import keep_lock, kept_locks
from sandbox.store.store import Store

SERVICE = ServiceLock(kind="manifests", repo="r", ref="1e5", commit="c" * 40, input_digest="i", manifest_digest="m")
LOCK = Lock(project="shop", env="dev", services={"y": SERVICE}, created_at=datetime(2030, 1, 1, tzinfo=UTC)).sealed()


def test_a_lock_comes_back_as_json_and_as_yaml() -> None:
    assert parse_lock(write_lock(LOCK).encode(), "x") == LOCK
    assert parse_lock(yaml.safe_dump(LOCK.model_dump(mode="json")).encode(), "x") == LOCK
    assert parse_lock(yaml.safe_dump(LOCK.model_dump()).encode(), "x") == LOCK


def test_a_lock_from_before_it_named_what_the_command_line_gave_is_still_one() -> None:
    older = yaml.safe_load(write_lock(LOCK))
    del older["services"]["y"]["given"]
    digest_then = LOCK.digest

    assert parse_lock(yaml.safe_dump(older).encode(), "x").digest == digest_then
    older["services"]["y"]["given"] = ["--set a"]
    with pytest.raises(InvalidInput, match="do not match its digest"):
        parse_lock(yaml.safe_dump(older).encode(), "x")


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


# -- whose lock is taken by a name ------------------------------------------------------------------------------

UID = "0a1b2c3d-0000-4000-8000-0123456789ab"
DANA, MALLORY = Owner(user="dana@example.com"), Owner(user="mallory@example.com")
CLUSTER = cast(Cluster, SimpleNamespace(context="here"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """What is kept in the cluster."""
    found: list[Kept] = []

    async def of(_: Any, namespaces: Sequence[str] = ()) -> list[Kept]:
        return [one for one in found if not namespaces or one.namespace in namespaces]

    monkeypatch.setattr(keptlocks, "kept_of", of)
    return found


async def find(store: Path, *users: str) -> KeptLock:
    places = LockPlaces(CLUSTER, Platform(), str(store))
    return await find_lock(places, ["sbx-shop", "shop"], users or ("dana@example.com",))


async def test_a_name_with_a_typing_error_is_told_as_one(tmp_path: Path, kept: list[Kept]) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    kept += [Kept(at, "a", "sbx-shap", DANA), Kept(at, "b", "shop-x", MALLORY), Kept(at, "c", "other", DANA)]
    await keep_lock(Store.open(str(tmp_path)), "shopp", UID, "{}", DANA)

    with pytest.raises(InvalidInput, match="no lock of a deleted sandbox shop is kept") as refused:
        await find(tmp_path)

    assert refused.value.hint == "did you mean shopp or shap?"


async def test_by_a_name_a_lock_of_ones_own_is_found_however_new_anothers_is(tmp_path: Path, kept: list[Kept]) -> None:
    kept += [
        Kept(datetime(2030, 1, 1, tzinfo=UTC), "older", "shop", DANA),
        Kept(datetime(2030, 1, 2, tzinfo=UTC), "newer", "shop", DANA),
        Kept(datetime(2030, 1, 3, tzinfo=UTC), "strange", "shop", MALLORY),
        Kept(datetime(2030, 1, 3, tzinfo=UTC), "group", "shop", Owner(group="developers")),
        Kept(datetime(2030, 1, 3, tzinfo=UTC), "named-as-a-user", "shop", Owner(group="dana@example.com")),
        Kept(datetime(2030, 1, 3, tzinfo=UTC), "nobody", "shop", Owner()),
    ]

    found = await find(tmp_path)
    assert (found.url, str(found.owner)) == (f"{keptlocks.URL}newer", "dana@example.com")
    # As --owner asks for it; nothing is of a user without a name.
    assert (await find(tmp_path, "ci", "mallory@example.com")).url == f"{keptlocks.URL}strange"
    with pytest.raises(Refused):
        await find(tmp_path, "ci", "")


@pytest.mark.parametrize(
    ("owner", "said"),
    [(MALLORY, "mallory@example.com"), (Owner(group="developers"), "the group developers"), (Owner(), "not kept")],
)
@pytest.mark.parametrize("place", ["cluster", "store"])
async def test_where_only_others_are_kept_their_url_has_to_be_given(
    tmp_path: Path, kept: list[Kept], owner: Owner, said: str, place: str
) -> None:
    url = f"{keptlocks.URL}other"
    if place == "cluster":
        kept.append(Kept(datetime(2030, 1, 3, tzinfo=UTC), "other", "shop", owner))
    else:
        # Its own text is no witness.
        url = await keep_lock(Store.open(str(tmp_path)), "shop", UID, "owner: dana@example.com", owner)

    with pytest.raises(Refused, match=said) as refused:
        await find(tmp_path)

    assert (refused.value.exit_code, f"--lock {url}" in refused.value.hint) == (4, True)


@pytest.mark.parametrize(
    "owner",
    [
        DANA,
        Owner(user="system:serviceaccount:ci:deployer"),
        Owner(user="../a b/~c=2E%2F+d.group.é"),
        Owner(group="developers"),
        Owner(),
    ],
)
async def test_a_store_gives_back_whose_a_lock_is(tmp_path: Path, owner: Owner) -> None:
    store = Store.open(str(tmp_path))
    await keep_lock(store, "shop", UID, "text", owner)
    await keep_lock(store, "shop-b", UID, "another sandbox's", MALLORY)

    ((entry, _, found), (_, other, _)) = sorted(await kept_locks(store), key=lambda one: one[1])

    assert other == "shop-b"
    assert (found, await store.get(entry.path, at_most=9)) == (owner, b"text")


async def test_a_name_too_long_for_a_store_is_nobodys(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    await keep_lock(store, "s" * 63, UID, "text", Owner(user="x" * 1024))
    ((_, namespace, found),) = await kept_locks(store)
    assert (namespace, found) == ("s" * 63, Owner())
