"""Captures from one place to another: a tar of an OCI layout, an OCI registry, another store.

What comes in is untrusted. Of an archive only what the capture's manifest names is unpacked, in the sizes that it
names; a member that is a link, a device, or has any other path than a layout's is refused before anything is written.
A capture is listed when all its blobs were compared with their digests and are in the store.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from sandbox.capture.bundle import (
    INDEX_TYPE,
    LAYOUT,
    MANIFEST_TYPE,
    Bundle,
    Damaged,
    Entry,
    Layer,
    blob_path,
    is_fresh,
    list_capture,
    open_bundle,
    put_blob,
    read_manifest,
    verified,
)
from sandbox.capture.collect.data import BEFORE, FIXTURES
from sandbox.capture.model import ARTIFACT_TYPE, read_document
from sandbox.images.artifacts import Repository
from sandbox.images.reference import Reference, parse_reference
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.store.store import NotStored, Store

REGISTRY = "oci://"
_LARGEST_MANIFEST = 4 * 1024 * 1024
_LARGEST_DOCUMENT = 64 * 1024 * 1024
_MOST_MEMBERS = 20_000
_MEMBER = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_FOLDER = re.compile(r"\.|blobs|blobs/sha256")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# A capture of some databases has some GB; unpacking more than this is for those who say so.
LARGEST = 20 * 1024**3


# -- to and from an archive -------------------------------------------------------------------------------------


async def to_archive(store: Store, entry: Entry, target: Path) -> None:
    """Write a capture as a tar of an OCI layout; the file is there when it is complete.

    Raises:
        Damaged, NotStored: the capture is not complete.
        OperationFailed: the file cannot be written.
    """
    bundle = await open_bundle(store, entry)
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry.descriptor()]}
    temporary = target.with_name(f".{target.name}.writing")
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "oci-layout", LAYOUT)
            _add(archive, "index.json", json.dumps(index, indent=1).encode())
            _add(archive, blob_path(entry.digest), bundle.manifest)
            for layer in _distinct(bundle):
                with tempfile.TemporaryFile(dir=target.parent) as file:
                    async for chunk in verified(store, layer):
                        file.write(chunk)
                    file.seek(0)
                    await asyncio.to_thread(archive.addfile, _member(blob_path(layer.digest), layer.size), file)
        temporary.replace(target)
    except OSError as error:
        raise OperationFailed(f"{target} cannot be written", why=error.strerror or str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


async def from_archive(store: Store, source: Path, *, at_most: int = LARGEST) -> list[Entry]:
    """Take the captures of a tar (or tar.gz) of an OCI layout into a store.

    Args:
        at_most: bytes that it may unpack to.

    Raises:
        InvalidInput: it cannot be read, or is no such archive.
        Damaged: something in it is not what it must be; then nothing is listed.
    """
    try:
        with tarfile.open(source, "r:*") as archive:
            members = await asyncio.to_thread(_members, archive, at_most)
            found = []
            for digest, size in _captures(_extracted(archive, members, "index.json", _LARGEST_MANIFEST)):
                found.append(await _from_members(store, archive, members, digest, size))
            return found
    except (tarfile.TarError, EOFError) as error:
        raise InvalidInput(f"{source} is no tar of an OCI layout", why=str(error)) from None
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read", why=error.strerror or str(error)) from None


def _members(archive: tarfile.TarFile, at_most: int) -> dict[str, tarfile.TarInfo]:
    """The members by name, each of them acceptable."""
    found: dict[str, tarfile.TarInfo] = {}
    total = 0
    for number, member in enumerate(archive):
        name = member.name.removeprefix("./") or "."
        if number >= _MOST_MEMBERS:
            raise Damaged("the archive has too many members", why=f"more than {_MOST_MEMBERS}")
        if member.isdir() and _FOLDER.fullmatch(name):
            continue
        if not member.isreg() or not _MEMBER.fullmatch(name):
            kind = "a link" if member.issym() or member.islnk() else "a file" if member.isreg() else "no plain file"
            raise Damaged("the archive holds what no capture has", why=f"{member.name[:200]!r} is {kind}")
        if name in found:
            raise Damaged("the archive holds what no capture has", why=f"{name} twice")
        total += member.size
        if total > at_most:
            raise Damaged(
                "the archive unpacks to more than it may",
                why=f"more than {at_most} bytes",
                hint="allow more with --max-size, if you know where it is from",
            )
        found[name] = member
    return found


def _captures(index: bytes) -> list[tuple[str, int]]:
    """Digest and size of the manifests in an index."""
    try:
        listed = json.loads(index)["manifests"]
        found = [(str(d["digest"]), int(d["size"])) for d in listed if d.get("artifactType") == ARTIFACT_TYPE]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("the archive's index.json is not readable", why=str(error)[:200]) from None
    if not found or not all(_DIGEST.fullmatch(digest) and 0 < size <= _LARGEST_MANIFEST for digest, size in found):
        raise Damaged("the archive holds no capture", why="its index.json names none, or not acceptably")
    return found


async def _from_members(
    store: Store, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], digest: str, size: int
) -> Entry:
    async def opened(layer: Layer) -> AsyncIterator[bytes]:
        member = members.get(blob_path(layer.digest))
        if member is None or member.size != layer.size:
            raise Damaged(f"{layer.title} is not in the archive", why=f"no {layer.digest} of {layer.size} bytes")
        file = archive.extractfile(member)
        assert file is not None
        while chunk := await asyncio.to_thread(file.read, 1 << 20):
            yield chunk

    return await _take(store, _Source(opened), Layer("manifest", MANIFEST_TYPE, digest, size))


def _extracted(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str, at_most: int) -> bytes:
    member = members.get(name)
    if member is None or member.size > at_most:
        raise Damaged(f"the archive has no acceptable {name}", why="is it a tar of an OCI layout?")
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    # No time, no owner: the same capture gives the same archive.
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


# -- to and from a registry -------------------------------------------------------------------------------------


def registry_reference(text: str) -> Reference:
    """``oci://registry/repository[:tag]``.

    Raises:
        InvalidInput: it is not of that form.
    """
    return parse_reference(text.removeprefix(REGISTRY))


async def to_registry(store: Store, entry: Entry, destination: Reference, *, insecure: bool = False) -> str:
    """Push a capture; its tag is its id unless the destination names one. The reference by digest.

    Raises:
        Damaged, NotStored: the capture is not complete.
        Unreachable: the registry does not take it.
    """
    bundle = await open_bundle(store, entry)
    async with Repository(destination, insecure=insecure) as repository:
        for layer in _distinct(bundle):
            if not await repository.has_blob(layer.digest):
                await repository.put_blob(layer.digest, layer.size, functools.partial(verified, store, layer))
        await repository.put_manifest(destination.tag or entry.id, bundle.manifest, MANIFEST_TYPE)
    return f"{destination.repository}@{entry.digest}"


async def from_registry(store: Store, source: Reference, *, insecure: bool = False, at_most: int = LARGEST) -> Entry:
    """Pull a capture into a store.

    Raises:
        InvalidInput: no tag or digest says which.
        NotStored: the registry has no such capture.
        Damaged: it is not what it says; then nothing is listed.
        Unreachable: the registry does not answer.
    """
    version = source.digest or source.tag
    if not version:
        raise InvalidInput(
            f"{source} does not say which capture", hint=f"such as {REGISTRY}{source.repository}:ID; its tag is its id"
        )
    async with Repository(source, insecure=insecure) as repository:
        manifest = await repository.manifest(version, MANIFEST_TYPE, at_most=_LARGEST_MANIFEST)
        if manifest is None:
            raise NotStored(f"the registry has no capture {source}")
        digest = f"sha256:{sha256(manifest).hexdigest()}"
        if source.digest and digest != source.digest:
            raise Damaged("the registry gives another manifest than it was asked for", why=f"it is {digest}")

        async def opened(layer: Layer) -> AsyncIterator[bytes]:
            if layer.digest == digest:
                yield manifest
                return
            async for chunk in repository.blob(layer.digest):
                yield chunk

        return await _take(
            store, _Source(opened), Layer("manifest", MANIFEST_TYPE, digest, len(manifest)), at_most=at_most
        )


# -- between stores ---------------------------------------------------------------------------------------------


async def to_store(store: Store, entry: Entry, other: Store) -> Entry:
    """Copy a capture into another store.

    Raises:
        Damaged, NotStored: the capture is not complete; then nothing is listed there.
    """

    def opened(layer: Layer) -> AsyncIterator[bytes]:
        return store.stream(blob_path(layer.digest))

    return await _take(other, _Source(opened), Layer("manifest", MANIFEST_TYPE, entry.digest, entry.size))


def refuse_plain_fixtures(bundle: Bundle, store: Store | None) -> None:
    """Refuse to carry the contents of databases, unencrypted, away from this machine.

    Args:
        store: where it goes; None: a registry.

    Raises:
        Refused: the capture has such contents.
    """
    if store is not None and store.is_local:
        return
    data = [title for title in bundle.layers if title.startswith((f"{FIXTURES}/", f"{BEFORE}/"))]
    plain = sorted(title for title in data if not title.endswith(".age"))
    if plain:
        raise Refused(
            "the capture holds the contents of databases, unencrypted",
            why=", ".join(plain[:5]),
            hint="capture with --recipient age1… or --no-fixtures; or say --plain-fixtures if all may read them",
        )


# -- what all ways in share -------------------------------------------------------------------------------------


class _Source:
    """Where blobs come from; the answers of ``opened`` are not trusted."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    @asynccontextmanager
    async def file(self, layer: Layer, folder: Path | None) -> AsyncIterator[Path]:
        """A blob as a file that was compared with its digest."""
        found, size = sha256(), 0
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as place:
            path = Path(place) / "blob"
            with path.open("wb") as file:
                async for chunk in self._opened(layer):
                    size += len(chunk)
                    if size > layer.size:
                        break
                    found.update(chunk)
                    file.write(chunk)
            if size != layer.size or f"sha256:{found.hexdigest()}" != layer.digest:
                raise Damaged(
                    f"{layer.title} of the capture is damaged",
                    why=f"it is not {layer.digest} of {layer.size} bytes",
                )
            yield path

    async def bytes(self, layer: Layer, at_most: int) -> bytes:
        """A small blob, compared with its digest."""
        if layer.size > at_most:
            raise Damaged(f"{layer.title} of the capture is too large", why=f"{layer.size} bytes")
        async with self.file(layer, None) as path:
            return path.read_bytes()


async def _take(store: Store, source: _Source, manifest: Layer, *, at_most: int = LARGEST) -> Entry:
    """Take a capture into a store: description first (a newer schema ends it here), blobs, and its entry last."""
    data = await source.bytes(manifest, _LARGEST_MANIFEST)
    config, layers = read_manifest(data)
    described = await source.bytes(config, _LARGEST_DOCUMENT)
    document = read_document(described)
    blobs = {layer.digest: layer for layer in layers.values()}
    total = len(data) + config.size + sum(layer.size for layer in layers.values())
    if total > at_most:
        raise Damaged(
            "the capture is larger than it may be", why=f"{total} bytes, more than {at_most}", hint="--max-size"
        )
    if store.folder:
        store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for layer in blobs.values():
        if is_fresh(await store.stat(blob_path(layer.digest))) and not await _is_damaged(store, layer):
            continue
        async with source.file(layer, store.folder) as path:
            await store.put(blob_path(layer.digest), path, move=True)
    await put_blob(store, config.digest, config.size, described)
    await put_blob(store, manifest.digest, manifest.size, data)
    return await list_capture(store, manifest.digest, manifest.size, document, total)


async def _is_damaged(store: Store, layer: Layer) -> bool:
    try:
        async for _ in verified(store, layer):
            pass
    except (Damaged, NotStored):
        return True
    return False


def _distinct(bundle: Bundle) -> Iterable[Layer]:
    return {layer.digest: layer for layer in (bundle.config, *bundle.layers.values())}.values()
