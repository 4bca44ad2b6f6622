"""``--set`` as Helm reads it (its ``strvals`` package), for values that are given on the command line.

Understood: ``a.b=1,c=x`` · ``list={x,y}`` · ``list[0].name=x`` · ``\\`` before ``, . [ ] { } =`` for the character
itself · ``null`` (takes the chart's default away) · ``true``, ``false`` and whole numbers as what they are, anything
else as text. Not understood: ``--set-string``, ``--set-file`` and ``--set-json`` (use ``-f`` for those).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput

# Helm's own bounds.
LARGEST_INDEX = 65_536
DEEPEST = 30

_HINT = "as helm's --set: service.path.to.key=value, further ones after a comma"
# What begins with a zero stays text (it may be a commit or a telephone number); longer ones are no 64-bit integers.
_INTEGER = re.compile(r"0|[-+][0-9]{1,19}|[1-9][0-9]{0,18}", re.ASCII)
_Path = list[str | int]


def parse_set(text: str, into: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read one ``--set`` argument, on top of others that came before.

    Raises:
        InvalidInput: not of that form.
    """
    values: Any = _copied(into or {})
    for path, value in _Scanner(text).assignments():
        values = _put(values, path, value, text)
    return dict(values)


def values_for(service: str, arguments: Sequence[str], services: Collection[str]) -> dict[str, Any]:
    """The values that ``--set`` arguments give to one chart.

    An argument whose first word is the name of a service is for that one; any other is for every chart.

    Args:
        service: the chart's service.
        services: names of all services of the project.

    Raises:
        InvalidInput: an argument is not of that form.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        named, dot, rest = argument.partition(".")
        if dot and named in services:
            if named == service:
                values = parse_set(rest, values)
        else:
            values = parse_set(argument, values)
    return values


def keys_of(values: Mapping[str, Any], above: str = "") -> list[str]:
    """The keys of values, as ``--set`` writes them; lists are named as a whole."""
    found: list[str] = []
    for key, value in values.items():
        named = f"{above}{key}"
        found += keys_of(value, f"{named}.") if isinstance(value, Mapping) and value else [named]
    return found


def given_to(
    service: str,
    files: Sequence[Path],
    arguments: Sequence[str],
    services: Collection[str],
    earlier: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """What the command line gives to one chart, as it was written but for the values, which may be secret.

    Args:
        files: of ``-f``, for every chart.
        earlier: what the command line of an earlier deployment gave, which holds on.

    Raises:
        InvalidInput: as :func:`values_for`.
    """
    keys = dict.fromkeys([*keys_of(earlier or {}), *keys_of(values_for(service, arguments, services))])
    return (*(f"-f {file.name}" for file in files), *(f"--set {key}" for key in keys))


def refuse_set_for_others(arguments: Sequence[str], services: Collection[str], charts: Collection[str]) -> None:
    """Refuse ``--set`` for a service that has no values.

    Raises:
        InvalidInput: an argument is for a kustomization or manifests, or for all charts where there is none.
    """
    for argument in arguments:
        named, dot, _ = argument.partition(".")
        if dot and named in services and named not in charts:
            raise InvalidInput(
                f"--set {argument}: the service {named} is not a chart",
                hint="kustomizations and manifests have no values",
            )
        if not charts:
            raise InvalidInput(f"--set {argument}: no service here is a chart")


class _Scanner:
    """Reads one argument from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def assignments(self) -> list[tuple[_Path, Any]]:
        found = []
        while self._at < len(self._text):
            path = self._path()
            found.append((path, self._value()))
        if not found:
            raise self._wrong("it is empty")
        return found

    def _path(self) -> _Path:
        path: _Path = []
        while True:
            name, end = self._until("=.[,")
            if not name:
                raise self._wrong("a key is missing")
            path.append(name)
            while end == "[":
                path.append(self._index())
                end = self._next()
                if end not in ("[", ".", "="):
                    raise self._wrong("an index is followed by neither . nor =")
            if len(path) > DEEPEST:
                raise self._wrong(f"it is nested more than {DEEPEST} levels deep")
            if end == "=":
                return path
            if end != ".":
                raise self._wrong(f"the key {name!r} has no value")

    def _index(self) -> int:
        digits, end = self._until("]")
        if end != "]" or not re.fullmatch(r"[0-9]{1,6}", digits, re.ASCII) or int(digits) > LARGEST_INDEX:
            raise self._wrong(f"[{digits}] is not an index from 0 to {LARGEST_INDEX}")
        return int(digits)

    def _value(self) -> Any:
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._list()
        text, _ = self._until(",")
        return _typed(text)

    def _list(self) -> list[Any]:
        items: list[Any] = []
        while True:
            text, end = self._until(",}")
            if not end:
                raise self._wrong("a list is not closed by }")
            # An empty list is one of an empty text, as it is for Helm.
            items.append(_typed(text))
            if end == "}":
                if self._next() not in ("", ","):
                    raise self._wrong("a list is followed by something else than a comma")
                return items

    def _until(self, ends: str) -> tuple[str, str]:
        """The text up to one of the characters, and that character; empty at the end of the argument."""
        text = ""
        while character := self._next():
            if character == "\\":
                text += self._next()
            elif character in ends:
                return text, character
            else:
                text += character
        return text, ""

    def _next(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _wrong(self, why: str) -> InvalidInput:
        return InvalidInput(f"--set {self._text!r} cannot be read", why=why, hint=_HINT)


def _typed(text: str) -> Any:
    known: dict[str, bool | None] = {"true": True, "false": False, "null": None}
    if text.lower() in known:
        return known[text.lower()]
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return text


def _put(node: Any, path: _Path, value: Any, text: str) -> Any:
    """The node with a value put at a path; lists are filled up with nulls.

    Raises:
        InvalidInput: something else than a mapping or list is in the way.
    """
    if not path:
        return value
    key, *rest = path
    if isinstance(key, int):
        if not isinstance(node, list | None):
            raise InvalidInput(f"--set {text!r} cannot be read", why=f"[{key}] is put into what is no list")
        items = list(node or ())
        items += [None] * (key + 1 - len(items))
        items[key] = _put(items[key], rest, value, text)
        return items
    if not isinstance(node, dict | None):
        raise InvalidInput(f"--set {text!r} cannot be read", why=f"{key!r} is put into what has no keys")
    mapping = dict(node or {})
    mapping[key] = _put(mapping.get(key), rest, value, text)
    return mapping


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
