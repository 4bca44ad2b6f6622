"""The locks of deleted sandboxes, kept in the cluster itself: where its platform team names no capture store.

ConfigMaps in a namespace of their own, which the chart makes: its clean-up may write there and developers may read,
and neither gets any other right by that. What is kept was the owner's to write, so it is bounded.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists
from sandbox.model import labels
from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.owner import Owner

NAMESPACE: Final = "sandbox-locks"
URL: Final = f"configmap://{NAMESPACE}/"
_KEY: Final = "lock.json.gz"
_LOCK_OF: Final = f"{labels.DOMAIN}/lock-of"
# Some KB for a sandbox of dozens of services; the cluster's database is no archive.
_MOST_PACKED: Final = 64 * 1024
_MOST: Final = 1024 * 1024


class TooLarge(OperationFailed):
    """A lock that is too large for a cluster's database, and stays so."""


async def keep(cluster: Cluster, namespace: str, uid: str, text: str, owner: Owner) -> str:
    """Save a lock; where it is, as ``up --lock`` takes it.

    Args:
        owner: whose the namespace is, by the namespace itself: the lock's text is whatever its owner wrote.

    Raises:
        TooLarge: the cluster never will keep it.
        SandboxError: the cluster refuses it.
    """
    packed = gzip.compress(text.encode(), mtime=0)
    if len(packed) > _MOST_PACKED:
        raise TooLarge(f"the lock of {namespace} is too large for the cluster", hint="set captureStore")
    # Of its text: an attempt that lost against `extend` kept an older one of the same namespace.
    name = f"{namespace}-{uid}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {_LOCK_OF: namespace},
            "annotations": owner.annotations(),
        },
        "binaryData": {_KEY: base64.b64encode(packed).decode()},
        "immutable": True,
    }
    # It may be there, by a clean-up that was killed before it deleted the sandbox.
    with suppress(AlreadyExists):
        await objects.create(cluster, manifest)
    return URL + name


async def forget(cluster: Cluster, retention: timedelta, now: datetime) -> int:
    """Remove the locks that were kept for longer than ``retention``; how many.

    Raises:
        SandboxError: the cluster refuses it.
    """
    removed = 0
    async for found in objects.list_(cluster, "v1", "ConfigMap", NAMESPACE, _LOCK_OF, metadata_only=True):
        metadata = found["metadata"]
        if from_rfc3339(metadata["creationTimestamp"]) < now - retention:
            removed += bool(await objects.delete(cluster, _ref(metadata["name"]), uid=metadata["uid"]))
    return removed


@dataclass(frozen=True)
class Kept:
    """A lock that is kept: when, under which name, of which namespace, and whose that was."""

    at: datetime
    name: str
    namespace: str
    owner: Owner


async def kept_of(cluster: Cluster, namespaces: Sequence[str] = ()) -> list[Kept]:
    """The locks of sandboxes that were deleted, of these namespaces or of all.

    Raises:
        SandboxError: the cluster refuses to say.
    """
    selector = f"{_LOCK_OF} in ({','.join(namespaces)})" if namespaces else _LOCK_OF
    return [
        Kept(
            from_rfc3339(kept["metadata"]["creationTimestamp"]),
            str(kept["metadata"]["name"]),
            str(kept["metadata"]["labels"][_LOCK_OF]),
            Owner.of(kept),
        )
        async for kept in objects.list_(cluster, "v1", "ConfigMap", NAMESPACE, selector, metadata_only=True)
    ]


async def read(cluster: Cluster, name: str) -> bytes | None:
    """The text of a lock; None where there is none of this name.

    Raises:
        InvalidInput: that is no lock.
        SandboxError: the cluster refuses to give it.
    """
    found = await objects.get(cluster, _ref(name))
    if found is None:
        return None
    try:
        packed = base64.b64decode(found["binaryData"][_KEY], validate=True)
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return unpacker.decompress(packed, _MOST)
    except (KeyError, TypeError, ValueError, zlib.error):
        raise InvalidInput(f"{URL}{name} is not a lock") from None


def _ref(name: str) -> ObjectRef:
    return ObjectRef("", "v1", "ConfigMap", name, NAMESPACE)
