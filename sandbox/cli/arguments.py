"""Reading options that hold several things in one text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandbox.model.errors import InvalidInput

# `SANDBOX_BUILD_ARG_BASE_IMAGE=…` is `--build-arg BASE_IMAGE=…` for every command of a shell or CI job.
_VARIABLE = "SANDBOX_BUILD_ARG_"


def comma_separated(texts: Iterable[str]) -> tuple[str, ...]:
    """``--only a,b --only c`` → a, b, c."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def build_arguments(given: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments of the environment, then those of the command line, which win.

    Raises:
        InvalidInput: one has no ``=`` or no name.
    """
    arguments = {n.removeprefix(_VARIABLE): v for n, v in environment.items() if n.startswith(_VARIABLE)}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput(f"--build-arg {text!r} is not of the form NAME=VALUE")
        arguments[name] = value
    return {name: value for name, value in arguments.items() if name}
