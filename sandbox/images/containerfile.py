"""What a Containerfile says, as far as it must be known before it is built.

The grammar is BuildKit's Dockerfile reference. It is read, never run: the builder has the last word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import InvalidInput, Refused

NAMES = ("Containerfile", "Dockerfile")

_HEREDOC = re.compile(r"<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?([-+])([^}]*))?\}|(\w+))")
_MOUNT = re.compile(r"--mount[=\s]\s*(\S*)", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, the rest of it on one line, and the line where it starts."""

    name: str
    rest: str
    line: int


def find_containerfile(context: Path, named: str | None) -> Path:
    """The Containerfile of a build context: the named one, else ``Containerfile``, else ``Dockerfile``.

    Raises:
        InvalidInput: there is none, or it lies outside the context.
    """
    candidates = (named,) if named else NAMES
    for name in candidates:
        path = context / name
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(context.resolve()):
            raise InvalidInput(f"{name} lies outside its build context", why=f"it is {path.resolve()}")
        return path
    raise InvalidInput(
        f"no {' or '.join(candidates)} in the build context {context.name}/",
        hint="`build.containerfile` names it, relative to `build.context`",
    )


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Containerfile, continuation lines joined; what is in a heredoc is none."""
    escape = _escape_character(text)
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if _is_comment(line):
            continue
        logical = line
        while logical.rstrip().endswith(escape):
            logical = logical.rstrip()[: -len(escape)]
            following = next((item for _, item in lines if not _is_comment(item)), None)
            if following is None:
                break
            logical += following
        name, _, rest = logical.strip().partition(" ")
        if "\t" in name:
            name, _, rest = logical.strip().partition("\t")
        name = name.upper()
        if name in ("RUN", "COPY", "ADD"):
            for _, word in _HEREDOC.findall(rest):
                next((None for _, body in lines if body.strip() == word), None)
        yield Instruction(name, rest.strip(), number)


def declared_args(text: str) -> frozenset[str]:
    """The names that ``ARG`` declares anywhere: only these can be set from outside."""
    return frozenset(name for item in instructions(text) if item.name == "ARG" for name, _ in _arg_pairs(item.rest))


def applicable_args(text: str, args: Mapping[str, str]) -> dict[str, str]:
    """Those of the given build arguments that the Containerfile declares."""
    declared = declared_args(text)
    return {name: value for name, value in args.items() if name in declared}


def base_images(text: str, args: Mapping[str, str]) -> tuple[str, ...]:
    """The images that a build starts from or copies from, variables filled in; its own stages and scratch are none."""
    variables: dict[str, str] = {}
    stages: set[str] = set()
    found: list[str] = []
    stage_count = 0
    for item in instructions(text):
        if item.name == "ARG" and stage_count == 0:
            for name, default in _arg_pairs(item.rest):
                variables[name] = args.get(name, expand(default, variables))
        elif item.name == "FROM":
            words = [word for word in item.rest.split() if not word.startswith("--")]
            if not words:
                continue
            found.append(_outside(expand(words[0].strip("\"'"), variables), stages))
            stages.add(str(stage_count))
            stage_count += 1
            if len(words) == 3 and words[1].upper() == "AS":
                stages.add(words[2].lower())
        elif item.name in ("COPY", "RUN"):
            for word in item.rest.split():
                for name in re.findall(r"(?:^--from=|[=,]from=)([^,\s]+)", word) if word.startswith("--") else ():
                    found.append(_outside(expand(name, variables), stages))
    return tuple(dict.fromkeys(name for name in found if name))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+word}``; unknown names are empty."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[4]
        known = variables.get(name, "")
        if match[2] == "-":
            return known or match[3]
        if match[2] == "+":
            return match[3] if known else ""
        return known

    return _VARIABLE.sub(value, text)


def refuse_unsafe_mounts(text: str, shown_as: str, builder: str) -> None:
    """Refuse every ``RUN --mount`` by which builders without the fixes of 2024 let a build out of its folder.

    Those fixes are for CVE-2024-1753, CVE-2024-9407, CVE-2024-9675 and CVE-2024-11218 (buildah 1.38.1, podman 5.3.2).
    What stays allowed cannot name a place: ``tmpfs``, and ``cache`` with a plain target.

    Raises:
        Refused: there is such a mount.
    """
    # Joined whichever escape character holds, so that no way of writing it is missed.
    joined = re.sub(r"[\\`][ \t]*\r?\n", "", text)
    for match in _MOUNT.finditer(joined):
        if not _is_safe_mount(match[1]):
            raise Refused(
                f"{shown_as} uses `RUN --mount={match[1]}`, which {builder} does not contain",
                why="before buildah 1.38.1 and podman 5.3.2 such a mount can read and write outside of the build",
                hint="use a newer one or docker, or do without it (type=tmpfs and plain type=cache are allowed)",
            )


def _is_safe_mount(options: str) -> bool:
    fields = dict(part.partition("=")[::2] for part in options.strip("\"'").split(","))
    kind = fields.pop("type", "bind")
    if any(character in options for character in "$\\\"'`") or ".." in options:
        return False
    if kind == "tmpfs":
        return True
    return (
        kind == "cache"
        and set(fields) <= {"target", "dst", "destination", "id", "sharing", "uid", "gid", "mode"}
        and (not fields.get("id", "").startswith("/"))
    )


def _outside(name: str, stages: set[str]) -> str:
    return "" if name == "scratch" or name.lower() in stages else name


def _arg_pairs(rest: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    return [(name, default) for name, _, default in (word.partition("=") for word in words)]


def _escape_character(text: str) -> str:
    """The parser directive ``# escape=`` counts only before anything else."""
    for line in text.splitlines():
        directive = re.fullmatch(r"\s*#\s*(\w+)\s*=\s*(\S+)\s*", line)
        if not directive:
            break
        if directive[1].lower() == "escape" and directive[2] in ("\\", "`"):
            return directive[2]
    return "\\"


def _is_comment(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")
