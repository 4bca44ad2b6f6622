"""One service of a commit, as the manifests that are going to run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.images.rewrite import chart_values, references, with_images
from sandbox.model.errors import InvalidInput
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest, digest
from sandbox.model.record import ChartLock
from sandbox.project.config import ChartSource, Image, Service, merge
from sandbox.project.variables import substitute
from sandbox.project.yamlfile import load_yaml
from sandbox.render import charts, kustomize
from sandbox.render.manifests import inside, read_manifests, refuse_duplicates
from sandbox.render.setvalues import given_to, values_for

if TYPE_CHECKING:
    from sandbox.cluster.helm import Helm

_DEFAULT_MAPPING: Mapping[str, str] = {"image.repository": "repository", "image.tag": "tag"}


@dataclass(frozen=True)
class RenderRequest:
    """What a service is rendered for.

    Attributes:
        env: environment whose values are used; the service is already the one of this environment.
        variables: ``SANDBOX_NAME`` and so on → their values.
        images: of this service.
        extra_values: values files of the command line, for every chart.
        set_values: ``--set`` arguments, as written.
        services: names of all services of the project, by which ``--set`` tells a service from a key.
        overrides: what the command line of an earlier deployment gave a chart; this one's wins.
    """

    env: str
    namespace: str
    variables: Mapping[str, str]
    images: Sequence[ResolvedImage] = ()
    extra_values: Sequence[Path] = ()
    set_values: Sequence[str] = ()
    services: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    kube_version: str = ""
    api_versions: Sequence[str] = ()


@dataclass(frozen=True)
class Rendered:
    """A service, rendered.

    Attributes:
        manifests: without hooks; of a chart, as Helm will apply them.
        hooks: Helm hooks of a chart.
        values: all values that a chart is given, merged.
        overrides: those of the command line, before variables are filled in.
        chart_path: folder of the chart in the exported tree.
        input_digest: over everything that decides what is deployed: equal, and there is nothing to do.
        values_files: as the project and the command line name them, in order.
        given: what the command line gives on top of the commit, without values.
        notes: what the user should know.
    """

    manifests: list[Manifest]
    input_digest: str
    hooks: list[Manifest] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    chart: ChartLock | None = None
    chart_path: Path | None = None
    values_files: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


async def render(service: str, spec: Service, tree: Path, request: RenderRequest, helm: Helm) -> Rendered:
    """Render a service; applies nothing and contacts no cluster.

    Args:
        spec: the service as its environment has it (`Project.service_in`).
        tree: root of the exported tree.

    Raises:
        InvalidInput: a file that is missing or not what it must be, a chart or kustomization that does not render,
            an image that is built and used nowhere.
        Refused: something that leads out of the tree or would run programs of the repository.
    """
    if spec.chart is not None:
        return await _render_chart(service, spec, spec.chart, tree, request, helm)
    if spec.kustomize is not None:
        path = substitute(spec.kustomize.path, request.variables, f"services.{service}.kustomize.path")
        found = await kustomize.build(tree, path)
    else:
        assert spec.manifests is not None
        paths = substitute(list(spec.manifests.paths), request.variables, f"services.{service}.manifests.paths")
        found = await asyncio.to_thread(read_manifests, tree, paths)
    refuse_duplicates(found)
    filled = [_fill(manifest, request.variables, service) for manifest in found]
    manifests, used = with_images(filled, request.images)
    _refuse_unused(service, spec, request.images, used, manifests)
    return Rendered(manifests=manifests, input_digest=digest({"kind": spec.kind, "manifests": manifests}))


async def _render_chart(
    service: str, spec: Service, chart: ChartSource, tree: Path, request: RenderRequest, helm: Helm
) -> Rendered:
    where = f"services.{service}.chart"
    named = substitute(chart.path, request.variables, f"{where}.path")
    path = inside(tree, named, "the chart")
    await asyncio.to_thread(charts.check, path, named, tree)
    overrides = await asyncio.to_thread(_overrides, service, request)
    values, files = await asyncio.to_thread(_values, service, spec, chart, path, tree, request)
    release = chart.release or service
    manifests, hooks = await helm.template(
        release,
        path,
        values,
        request.namespace,
        kube_version=request.kube_version,
        api_versions=request.api_versions,
    )
    # After Helm has put sub-charts in their place.
    lock = await asyncio.to_thread(charts.lock, path, named, release, tree)
    _, used = with_images([*manifests, *hooks], request.images)
    pinned = _pinned(request.images, [*manifests, *hooks])
    _refuse_unused(service, spec, request.images, used & pinned, [*manifests, *hooks])
    decides = {
        "kind": "chart",
        "chart": lock.model_dump(mode="json"),
        "values": values,
        "namespace": request.namespace,
        "kubernetes": request.kube_version,
    }
    return Rendered(
        manifests=manifests,
        hooks=hooks,
        values=values,
        overrides=overrides,
        chart=lock,
        chart_path=path,
        input_digest=digest(decides),
        values_files=files,
        given=given_to(service, request.extra_values, request.set_values, request.services, request.overrides),
    )


def _overrides(service: str, request: RenderRequest) -> dict[str, Any]:
    """What the command line gives a chart, as it is written."""
    overrides = dict(request.overrides)
    for extra in request.extra_values:
        overrides = merge(overrides, _mapping(extra, str(extra)))
    return merge(overrides, values_for(service, request.set_values, request.services))


def _values(
    service: str, spec: Service, chart: ChartSource, path: Path, tree: Path, request: RenderRequest
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """All values on top of the chart's own, and the names of the files that they come from.

    Later ones win: values files of the project, its ``set``, images, ``-f``, ``--set``. A ``null`` is kept: it tells
    Helm to take the chart's default away.
    """
    where = f"services.{service}.chart"
    values: dict[str, Any] = {}
    names = [substitute(name, request.variables, f"{where}.values") for name in chart.values]
    for name in names:
        file = inside(tree, name, "the values file")
        if not file.is_file():
            raise InvalidInput(
                f"service {service}: the values file {name} does not exist in the commit",
                why=_beside(file, request.env),
            )
        values = merge(values, _read_values(file, name, request.variables))
    values = merge(values, substitute(chart.set, request.variables, f"{where}.set"))
    for image, mapping in _mappings(spec, path, request.images):
        values = merge(values, chart_values(image, mapping))
    values = merge(values, _fill(request.overrides, request.variables, "the earlier -f or --set"))
    for extra in request.extra_values:
        values = merge(values, _read_values(extra, str(extra), request.variables))
    own = values_for(service, request.set_values, request.services)
    values = merge(values, substitute(own, request.variables, "--set"))
    return values, (*names, *(extra.name for extra in request.extra_values))


def _read_values(file: Path, shown_as: str, variables: Mapping[str, str]) -> dict[str, Any]:
    return dict(_fill(_mapping(file, shown_as), variables, shown_as))


def _mapping(file: Path, shown_as: str) -> dict[str, Any]:
    data = load_yaml(file, shown_as=shown_as).data
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidInput(f"{shown_as} does not hold a mapping of values")
    return data


def _mappings(
    spec: Service, chart: Path, images: Sequence[ResolvedImage]
) -> list[tuple[ResolvedImage, Mapping[str, str]]]:
    """Where a chart receives each image: as declared, or the usual place where one image only can be meant."""
    declared: dict[str, Image] = {image.name: image for image in spec.images}
    mapped = [(image, declared[image.name].values) for image in images if image.name in declared]
    unmapped = [image for image, mapping in mapped if mapping is None]
    found: list[tuple[ResolvedImage, Mapping[str, str]]] = [(i, m) for i, m in mapped if m is not None]
    if len(unmapped) == 1 and _has_usual_place(chart):
        found.append((unmapped[0], _DEFAULT_MAPPING))
    return found


def _has_usual_place(chart: Path) -> bool:
    file = chart / "values.yaml"
    data = load_yaml(file, shown_as=file.name).data if file.is_file() else None
    image = data.get("image") if isinstance(data, dict) else None
    return isinstance(image, dict) and "repository" in image


def _refuse_unused(
    service: str, spec: Service, images: Sequence[ResolvedImage], used: set[str], manifests: Sequence[Manifest]
) -> None:
    """An image that was built and is used nowhere means that something else runs than the commit."""
    unused = sorted(image.name for image in images if image.name not in used)
    if not unused:
        return
    hint = (
        "map it to the chart's values: `images[].values: {image.repository: repository, image.tag: tag}`"
        if spec.chart
        else "`images[].name` must be what the manifests call it, without tag"
    )
    raise InvalidInput(
        f"service {service}: the image {', '.join(unused)} is used nowhere in its manifests",
        why=f"they use {', '.join(sorted(references(manifests))) or 'no image at all'}",
        hint=hint,
    )


def _pinned(images: Sequence[ResolvedImage], manifests: Sequence[Manifest]) -> set[str]:
    """The images that occur by their digest (in a dry run: by their tag). Helm applies what it renders as it is."""
    written = references(manifests)
    return {
        image.name
        for image in images
        if any(image.digest in reference if image.digest else image.tag in reference for reference in written)
    }


def _beside(file: Path, env: str) -> str:
    names = sorted(other.name for other in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
    return f"the environment is {env}; there are {', '.join(names)}" if names else f"the environment is {env}"


def _fill(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """Fill ``${SANDBOX_…}`` into text that has some; all other text stays as it is, ``$${`` too."""
    if isinstance(value, str):
        return substitute(value, variables, where) if "${SANDBOX_" in value else value
    if isinstance(value, dict):
        return {key: _fill(item, variables, f"{where}: {key}") for key, item in value.items()}
    return [_fill(item, variables, where) for item in value] if isinstance(value, list) else value
