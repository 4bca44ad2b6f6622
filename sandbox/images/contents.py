"""The key of an image's content: equal keys mean that nothing has to be built again."""

from __future__ import annotations

import hashlib
import os
import platform
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.objects import digest

# Raised when the same sources must give another image because of how this program builds.
_FORMAT = 1
_KEY_LENGTH = 32
_CHUNK = 1 << 20

IGNORE_FILES = (".containerignore", ".dockerignore")


@dataclass(frozen=True)
class Content:
    """Everything that decides what an image holds.

    Attributes:
        context: folder of the build context.
        containerfile: the Containerfile inside it.
        args: build arguments that the Containerfile declares.
        bases: base images → their digest, or empty where it is not known cheaply.
        test: command that the image has to pass: a changed test is run, so it is part of the key.
    """

    context: Path
    containerfile: Path
    args: Mapping[str, str]
    target: str
    bases: Mapping[str, str]
    test: Sequence[str]
    builder: str


def content_key(content: Content) -> str:
    """A tag made of an image's content: ``src-`` and 32 hexadecimal digits. Reads all files of the context."""
    value = {
        "format": _FORMAT,
        "machine": platform.machine(),
        "files": dict(_entries(content)),
        "containerfile": _file_digest(content.containerfile),
        "args": dict(content.args),
        "target": content.target,
        "bases": dict(content.bases),
        "test": list(content.test),
    }
    return f"src-{digest(value).removeprefix('sha256:')[:_KEY_LENGTH]}"


def _entries(content: Content) -> Iterator[tuple[str, str]]:
    ignored = IgnorePatterns.of(_ignore_lines(content))
    always = {content.containerfile, *(content.context / name for name in IGNORE_FILES)}
    for folder, folders, files in os.walk(content.context):
        folders.sort()
        # A link to a folder is an entry, not a folder to walk.
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(folder) / name
            relative = path.relative_to(content.context).as_posix()
            if path in always or not ignored.match(relative):
                yield relative, _entry(path)


def _entry(path: Path) -> str:
    if path.is_symlink():
        return f"link:{path.readlink()}"
    if not path.is_file():
        return "special"
    executable = "x" if path.stat().st_mode & 0o111 else "-"
    return f"{executable}:{_file_digest(path)}"


def _file_digest(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _ignore_lines(content: Content) -> list[str]:
    """The lines of the ignore file, where it is certain that the builder goes by it.

    Docker reads ``.dockerignore`` (or ``<Containerfile>.dockerignore``), buildah and podman
    ``.containerignore`` before it. In doubt nothing is ignored: that costs a build, never a stale image.
    """
    name = content.containerfile.name
    if any((content.containerfile.parent / f"{name}{suffix}").exists() for suffix in IGNORE_FILES):
        return []
    container, docker = (content.context / file for file in IGNORE_FILES)
    if container.exists() and (docker.exists() or content.builder == "docker"):
        return []
    chosen = container if container.exists() else docker
    if not chosen.is_file() or chosen.is_symlink():
        return []
    return chosen.read_text(errors="replace").splitlines()


@dataclass(frozen=True)
class IgnorePatterns:
    """The patterns of a ``.dockerignore``, matched as moby's ``patternmatcher`` does."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def of(cls, lines: Sequence[str]) -> IgnorePatterns:
        """Read the lines; an unreadable pattern ignores nothing at all."""
        patterns = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            exception = text.startswith("!")
            path = posixpath.normpath(text[exception:].strip()).lstrip("/")
            if path in ("", "."):
                continue
            try:
                patterns.append((re.compile(_as_regex(path)), exception))
            except re.error:
                return cls(())
        return cls(tuple(patterns))

    def match(self, path: str) -> bool:
        """Whether a file is left out of the context; the last pattern that matches it or a parent decides."""
        parts = path.split("/")
        candidates = [path, *("/".join(parts[:end]) for end in range(1, len(parts)))]
        matched = False
        for pattern, exception in self.patterns:
            if exception == matched and any(pattern.fullmatch(candidate) for candidate in candidates):
                matched = not exception
        return matched


def _as_regex(pattern: str) -> str:
    """Moby's translation: ``**`` crosses folders, ``*`` and ``?`` do not, brackets are as in regular expressions."""
    result = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and pattern[position : position + 1] == "*":
            position += 1
            if pattern[position : position + 1] == "/":
                position += 1
            result += ".*" if position == len(pattern) else "(?:.*/)?"
        elif character == "*":
            result += "[^/]*"
        elif character == "?":
            result += "[^/]"
        elif character == "\\":
            result += re.escape(pattern[position : position + 1] or "\\")
            position += 1
        elif character in "[]-^":
            result += character
        else:
            result += re.escape(character)
    return result
