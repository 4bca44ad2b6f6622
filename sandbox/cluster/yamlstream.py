"""YAML to and from Helm: read what it writes as Helm itself would, with no dates and no base 60.

PyYAML makes a date of ``2024-01-31`` and 90 of ``1:30``; Kubernetes' own reader (go.yaml.in/yaml/v2) leaves both as
text. On libyaml's parser, for charts of thousands of lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest
from sandbox.model.yamlguard import check_depth

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_NULL = ("", "~", "null", "Null", "NULL")
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$", re.ASCII)
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    re.ASCII,
)


class _Loader(_BASE):  # type: ignore[misc]
    """A safe loader with Kubernetes' idea of plain scalars."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    bases = {"0b": 2, "0o": 8, "0x": 16}
    if digits[:2] in bases:
        return sign * int(digits[2:], bases[digits[:2]])
    return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)


def _number(loader: Any, node: yaml.ScalarNode) -> float:
    return float(node.value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _boolean(loader: Any, node: yaml.ScalarNode) -> bool:
    return node.value in _TRUE


def _words(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"(?:{'|'.join(map(re.escape, words))})$")


_Loader.add_implicit_resolver(f"{_TAG}bool", _words(_TRUE + _FALSE), list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(f"{_TAG}null", _words(_NULL), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<$"), ["<"])
_Loader.add_constructor(f"{_TAG}int", _integer)
_Loader.add_constructor(f"{_TAG}float", _number)
_Loader.add_constructor(f"{_TAG}bool", _boolean)
# `!!timestamp` by name is text too, as everything in JSON that is no number or word.
_Loader.add_constructor(f"{_TAG}timestamp", lambda loader, node: node.value)


# What a YAML stream may not hold as it is, and a JSON text may.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def json_for_yaml(data: Any, *, indent: int | None = None) -> str:
    """JSON that every YAML reader takes.

    JSON's escape of an emoji is two halves (``\\ud83d\\ude00``), which YAML does not know: it stands there as it is.
    """
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def manifests_of(text: str, *, shown_as: str) -> list[Manifest]:
    """The objects in a stream of documents; empty documents are left out, Lists taken apart.

    Raises:
        InvalidInput: not YAML, or a document is no Kubernetes object.
    """
    try:
        check_depth(text)
        documents = list(yaml.load_all(text, Loader=_Loader))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise InvalidInput(f"{shown_as} is not YAML", why=f"{where}{problem}") from None
    return [item for document in documents if document is not None for item in _flattened(document, shown_as)]


def _flattened(document: Any, shown_as: str) -> Iterator[Manifest]:
    if not isinstance(document, dict) or not document.get("apiVersion") or not document.get("kind"):
        if document == {}:
            return
        keys = ", ".join(map(str, document))[:100] if isinstance(document, dict) else type(document).__name__
        raise InvalidInput(
            f"{shown_as} holds something that is no Kubernetes object",
            why=f"a document without apiVersion and kind, but with: {keys}",
        )
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flattened(item, shown_as)
        return
    yield document
