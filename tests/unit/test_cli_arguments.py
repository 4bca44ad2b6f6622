from __future__ import annotations

import pytest

from sandbox.cli.arguments import build_arguments, comma_separated
from sandbox.model.errors import InvalidInput


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ()),
        (["web"], ("web",)),
        (["web,orders", "redis"], ("web", "orders", "redis")),
        ([" web , ,orders,"], ("web", "orders")),
    ],
)
def test_names_between_commas_and_in_several_options(texts: list[str], expected: tuple[str, ...]) -> None:
    assert comma_separated(texts) == expected


def test_build_arguments_of_the_command_line_win_over_those_of_the_environment() -> None:
    environment = {
        "SANDBOX_BUILD_ARG_BASE": "debian",
        "SANDBOX_BUILD_ARG_A": "1",
        "SANDBOX_BUILD_ARG_": "x",
        "PATH": "/",
    }

    arguments = build_arguments(["BASE=alpine", "URL=a=b", "EMPTY="], environment)

    assert arguments == {"BASE": "alpine", "A": "1", "URL": "a=b", "EMPTY": ""}


@pytest.mark.parametrize("text", ["BASE", "=x", ""])
def test_a_build_argument_needs_a_name_and_an_equals_sign(text: str) -> None:
    with pytest.raises(InvalidInput, match="NAME=VALUE"):
        build_arguments([text], {})
