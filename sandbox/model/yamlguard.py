"""Look at YAML of others before libyaml's loader does: by the parser's events, which neither recurse nor expand.

The loader recurses in C: enough nesting ends the whole process, which no ``except`` notices.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

# Far more than anybody writes, and far less than a stack holds.
DEEPEST: Final = 500
_DEEPEST_PLAIN: Final = 60
_MOST_EVENTS: Final = 200_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_depth(text: str | bytes) -> None:
    """Refuse a stream in which anything is nested too deeply.

    Raises:
        yaml.YAMLError: that, or it is not YAML.
    """
    if isinstance(text, bytes) or _may_be_deep(text):
        _check(text, deepest=DEEPEST)


def check_plain(data: bytes) -> None:
    """Refuse what has no place in data that programs write: aliases, tags, much nesting, and more than they write.

    Raises:
        yaml.YAMLError: that, or it is not YAML.
    """
    _check(data, deepest=_DEEPEST_PLAIN, most=_MOST_EVENTS, plain=True)


def _check(text: str | bytes, *, deepest: int, most: int | None = None, plain: bool = False) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > deepest:
            raise _refused(event, f"nested more than {deepest} levels deep")
        if most is not None and count > most:
            raise _refused(event, "too many values")
        if plain and isinstance(event, yaml.AliasEvent):
            raise _refused(event, "an alias")
        if plain and getattr(event, "tag", None):
            raise _refused(event, "a tag")


def _refused(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _may_be_deep(text: str) -> bool:
    """Whether it could be at all, quickly: most files could not.

    Every level takes a bracket, or a column (two levels may share one: a list right under its key).
    """
    brackets = text.count("[") + text.count("{")
    return brackets + 2 * max(map(len, text.split("\n"))) > DEEPEST
