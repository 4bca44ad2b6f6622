"""The JSON Schemas, their agreement with the loader, and the reference made of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.project.config import Project
from sandbox.project.platform import Platform
from sandbox.project.quotas import QuotaProfile, shipped_folder
from sandbox.project.schema import fill_in, platform_schema, project_schema, quota_schema, settings_schema
from sandbox.project.settings import Settings
from sandbox.project.validation import validate
from sandbox.project.yamlfile import parse_yaml
from tests.unit.test_project_load import FULL

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    "project": project_schema(),
    "quota": quota_schema(),
    "settings": settings_schema(),
    "platform": platform_schema(),
}
MODELS: dict[str, type[BaseModel]] = {
    "project": Project,
    "quota": QuotaProfile,
    "settings": Settings,
    "platform": Platform,
}
DOCUMENTS: dict[str, Any] = {
    "project": parse_yaml(FULL, shown_as="x").data,
    "quota": parse_yaml((shipped_folder() / "small.yaml").read_text(), shown_as="x").data,
    "settings": {"registry": "localhost:5000", "builder": "auto", "quotaFolders": ["x"], "buildArgs": {"A": "b"}},
    # Profiles are tested where they are read: the loader fills in what their keys say.
    "platform": {
        "clusterName": "shared",
        "registry": "localhost:5000",
        "images": {"pullSecret": "pull"},
        "captureStore": "s3://captures",
        "warnBefore": "15m",
        "limits": {"sandboxesPerOwner": 3},
    },
}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_is_a_schema(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("https://sandbox.dev/schemas/v1/")
    jsonschema.Draft202012Validator(schema).validate(DOCUMENTS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described_and_no_key_is_free(name: str) -> None:
    for node in nodes(SCHEMAS[name]):
        for key, field in node.get("properties", {}).items() if isinstance(node.get("properties"), dict) else ():
            described = (
                field.get("description") or SCHEMAS[name]["$defs"][field["$ref"].rpartition("/")[2]]["description"]
            )
            assert described, key
        if "properties" in node and node.get("type") == "object":
            assert node["additionalProperties"] is False


@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").rglob("sandbox.yaml"))], ids=str)
def test_the_examples_are_valid(path: Path) -> None:
    jsonschema.Draft202012Validator(SCHEMAS["project"]).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", sorted(shipped_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_profiles_are_valid(path: Path) -> None:
    jsonschema.Draft202012Validator(SCHEMAS["quota"]).validate(yaml.safe_load(path.read_text()))


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(data: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    data = copy.deepcopy(data)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[path[-1]] = value
    elif how == "remove":
        del parent[path[-1]]
    else:
        target = parent[path[-1]]
        assume(isinstance(target, dict))
        target[how] = value
    return data


VALUES = st.sampled_from(["text", "", "8h", "web", 5, -1, 1.5, True, [], {}, ["x"], {"a": "b"}, None, 70000, "Ä b"])


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_schema_and_loader_agree(name: str, data: st.DataObject) -> None:
    """One change at any place: what the loader takes, the schema takes; types and keys they refuse alike."""
    document = DOCUMENTS[name]
    path = data.draw(st.sampled_from([place for place in places(document) if place]))
    how = data.draw(st.sampled_from(["replace", "remove", "newKey", "path", "chart"]))
    mutated = changed(document, path, how, data.draw(VALUES))
    schema_takes = jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(mutated)
    loader_takes, has_structural_problem = loaded(MODELS[name], mutated)
    if loader_takes:
        assert schema_takes, mutated
    if has_structural_problem:
        assert not schema_takes, mutated


def loaded(model: type[BaseModel], data: Any) -> tuple[bool, bool]:
    """Whether the loader takes it; and whether it refuses it for types or keys rather than for what a text says."""
    import json

    text = json.dumps(data, ensure_ascii=False)
    try:
        validate(model, parse_yaml(text, shown_as="x"))
    except InvalidInput:
        pass
    else:
        return True, False
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        return False, any(detail["type"] != "value_error" for detail in error.errors())
    # Refused before the model saw it: an empty value.
    return False, True


def test_the_reference_in_the_documentation_is_made_of_the_schema() -> None:
    path = ROOT / "docs" / "configuration.md"
    text = path.read_text()
    assert fill_in(text) == text, "make it anew: python -m sandbox.project.schema docs/configuration.md"


def test_the_examples_of_the_documentation_are_valid() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    kinds = {"QuotaProfile": "quota", "Project": "project"}
    seen = []
    for block in blocks:
        document = parse_yaml(block, shown_as="docs/configuration.md")
        if isinstance(document.data, dict) and "apiVersion" in document.data:
            name = kinds[document.data.get("kind", "Project")]
            validate(MODELS[name], document)
            jsonschema.Draft202012Validator(SCHEMAS[name]).validate(document.data)
            seen.append(name)
        elif isinstance(document.data, dict) and "quotaFolders" in document.data:
            validate(Settings, document)
            seen.append("settings")
    assert set(seen) == {"project", "quota", "settings"}
