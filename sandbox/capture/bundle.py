"""The bundle: an OCI image layout in a store, which ``oras``, ``tar`` and ``jq`` read.

.. code-block:: text

    oci-layout
    blobs/sha256/<hex>     all blobs of all captures, each once
    captures/<id>.json     one OCI descriptor a capture: what lists it, and what its manifest is
    index.json             all of these descriptors, for tools that know nothing of us

A capture is there when ``captures/<id>.json`` is, and that is written last: a process that is killed leaves blobs
that nobody refers to (:mod:`sandbox.capture.catalogue` removes them), never half a capture. As every capture has an
entry of its own, two that are written at once touch nothing in common but ``index.json``; that is only a copy of the
entries, written anew until it agrees with them (:func:`write_index`), and nothing of ours reads it.

A bundle that is read is hostile until every blob was compared with its digest and every size with its bound.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from sandbox.capture.model import ARTIFACT_TYPE, CONFIG_TYPE, Document, checked_title, read_document
from sandbox.model.durations import from_rfc3339, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.names import slug
from sandbox.model.objects import canonical_json
from sandbox.store.store import NotStored, Store, Stored

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
JSON_TYPE = "application/json"
LOG_TYPE = "text/plain+gzip"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
REF_NAME = "org.opencontainers.image.ref.name"
OURS = "dev.sandbox.capture."

# Registries take manifests of 4 MiB; the description of some thousand pods has a few.
_LARGEST_MANIFEST = 4 * 1024 * 1024
_LARGEST_DOCUMENT = 64 * 1024 * 1024
_LARGEST_ENTRY = 64 * 1024
_MOST_LAYERS = 10_000
_LARGEST_BLOB = 1 << 40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[a-z0-9]{4,16}-[a-z0-9][a-z0-9-]{0,40}")
_INDEX_TRIES = 10
# Blobs that nobody refers to are removed after an hour (catalogue.py): one that a new capture shares must not be near.
REFRESH_AFTER = timedelta(minutes=30)


class Damaged(OperationFailed):
    """A bundle is not what it says: a blob is missing, cut off or changed, or a size or path is not acceptable."""


@dataclass(frozen=True)
class Layer:
    """One blob of a bundle: an item's contents.

    Attributes:
        title: path under which tools unpack it.
        size: bytes.
    """

    title: str
    media_type: str
    digest: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            "annotations": {TITLE: self.title},
        }


@dataclass(frozen=True)
class Entry:
    """A capture as a store lists it: its manifest's digest, and enough to choose by.

    Attributes:
        total: bytes of all its blobs (shared ones too).
        commits: of its services, each once.
    """

    id: str
    digest: str
    size: int
    namespace: str = ""
    environment: str = ""
    project: str = ""
    owner: str = ""
    by: str = ""
    reason: str = ""
    headline: str = ""
    partial: bool = False
    total: int = 0
    commits: tuple[str, ...] = ()
    created_at: datetime = field(default_factory=lambda: datetime.fromtimestamp(0, UTC))

    @property
    def place(self) -> str:
        """The environment that it is of, or the namespace where that has no name."""
        return self.environment or self.namespace

    def descriptor(self) -> dict[str, Any]:
        texts = ("namespace", "environment", "project", "owner", "by", "reason", "headline")
        annotations = {f"{OURS}{name}": getattr(self, name)[:1000] for name in texts if getattr(self, name)}
        return {
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "digest": self.digest,
            "size": self.size,
            "annotations": {
                REF_NAME: self.id,
                CREATED: to_rfc3339(self.created_at),
                f"{OURS}partial": str(self.partial).lower(),
                f"{OURS}total": str(self.total),
                f"{OURS}commits": ",".join(self.commits)[:4000],
                **annotations,
            },
        }


def entry_path(identifier: str) -> str:
    """Where a store has the entry of a capture."""
    return f"captures/{identifier}.json"


def blob_path(digest: str) -> str:
    """Where a store has a blob."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def identifier(digest: str, place: str, *, length: int = 6) -> str:
    """The id of a capture: the beginning of its digest in letters and digits that are easy to tell apart, and a name.

    The same in every store, because it comes from the contents.
    """
    code = base64.b32encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode().lower()
    # Crockford's alphabet (https://www.crockford.com/base32.html): no i, l, o, u to be misread.
    crockford = code.translate(str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghjkmnpqrstvwxyz"))
    return f"{crockford[:length]}-{slug(place, longest=30) or 'capture'}"


# -- writing ----------------------------------------------------------------------------------------------------


class BundleWriter:
    """Puts one capture into a store, blob by blob; nothing of it is listed before :meth:`seal`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._layers: dict[str, Layer] = {}

    async def add(self, title: str, content: bytes | Path, media_type: str, *, move: bool = False) -> Layer:
        """Store an item's contents.

        Args:
            content: bytes, or a file that is complete.
            move: the file may be taken away.

        Raises:
            OperationFailed, Refused, Unreachable: the store does not take it.
        """
        layer = await self._blob(checked_title(title), content, media_type, move=move)
        self._layers[title] = layer
        return layer

    async def seal(self, document: Document) -> Entry:
        """Store description and manifest, then list the capture.

        Raises:
            OperationFailed, Refused, Unreachable: the store does not take it; then nothing is listed.
        """
        config = await self._blob("", document.model_dump_json().encode(), CONFIG_TYPE)
        layers = [self._layers[title] for title in sorted(self._layers)]
        created = to_rfc3339(document.started_at)
        manifest = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": ARTIFACT_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size},
                "layers": [layer.descriptor() for layer in layers],
                "annotations": {CREATED: created, f"{OURS}schema": str(document.schema_version)},
            }
        )
        stored = await self._blob("", manifest, MANIFEST_TYPE)
        total = stored.size + config.size + sum(layer.size for layer in layers)
        return await list_capture(self._store, stored.digest, stored.size, document, total)

    async def _blob(self, title: str, content: bytes | Path, media_type: str, *, move: bool = False) -> Layer:
        digest, size = await asyncio.to_thread(_measured, content)
        await put_blob(self._store, digest, size, content, move=move)
        return Layer(title, media_type, digest, size)


async def put_blob(store: Store, digest: str, size: int, content: bytes | Path, *, move: bool = False) -> None:
    """Have a blob in a store; what is there already is written again only when it is old or cut off."""
    known = await store.stat(blob_path(digest))
    if known is None or known.size != size or not is_fresh(known):
        await store.put(blob_path(digest), content, move=move)


def is_fresh(known: Stored | None) -> bool:
    """Whether a blob is so young that nobody takes it for garbage before a capture that shares it is listed."""
    return known is not None and known.modified is not None and datetime.now(UTC) - known.modified < REFRESH_AFTER


async def list_capture(store: Store, digest: str, size: int, document: Document, total: int) -> Entry:
    """List a capture whose blobs are all in a store; the last step of every way that one comes in.

    The id is made longer where another capture has it.
    """
    place = document.environment or document.namespace
    for length in (6, 8, 12, 16):
        name = identifier(digest, place, length=length)
        other = await _entry_or_none(store, name)
        if other is None or other.digest == digest:
            break
    entry = Entry(
        id=name,
        digest=digest,
        size=size,
        namespace=document.namespace,
        environment=document.environment,
        project=document.project,
        owner=document.owner,
        by=document.by,
        reason=document.reason,
        headline=document.headline,
        partial=document.partial,
        total=total,
        commits=tuple(dict.fromkeys(s.commit for s in document.services if s.commit)),
        created_at=document.started_at,
    )
    await store.put_if_absent("oci-layout", LAYOUT)
    await store.put(entry_path(entry.id), json.dumps(entry.descriptor(), indent=1, ensure_ascii=False).encode())
    await write_index(store)
    return entry


async def write_index(store: Store) -> None:
    """Write ``index.json`` anew from the entries, until it agrees with them.

    Whoever lists a capture writes its entry first and looks at all entries afterwards, so the last one to write has
    seen all of them.
    """
    for _ in range(_INDEX_TRIES):
        names = await store.names("captures/")
        # Entries never change: those that the index has already are not read again, however many captures there are.
        known = await _indexed(store)
        missing = [name for name in map(_id_of, names) if name not in known]
        read = [entry for entry in await asyncio.gather(*(_entry_or_none(store, name) for name in missing)) if entry]
        known |= {entry.id: entry.descriptor() for entry in read}
        manifests = [known[name] for name in map(_id_of, names) if name in known]
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
        await store.put("index.json", json.dumps(index, indent=1, ensure_ascii=False).encode())
        if await store.names("captures/") == names:
            return


async def _indexed(store: Store) -> dict[str, Any]:
    """The descriptors of the index by id; empty where there is none that can be read."""
    try:
        listed = json.loads(await store.get("index.json", at_most=_LARGEST_DOCUMENT))["manifests"]
        return {descriptor["annotations"][REF_NAME]: descriptor for descriptor in listed}
    except (OperationFailed, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _measured(content: bytes | Path) -> tuple[str, int]:
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", content.stat().st_size


# -- reading ----------------------------------------------------------------------------------------------------


def read_entry(name: str, data: bytes) -> Entry:
    """Read the entry of a capture.

    Raises:
        Damaged: it is not one.
    """
    try:
        plain = json.loads(data)
        annotations = {str(k): str(v) for k, v in (plain.get("annotations") or {}).items()}
        digest, size = str(plain["digest"]), int(plain["size"])
        if not _DIGEST.fullmatch(digest) or not 0 < size <= _LARGEST_MANIFEST or not _ID.fullmatch(name):
            raise ValueError("digest, size or name are not acceptable")
        ours = {key.removeprefix(OURS): value for key, value in annotations.items() if key.startswith(OURS)}
        texts = ("namespace", "environment", "project", "owner", "by", "reason", "headline")
        return Entry(
            id=name,
            digest=digest,
            size=size,
            partial=ours.get("partial") == "true",
            total=int(ours.get("total", "0")),
            commits=tuple(commit for commit in ours.get("commits", "").split(",") if commit),
            created_at=from_rfc3339(annotations[CREATED]),
            **{text: ours.get(text, "") for text in texts},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput) as error:
        raise Damaged(f"the entry of capture {name} is not readable", why=str(error)[:200]) from None


async def _entry_or_none(store: Store, name: str) -> Entry | None:
    try:
        return read_entry(name, await store.get(entry_path(name), at_most=_LARGEST_ENTRY))
    except (NotStored, Damaged, InvalidInput):
        return None


def _id_of(path: str) -> str:
    return path.removeprefix("captures/").removesuffix(".json")


@dataclass(frozen=True)
class Bundle:
    """A capture whose manifest and description were read and compared with their digests.

    Attributes:
        manifest: its bytes, over which the digest is.
        config: the description's blob.
    """

    store: Store
    entry: Entry
    manifest: bytes = field(repr=False)
    config: Layer
    layers: Mapping[str, Layer] = field(repr=False)
    document: Document = field(repr=False)

    async def read(self, title: str, *, at_most: int = _LARGEST_DOCUMENT) -> bytes:
        """The contents of an item, checked.

        Raises:
            NotStored: the capture has no such item, or its blob is gone.
            Damaged: it is not what the manifest says, or larger than ``at_most``.
        """
        return await read_blob(self.store, self._layer(title), at_most=at_most)

    async def read_text(self, title: str, *, at_most: int = _LARGEST_DOCUMENT) -> str:
        """The same as text, unpacked where it is gzipped; ``at_most`` bounds what it unpacks to."""
        data = await self.read(title, at_most=at_most)
        if title.endswith(".gz"):
            data = gunzip(data, at_most=at_most, title=title)
        return data.decode(errors="replace")

    async def unpack(self, title: str, target: Path) -> None:
        """Write the contents of an item to a file, which is there only when they were checked.

        Raises:
            as :meth:`read`.
        """
        layer = self._layer(title)
        temporary = target.with_name(f"{target.name}.unverified")
        try:
            with temporary.open("wb") as file:
                async for chunk in verified(self.store, layer):
                    file.write(chunk)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _layer(self, title: str) -> Layer:
        if title not in self.layers:
            raise NotStored(f"capture {self.entry.id} has no {title}")
        return self.layers[title]


async def open_bundle(store: Store, entry: Entry) -> Bundle:
    """Read and check manifest and description of a capture.

    Raises:
        Damaged: they are not what they say.
        InvalidInput: it is of a newer schema.
        NotStored: a blob is gone.
    """
    manifest = await read_blob(
        store, Layer("manifest", MANIFEST_TYPE, entry.digest, entry.size), at_most=_LARGEST_MANIFEST
    )
    config, layers = read_manifest(manifest)
    data = await read_blob(store, config, at_most=_LARGEST_DOCUMENT)
    return Bundle(store, entry, manifest, config, layers, read_document(data))


def read_manifest(data: bytes) -> tuple[Layer, dict[str, Layer]]:
    """The description's blob and all layers by title.

    Raises:
        Damaged: it is no capture's manifest, or names paths or sizes that are not acceptable.
    """
    try:
        plain = json.loads(data)
        if plain.get("artifactType") != ARTIFACT_TYPE:
            kind = str(plain.get("artifactType") or plain.get("mediaType") or "of no type")[:100]
            raise ValueError(f"it is {kind}, not a capture")
        config = _layer_of(plain["config"], titled=False)
        listed = [_layer_of(entry, titled=True) for entry in plain["layers"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("the manifest is not a capture's", why=str(error)[:200]) from None
    layers = {layer.title: layer for layer in listed}
    if len(layers) != len(listed) or len(listed) > _MOST_LAYERS:
        raise Damaged("the manifest is not a capture's", why="two layers have one title, or there are too many")
    return config, layers


def _layer_of(plain: Mapping[str, Any], *, titled: bool) -> Layer:
    digest, size, media_type = plain["digest"], plain["size"], plain["mediaType"]
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST_BLOB:
        raise ValueError(f"{size!r} is no acceptable size")
    title = checked_title(plain["annotations"][TITLE]) if titled else "config"
    return Layer(title, str(media_type), digest, size)


async def verified(store: Store, layer: Layer) -> AsyncIterator[bytes]:
    """A blob as it comes; ends with an error unless it was complete and right, so use nothing before the end.

    Raises:
        Damaged: too short, too long, or of another digest.
        NotStored: it is gone.
    """
    found, size = hashlib.sha256(), 0
    async for chunk in store.stream(blob_path(layer.digest)):
        size += len(chunk)
        if size > layer.size:
            break
        found.update(chunk)
        yield chunk
    if size != layer.size:
        more = "more than" if size > layer.size else f"{size} of"
        raise Damaged(f"{layer.title} of the capture is damaged", why=f"it has {more} {layer.size} bytes")
    if f"sha256:{found.hexdigest()}" != layer.digest:
        raise Damaged(f"{layer.title} of the capture is damaged", why=f"its contents are not {layer.digest}")


async def read_blob(store: Store, layer: Layer, *, at_most: int) -> bytes:
    """A blob, checked.

    Raises:
        as :func:`verified`.
    """
    if layer.size > at_most:
        raise Damaged(f"{layer.title} of the capture is too large", why=f"{layer.size} bytes, more than {at_most}")
    return b"".join([chunk async for chunk in verified(store, layer)])


def gunzip(data: bytes, *, at_most: int, title: str) -> bytes:
    """Unpack, with a bound.

    Raises:
        Damaged: it is not gzip, or unpacks to more.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, at_most + 1)
    except zlib.error as error:
        raise Damaged(f"{title} of the capture is damaged", why=str(error)) from None
    if len(unpacked) > at_most:
        raise Damaged(f"{title} of the capture is too large", why=f"it unpacks to more than {at_most} bytes")
    if not unpacker.eof:
        raise Damaged(f"{title} of the capture is damaged", why="it ends in the middle")
    return unpacked


async def problems(store: Store, entry: Entry) -> Sequence[str]:
    """What is wrong with a capture: every blob is read and compared; empty: all is well.

    Raises:
        InvalidInput: it is of a newer schema.
        Unreachable: the store does not answer.
    """
    try:
        bundle = await open_bundle(store, entry)
    except (Damaged, NotStored) as error:
        return [str(error)]
    found = []
    for layer in bundle.layers.values():
        try:
            async for _ in verified(store, layer):
                pass
        except (Damaged, NotStored) as error:
            found.append(str(error))
    known = {item.name for item in bundle.document.items if item.size}
    # A fixture is an item of several files.
    there = {title for path in bundle.layers for title in (path, *(str(p) for p in PurePosixPath(path).parents))}
    found += [f"{title} is described, and not there" for title in sorted(known - there)]
    return found
