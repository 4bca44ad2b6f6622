"""The ConfigMap that says what may be known of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.summary import Outside, Summary, config_map, is_lock, read_summary

WORD = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}[a-z0-9]", fullmatch=True)
OUTSIDE = st.builds(Outside, group=WORD | st.just(""), version=WORD, kind=WORD, name=WORD, uid=WORD | st.just(""))


@given(
    st.builds(
        Summary,
        namespace_uid=WORD,
        number=st.integers(0, 10**6),
        outcome=st.sampled_from(["deployed", "failed"]),
        lock=st.text(max_size=100),
        outside=st.lists(OUTSIDE, max_size=5).map(tuple),
    )
)
def test_a_summary_comes_back_as_it_was(summary: Summary) -> None:
    assert read_summary(json.loads(json.dumps(config_map(summary, "shop")))) == summary


def test_a_lock_that_is_too_large_is_left_out() -> None:
    made = config_map(Summary("u", lock="ä" * 500_000), "shop")

    assert made["data"]["lock"] == ""
    assert len(json.dumps(made)) < 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"apiVersion": "sandbox.dev/v1", "kind": "Lock", "project": "shop"}', True),
        # Of a newer client: what it says is its business.
        ('{"apiVersion": "sandbox.dev/v2", "kind": "Lock", "more": {}}', True),
        ('{"apiVersion": "example.com/v1", "kind": "Lock"}', False),
        ('{"apiVersion": "sandbox.dev/v1", "kind": "Record"}', False),
        ('{"apiVersion": null, "kind": "Lock"}', False),
        ('["Lock"]', False),
        ("{}", False),
        ("kind: Lock", False),
        ("[" * 100_000, False),
    ],
)
def test_what_says_that_it_is_a_lock(text: str, expected: bool) -> None:
    assert is_lock(text) is expected


ITEM = {"group": "", "version": "v1", "kind": "Node", "name": "n", "uid": "u"}


@pytest.mark.parametrize(
    "item",
    [
        {**ITEM, "name": "../nodes/x"},
        {**ITEM, "name": ".."},
        {**ITEM, "name": ""},
        {**ITEM, "kind": ""},
        {**ITEM, "version": ".."},
        {**ITEM, "group": ".."},
        {**ITEM, "group": "a/b"},
        {**ITEM, "name": "a b"},
        {**ITEM, "name": "x" * 300},
        {**ITEM, "uid": 7},
        {**ITEM, "command": "rm"},
        {"name": "n"},
        "node",
        None,
    ],
)
def test_what_an_owner_wrote_into_it_leads_nowhere_else(item: Any) -> None:
    found = read_summary({"data": {"namespaceUID": "u", "outside": json.dumps([item, ITEM])}})

    assert found.outside == (Outside("", "v1", "Node", "n", "u"),)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"number": "x" * 10_000},
        {"number": "9" * 5000},
        {"number": "१"},
        {"outside": "["},
        {"outside": "[" * 100_000},
        {"outside": "{}"},
        {"outside": "7"},
        {"namespaceUID": None, "lock": 3},
    ],
)
def test_what_cannot_be_read_is_left_out(data: Any) -> None:
    assert read_summary({"data": data}) == Summary("")


@given(st.dictionaries(st.sampled_from(["namespaceUID", "number", "outcome", "lock", "outside"]), st.text()))
def test_nothing_in_it_makes_reading_fail(data: dict[str, str]) -> None:
    assert isinstance(read_summary({"data": data}), Summary)
