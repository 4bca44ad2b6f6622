"""Manifests are read as Kubernetes reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster.yamlstream import json_for_yaml, manifests_of
from sandbox.model.errors import InvalidInput


def value(text: str) -> Any:
    [manifest] = manifests_of(f"apiVersion: v1\nkind: X\nv: {text}\n", shown_as="x")
    return manifest["v"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("True", True),
        ("", None),
        ("~", None),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("-12", -12),
        ("0", 0),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'yes'", "yes"),
        ('"010"', "010"),
        ("1Gi", "1Gi"),
        ("500m", "500m"),
        ("08", 8.0),
        ("!!timestamp 2024-01-31", "2024-01-31"),
    ],
)
def test_plain_scalars(text: str, expected: Any) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_lists_are_taken_apart_and_empty_documents_left_out() -> None:
    text = "---\n# only a comment\n---\n{}\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n"
    assert [m["kind"] for m in manifests_of(text, shown_as="x")] == ["A"]


@pytest.mark.parametrize("text", ["a: [", "!!python/object:os.system {}", "- 1", "kind: A", "text", "apiVersion: v1"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="the chart x"):
        manifests_of(text, shown_as="the chart x")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_json_is_read_as_it_is(data: Any) -> None:
    manifest = {"apiVersion": "v1", "kind": "X", "data": data}
    assert json.loads(json_for_yaml(manifest)) == manifest
    assert manifests_of(json_for_yaml(manifest), shown_as="x") == [manifest]


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + '{"a":' * 100_000, "- " * 100_000 + "a"])
def test_nesting_without_end_is_refused_before_it_takes_the_stack(text: str) -> None:
    with pytest.raises(InvalidInput, match="nested more than"):
        manifests_of(text, shown_as="the chart x")


def test_long_lines_and_many_brackets_are_no_nesting() -> None:
    text = "apiVersion: v1\nkind: A\ndata: [" + "{a: []}, " * 2_000 + "]\n"
    assert len(manifests_of(text, shown_as="x")[0]["data"]) == 2_000
