from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput
from sandbox.model.quantities import format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        (2, "2"),
        ("1.5Gi", str(1.5 * 2**30)),
        ("128974848", "128974848"),
        ("129e6", "129000000"),
        ("129M", "129000000"),
        ("100u", "0.0001"),
        (".5", "0.5"),
    ],
)
def test_reads_quantities(text: str | int, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "two", "1 Gi", "1gi", "1e", "Gi", "٣"])
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_quantity(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_millis_survive(millis: int) -> None:
    value = Decimal(millis) / 1000
    assert parse_quantity(format_quantity(value)) == value


def test_memory_is_readable() -> None:
    assert format_quantity(Decimal(3 * 2**29), memory=True) == "1.5Gi"
    assert format_quantity(Decimal(512), memory=True) == "512"
