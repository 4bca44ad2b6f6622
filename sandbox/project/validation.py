"""From a YAML document to a model, with errors that name file, line and key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sandbox.model.errors import InvalidInput
from sandbox.project.yamlfile import KeyPath, LocatedDocument, near

Model = TypeVar("Model", bound=BaseModel)

# Below these keys anything may stand (Helm values), empty values too: there they delete a default.
_FREE = frozenset({"set"})
_MOST_SHOWN = 10


def validate(model: type[Model], document: LocatedDocument) -> Model:
    """Check a document against a model.

    Raises:
        InvalidInput: the first problem in the file, with its line and key; ``why`` lists the further ones.
    """
    if document.data is None:
        raise document.error((), "is empty", hint=f"it needs {', '.join(_required(model))}")
    if not isinstance(document.data, Mapping):
        raise document.error((), "must be a mapping of keys to values")
    raise_problems(
        document, [(path, "is empty", "give it a value or remove the key") for path in _empty(document.data)]
    )
    try:
        # As JSON: strict there means no conversions, while lists may still become tuples.
        return model.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        problems = _problems(model, document, error)
    raise_problems(document, problems)
    raise AssertionError("a validation error without a problem")


def raise_problems(document: LocatedDocument, problems: list[tuple[KeyPath, str, str]]) -> None:
    """Raise the first of some problems (path, message, hint) by line; its ``why`` lists the others.

    Raises:
        InvalidInput: there is at least one.
    """
    if not problems:
        return
    problems = sorted(problems, key=lambda problem: document.line(problem[0]))
    (path, message, hint), *others = problems
    also = [f"also {document.describe(other, said)}" for other, said, _ in others[:_MOST_SHOWN]]
    if len(others) > _MOST_SHOWN:
        also.append(f"and {len(others) - _MOST_SHOWN} more")
    raise document.error(path, message, why="\n".join(also), hint=hint)


def _problems(
    model: type[BaseModel], document: LocatedDocument, error: ValidationError
) -> list[tuple[KeyPath, str, str]]:
    found: dict[KeyPath, tuple[str, str]] = {}
    schema = model.model_json_schema(by_alias=True)
    # A union gives one error per member: what was checked by hand says more than a type.
    for detail in sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "value_error"):
        path = _data_path(document.data, detail)
        found.setdefault(path, _say(detail, path, schema))
    return [(path, message, hint) for path, (message, hint) in found.items()]


def _data_path(data: Any, detail: ErrorDetails) -> KeyPath:
    """Where in the file an error is: pydantic's location without what names union members and key checks."""
    path: list[str | int] = []
    location = detail["loc"]
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(data, Mapping) and part in data:  # noqa: SIM114 - two types of index
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (is_last and detail["type"] == "missing"):
            continue
        path.append(part)
    return tuple(path)


def _say(detail: ErrorDetails, path: KeyPath, schema: dict[str, Any]) -> tuple[str, str]:
    """Message and hint."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "missing":
            return "is missing", ""
        case "extra_forbidden":
            known = _keys_at(schema, path[:-1])
            return f"is not a known key{near(str(path[-1]), known)}", f"known are {', '.join(known)}"
        case "value_error":
            return str(context["error"]), ""
        case "string_type" if isinstance(value, bool | int | float):
            return f"must be text, not {_kind(value)}", "write it in quotes"
        case "string_type":
            return f"must be text, not {_kind(value)}", ""
        case "tuple_type":
            return f"must be a list, not {_kind(value)}", "begin the item with a dash"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"must be a mapping, not {_kind(value)}", ""
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {_kind(value)}", ""
        case "literal_error":
            return f"must be {context['expected']}, not {value!r}"[:300], ""
        case "too_short":
            return "must not be empty", ""
        case _:
            message = detail["msg"]
            return message[0].lower() + message[1:], ""


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _empty(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if data is None:
        yield path
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if key not in _FREE:
                yield from _empty(value, (*path, key))
            elif value is None:
                yield (*path, key)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _empty(value, (*path, index))


def _keys_at(schema: dict[str, Any], path: KeyPath) -> list[str]:
    """The keys that a schema knows at a path."""
    places = [schema]
    for part in (None, *path):
        if part is not None:
            places = [below for place in places for below in _below(place, part)]
        places = [resolved for place in places for resolved in _resolved(place, schema)]
    return [key for place in places for key in place.get("properties", {})]


def _below(schema: dict[str, Any], part: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(part, int):
        yield schema.get("items", {})
    elif part in schema.get("properties", {}):
        yield schema["properties"][part]
    elif isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]
    else:
        yield from schema.get("patternProperties", {}).values()


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    yield schema
    for member in schema.get("anyOf", ()):
        yield from _resolved(member, root)


def _required(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if field.is_required()]


def as_input_error(error: InvalidInput, document: LocatedDocument, path: KeyPath) -> InvalidInput:
    """An error of a value, told as an error of the file that holds it."""
    return document.error(path, error.what, why=error.why, hint=error.hint)
