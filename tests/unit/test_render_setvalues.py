"""``--set``: what Helm's strvals makes of the same text (compared with Helm itself in the end-to-end tests)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput
from sandbox.render.setvalues import given_to, parse_set, refuse_set_for_others, values_for

# Also read by the test that asks Helm.
TABLE: list[tuple[str, dict[str, Any]]] = [
    ("a=1", {"a": 1}),
    ("a=1,b=x", {"a": 1, "b": "x"}),
    ("a.b.c=true", {"a": {"b": {"c": True}}}),
    ("a=TRUE", {"a": True}),
    ("a=False", {"a": False}),
    ("a=null", {"a": None}),
    ("a=Null", {"a": None}),
    ("a=", {"a": ""}),
    ("a=,b=1", {"a": "", "b": 1}),
    ("a=01", {"a": "01"}),
    ("a=0", {"a": 0}),
    ("a=-5", {"a": -5}),
    ("a=+5", {"a": 5}),
    ("a=1.5", {"a": "1.5"}),
    ("a=1e3", {"a": "1e3"}),
    ("a=0x10", {"a": "0x10"}),
    ("a=1_000", {"a": "1_000"}),
    ("a=9223372036854775807", {"a": 9223372036854775807}),
    ("a=9223372036854775808", {"a": "9223372036854775808"}),
    ("l={x,y}", {"l": ["x", "y"]}),
    ("l={1,true,null}", {"l": [1, True, None]}),
    ("l={}", {"l": [""]}),
    ("l={a,}", {"l": ["a", ""]}),
    ("l={x},b=2", {"l": ["x"], "b": 2}),
    ("l[0]=x", {"l": ["x"]}),
    ("l[1].n=2", {"l": [None, {"n": 2}]}),
    ("l[0][1]=z", {"l": [[None, "z"]]}),
    ("l[1]=b,l[0]=c", {"l": ["c", "b"]}),
    ("l[0].b={1}", {"l": [{"b": [1]}]}),
    (r"a=x\,y", {"a": "x,y"}),
    (r"a\.b=1", {"a.b": 1}),
    (r"a.b\.c/d=x", {"a": {"b.c/d": "x"}}),
    ("a=b=c", {"a": "b=c"}),
    ("a= b", {"a": " b"}),
    ("a.b=1,a.c=2", {"a": {"b": 1, "c": 2}}),
    ("a.b=1,a=2", {"a": 2}),
    ("a=x,", {"a": "x"}),
    ('a="x"', {"a": '"x"'}),
    (r"a=\{x", {"a": "{x"}),
    ("a=x]y[z", {"a": "x]y[z"}),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_reads_as_helm_does(text: str, expected: dict[str, Any]) -> None:
    assert parse_set(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a", "=1", ".a=1", "a..b=1", "a.=1", "a[x]=1", "a[-1]=1", "a[70000]=1", "a[0]x=1", "a[0]", "a={x", "a={x}y",
     "a=1,a.b=2", "a=1,a[0]=2", "a=1,,b=2", ".".join("a" * 40) + "=1"],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidInput, match="--set"):
        parse_set(text)


def test_later_ones_win_and_what_was_there_stays_as_it_was() -> None:
    before = {"a": {"b": 1, "l": [1, 2]}}
    assert parse_set("a.b=2,a.l[0]=9", before) == {"a": {"b": 2, "l": [9, 2]}}
    assert before == {"a": {"b": 1, "l": [1, 2]}}


def test_the_first_word_may_name_the_service() -> None:
    arguments = ("web.replicas=2", "orders.replicas=3", "debug=true", "web.image.pullPolicy=Always")
    services = ("web", "orders")
    assert values_for("web", arguments, services) == {"replicas": 2, "debug": True, "image": {"pullPolicy": "Always"}}
    assert values_for("orders", arguments, services) == {"replicas": 3, "debug": True}


def test_a_service_without_values_is_refused() -> None:
    with pytest.raises(InvalidInput, match="redis is not a chart"):
        refuse_set_for_others(["redis.a=1"], ("web", "redis"), ("web",))
    with pytest.raises(InvalidInput, match="no service here is a chart"):
        refuse_set_for_others(["a=1"], ("redis",), ())
    refuse_set_for_others(["web.a=1", "a=1"], ("web", "redis"), ("web",))


@given(st.text(alphabet="ab=.,[]{}\\01-", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert isinstance(parse_set(text), dict)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ()),
        (("a.b=secret,c=secret", "l[0].x=secret"), ("--set a.b", "--set c", "--set l")),
        (("web.a=secret", "orders.b=secret", "e={}"), ("--set a", "--set e")),
        (("a=null", "b={x,y}"), ("--set a", "--set b")),
    ],
)
def test_what_the_command_line_gives_is_named_without_its_values(
    arguments: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert given_to("web", (), arguments, ("web", "orders")) == found
    assert given_to("web", (Path("deep/extra.yaml"),), arguments, ("web", "orders")) == ("-f extra.yaml", *found)
    assert given_to("web", (), arguments, ("web", "orders"), {"z": {"y": "secret"}}) == ("--set z.y", *found)
