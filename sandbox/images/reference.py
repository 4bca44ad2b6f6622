"""Names of images, as the distribution project's grammar has them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sandbox.model.errors import InvalidInput

DEFAULT_REGISTRY = "docker.io"

_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Reference:
    """An image's name, complete: ``docker.io/library/redis:7`` for ``redis:7``.

    Attributes:
        registry: host, with port where there is one.
        path: repository inside the registry.
        tag: empty where none was given.
        digest: empty where none was given.
    """

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Read an image reference; a name without a registry is Docker Hub's, as container runtimes see it.

    Raises:
        InvalidInput: not an image reference.
    """
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    # The colon of a port is followed by a path.
    if not colon or "/" in tag:
        name, tag = rest, ""
    registry, slash, path = name.partition("/")
    if not slash or not _is_host(registry):
        registry, path = DEFAULT_REGISTRY, name
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    valid = (
        _PATH.fullmatch(path)
        and _HOST.fullmatch(registry)
        and len(path) <= _LONGEST_NAME
        and (bool(_TAG.fullmatch(tag)) if colon and name != rest else True)
        and (bool(_DIGEST.fullmatch(digest)) if at else True)
    )
    if not valid:
        raise InvalidInput(
            f"{text!r} is not an image reference", hint="such as ghcr.io/acme/web:1.2 (lower case; no scheme)"
        )
    return Reference(registry, path, tag, digest)


def same_repository(a: str, b: str) -> bool:
    """Whether two references name one repository, tags and digests aside; unreadable ones never do."""
    try:
        return parse_reference(a).repository == parse_reference(b).repository
    except InvalidInput:
        return False


def is_loopback(registry: str) -> bool:
    """Whether a registry's name is this machine's own."""
    host = _host_of(registry)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private_address(registry: str) -> bool:
    """Whether a registry is named by an address of a private network (RFC 1918, RFC 4193) or of this machine."""
    try:
        return ipaddress.ip_address(_host_of(registry)).is_private
    except ValueError:
        return _host_of(registry) == "localhost"


def _host_of(registry: str) -> str:
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def _is_host(component: str) -> bool:
    """The rule by which the first part is a host: a dot, a colon, ``localhost``, or capitals (paths have none)."""
    return "." in component or ":" in component or component == "localhost" or component != component.lower()
