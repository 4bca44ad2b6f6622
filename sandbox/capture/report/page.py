"""One self-contained page of a capture: no network, no script but our own, everything of the capture as text.

What a capture holds was written by whatever ran in the cluster, log lines above all. Jinja2 escapes every value, what
does not print is written out, and the page's Content-Security-Policy
(https://www.w3.org/TR/CSP3/) allows our own style and script by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from sandbox.capture.bundle import Bundle, Entry
from sandbox.capture.model import Document, Service
from sandbox.capture.report.contents import Contents, read_contents
from sandbox.capture.report.picture import Picture, draw
from sandbox.model.durations import to_rfc3339
from sandbox.model.errors import InvalidInput
from sandbox.model.quantities import parse_quantity

if TYPE_CHECKING:
    from jinja2 import Template

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Control characters, what turns the direction of text round, and what takes no room: seen, they deceive nobody.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True)
class Used:
    """How much of one resource of a quota is used; ``share`` from 0 to 1."""

    resource: str
    used: str
    hard: str
    share: float


@dataclass(frozen=True)
class Data:
    """One fixture, as people read it."""

    name: str
    kind: str
    status: str
    size: int
    why: str


async def page(bundle: Bundle, *, commands: tuple[tuple[str, str], ...] = ()) -> str:
    """The page as HTML.

    Args:
        commands: what to do next: what it is for, and the command.
    """
    return render(bundle.entry, bundle.document, await read_contents(bundle), commands=commands)


def render(entry: Entry, document: Document, contents: Contents, *, commands: tuple[tuple[str, str], ...] = ()) -> str:
    """The page of what was read. Pure."""
    style, script = _asset("page.css"), _asset("page.js")
    picture: Picture = draw(contents.timeline)
    return _template().render(
        entry=entry,
        document=document,
        contents=contents,
        picture=picture,
        quota=list(_quota(document)),
        data=list(_data(document)),
        images=[(service, image) for service in document.services for image in service.images],
        changed=[service for service in document.services if service.changed],
        version=_version,
        commands=commands,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sandbox.capture.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    )
    environment.filters.update(utc=to_rfc3339, size=_size, command=shlex.join)
    return environment.get_template("page.html.j2")


def visible(text: str) -> str:
    """Text without terminal colours, and with everything that one cannot see written out."""
    if type(text) is not str:
        # Markup: what is safe already.
        return text
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m[0]):04x}", _COLOURS.sub("", text.replace("\r\n", "\n")))


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (resources.files("sandbox.capture.report") / "page" / name).read_text(encoding="utf-8")


def _quota(document: Document) -> Iterator[Used]:
    for line in document.quota:
        try:
            hard, used = parse_quantity(line.hard), parse_quantity(line.used)
        except InvalidInput:
            # Somebody else's bundle: shown as it is, without a bar.
            yield Used(line.resource, line.used, line.hard, 0.0)
            continue
        if hard or used:
            yield Used(line.resource, line.used, line.hard, min(float(used / hard), 1.0) if hard else 1.0)


def _data(document: Document) -> Iterator[Data]:
    sizes = {item.name: item.size for item in document.items}
    for fixture in document.fixtures:
        name = str(fixture.get("name") or "")
        yield Data(
            name=name,
            kind=f"{fixture.get('kind') or ''} {fixture.get('server_version') or ''}".strip(),
            status=str(fixture.get("status") or ""),
            size=sizes.get(f"fixtures/{name}", 0),
            why=str(fixture.get("why") or ""),
        )


def _version(service: Service) -> str:
    chart = f"{service.chart}-{service.chart_version} r{service.revision}" if service.chart else ""
    return " ".join(filter(None, (service.commit[:12], chart)))


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
