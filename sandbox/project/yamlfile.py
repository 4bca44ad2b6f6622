"""YAML files that people write, with the line of every key, so that errors can point at it.

Built on PyYAML's parser events instead of its constructors: they would neither notice duplicate
keys nor stop at aliases that expand without end. Scalars are read as Helm and kubectl do
(YAML 1.1: ``yes`` and ``off`` are booleans, ``010`` is eight, ``1_000`` a thousand; dates stay text).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sandbox.model.errors import InvalidInput

KeyPath = tuple[str | int, ...]

# Far more than a person writes; they keep a hostile file from using up memory or stack.
LARGEST_FILE = 1024 * 1024
MOST_NODES = 100_000
DEEPEST = 60

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)", re.ASCII)
_OCTAL = re.compile(r"0o?[0-7]+", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    # As `helm template` and `kubectl create` read them: a chart that is told `enabled: no` must not see a text.
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset({"!", *(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))})


@dataclass(frozen=True)
class LocatedDocument:
    """One YAML document and where its keys are.

    Attributes:
        data: dictionaries (keys are text), lists, text, numbers, booleans, None.
        lines: line (from 1) of every key and list item, by key path; the document itself is ``()``.
        shown_as: how messages name the file.
    """

    data: Any
    lines: dict[KeyPath, int]
    shown_as: str

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest one above it where the key is not in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def describe(self, path: KeyPath, message: str) -> str:
        """``sandbox.yaml:12: services.web.chart.path: message``."""
        where = f"{self.shown_as}:{self.line(path)}: "
        return where + (f"{dotted(path)}: {message}" if path else message)

    def error(self, path: KeyPath, message: str, *, why: str = "", hint: str = "") -> InvalidInput:
        """The error that points at a key."""
        return InvalidInput(self.describe(path, message), why=why, hint=hint)


def dotted(path: KeyPath) -> str:
    """``services.web.images[0].name``; a key that has dots of its own is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[^.\[\]\s\"]+", part)
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def near(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'chart'?`` for the known words nearest to a word; empty where none is near."""
    found = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def near_any(words: Iterable[str], known: Collection[str]) -> str:
    """The same for several words."""
    return "".join(near(word, known) for word in sorted(words))


def load_yaml(path: Path, *, shown_as: str | None = None) -> LocatedDocument:
    """Read a file that holds one YAML document.

    Args:
        shown_as: how messages name the file; its own name where not given.

    Raises:
        InvalidInput: cannot be read, is not UTF-8 or not YAML, holds several documents, gives a key twice,
            or is larger, deeper or more aliased than anything a person writes.
    """
    name = shown_as or path.name
    return parse_yaml(_read(path, name), shown_as=name)


def load_documents(path: Path, *, shown_as: str | None = None) -> list[LocatedDocument]:
    """Read a file that may hold several YAML documents, such as manifests; empty ones are left out.

    Raises:
        InvalidInput: as for :func:`load_yaml`, several documents excepted.
    """
    name = shown_as or path.name
    documents = [_Builder(events, name).document() for _, events in _documents(_read(path, name), name)]
    return [document for document in documents if document.data is not None]


def parse_yaml(text: str, *, shown_as: str) -> LocatedDocument:
    """Read text that holds one YAML document; see :func:`load_yaml`."""
    documents = list(_documents(text, shown_as))
    if len(documents) > 1:
        raise InvalidInput(f"{shown_as}:{_line(documents[1][0])}: a second document begins here; this file holds one")
    return _Builder(documents[0][1] if documents else [], shown_as).document()


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read", why=error.strerror or str(error)) from None
    if len(raw) > LARGEST_FILE:
        raise InvalidInput(f"{name} is larger than {LARGEST_FILE // 1024} KiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidInput(f"{name}:{line}: is not UTF-8 text") from None


def _documents(text: str, shown_as: str) -> Iterator[tuple[yaml.Event, list[yaml.Event]]]:
    """The parser's events of each document, with the event that begins it; no more than a file may have."""
    start: yaml.Event | None = None
    events: list[yaml.Event] = []
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise _refused(event, shown_as, f"is nested more than {DEEPEST} levels deep")
            # Of a node, there are three events at most: its key, its start, its end.
            if len(events) > 3 * MOST_NODES:
                raise _refused(event, shown_as, f"holds more than {MOST_NODES} values")
            if isinstance(event, yaml.DocumentStartEvent):
                start, events = event, []
            elif isinstance(event, yaml.DocumentEndEvent):
                assert start is not None
                yield start, events
            elif not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent):
                events.append(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, shown_as) from None


def _syntax_error(error: yaml.YAMLError, shown_as: str) -> InvalidInput:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    why = ", ".join(part for part in said if part) or " ".join(str(error).split())
    return InvalidInput(f"{shown_as}{where}: is not valid YAML", why=why)


class _Builder:
    """Turns the events of one document into plain data."""

    def __init__(self, events: list[yaml.Event], shown_as: str) -> None:
        self._events = events
        self._shown_as = shown_as
        self._lines: dict[KeyPath, int] = {}
        # Events of an anchored node, to be played again for each alias: every place has its own path.
        self._recordings: dict[str, list[yaml.Event]] = {}
        self._nodes = 0

    def document(self) -> LocatedDocument:
        self._lines[()] = _line(self._events[0]) if self._events else 1
        if not self._events:
            return LocatedDocument(None, self._lines, self._shown_as)
        self._record_anchors(self._events)
        data, _ = self._node(self._events, 0, (), ())
        return LocatedDocument(data, self._lines, self._shown_as)

    def _record_anchors(self, events: list[yaml.Event]) -> None:
        open_nodes: list[tuple[str | None, int]] = []
        for index, event in enumerate(events):
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, index))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, start = open_nodes.pop()
                if anchor:
                    self._recordings[anchor] = events[start : index + 1]
            elif isinstance(event, yaml.ScalarEvent) and event.anchor:
                self._recordings[event.anchor] = [event]

    def _node(self, events: list[yaml.Event], at: int, path: KeyPath, aliases: tuple[str, ...]) -> tuple[Any, int]:
        """The node that begins at an event, and the index after it. ``aliases``: those being played."""
        event = events[at]
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self._refuse(
                event, f"expands to more than {MOST_NODES} values", "aliases multiply; write less of them"
            )
        if len(path) > DEEPEST:
            raise self._refuse(event, f"is nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, aliases), at + 1
        tag = getattr(event, "tag", None)
        if tag and tag not in _KNOWN_TAGS:
            raise self._refuse(event, f"the tag {tag.replace(_TAG, '!!')} has no meaning here")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, at, path, aliases)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, at, path, aliases)
        assert isinstance(event, yaml.ScalarEvent)
        return self._scalar(event), at + 1

    def _alias(self, event: yaml.AliasEvent, path: KeyPath, aliases: tuple[str, ...]) -> Any:
        anchor = event.anchor or ""
        recording = self._recordings.get(anchor)
        if recording is None or _index(recording[0]) > _index(event):
            raise self._refuse(event, f"there is no anchor &{anchor} before this alias")
        if anchor in aliases:
            raise self._refuse(event, f"the alias *{anchor} contains itself")
        value, _ = self._node(recording, 0, path, (*aliases, anchor))
        return value

    def _sequence(self, events: list[yaml.Event], at: int, path: KeyPath, aliases: tuple[str, ...]) -> tuple[Any, int]:
        items: list[Any] = []
        at += 1
        while not isinstance(events[at], yaml.SequenceEndEvent):
            item_path = (*path, len(items))
            self._lines[item_path] = _line(events[at])
            item, at = self._node(events, at, item_path, aliases)
            items.append(item)
        return items, at + 1

    def _mapping(self, events: list[yaml.Event], at: int, path: KeyPath, aliases: tuple[str, ...]) -> tuple[Any, int]:
        mapping: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        at += 1
        while not isinstance(events[at], yaml.MappingEndEvent):
            key_event = events[at]
            if isinstance(key_event, yaml.AliasEvent):
                key_event = self._recordings.get(key_event.anchor or "", [key_event])[0]
            if not isinstance(key_event, yaml.ScalarEvent):
                raise self._refuse(key_event, "a key must be plain text")
            key, line = key_event.value, _line(events[at])
            if key == "<<" and not key_event.style:
                value, at = self._node(events, at + 1, path, aliases)
                merged.extend(self._merge_sources(key_event, value))
                continue
            key_path = (*path, key)
            if key in mapping:
                raise InvalidInput(
                    f"{self._shown_as}:{line}: {dotted(key_path)}: is given twice",
                    why=f"the first is in line {self._lines[key_path]}",
                    hint="keep one of them",
                )
            self._lines[key_path] = line
            mapping[key], at = self._node(events, at + 1, key_path, aliases)
        for source in merged:
            for key, value in source.items():
                mapping.setdefault(key, value)
        return mapping, at + 1

    def _merge_sources(self, event: yaml.Event, value: Any) -> list[dict[str, Any]]:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise self._refuse(event, "<< merges mappings only")
        return sources

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text: str = event.value
        tag: str | None = event.tag
        if tag == f"{_TAG}str" or (tag is None and event.style) or tag == "!":
            return text
        try:
            return _plain_scalar(text)
        except ValueError as error:
            raise self._refuse(event, str(error)) from None

    def _refuse(self, event: yaml.Event, message: str, hint: str = "") -> InvalidInput:
        return _refused(event, self._shown_as, message, hint)


def _refused(event: yaml.Event, shown_as: str, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(f"{shown_as}:{_line(event)}: {message}", hint=hint)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _index(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark else 0


def reads_as_text(text: str) -> bool:
    """Whether text can be written without quotes and still be text when it is read."""
    try:
        return isinstance(_plain_scalar(text), str)
    except ValueError:
        return False


def _plain_scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 400:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text.replace("o", ""), 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"the number {text} is too large")
        return number
    if _INFINITE.fullmatch(text):
        raise ValueError(f"{text} cannot be written as JSON, which Kubernetes needs; quote it if it is text")
    return text
