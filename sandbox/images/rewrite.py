"""Putting resolved images into manifests and chart values. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sandbox.images.reference import parse_reference, same_repository
from sandbox.model.errors import InvalidInput
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest

# Lists of containers, wherever they lie: in pods, pod templates and custom resources that have pods inside.
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
PARTS = ("repository", "tag", "digest", "reference", "registry", "name")


def with_images(manifests: Sequence[Manifest], images: Sequence[ResolvedImage]) -> tuple[list[Manifest], set[str]]:
    """Replace the images that a project builds by their digests.

    A container's image is replaced where its repository is an image's ``name`` (or, already, its
    repository), whatever its tag; in every list of containers, custom resources included, and in image volumes.

    Returns:
        New manifests, and the names of the images that occur in them.
    """
    used: set[str] = set()

    def replace(reference: str) -> str:
        for image in images:
            if same_repository(reference, image.name) or same_repository(reference, image.repository):
                used.add(image.name)
                return image.reference
        return reference

    changed = copy.deepcopy(list(manifests))
    for manifest in changed:
        _visit(manifest, replace)
    return changed, used


def references(manifests: Sequence[Manifest]) -> set[str]:
    """Every image that manifests refer to, as written."""
    found: set[str] = set()

    def keep(reference: str) -> str:
        found.add(reference)
        return reference

    for manifest in copy.deepcopy(list(manifests)):
        _visit(manifest, keep)
    return found


def chart_values(image: ResolvedImage, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The values by which a chart receives an image.

    Args:
        mapping: dotted path in the values → part of the image: ``repository``, ``tag`` (``<tag>@sha256:…``, so that
            the digest decides; the bare tag where ``digest`` is mapped too), ``digest``, ``reference`` (all of it),
            ``registry`` (host), ``name`` (repository without the host).

    Raises:
        InvalidInput: an unknown part, or a path that is empty or runs through another one.
    """
    parsed = parse_reference(image.repository)
    registry = image.repository.split("/", 1)[0]
    pinned_tag = "@".join(part for part in (image.tag, image.digest) if part)
    parts = {
        "repository": image.repository,
        "tag": image.tag if "digest" in mapping.values() else pinned_tag,
        "digest": image.digest,
        "reference": image.reference,
        "registry": registry,
        "name": parsed.path,
    }
    values: dict[str, Any] = {}
    for path, part in mapping.items():
        if part not in parts:
            raise InvalidInput(
                f"image {image.name}: values.{path}: unknown part {part!r}", hint=f"one of {', '.join(PARTS)}"
            )
        _put(values, path, parts[part], image.name)
    return values


def _put(values: dict[str, Any], path: str, value: str, name: str) -> None:
    *parents, last = path.split(".")
    node: Any = values
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise InvalidInput(f"image {name}: values.{path} lies inside of another of its values")
    if not last or last in node or "" in parents:
        raise InvalidInput(f"image {name}: values.{path} is not a path of its own")
    node[last] = value


def _visit(node: Any, change: Callable[[str], str]) -> None:
    for parent, key in _places(node):
        parent[key] = change(parent[key])


def _places(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where image references are written: (mapping, key) each."""
    if isinstance(node, list):
        for item in node:
            yield from _places(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _CONTAINER_LISTS and isinstance(value, list):
                for container in value:
                    if isinstance(container, dict) and isinstance(container.get("image"), str):
                        yield container, "image"
            elif key == "volumes" and isinstance(value, list):
                for volume in value:
                    source = volume.get("image") if isinstance(volume, dict) else None
                    if isinstance(source, dict) and isinstance(source.get("reference"), str):
                        yield source, "reference"
            yield from _places(value)
