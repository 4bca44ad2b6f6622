"""Where repositories are: which addresses are allowed, and how they are shown."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from sandbox.model.errors import InvalidInput, Refused
from sandbox.source.command import PROTOCOLS

# `git@host:path`: a colon before the first slash, as git reads it.
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>[^/:@\s]+):(?P<path>[^:].*)")
_HINT = "allowed are https, ssh (also git@host:path), git, file and paths of this machine"


@dataclass(frozen=True)
class Address:
    """A repository's address.

    Attributes:
        shown: without credentials; also what records hold and what git is given.
        path: of a repository on this machine, else None.
        credentials: ``user:password`` of an https address; never shown, never an argument.
    """

    shown: str
    path: Path | None = None
    credentials: str = ""


def parse_address(text: str) -> Address:
    """Check an address and take its credentials apart.

    Raises:
        InvalidInput: not an address, or one of a form that git could mistake for an option.
        Refused: a transport that is not allowed (``ext::`` runs programs; http can be altered on the way).
    """
    if not text.strip() or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InvalidInput(f"{text!r} is not the address of a repository", hint=_HINT)
    if text.startswith("-"):
        raise InvalidInput(f"{text!r} is not the address of a repository: it begins with a dash", hint=_HINT)
    if re.match(r"[A-Za-z0-9+.-]*::", text):
        raise Refused(f"the transport of {text.partition('::')[0]}:: is not allowed", hint=_HINT)
    if "://" in text:
        return _parse_url(text)
    match = _SCP.fullmatch(text)
    if match and not _exists(text):
        if match["host"].startswith("-") or (match["user"] or "").startswith("-"):
            raise InvalidInput(f"{text!r} is not the address of a repository: its host begins with a dash")
        return Address(text)
    try:
        path = Path(os.path.normpath(Path.cwd() / Path(text).expanduser()))
    except RuntimeError:
        raise InvalidInput(f"{text!r} is in the home folder of nobody", hint=_HINT) from None
    return Address(str(path), path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        # Too long to be a path, for example.
        return False


def _parse_url(text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidInput("that is not the address of a repository", why=str(error), hint=_HINT) from None
    scheme = parts.scheme.lower()
    if scheme not in PROTOCOLS:
        raise Refused(f"the transport {scheme}:// is not allowed", hint=_HINT)
    if scheme == "file":
        path = Path(unquote(parts.path))
        if host not in ("", "localhost") or not path.is_absolute():
            raise InvalidInput(f"{text!r} is not a path of this machine", hint="write file:///the/path")
        return Address(f"file://{parts.path}", path)
    if not host or host.startswith("-") or unquote(parts.username or "").startswith("-"):
        raise InvalidInput("that is not the address of a repository: it has no host, or one that begins with a dash")
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    place = parts.netloc.rpartition("@")[2]
    if scheme == "ssh":
        shown = urlunsplit((scheme, f"{user}@{place}" if user else place, parts.path, "", ""))
        return Address(shown)
    credentials = f"{unquote(user)}:{unquote(password)}" if user else ""
    return Address(urlunsplit((scheme, place, parts.path, "", "")), credentials=credentials)


def public_address(text: str, relative_to: Path) -> str:
    """How a remote's address is shown and recorded: without credentials, paths absolute; never raises."""
    try:
        address = parse_address(text)
    except (InvalidInput, Refused):
        # A transport that we would not use, but that the user's own git may: shown, never used.
        return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text.partition("?")[0])
    if address.path is not None and "://" not in text:
        path = address.path if text.startswith("~") else relative_to / text
        return str(Path(os.path.normpath(path)))
    return address.shown


def absolute_address(text: str, base: str) -> str:
    """An address relative to another repository's (``../orders.git``), as submodules have it; others stay.

    Raises:
        InvalidInput: it climbs above the other's root.
    """
    if not text.startswith(("./", "../")) and text not in (".", ".."):
        return text
    scp = _SCP.fullmatch(base) if "://" not in base and not base.startswith("/") else None
    if scp:
        head, path = base[: scp.start("path")], "/" + scp["path"].lstrip("/")
        is_rooted = scp["path"].startswith("/")
    elif "://" in base:
        parts = urlsplit(base)
        head, path, is_rooted = f"{parts.scheme}://{parts.netloc}", parts.path, True
    else:
        head, path, is_rooted = "", base, True
    steps = text.split("/")
    if sum(1 for step in steps if step == "..") > len([part for part in path.split("/") if part]):
        raise InvalidInput(f"{text!r} is above the root of {base}")
    joined = posixpath.normpath(posixpath.join(path, text))
    return head + (joined if is_rooted else joined.lstrip("/"))


def is_local(address: str) -> bool:
    """Whether an address (as :func:`parse_address` shows it) is a path of this machine."""
    return address.startswith("file://") or ("://" not in address and not _SCP.fullmatch(address))


def same_repository(one: str, other: str) -> bool:
    """Whether two addresses mean one repository: https and ssh, with and without ``.git``, are the same."""
    return bool(one) and _plain(one) == _plain(other)


def _plain(address: str) -> str:
    text = re.sub(r"^[a-z][a-z0-9+.-]*://", "", address.lower())
    host, colon, path = text.partition(":")
    if colon and "/" not in host and not re.match(r"\d+(/|$)", path):
        # git@host:path, as scp writes it.
        text = f"{host}/{path}"
    head, slash, rest = text.partition("/")
    text = re.sub(r":\d+$", "", head.rpartition("@")[2]) + slash + rest
    return text.rstrip("/").removesuffix(".git").rstrip("/")
