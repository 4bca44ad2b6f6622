"""Records in their namespace: Secrets ``sandbox-record-<number>``, gzipped, split when large, the last ten kept.

A Secret may hold 1 MiB, so a record's parts are Secrets of their own; the label ``sandbox.dev/record``
holds the number. A record is complete when all its parts are there: part 0 says how many, and is written last.
Whoever may write in the namespace can change them: what is read back is validated and never executed.
Beside them lies a ConfigMap ``sandbox-record`` with what is no secret (:mod:`sandbox.model.summary`).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.discovery import resource_for
from sandbox.model import labels
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import Record, ServiceRecord
from sandbox.model.summary import Outside, Summary, config_map

KEPT = 10
_NUMBER = f"{labels.DOMAIN}/record"
_PARTS = f"{labels.DOMAIN}/record-parts"
# Below the 1 MiB that etcd and the API server allow, with room for metadata and base64 (4/3).
PART_BYTES = 700_000
# A record is some hundred KB of YAML; more than this unpacked is a bomb.
_MOST_BYTES = 64 * 1024 * 1024


async def load_records(cluster: Cluster, namespace: str) -> list[Record]:
    """All complete records of a namespace, oldest first.

    Raises:
        Refused: a record is there that cannot be read: it was changed by hand, or is from a newer version.
    """
    found, errors = await readable_records(cluster, namespace)
    if errors:
        raise errors[0]
    return found


async def readable_records(cluster: Cluster, namespace: str) -> tuple[list[Record], list[Refused]]:
    """All complete records that can be read, oldest first, and why the others cannot."""
    parts = await _parts(cluster, namespace)
    found: list[Record] = []
    errors: list[Refused] = []
    for number in sorted(number for number in parts if _complete(parts[number])):
        try:
            # Unpacking megabytes of JSON would hold up everything else that runs.
            found.append(await asyncio.to_thread(_decode, parts[number]))
        except Refused as error:
            errors.append(error)
    return found, errors


async def _parts(cluster: Cluster, namespace: str) -> dict[int, dict[int, Manifest]]:
    """The Secrets of each record, by number and part."""
    parts: dict[int, dict[int, Manifest]] = defaultdict(dict)
    async for secret in objects.list_(cluster, "v1", "Secret", namespace, label_selector=_NUMBER):
        number, part = _address(secret)
        if number is not None:
            parts[number][part] = secret
    return parts


async def latest(cluster: Cluster, namespace: str) -> Record | None:
    """The newest record of a namespace, or None."""
    records = await load_records(cluster, namespace)
    return records[-1] if records else None


def last_deployed(records: Iterable[Record]) -> Record | None:
    """The newest record of a deployment that came through, or None.

    What it took over from a neighbour's deployment that never came to its end is in it as it last came through itself.
    """
    deployed = [record for record in records if record.outcome == "deployed"]
    if not deployed:
        return None
    newest = deployed[-1]
    finished = {name: _finished(name, deployed) for name in newest.services}
    if finished == newest.services:
        return newest
    return newest.with_services({name: service for name, service in finished.items() if service is not None})


def _finished(name: str, deployed: Sequence[Record]) -> ServiceRecord | None:
    """A service as it last came through; None: before that it was not there.

    Where all that is still known is unfinished, it is that: to take it for absent would remove it.
    """
    newest = deployed[-1].services[name]
    for record in reversed(deployed):
        service = record.services.get(name)
        if service is None or not service.unfinished:
            return service
    return newest


async def save(cluster: Cluster, namespace: str, record: Record) -> None:
    """Write a record (again) and its summary, and forget the oldest over :data:`KEPT`."""
    secrets = await asyncio.to_thread(_encode, record, namespace)
    for secret in reversed(secrets):
        await objects.apply(cluster, secret, namespace=namespace)
    await _save_summary(cluster, namespace, record)
    await _forget(cluster, namespace, record.number - KEPT, surplus=(record.number, len(secrets)))


async def _save_summary(cluster: Cluster, namespace: str, record: Record) -> None:
    summary = Summary(
        namespace_uid=record.namespace_uid,
        number=record.number,
        outcome=record.outcome,
        lock=record.lock.model_dump_json(),
        outside=await _outside(cluster, record),
    )
    await objects.apply(cluster, config_map(summary, namespace), namespace=namespace)


async def _outside(cluster: Cluster, record: Record) -> tuple[Outside, ...]:
    """What the record names that lies in no namespace, with the UIDs of what is there already."""
    found = []
    for item in (item for service in record.services.values() for item in service.inventory if not item.namespace):
        try:
            # A chart need not say in which namespace its objects are.
            if (await resource_for(cluster, item.ref.api_version, item.kind)).namespaced:
                continue
            live = await objects.get(cluster, item.ref)
        except InvalidInput:
            # There is no such kind yet.
            continue
        except Refused:
            live = None
        uid = live["metadata"]["uid"] if live else ""
        found.append(Outside(item.group, item.version, item.kind, item.name, uid))
    return tuple(found)


async def _forget(cluster: Cluster, namespace: str, newest: int, *, surplus: tuple[int, int]) -> None:
    """Delete the records up to ``newest``, and what a longer version of the same record left behind."""
    if newest < 1 and surplus[0] == 1:
        return
    async for secret in objects.list_(cluster, "v1", "Secret", namespace, label_selector=_NUMBER, metadata_only=True):
        number, part = _address(secret)
        if number is not None and (number <= newest or (number == surplus[0] and part >= surplus[1])):
            await objects.delete(cluster, ObjectRef("", "v1", "Secret", secret["metadata"]["name"], namespace))


def _encode(record: Record, namespace: str) -> list[Manifest]:
    data = gzip.compress(record.model_dump_json().encode(), mtime=0)
    chunks = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": labels.RECORD_TYPE,
            "metadata": {
                "name": f"{labels.RECORD_NAME}-{record.number}" + (f"-{part}" if part else ""),
                "namespace": namespace,
                "labels": {_NUMBER: str(record.number), labels.MANAGED_BY: labels.MANAGED_BY_VALUE},
                "annotations": {_PARTS: str(len(chunks))},
            },
            "data": {"record": base64.b64encode(chunk).decode()},
        }
        for part, chunk in enumerate(chunks)
    ]


def parts(packed: int) -> int:
    """How many Secrets a record of so many bytes, packed, takes."""
    return max(1, -(-packed // PART_BYTES))


def _address(secret: Manifest) -> tuple[int | None, int]:
    """Number and part that a Secret's name says; None for a name that is not ours."""
    suffix = secret["metadata"]["name"].removeprefix(f"{labels.RECORD_NAME}-")
    number, _, part = suffix.partition("-")
    if not number.isdecimal() or (part and not part.isdecimal()) or len(suffix) > 15:
        return None, 0
    return int(number), int(part or 0)


def _complete(parts: dict[int, Manifest]) -> bool:
    count = (parts[0]["metadata"].get("annotations") or {}).get(_PARTS, "") if 0 in parts else ""
    return count.isdecimal() and all(part in parts for part in range(int(count[:4])))


def _decode(parts: dict[int, Manifest]) -> Record:
    name = parts[0]["metadata"]["name"]
    count = int(parts[0]["metadata"]["annotations"][_PARTS])
    try:
        data = b"".join(base64.b64decode(parts[part]["data"]["record"]) for part in range(count))
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            text = unpacked.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"unpacks to more than {_MOST_BYTES} bytes")
        return Record.model_validate_json(text)
    except (KeyError, TypeError, ValueError, OSError, EOFError, ValidationError) as error:
        # pydantic's message quotes the input, which holds Secret data.
        why = f"{error.error_count()} fields do not fit" if isinstance(error, ValidationError) else str(error)
        raise Refused(
            f"the record in secret/{name} cannot be read",
            why=why,
            hint="it was changed by hand or is from a newer version: "
            f"`kubectl -n {parts[0]['metadata'].get('namespace', '')} delete secret {name}`, then `sandbox up` again",
        ) from None
