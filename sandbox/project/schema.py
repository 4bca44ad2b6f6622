"""JSON Schemas of the files that people write, for editors, and the field tables of the documentation."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from sandbox.project.config import ConfigModel, Project
from sandbox.project.platform import Platform
from sandbox.project.quotas import QuotaProfile
from sandbox.project.settings import Settings
from sandbox.project.variables import DESCRIPTIONS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def project_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``sandbox.yaml``.

    What it accepts, the loader may still refuse (paths, cycles, durations of zero); what the loader accepts,
    it accepts.
    """
    return _schema(Project, "https://sandbox.dev/schemas/v1/project.json", "sandbox.yaml")


def quota_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a quota profile."""
    return _schema(QuotaProfile, "https://sandbox.dev/schemas/v1/quota-profile.json", "quota profile of sandbox")


def settings_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the user's settings."""
    return _schema(Settings, "https://sandbox.dev/schemas/v1/settings.json", "user settings of sandbox")


def platform_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the platform configuration."""
    schema = _schema(Platform, "https://sandbox.dev/schemas/v1/platform.json", "platform configuration of sandbox")
    # A profile's key says the rest.
    schema["$defs"]["QuotaProfile"]["required"] = ["resourceQuota"]
    return schema


def _schema(model: type[BaseModel], identifier: str, title: str) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    _describe(schema, model)
    for name, definition in schema.get("$defs", {}).items():
        _describe(definition, _models()[name])
    return {"$schema": DIALECT, "$id": identifier, **_tidied(schema), "title": title}


@functools.cache
def _models() -> dict[str, type[BaseModel]]:
    """All models of files, by the name that they have in a schema."""
    found: dict[str, type[BaseModel]] = {}
    todo: list[type[BaseModel]] = [ConfigModel]
    while todo:
        model = todo.pop()
        found[model.__name__] = model
        todo += model.__subclasses__()
    return found


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the text below each field of a model into its schema.

    pydantic can do this while it makes the models; then each start of the command would read all sources.
    """
    texts: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        if ConfigModel in ancestor.__mro__:
            texts |= _field_texts(ancestor)
    for name, field in model.model_fields.items():
        schema.get("properties", {}).get(field.alias or name, {}).setdefault("description", texts.get(name, ""))


@functools.cache
def _field_texts(model: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _tidied(node: Any) -> Any:
    """A schema as people write files: no nulls (an empty value is refused), no titles made of names."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in node.items() if not (key == "default" and value is None)}
    members = [member for member in node.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) == 1:
        node = {**members[0], **{key: value for key, value in node.items() if key != "anyOf"}}
    elif members:
        node["anyOf"] = members
    if isinstance(node.get("title"), str):
        del node["title"]
    tidied = {key: _tidied(value) for key, value in node.items()}
    if isinstance(tidied.get("description"), str):
        tidied["description"] = _plain(tidied["description"])
    # Keys that are checked by a pattern: all of them must match it.
    patterns = tidied.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) == 1:
        ((pattern, values),) = patterns.items()
        tidied["propertyNames"] = {"pattern": pattern}
        tidied["additionalProperties"] = values
        del tidied["patternProperties"]
    return tidied


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def project_tables() -> str:
    """The reference of ``sandbox.yaml`` as Markdown: a table for each kind of mapping in it."""
    return _tables(project_schema())


def quota_tables() -> str:
    """The reference of quota profiles as Markdown."""
    return _tables(quota_schema())


def settings_tables() -> str:
    """The reference of the user's settings as Markdown."""
    return _tables(settings_schema())


def platform_tables() -> str:
    """The reference of the platform configuration as Markdown."""
    return _tables(platform_schema())


def variable_table() -> str:
    """The ``${SANDBOX_…}`` variables as Markdown."""
    rows = [f"| `${{{name}}}` | {text} |" for name, text in DESCRIPTIONS.items()]
    return "\n".join(["| variable | stands for |", "| --- | --- |", *rows])


def _tables(schema: dict[str, Any]) -> str:
    parts = [_table(schema, schema)]
    for place, name in _mappings(schema, schema, ""):
        definition = schema["$defs"][name]
        parts.append(f"### `{place}`\n\n{definition.get('description', '')}\n\n{_table(definition, schema)}")
    return "\n\n".join(parts)


def _table(definition: dict[str, Any], schema: dict[str, Any]) -> str:
    required = definition.get("required", [])
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in definition["properties"].items():
        default = "**required**" if key in required else _default(field)
        rows.append(f"| `{key}` | {_type(field)} | {default} | {_meaning(field, schema)} |")
    return "\n".join(rows)


def _meaning(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Its description, else that of what it holds: pydantic leaves the former out where both are the same."""
    if "description" not in field and "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return str(field.get("description", ""))


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    return f"`{default}`" if default not in (None, "", [], {}) else ""


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(member) for member in field["anyOf"]))
    if "$ref" in field or "properties" in field:
        return "mapping"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"mapping of names to {_type(values)}" if isinstance(values, dict) else "mapping of anything"
    name = str(field.get("type", ""))
    return {"string": "text", "integer": "number", "boolean": "true or false"}.get(name, name)


def _mappings(node: dict[str, Any], schema: dict[str, Any], place: str) -> Iterator[tuple[str, str]]:
    """Every mapping that has a table of its own, with where it stands (``services.NAME.chart``), from the top."""
    for key, field in node.get("properties", {}).items():
        for name, suffix in _references(field):
            here = f"{place}{key}{suffix}"
            yield here, name
            yield from _mappings(schema["$defs"][name], schema, f"{here}.")


def _references(field: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Definitions that a field leads to, and what comes after its key on the way there."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], ""
    for name, suffix in _references(field["items"]) if isinstance(field.get("items"), dict) else ():
        yield name, f"[]{suffix}"
    values = field.get("additionalProperties")
    for name, suffix in _references(values) if isinstance(values, dict) else ():
        yield name, f".NAME{suffix}"


def fill_in(text: str) -> str:
    """A document with its generated parts made anew.

    They stand between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
    """
    makers = {
        "project": project_tables,
        "quota": quota_tables,
        "settings": settings_tables,
        "platform": platform_tables,
        "variables": variable_table,
    }
    return re.sub(
        r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{makers[match[2]]()}\n\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def _main(paths: list[str]) -> None:
    """Make the generated parts of documents anew: ``python -m sandbox.project.schema docs/configuration.md``."""
    for path in map(Path, paths):
        path.write_text(fill_in(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
