"""Bundles: complete or not there, checked before use, readable by others' tools."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture import bundle, catalogue, transfer
from sandbox.capture.bundle import Bundle, BundleWriter, Damaged, Entry, blob_path, entry_path, open_bundle, problems
from sandbox.capture.model import ARTIFACT_TYPE, Document, Service, checked_title, read_document
from sandbox.model.errors import InvalidInput, Refused
from sandbox.store.store import NotStored, Store

AT = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def document(namespace: str = "shop", **more: Any) -> Document:
    return Document(started_at=AT, ended_at=AT + timedelta(seconds=3), namespace=namespace, **more)


async def captured(store: Store, namespace: str = "shop", files: dict[str, bytes] | None = None, **more: Any) -> Entry:
    writer = BundleWriter(store)
    for title, data in (
        files or {"pods.json": b"{}", "logs/web/main.log.gz": gzip.compress(b"hello\n", mtime=0)}
    ).items():
        await writer.add(title, data, "application/json")
    return await writer.seal(document(namespace, **more))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "captures"))


def age(store: Store, hours: float = 2) -> None:
    """Make everything in a folder older."""
    assert store.folder is not None
    when = datetime.now(UTC).timestamp() - hours * 3600
    for path in store.folder.rglob("*"):
        os.utime(path, (when, when))


# -- what is written


async def test_what_was_captured_is_read_back_and_is_an_oci_layout(store: Store) -> None:
    entry = await captured(store, reason="it broke", services=(Service(name="web", commit="abc1234"),))
    found = await open_bundle(store, entry)
    assert found.document.reason == "it broke"
    assert await found.read("pods.json") == b"{}"
    assert await found.read_text("logs/web/main.log.gz") == "hello\n"
    assert await problems(store, entry) == []
    assert entry.commits == ("abc1234",)
    # As oras and skopeo read it.
    assert json.loads(await store.get("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    [descriptor] = json.loads(await store.get("index.json"))["manifests"]
    assert descriptor["annotations"]["org.opencontainers.image.ref.name"] == entry.id
    manifest = await store.get(blob_path(descriptor["digest"]))
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == descriptor["digest"]
    plain = json.loads(manifest)
    assert plain["artifactType"] == ARTIFACT_TYPE
    for layer in [plain["config"], *plain["layers"]]:
        blob = await store.get(blob_path(layer["digest"]))
        assert (len(blob), f"sha256:{hashlib.sha256(blob).hexdigest()}") == (layer["size"], layer["digest"])


async def test_captures_share_their_blobs(store: Store) -> None:
    await captured(store, "one", {"a": b"x" * 1000, "b": b"only here"})
    before = await store.names("blobs/")
    await captured(store, "two", {"c": b"x" * 1000})
    # One more description and one more manifest.
    assert len(await store.names("blobs/")) == len(before) + 2


async def test_the_id_says_where_it_is_from_and_is_the_same_everywhere(store: Store, tmp_path: Path) -> None:
    entry = await captured(store, "Team A/shop")
    other = Store.open(str(tmp_path / "other"))
    copied = await transfer.to_store(store, entry, other)
    assert copied.id == entry.id
    assert entry.id.partition("-")[2].startswith("team-a--shop")


async def test_two_at_once_are_both_listed(store: Store) -> None:
    written = await asyncio.gather(*(captured(store, f"n{number}") for number in range(8)))
    listed, wrong = await catalogue.entries(store)
    assert not wrong
    assert {item.entry.id for item in listed} == {entry.id for entry in written}
    index = json.loads(await store.get("index.json"))
    assert {m["digest"] for m in index["manifests"]} == {entry.digest for entry in written}


async def test_nothing_is_listed_before_it_is_complete(store: Store) -> None:
    writer = BundleWriter(store)
    await writer.add("pods.json", b"[]", "application/json")
    assert (await catalogue.entries(store)) == ([], [])


@pytest.mark.parametrize(
    "title", ["../x", "/etc/passwd", "a/../../x", "", "a//b", ".hidden", "a\nb", "a\\b", "x" * 300]
)
def test_titles_that_lead_out_are_refused(title: str) -> None:
    with pytest.raises(ValueError, match="no plain relative path"):
        checked_title(title)


# -- what is read is not trusted


async def test_a_changed_or_cut_blob_is_noticed_before_it_is_used(store: Store, tmp_path: Path) -> None:
    assert store.folder is not None
    entry = await captured(store, files={"pods.json": b'{"items": []}'})
    found = await open_bundle(store, entry)
    blob = store.folder / blob_path(found.layers["pods.json"].digest)
    for content, said in (
        (b'{"items": [1', "12 of 13 bytes"),
        (b'{"items": [1}', "contents are not"),
        (b"x" * 99, "more than 13"),
    ):
        blob.write_bytes(content)
        with pytest.raises(Damaged, match=said):
            await found.read("pods.json")
        with pytest.raises(Damaged, match=said):
            await found.unpack("pods.json", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        [problem] = await problems(store, entry)
        assert said in problem
    blob.unlink()
    assert "the store has no blobs" in (await problems(store, entry))[0]


async def test_a_changed_manifest_or_description_is_noticed(store: Store) -> None:
    assert store.folder is not None
    entry = await captured(store)
    path = store.folder / blob_path(entry.digest)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"pods.json", b"pods.xxxx"))
    with pytest.raises(Damaged, match="contents are not"):
        await open_bundle(store, entry)
    path.write_bytes(whole)
    config = json.loads(whole)["config"]["digest"]
    (store.folder / blob_path(config)).write_bytes(b"{}")
    with pytest.raises(Damaged):
        await open_bundle(store, entry)


def test_a_newer_schema_is_refused_and_says_what_reads_it() -> None:
    plain = json.loads(document().model_dump_json())
    plain.update(schema_version=2, needs="9.1.0", made_with="9.2.0", anything="else")
    with pytest.raises(InvalidInput, match="has schema 2") as caught:
        read_document(json.dumps(plain).encode())
    assert "install sandbox 9.1.0 or later" in caught.value.hint


def test_what_is_merely_unknown_is_ignored() -> None:
    plain = json.loads(document().model_dump_json())
    plain["new_field"] = 1
    assert read_document(json.dumps(plain).encode()).namespace == "shop"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 200_000, b'{"schema_version": 1, "namespace": 5}'])
def test_a_description_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_document(data)


def manifest_of(**changes: Any) -> bytes:
    digest = f"sha256:{'0' * 64}"
    layer = {"mediaType": "a/b", "digest": digest, "size": 1, "annotations": {bundle.TITLE: "pods.json"}}
    plain = {
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": "a/b", "digest": digest, "size": 1},
        "layers": [layer],
    }
    layer.update(changes.pop("layer", {}))
    plain.update(changes)
    return json.dumps(plain).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"[" * 200_000,
        manifest_of(artifactType="application/vnd.oci.image"),
        manifest_of(layers=5),
        manifest_of(layer={"annotations": {bundle.TITLE: "../../etc/passwd"}}),
        manifest_of(layer={"annotations": {bundle.TITLE: "/etc/passwd"}}),
        manifest_of(layer={"annotations": {}}),
        manifest_of(layer={"digest": "sha256:../../x"}),
        manifest_of(layer={"digest": "md5:0"}),
        manifest_of(layer={"size": -1}),
        manifest_of(layer={"size": True}),
        manifest_of(layer={"size": 1 << 60}),
        manifest_of(layers=[json.loads(manifest_of())["layers"][0]] * 2),
    ],
)
def test_a_hostile_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        bundle.read_manifest(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fall_over(data: bytes) -> None:
    for read in (bundle.read_manifest, lambda d: bundle.read_entry("abc123-shop", d), read_document):
        with pytest.raises((Damaged, InvalidInput)):
            read(data)


def test_a_log_that_unpacks_to_too_much_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    with pytest.raises(Damaged, match="unpacks to more"):
        bundle.gunzip(bomb, at_most=1_000_000, title="logs/a.log.gz")
    with pytest.raises(Damaged, match="ends in the middle"):
        bundle.gunzip(bomb[:-10], at_most=100_000_000, title="logs/a.log.gz")
    with pytest.raises(Damaged):
        bundle.gunzip(b"not gzip", at_most=100, title="logs/a.log.gz")


# -- archives


async def archived(store: Store, tmp_path: Path, **more: Any) -> tuple[Entry, Path]:
    entry = await captured(store, **more)
    await transfer.to_archive(store, entry, tmp_path / "capture.tar")
    return entry, tmp_path / "capture.tar"


async def test_an_archive_brings_the_same_capture(store: Store, tmp_path: Path) -> None:
    entry, archive = await archived(store, tmp_path)
    with tarfile.open(archive) as tar:
        assert {"oci-layout", "index.json", blob_path(entry.digest)} <= set(tar.getnames())
    other = Store.open(str(tmp_path / "other"))
    assert [found.id for found in await transfer.from_archive(other, archive)] == [entry.id]
    [again] = [item.entry for item in (await catalogue.entries(other))[0]]
    assert again == entry
    assert await problems(other, again) == []
    packed = tmp_path / "capture.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    assert [found.id for found in await transfer.from_archive(Store.open(str(tmp_path / "third")), packed)] == [
        entry.id
    ]


def rewritten(archive: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> Path:
    """The archive with each member replaced by others."""
    target = archive.with_name("hostile.tar")
    with tarfile.open(archive) as source, tarfile.open(target, "w") as out:
        for member in source:
            file = source.extractfile(member)
            assert file is not None
            for changed, data in change(member, file.read()):
                changed.size = len(data) if changed.isreg() else 0
                out.addfile(changed, io.BytesIO(data))
    return target


def extra(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Callable[..., list[tuple[tarfile.TarInfo, bytes]]]:
    def change(member: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        found = [(member, data)]
        if member.name == "oci-layout":
            added = tarfile.TarInfo(name)
            added.type, added.linkname = kind, link
            found.append((added, b"x" if kind == tarfile.REGTYPE else b""))
        return found

    return change


def dropping(prefix: str) -> Callable[..., list[tuple[tarfile.TarInfo, bytes]]]:
    return lambda member, data: [] if member.name.startswith(prefix) else [(member, data)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(extra("../evil"), id="path leads out"),
        pytest.param(extra("/etc/cron.d/evil"), id="absolute path"),
        pytest.param(extra("blobs/sha256/../../evil"), id="path leads out in the middle"),
        pytest.param(extra("evil"), id="unknown file"),
        pytest.param(extra(f"blobs/sha256/{'0' * 64}", tarfile.SYMTYPE, "/etc/passwd"), id="symbolic link"),
        pytest.param(extra(f"blobs/sha256/{'0' * 64}", tarfile.LNKTYPE, "oci-layout"), id="hard link"),
        pytest.param(extra(f"blobs/sha256/{'0' * 64}", tarfile.CHRTYPE), id="device"),
        pytest.param(extra("blobs/sha256", tarfile.SYMTYPE, "/tmp"), id="folder that is a link"),
        pytest.param(extra("oci-layout"), id="twice"),
        pytest.param(dropping("index.json"), id="no index"),
        pytest.param(dropping("blobs/"), id="no blobs"),
        pytest.param(lambda m, d: [(m, d[:-1] + b"!" if m.name.startswith("blobs/") else d)], id="changed blobs"),
        pytest.param(lambda m, d: [(m, d[:-1] if m.name.startswith("blobs/") else d)], id="cut blobs"),
        pytest.param(lambda m, d: [(m, b"[" * 100_000 if m.name == "index.json" else d)], id="deep index"),
        pytest.param(lambda m, d: [(m, b'{"manifests": []}' if m.name == "index.json" else d)], id="empty index"),
    ],
)
async def test_a_hostile_archive_is_refused_and_nothing_is_listed(store: Store, tmp_path: Path, change: Any) -> None:
    _, archive = await archived(store, tmp_path)
    other = Store.open(str(tmp_path / "other"))
    with pytest.raises(Damaged):
        await transfer.from_archive(other, rewritten(archive, change))
    assert (await catalogue.entries(other)) == ([], [])
    assert not (tmp_path / "evil").exists()


async def test_an_archive_that_is_none_or_too_large_is_refused(store: Store, tmp_path: Path) -> None:
    _, archive = await archived(store, tmp_path)
    with pytest.raises(Damaged, match="unpacks to more"):
        await transfer.from_archive(store, archive, at_most=1000)
    (tmp_path / "no.tar").write_bytes(b"not a tar")
    with pytest.raises(InvalidInput, match="no tar of an OCI layout"):
        await transfer.from_archive(store, tmp_path / "no.tar")
    with pytest.raises(InvalidInput, match="cannot be read"):
        await transfer.from_archive(store, tmp_path / "missing.tar")
    (tmp_path / "cut.tar").write_bytes(archive.read_bytes()[:-12_000])
    with pytest.raises((InvalidInput, Damaged)):
        await transfer.from_archive(Store.open(str(tmp_path / "other")), tmp_path / "cut.tar")


async def test_pulling_again_mends_a_damaged_capture(store: Store, tmp_path: Path) -> None:
    entry, archive = await archived(store, tmp_path)
    assert store.folder is not None
    digest = (await open_bundle(store, entry)).layers["pods.json"].digest
    (store.folder / blob_path(digest)).write_bytes(b"xx")
    assert await problems(store, entry)
    await transfer.from_archive(store, archive)
    assert await problems(store, entry) == []


async def test_contents_of_databases_leave_this_machine_only_encrypted(store: Store) -> None:
    async def holding(title: str) -> Bundle:
        writer = BundleWriter(store)
        await writer.add(title, b"dump", "application/octet-stream")
        return await open_bundle(store, await writer.seal(document()))

    plain, early = await holding("fixtures/db/shop.dump"), await holding("before/db/shop.dump")
    encrypted = await holding("fixtures/db/shop.dump.age")
    transfer.refuse_plain_fixtures(plain, store)
    transfer.refuse_plain_fixtures(encrypted, None)
    for place in (None, Store.open("memory://x")):
        for one in (plain, early):
            with pytest.raises(Refused, match="unencrypted"):
                transfer.refuse_plain_fixtures(one, place)


# -- the catalogue


async def test_a_capture_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    one, other = await captured(store, "one"), await captured(store, "two")
    assert (await catalogue.find(store, one.id[:6])) == one
    assert (await catalogue.find(store, other.id)) == other
    with pytest.raises(NotStored, match="no capture 'zzzz'") as caught:
        await catalogue.find(store, "zzzz")
    assert one.id in caught.value.hint
    with pytest.raises(NotStored):
        await catalogue.find(store, "")


async def test_removing_frees_what_nobody_else_needs(store: Store) -> None:
    one = await captured(store, "one", {"shared": b"both", "own": b"mine"})
    other = await captured(store, "two", {"shared": b"both"})
    age(store)
    freed = await catalogue.remove(store, [one.id])
    assert freed.captures == (one.id,)
    assert freed.blobs == 3
    assert await problems(store, other) == []
    assert [item.entry for item in (await catalogue.entries(store))[0]] == [other]


async def test_blobs_of_a_capture_that_is_being_written_are_no_garbage(store: Store) -> None:
    old = await captured(store, "old", {"shared": b"both"})
    age(store)
    writer = BundleWriter(store)
    await writer.add("shared", b"both", "text/plain")
    await writer.add("new", b"new", "text/plain")
    freed = await catalogue.remove(store, [old.id])
    assert freed.blobs == 2
    entry = await writer.seal(document("new"))
    assert await problems(store, entry) == []


async def test_garbage_is_not_collected_while_a_capture_cannot_be_read(store: Store) -> None:
    entry = await captured(store)
    assert store.folder is not None
    (store.folder / blob_path(entry.digest)).write_bytes(b"{}")
    age(store)
    with pytest.raises(Damaged, match="cannot be told which blobs"):
        await catalogue.collect_garbage(store)
    await catalogue.remove(store, [entry.id])
    assert await store.names("blobs/") == []


async def test_pinned_captures_stay_until_the_pin_ends(store: Store) -> None:
    entry = await captured(store)
    now = datetime.now(UTC)
    await catalogue.pin(store, entry.id, catalogue.Pin(now + timedelta(days=1), "dana", "the outage"))
    [listed] = (await catalogue.entries(store))[0]
    assert catalogue.surplus([listed], keep=0, older_than=None, now=now) == []
    assert catalogue.surplus([listed], keep=0, older_than=None, now=now + timedelta(days=2)) == [entry]
    with pytest.raises(Refused, match="is pinned until"):
        await catalogue.remove(store, [entry.id])
    assert await catalogue.unpin(store, entry.id)
    await catalogue.remove(store, [entry.id])
    assert (await catalogue.entries(store))[0] == []


@pytest.mark.parametrize(
    ("keep", "days", "going"),
    [
        (None, None, []),
        (1, None, ["a1", "a2"]),
        (None, 2, ["a1", "b1"]),
        (1, 2, ["a1"]),
        (0, None, ["a1", "b1", "a2", "a3"]),
    ],
)
def test_retention(keep: int | None, days: int | None, going: list[str]) -> None:
    now = AT + timedelta(days=10)

    def listed(name: str, place: str, old: int) -> catalogue.Listed:
        return catalogue.Listed(
            Entry(name, f"sha256:{'0' * 64}", 1, namespace=place, created_at=now - timedelta(days=old))
        )

    every = [listed("a1", "a", 5), listed("b1", "b", 4), listed("a2", "a", 2), listed("a3", "a", 1)]
    age_limit = timedelta(days=days) if days is not None else None
    found = catalogue.surplus(every, keep=keep, older_than=age_limit, now=now)
    assert [entry.id for entry in found] == going


async def test_an_entry_that_is_not_readable_is_named(store: Store) -> None:
    entry = await captured(store)
    await store.put(entry_path("zzzzzz-shop"), b"{}")
    listed, wrong = await catalogue.entries(store)
    assert [item.entry for item in listed] == [entry]
    assert "zzzzzz-shop is not readable" in wrong[0]
