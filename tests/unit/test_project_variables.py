"""`${SANDBOX_…}`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput
from sandbox.project.variables import NAMES, has_variable, substitute, unknown_variables

VARIABLES = {"SANDBOX_NAME": "web-main", "SANDBOX_ENV": "dev"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${SANDBOX_NAME}.example", "web-main.example"),
        ("a-${SANDBOX_ENV}-${SANDBOX_NAME}", "a-dev-web-main"),
        ("$${SANDBOX_NAME}", "${SANDBOX_NAME}"),
        ("${OTHER} $HOME ${sandbox_name}", "${OTHER} $HOME ${sandbox_name}"),
        ({"h": ["${SANDBOX_ENV}", 1, None, True]}, {"h": ["dev", 1, None, True]}),
        ({"${SANDBOX_ENV}": 1}, {"${SANDBOX_ENV}": 1}),
        (("${SANDBOX_ENV}",), ("dev",)),
    ],
)
def test_substitution(value: object, expected: object) -> None:
    assert substitute(value, VARIABLES, "x") == expected


def test_unknown_and_missing_ones_are_refused_where_they_are() -> None:
    with pytest.raises(InvalidInput) as raised:
        substitute({"a": ["${SANDBOX_NAMES}"]}, VARIABLES, "values")
    assert raised.value.what.startswith("values.a[0]: ${SANDBOX_NAMES} does not exist; did you mean 'SANDBOX_NAME'")
    with pytest.raises(InvalidInput, match="has no value here"):
        substitute("${SANDBOX_COMMIT}", VARIABLES, "x")


def test_replaced_text_is_not_replaced_again() -> None:
    assert substitute("${SANDBOX_NAME}", {"SANDBOX_NAME": "${SANDBOX_ENV}"}, "x") == "${SANDBOX_ENV}"


def test_finding_unknown_ones() -> None:
    value = {"a": "${SANDBOX_X} ${SANDBOX_ENV}", "b": [{"c": "${SANDBOX_}"}], "d": "$${SANDBOX_X} ${Y}"}
    assert list(unknown_variables(value)) == [(("a",), "SANDBOX_X"), (("b", 0, "c"), "SANDBOX_")]
    assert has_variable("x/${SANDBOX_ENV}.yaml")
    assert not has_variable("$${SANDBOX_ENV} ${OTHER}")


@given(st.recursive(st.text("${}SANDBOX_E", max_size=20), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_what_has_no_unknown_variable_can_be_substituted(value: object) -> None:
    everything = dict.fromkeys(NAMES, "x")
    if list(unknown_variables(value)):
        with pytest.raises(InvalidInput):
            substitute(value, everything, "x")
    else:
        substitute(value, everything, "x")
