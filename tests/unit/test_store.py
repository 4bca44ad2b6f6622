"""The capture store: a folder, and any file system of fsspec's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.store.paths import checked
from sandbox.store.store import NotStored, Store


@pytest.fixture(params=["folder", "file url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "folder": str(tmp_path / "captures"),
        "file url": f"file://{tmp_path}/captures",
        "memory": f"memory://{uuid.uuid4().hex}/captures",
    }
    return Store.open(urls[request.param])


async def test_what_was_put_is_got_listed_and_removed(store: Store, tmp_path: Path) -> None:
    assert await store.names() == []
    await store.put("captures/a.json", b"one")
    await store.put("captures/b.json", b"")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 40_000)
    await store.put("blobs/sha256/abc", tmp_path / "large")
    assert await store.names() == ["blobs/sha256/abc", "captures/a.json", "captures/b.json"]
    assert await store.names("captures/") == ["captures/a.json", "captures/b.json"]
    assert await store.names("captures/b") == ["captures/b.json"]
    assert await store.names("nothing/") == []
    assert await store.get("captures/a.json") == b"one"
    assert await store.get("captures/b.json") == b""
    chunks = [chunk async for chunk in store.stream("blobs/sha256/abc")]
    assert len(chunks) > 1
    assert b"".join(chunks) == (tmp_path / "large").read_bytes()
    await store.put("captures/a.json", b"two")
    assert await store.get("captures/a.json") == b"two"
    assert await store.remove("captures/a.json") is True
    assert await store.remove("captures/a.json") is False
    assert not await store.exists("captures/a.json")


async def test_an_entry_says_its_size_and_when_it_was_written(store: Store) -> None:
    await store.put("a", b"12345")
    found = await store.stat("a")
    assert found is not None
    assert found.size == 5
    assert found.modified is not None
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)
    assert await store.stat("b") is None


async def test_put_if_absent_writes_once(store: Store) -> None:
    assert await store.put_if_absent("a", b"first") is True
    assert await store.put_if_absent("a", b"second") is False
    assert await store.get("a") == b"first"


async def test_an_empty_entry_is_empty(store: Store) -> None:
    await store.put("empty", b"")
    assert await store.get("empty") == b""


async def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(NotStored, match="the store has no captures/x"):
        await store.get("captures/x")


async def test_a_bound_on_what_is_read_holds(store: Store) -> None:
    await store.put("a", b"x" * 11)
    assert len(await store.get("a", at_most=11)) == 11
    with pytest.raises(OperationFailed, match="larger than it may be"):
        await store.get("a", at_most=10)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "a\0b",
            ".hidden",
            "a/.writing-1",
            "ä",
        ),
        "a\n",
    ],
)
async def test_a_path_that_leads_out_is_refused(store: Store, path: str) -> None:
    for call in (store.get, store.exists, store.remove):
        with pytest.raises(InvalidInput):
            await call(path)
    with pytest.raises(InvalidInput):
        await store.put(path, b"")


@given(st.text(alphabet="ab./\\\0.~: -", max_size=12))
def test_no_path_that_is_let_through_leaves_its_root(path: str) -> None:
    try:
        checked(path)
    except InvalidInput:
        return
    assert os.path.normpath(f"/root/{path}") == f"/root/{path}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zip://a.zip", "no kind of store called zip"),
        ("simplecache::s3://bucket/x", "no kind of store"),
        ("http://example.com/x", "no kind of store called http"),
        ("s3://key:secret@bucket/x", "holds more than its place"),
        ("s3://bucket/x?token=secret", "holds more than its place"),
        ("", "has no path"),
        ("file://", "has no path"),
    ],
)
def test_a_url_that_is_no_store_is_refused_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Store.open(url)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


async def test_a_bucket_without_the_package_for_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    store = Store.open("s3://bucket/captures")
    for doing in (store.put("a", b"1"), store.get("a"), store.exists("a"), store.names(), store.remove("a")):
        with pytest.raises(InvalidInput, match="need the package obstore") as refused:
            await doing
        assert refused.value.hint == "pip install 'sandbox-k8s[s3]'"


def test_without_a_url_it_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store.open()
    assert store.is_local
    assert store.folder is not None
    assert store.folder.is_relative_to(tmp_path)
    assert store.folder.name == "captures"


async def test_a_file_can_be_moved_into_a_folder(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "captures"))
    file = tmp_path / "dump"
    file.write_bytes(b"rows")
    await store.put("blobs/x", file, move=True)
    assert not file.exists()
    assert await store.get("blobs/x") == b"rows"


async def test_a_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "captures"))
    await store.put("a", b"")
    assert (tmp_path / "captures").stat().st_mode & 0o077 == 0


async def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("hunter2")
    root = tmp_path / "captures"
    root.mkdir()
    (root / "blobs").symlink_to(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside" / "secret")
    store = Store.open(str(root))
    assert await store.names() == []
    for path in ("blobs/secret", "link"):
        with pytest.raises(Refused):
            await store.get(path)
    with pytest.raises(Refused):
        await store.put("blobs/new", b"")
    with pytest.raises(Refused):
        await store.remove("blobs/secret")
    assert (tmp_path / "outside" / "secret").read_text() == "hunter2"


_WRITER = """
import asyncio, sys
from sandbox.store.store import Store
async def main():
    store = Store.open(sys.argv[1])
    number = 0
    while True:
        await store.put("entry", b"%d" % (number % 10) * 3_000_000)
        if number == 3:
            print("writing", flush=True)
        number += 1
asyncio.run(main())
"""


def kill_a_writer(root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


async def test_a_killed_writer_leaves_a_whole_entry_and_what_it_left_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "captures"
    await asyncio.to_thread(kill_a_writer, root)
    store = Store.open(str(root))
    data = await store.get("entry")
    assert len(data) == 3_000_000
    assert len(set(data)) == 1
    assert await store.names() == ["entry"]
    # Whether it was killed in the middle of a write is chance; a leftover of one is not.
    (root / f".writing-{'0' * 32}").write_bytes(b"half")
    assert await store.remove_leftovers(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await store.remove_leftovers(datetime.now(UTC) + timedelta(hours=1)) >= 1
    assert [path.name for path in root.iterdir()] == ["entry"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Refused, match="cannot write a"):
        await Store.open(str(tmp_path)).put("a", b"")


_TOO_LARGE = """
import asyncio, resource, signal, sys
from sandbox.store.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
asyncio.run(Store.open(sys.argv[1]).put("a", b"x" * 2_000_000))
"""


async def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    root = tmp_path / "captures"
    store = Store.open(str(root))
    await store.put("a", b"old")
    command = [sys.executable, "-c", _TOO_LARGE, str(root)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert "OperationFailed: cannot write a in the store" in done.stderr
    assert await store.get("a") == b"old"
    assert [path.name for path in root.iterdir()] == ["a"]
