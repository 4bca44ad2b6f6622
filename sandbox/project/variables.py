"""``${SANDBOX_…}`` in the values, paths and commands of a project."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sandbox.model.errors import InvalidInput
from sandbox.project.yamlfile import KeyPath, near

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "SANDBOX_NAME": "the sandbox's name",
    "SANDBOX_NAMESPACE": "its namespace",
    "SANDBOX_HOST": "a DNS name that no other sandbox has, for Ingress hosts: its name and the settings' `hostDomain`",
    "SANDBOX_ENV": "the environment whose values are used (`--env`)",
    "SANDBOX_COMMIT": "the commit's full SHA",
    "SANDBOX_OWNER": "the owner's name as a label",
}
NAMES: Final = frozenset(DESCRIPTIONS)


def variables(*, name: str, namespace: str, host_domain: str, env: str, commit: str, owner: str) -> dict[str, str]:
    """The value of each, for one service.

    Args:
        host_domain: what hosts end with.
    """
    return {
        "SANDBOX_NAME": name,
        "SANDBOX_NAMESPACE": namespace,
        "SANDBOX_HOST": f"{name}.{host_domain}",
        "SANDBOX_ENV": env,
        "SANDBOX_COMMIT": commit,
        "SANDBOX_OWNER": owner,
    }


# `$${` stands for a literal `${`.
_REFERENCE = re.compile(r"\$\$\{|\$\{(SANDBOX_[^}]*)\}")


def substitute(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """Replace ``${SANDBOX_…}`` in all text of nested data (keys stay); any other ``${…}`` is left alone.

    Args:
        where: what the value is, for the message.

    Raises:
        InvalidInput: a variable that does not exist, or has no value here.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _replacement(match, variables, where), value)
    if isinstance(value, Mapping):
        return {key: substitute(item, variables, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [substitute(item, variables, f"{where}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def unknown_variables(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """The key path and name of every ``${SANDBOX_…}`` in nested data that does not exist."""
    if isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            if match[1] is not None and match[1] not in NAMES:
                yield path, match[1]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from unknown_variables(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from unknown_variables(item, (*path, index))


def has_variable(text: str) -> bool:
    """Whether the text holds a ``${SANDBOX_…}`` that would be replaced."""
    return any(match[1] is not None for match in _REFERENCE.finditer(text))


def say_unknown(name: str) -> str:
    """The message for a variable that does not exist."""
    return f"${{{name}}} does not exist{near(name, NAMES)}"


def _replacement(match: re.Match[str], variables: Mapping[str, str], where: str) -> str:
    name = match[1]
    if name is None:
        return "${"
    if name in variables:
        return variables[name]
    if name in NAMES:
        raise InvalidInput(f"{where}: ${{{name}}} has no value here")
    raise InvalidInput(f"{where}: {say_unknown(name)}", hint=f"known are {', '.join(sorted(NAMES))}")
