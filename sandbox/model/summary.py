"""What may be known of a record without reading Secrets: the ConfigMap ``sandbox-record`` of a sandbox.

It has a fixed name, so that RBAC can allow it by name, and holds nothing secret: whose record it is (the UID of
the namespace), the lock, and what the sandbox put outside of its namespace. The clean-up reads it. Whoever may
write in the namespace can rewrite it, so it is untrusted input: it is read without ever failing, what does not
fit is left out, and nothing in it is a command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sandbox.model import labels
from sandbox.model.objects import Manifest, ObjectRef

# A ConfigMap holds 1 MiB; a lock is some KB a service.
_MOST_LOCK: Final = 900_000
_MOST_OUTSIDE: Final = 500
_API_GROUP: Final = f"{labels.DOMAIN}/"
# It is shown where it does not fit.
_LONGEST_UID: Final = 100
# What kinds, groups and names are made of; a slash or a space would lead a request elsewhere.
_WORD: Final = re.compile(r"[A-Za-z0-9:._-]{0,253}", re.ASCII)


@dataclass(frozen=True)
class Outside:
    """An object that a sandbox put outside of its namespace; ``uid`` is empty where it was not there yet."""

    group: str
    version: str
    kind: str
    name: str
    uid: str = ""

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef(self.group, self.version, self.kind, self.name)


@dataclass(frozen=True)
class Summary:
    """The newest record of a sandbox in short.

    Attributes:
        namespace_uid: of the namespace that the record is of; empty where it does not say.
        lock: the text of the lock (JSON), as ``sandbox up --lock`` reads it; empty where there is none.
    """

    namespace_uid: str
    number: int = 0
    outcome: str = ""
    lock: str = ""
    outside: tuple[Outside, ...] = ()


def config_map(summary: Summary, namespace: str) -> Manifest:
    """The ConfigMap that holds a summary."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": labels.RECORD_NAME,
            "namespace": namespace,
            "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE},
        },
        "data": {
            "namespaceUID": summary.namespace_uid,
            "number": str(summary.number),
            "outcome": summary.outcome,
            "lock": summary.lock if len(summary.lock.encode()) <= _MOST_LOCK else "",
            "outside": json.dumps([vars(item) for item in summary.outside]),
        },
    }


def read_summary(found: Manifest) -> Summary:
    """What a ConfigMap says; what it says wrongly is left out."""
    data = found.get("data")
    texts = {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, Mapping) else {}
    number = texts.get("number", "")
    return Summary(
        namespace_uid=texts.get("namespaceUID", "")[:_LONGEST_UID],
        number=int(number) if re.fullmatch(r"[0-9]{1,9}", number) else 0,
        outcome=texts.get("outcome", ""),
        lock=texts.get("lock", ""),
        outside=_outside(texts.get("outside", "")),
    )


def is_lock(text: str) -> bool:
    """Whether a text says of itself that it is a lock; of this version or a newer one, so no more is asked of it."""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("kind") == "Lock" and str(said.get("apiVersion")).startswith(_API_GROUP)


def _outside(text: str) -> tuple[Outside, ...]:
    try:
        items: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = [_item(item) for item in items[:_MOST_OUTSIDE]] if isinstance(items, list) else []
    return tuple(item for item in found if item is not None)


def _item(item: Any) -> Outside | None:
    names = [field.name for field in fields(Outside)]
    if not isinstance(item, dict) or set(item) != set(names):
        return None
    values = [item[name] for name in names]
    if not all(isinstance(value, str) and _WORD.fullmatch(value) and value not in (".", "..") for value in values):
        return None
    made = Outside(*values)
    return made if made.version and made.kind and made.name else None
