"""Keeping secret values out of a capture: what is known to be secret is replaced wherever it turns up.

What is looked for: the values of all Secrets that the namespace has or had (in stored Helm releases and records), and
the passwords inside them where a value is a URL, a ``KEY=value`` file, a JSON document or docker's login; each as it
is, escaped as in JSON, percent-encoded, and in base64 at every alignment (``Authorization: Basic …`` holds it in the
middle). They become placeholders that are equal for equal values, so that a capture can be put together again with new
values and two captures can be compared: an HMAC, whose key stays in the store and is never in a bundle.

Nothing is masked by the look of its name: that would take user and database names away, which reproducing needs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from sandbox.capture.model import Redaction
from sandbox.model.objects import Manifest

PLACEHOLDER = re.compile(r"redacted-[0-9a-f]{16}")
# Shorter values ("true", "5432", "web") are everywhere, and no secret.
_SHORTEST = 6
# Shorter ones only as a word of their own.
_SHORTEST_WITHIN = 8
# A fragment of base64 that is shorter meets other text by chance.
_SHORTEST_FRAGMENT = 10
_LONGEST = 64 * 1024
# What carries these keys is meant to be secret, even where it is spelt like the name of something.
_SECRET_KEY = re.compile(r"pass|token|secret|credential|private|api.?key|auth", re.IGNORECASE)
_NAME = re.compile(r"[a-z][a-z-]*")
_NAME_BYTES = re.compile(rb"[a-z][a-z-]*")
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]\s*(['\"]?)(.+?)\2\s*$", re.MULTILINE)
_WORD = re.compile(rb"[A-Za-z0-9_]")
# Keys whose values say where a database is and as whom, not what lets one in: bringing it back needs them.
_PLAIN_KEY = re.compile(
    r"(?:^|[_.-])(?:user|username|login|host|hostname|server|port|db|db[_-]?name|database|schema|scheme|driver|sslmode)$",
    re.IGNORECASE,
)
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._-]{0,63}")
# What stands before the password in other URLs may be a token (https://TOKEN:x-oauth-basic@…).
_DATABASE_URL = re.compile(
    r"(?P<scheme>(?:postgres(?:ql)?|mysql|mariadb|rediss?|valkeys?|mongodb|amqps?)(?:\+[a-z0-9]+)?)://"
    r"(?P<user>[A-Za-z0-9._-]{0,63}):(?P<password>[^@/\s]+)@(?P<where>[A-Za-z0-9.,:_-]+)(?P<path>/[A-Za-z0-9._-]{0,63})?"
)
# Where a manifest names things; the value of a user name must not hide the image of that name.
_STRUCTURE = frozenset(
    {"apiVersion", "kind", "name", "namespace", "labels", "matchLabels", "selector", "image", "imageID", "key", "uid"}
)
# Secrets that hold no value of an application: releases and records are looked into, tokens of accounts are values.
_NOT_VALUES = frozenset({"helm.sh/release.v1", "sandbox.dev/record"})


class Redactor:
    """Replaces what is known to be secret. Made by :func:`redactor_for`."""

    def __init__(self, key: bytes, values: Mapping[str, str], guarded: Collection[str] = ()) -> None:
        """
        Args:
            values: secret text → where it is from.
            guarded: what some key says is secret, however short: it is nobody's name.
        """
        self._key = key
        self._guarded = frozenset(guarded)
        self._within: dict[bytes, bytes] = {}
        self._words: dict[bytes, bytes] = {}
        for value in values:
            placeholder = self.placeholder(value).encode()
            for form in _forms(value):
                whole = len(value) < _SHORTEST_WITHIN and form == value
                (self._words if whole else self._within).setdefault(form.encode(), placeholder)
        self._patterns = sorted({*self._within, *self._words}, key=len, reverse=True)
        self._matcher: Any = None

    def placeholder(self, value: str) -> str:
        """What a value is replaced by: the same for the same value and key."""
        return f"redacted-{self.hmac(value)}"

    def hmac(self, value: str | bytes) -> str:
        """The first 16 hexadecimal digits of a value's HMAC-SHA256."""
        data = value if isinstance(value, bytes) else value.encode()
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:16]

    def in_bytes(self, data: bytes, *, names: bool = False) -> bytes:
        """Bytes without what is known, in any of its forms.

        Args:
            names: it names something: what is spelt like a plain word stays.
        """
        if not self._patterns or not data:
            return data
        parts, end = [], 0
        for number, begins, ends in self._matching(data):
            pattern = self._patterns[number]
            placeholder = self._within.get(pattern)
            if placeholder is None:
                if _WORD.match(data[begins - 1 : begins]) or _WORD.match(data[ends : ends + 1]):
                    continue
                placeholder = self._words[pattern]
            if names and _NAME_BYTES.fullmatch(pattern):
                continue
            parts += [data[end:begins], placeholder]
            end = ends
        return b"".join([*parts, data[end:]]) if parts else data

    def in_text(self, text: str, *, names: bool = False) -> str:
        """Text without what is known."""
        return self.in_bytes(text.encode(errors="surrogatepass"), names=names).decode(errors="surrogatepass")

    def in_data(self, value: Any, *, names: bool = False) -> Any:
        """Data without what is known in any of its texts and keys; names of things and images stay words."""
        if isinstance(value, str):
            return self.in_text(value, names=names)
        if isinstance(value, Mapping):
            return {
                self.in_text(str(key), names=True): self.in_data(item, names=names or key in _STRUCTURE)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.in_data(item, names=names) for item in value]
        return value

    def secret(self, manifest: Manifest) -> Manifest:
        """A Secret with the HMAC of each value instead of the value."""
        shown = dict(manifest)
        metadata = dict(shown.get("metadata") or {})
        annotations = dict(metadata.get("annotations") or {})
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        metadata["annotations"] = annotations
        # Which keys somebody set, by field manager, is told by their names alone.
        shown["metadata"] = self.in_data(metadata)
        for field in ("data", "stringData"):
            if isinstance(shown.get(field), Mapping):
                shapes = {key: self._shape(str(key), _raw(field, v)) for key, v in shown[field].items()}
                if known := {key: shape for key, shape in shapes.items() if shape is not None}:
                    shown["shapes"] = {**shown.get("shapes", {}), **known}
                shown[field] = {key: f"hmac-{self.hmac(_raw(field, v))}" for key, v in shown[field].items()}
            elif field in shown:
                shown.pop(field)
        return shown

    def _shape(self, key: str, value: bytes) -> str | None:
        """What of a Secret's value is no secret: who and where, and a URL around its password; None: nothing is."""
        text = value.decode(errors="replace")
        if _PLAIN_KEY.search(key) and _PLAIN_VALUE.fullmatch(text):
            return text if text not in self._guarded else None
        url = _DATABASE_URL.fullmatch(text)
        if url is None or self._guarded & {url["user"], (url["path"] or "").removeprefix("/")} - {""}:
            return None
        password = self.placeholder(unquote(url["password"]))
        return f"{url['scheme']}://{url['user']}:{password}@{url['where']}{url['path'] or ''}"

    def _matching(self, data: bytes) -> list[tuple[int, int, int]]:
        if self._matcher is None:
            from ahocorasick_rs import BytesAhoCorasick, MatchKind

            self._matcher = BytesAhoCorasick(self._patterns, matchkind=MatchKind.LeftmostLongest)
        found: list[tuple[int, int, int]] = self._matcher.find_matches_as_indexes(data)
        return found


def redactor_for(
    key: bytes, secrets: Iterable[Manifest], more: Iterable[Manifest], names: Iterable[str], *, complete: bool
) -> tuple[Redactor, Redaction]:
    """The redactor of one capture, and what it can and cannot do.

    Args:
        key: of the HMAC; of the store.
        secrets: the namespace's Secrets.
        more: Secrets that stored releases and records render.
        names: of objects, containers, images and labels: what is spelt like one stays where it stands as such.
        complete: whether ``secrets`` are all there are.
    """
    values: dict[str, str] = {}
    guarded: set[str] = set()
    short: set[str] = set()
    left: set[str] = set()
    known = {name for name in names if _NAME.fullmatch(name)}
    for manifest in (*secrets, *more):
        if manifest.get("kind") != "Secret" or manifest.get("type") in _NOT_VALUES:
            continue
        for where, field_key, value in _values(manifest):
            if not _PLAIN_KEY.search(field_key):
                guarded.add(value)
            if len(value) < _SHORTEST:
                short.add(where)
            elif value in known and not _SECRET_KEY.search(field_key):
                left.add(where)
            else:
                values.setdefault(value, where)
    redactor = Redactor(key, values, guarded)
    facts = Redaction(
        key_id=redactor.hmac(b"key-id"),
        values=len(values),
        complete=complete,
        short=tuple(sorted(short)),
        left=tuple(sorted(left)),
    )
    return redactor, facts


def _values(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """(where, key, value) of everything secret in a Secret, also inside its values."""
    name = (manifest.get("metadata") or {}).get("name", "")
    for field in ("data", "stringData"):
        entries = manifest.get(field)
        for key, raw in entries.items() if isinstance(entries, Mapping) else ():
            if not isinstance(raw, str):
                continue
            where = f"secret/{name}: {key}"
            try:
                text = _raw(field, raw).decode()
            except UnicodeDecodeError:
                # Binary (a key store): only its base64 can turn up in text.
                yield where, str(key), raw
                continue
            for part_key, part in {(str(key), text.strip()), (str(key), text), *_parts(str(key), text)}:
                if part and len(part) <= _LONGEST:
                    yield where, part_key, part


def _parts(key: str, text: str) -> set[tuple[str, str]]:
    """Secrets inside a value: a URL's password, an assignment, a document's fields, docker's logins."""
    found: set[tuple[str, str]] = set()
    if "://" in text:
        found |= {(f"{key} password", part) for part in _url_passwords(text)}
    try:
        document = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        document = None
    for path, leaf in _leaves(document):
        if _SECRET_KEY.search(path):
            found.add((path, leaf))
            if path.endswith("auth") and (login := _decoded(leaf)) and ":" in login:
                found.add(("password", login.partition(":")[2]))
    if document is None:
        for name, _, value in _ASSIGNMENT.findall(text):
            if _SECRET_KEY.search(name):
                found.add((name, value))
    return found


def _url_passwords(text: str) -> Iterator[str]:
    for candidate in re.findall(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", text):
        try:
            password = urlsplit(candidate).password
        except ValueError:
            continue
        if password:
            yield password
            yield unquote(password)


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(document, str) and document:
        yield path, document
    elif isinstance(document, Mapping):
        for key, item in document.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(document, list):
        for item in document:
            yield from _leaves(item, path)


def _forms(value: str) -> set[str]:
    """How a value may turn up."""
    data = value.encode()
    forms = {value, html.escape(value), value.replace("'", "''"), *_escaped(value)}
    # Annotations hold JSON, and are written as JSON.
    forms |= {twice for once in _escaped(value) for twice in _escaped(once)}
    for quoted in (quote(value, safe=""), quote(value), quote_plus(value)):
        forms |= {quoted, re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), quoted)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(data).decode()
        forms |= {whole, whole.rstrip("=")}
        forms |= {part for part in _fragments(data, encode) if len(part) >= _SHORTEST_FRAGMENT}
    return {form for form in forms if len(form) >= _SHORTEST}


def _escaped(value: str) -> set[str]:
    """A text inside JSON: as Python writes it, and as Go does, which is what kubectl and the API server are made of."""
    found = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    go = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
    return found | {text.translate(go) for text in found}


def _fragments(data: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """What base64 has of some bytes wherever they stand in a longer text: three alignments, without the ends."""
    for before in range(3):
        encoded = encode(b"\0" * before + data).decode()
        first = (before * 8 + 5) // 6
        last = (before + len(data)) * 8 // 6
        yield encoded[first:last]


def _raw(field: str, value: Any) -> bytes:
    if field == "data":
        try:
            return base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            return str(value).encode()
    return str(value).encode()


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
