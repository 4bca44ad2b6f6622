"""Manifests as text: many documents in one file, many files in one folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.project.yamlfile import parse_yaml

SUFFIXES = (".yaml", ".yml", ".json")
# CustomResourceDefinitions of big operators come in files of some megabytes.
LARGEST_FILE = 10 * 1024 * 1024
# Files of other tools that lie beside manifests.
_NOT_MANIFESTS = frozenset({"kustomization.yaml", "kustomization.yml"})
# As kubectl splits a stream: a line that begins with three dashes.
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)


def read_manifests(tree: Path, paths: Sequence[str]) -> list[Manifest]:
    """Read files, and folders with everything below them, in the order of their names.

    Args:
        tree: root of the exported tree; messages name files relative to it.
        paths: relative to the tree.

    Raises:
        InvalidInput: no manifests there, or a file that holds something else; names file and document.
        Refused: a path leads out of the tree.
    """
    found: list[Manifest] = []
    for path in dict.fromkeys(file for named in paths for file in _files(tree, named)):
        found += parse_manifests(_text(tree, path), shown_as=path.relative_to(tree).as_posix())
    if not found:
        raise InvalidInput(f"no manifests in {', '.join(paths)}", hint=f"files end in {', '.join(SUFFIXES)}")
    refuse_duplicates(found)
    return found


def parse_manifests(text: str, *, shown_as: str) -> list[Manifest]:
    """Read a stream of documents; lists are taken apart, empty documents left out.

    Raises:
        InvalidInput: not YAML, or a document that is no Kubernetes object.
    """
    found: list[Manifest] = []
    documents = list(split_documents(text))
    for number, (line, document) in enumerate(documents, start=1):
        # Empty lines before it give every message the line of the file.
        data = parse_yaml("\n" * (line - 1) + document, shown_as=shown_as).data
        where = shown_as if len(documents) == 1 else f"{shown_as} (document {number}, line {line})"
        if data is not None:
            found += _flatten(data, where)
    return found


def split_documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a stream, each with the line at which it begins."""
    starts = [0, *(match.end() for match in _SEPARATOR.finditer(text))]
    ends = [*(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    line, at = 1, 0
    for start, end in zip(starts, ends, strict=True):
        line += text.count("\n", at, start)
        at = start
        document = text[start:end]
        if any(item.strip() and not item.lstrip().startswith("#") for item in document.splitlines()):
            yield line, document


def refuse_duplicates(manifests: Iterable[Manifest]) -> None:
    """Refuse two objects of one kind, name and namespace: the later would silently win.

    Raises:
        InvalidInput: there are such.
    """
    seen: set[tuple[str, str, str, str]] = set()
    for ref in map(ObjectRef.of, manifests):
        if ref.identity in seen:
            raise InvalidInput(f"{ref} is there twice", hint="two objects of one kind cannot have one name")
        seen.add(ref.identity)


def inside(tree: Path, named: str, what: str) -> Path:
    """A path of the tree, links followed.

    Raises:
        Refused: it leads out of the tree.
    """
    root = tree.resolve()
    path = (root / named).resolve()
    if not path.is_relative_to(root):
        raise Refused(f"{what} {named} leads out of the repository", hint="only files of the commit are read")
    return path


def _files(tree: Path, named: str) -> list[Path]:
    path = inside(tree, named, "the path")
    if path.is_file():
        return [tree / named]
    if not path.is_dir():
        raise InvalidInput(f"{named} does not exist in the commit")
    return sorted(
        file
        for file in (tree / named).rglob("*")
        if file.suffix in SUFFIXES and file.name not in _NOT_MANIFESTS and file.is_file()
    )


def _text(tree: Path, path: Path) -> str:
    shown = path.relative_to(tree).as_posix()
    inside(tree, shown, "the file")
    if path.stat().st_size > LARGEST_FILE:
        raise InvalidInput(f"{shown} is larger than {LARGEST_FILE // 1024 // 1024} MiB")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{shown} is not UTF-8 text") from None


def _flatten(data: Any, where: str) -> Iterator[Manifest]:
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("apiVersion"), str)
        or not isinstance(data.get("kind"), str)
    ):
        raise InvalidInput(
            f"{where} is no Kubernetes object", why="it needs apiVersion and kind", hint="leave other files elsewhere"
        )
    if data["kind"].endswith("List") and isinstance(data.get("items"), list):
        for number, item in enumerate(data["items"], start=1):
            yield from _flatten(item, f"{where}, item {number}")
        return
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise InvalidInput(
            f"{where}: this {data['kind']} has no metadata.name", hint="generateName cannot be applied again and again"
        )
    yield data
