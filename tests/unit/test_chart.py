"""What the chart says is what the tool means: profiles, schema, and numbers that both calculate."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sandbox.project.platform import parse_platform
from sandbox.project.quotas import load_profiles, shipped_folder

CHART = Path(__file__).parents[2] / "charts" / "sandbox"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def test_its_generated_parts_are_of_today() -> None:
    generate = runpy.run_path(str(CHART.parent / "generate.py"))

    assert (CHART / "values.yaml").read_text() == generate["values"](), "run `make chart`"
    assert (CHART / "values.schema.json").read_text() == generate["values_schema"](), "run `make chart`"


def test_its_profiles_are_the_shipped_ones() -> None:
    text = yaml.safe_dump({"profiles": VALUES["profiles"]})

    assert dict(parse_platform(text).profiles) == load_profiles([shipped_folder()])


def test_its_defaults_are_allowed_by_its_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


@pytest.mark.parametrize(
    "bad",
    [
        {"warnBefor": "30m"},
        {"warnBefore": "soon"},
        {"warnBefore": 30},
        {"limits": {"sandboxesPerOwner": 0}},
        {"profiles": {}},
        {"profiles": {"tiny": {}}},
        {"profiles": {"tiny": {"resourceQuota": {"pods": "many"}}}},
        {"profiles": {"tiny": {"resourceQuota": {"pods": 3}, "podSecurity": "lax"}}},
        {"profiles": {"tiny": {"resourceQuota": {"pods": 3}, "maxPods": 3}}},
        {"admission": {"enable": True}},
        {"admission": {"enabled": "yes"}},
        {"admission": {"exempt": {"groups": [""]}}},
        {"admission": {"reservedNames": "default"}},
        {"access": {"developerGroups": "sandbox-developers"}},
        {"cleanup": {"schedule": "often"}},
        {"cleanup": {"customResources": ["postgresqls.acid.zalan.do"]}},
        {"cleanup": {"customResources": [{"group": "acid.zalan.do", "resource": "*"}]}},
        {"cleanup": {"customResources": [{"group": "", "resource": "secrets"}]}},
        {"cleanup": {"customResources": [{"group": "acid.zalan.do"}]}},
        {"cleanup": {"image": {"digest": "latest"}}},
        {"cleanup": {"image": {"pullPolicy": "Sometimes"}}},
    ],
    ids=str,
)
def test_its_schema_refuses(bad: dict[str, Any]) -> None:
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(bad)


def test_no_pattern_of_its_schema_looks_ahead() -> None:
    """Helm checks patterns with Go's regular expressions."""
    assert "(?=" not in (CHART / "values.schema.json").read_text()


def test_its_readme_names_every_value() -> None:
    text = (CHART / "README.md").read_text()
    keys = [f"{key}.{inner}" if isinstance(value, dict) and key in _GROUPS else key for key, value in VALUES.items()
            for inner in (value if isinstance(value, dict) and key in _GROUPS else ("",))]  # fmt: skip

    assert len(keys) > 20
    # Several of one group may share a row, the later ones without their group.
    assert [key for key in keys if f"`{key}" not in text and f"`{key.rpartition('.')[2]}`" not in text] == []


_GROUPS = ("images", "access", "admission", "cleanup")
