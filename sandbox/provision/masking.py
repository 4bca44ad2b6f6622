"""Records without the secrets that they hold, for showing them.

A record keeps the rendered manifests, Secrets included. Shown, the values of Secrets are hidden
where they stand, and wherever else the same text turns up: in a chart's values, an environment
variable, a ConfigMap, a dirty tree's patch.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sandbox.model.objects import Manifest
from sandbox.model.redaction import HIDDEN, without_secret_data

if TYPE_CHECKING:
    from sandbox.model.record import Record

# Shorter values ("true", "5432", "web") are everywhere, and no secret.
_SHORTEST = 6
# Within a longer text, a short value such as a user name would hit words.
_SHORTEST_WITHIN = 8
# Names and references: a database user called "postgres" must not hide the image of that name.
_STRUCTURE = frozenset(
    {
        *("apiVersion", "kind", "name", "namespace", "labels", "matchLabels", "selector", "image", "key"),
        *("repository", "registry", "tag", "digest"),
    }
)


def masked_record(record: Record) -> dict[str, Any]:
    """A record as plain data, without secrets."""
    known = secrets_of(record)
    plain: dict[str, Any] = record.model_dump(mode="json")
    for service in plain["services"].values():
        for part in ("manifests", "hooks"):
            service[part] = [masked_manifest(manifest, known) for manifest in service[part]]
        service["values"] = scrubbed(service["values"], known)
    plain["failure"] = scrubbed(plain["failure"], known)
    plain["patch"] = scrubbed(plain["patch"], known)
    return plain


def masked_manifest(manifest: Manifest, known: frozenset[str]) -> Manifest:
    """A manifest without Secret data, its keys stay, and without what is known to be secret."""
    result: Manifest = scrubbed(without_secret_data(manifest), known)
    return result


def secrets_of(record: Record) -> frozenset[str]:
    """What the Secrets of a record hold."""
    return secret_values(m for service in record.services.values() for m in (*service.manifests, *service.hooks))


def secret_values(manifests: Iterable[Manifest]) -> frozenset[str]:
    """What the Secrets among some manifests hold, as text and as base64."""
    found: set[str] = set()
    for manifest in manifests:
        if manifest.get("kind") == "Secret":
            for encoded in _texts(manifest.get("data")):
                found |= _forms(_decoded(encoded), encoded)
            for text in _texts(manifest.get("stringData")):
                found |= _forms(text, base64.b64encode(text.encode()).decode())
    return frozenset(found)


def _forms(text: str | None, encoded: str) -> set[str]:
    """How a value may turn up elsewhere; none for one that is too short to tell."""
    if text is None:
        return {encoded} if len(encoded) >= _SHORTEST_WITHIN else set()
    return {text.strip(), encoded} if len(text.strip()) >= _SHORTEST else set()


def scrubbed(value: Any, known: frozenset[str]) -> Any:
    """Data (or text) with the known values hidden in all its texts, names and image references excepted."""
    # Longest first: a secret that contains another is hidden as a whole. Patches and annotations hold JSON.
    forms = known | {json.dumps(text)[1:-1] for text in known}
    within = sorted((text for text in forms if len(text) >= _SHORTEST_WITHIN), key=len, reverse=True)

    def scrub(part: Any) -> Any:
        if isinstance(part, str):
            if part in known:
                return HIDDEN
            for secret in within:
                part = part.replace(secret, HIDDEN)
            return part
        if isinstance(part, Mapping):
            return {key: item if key in _STRUCTURE else scrub(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [scrub(item) for item in part]
        return part

    return scrub(value)


def _texts(data: Any) -> Iterator[str]:
    for value in data.values() if isinstance(data, Mapping) else ():
        if isinstance(value, str):
            yield value


def _decoded(encoded: str) -> str | None:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
