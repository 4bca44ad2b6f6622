"""What a tree without ``sandbox.yaml`` holds: charts, kustomizations, folders of manifests, and their images.

Only reads; nothing that is found is trusted to be well-formed. Found paths are relative to the root.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.model.names import slug
from sandbox.model.objects import containers, pod_spec
from sandbox.project.config import (
    PORT_NAME,
    PROJECT_NAME,
    Build,
    ChartSource,
    Defaults,
    Image,
    KustomizeSource,
    ManifestsSource,
    Project,
    Service,
    ServiceEnvironment,
)
from sandbox.project.yamlfile import load_documents, load_yaml

# Folders that hold other people's or throw-away deployables.
_SKIPPED: Final = frozenset(
    {
        "example",
        "examples",
        "test",
        "tests",
        "testdata",
        "e2e",
        "fixtures",
        "vendor",
        "third_party",
        "node_modules",
        "__pycache__",
        "site-packages",
        "venv",
    }
)
# Folder names that say what is in them, not which service it is.
_GENERIC: Final = frozenset(
    {
        "chart",
        "charts",
        "helm",
        "helm-chart",
        "helm-charts",
        "deploy",
        "deployment",
        "deployments",
        "k8s",
        "kube",
        "kubernetes",
        "kustomize",
        "manifests",
        "base",
        "overlay",
        "overlays",
        "environments",
        "envs",
        "infra",
        "ops",
        "services",
        "apps",
        "src",
    }
)
_ENVIRONMENT_FOLDERS: Final = frozenset({"overlay", "overlays", "environments", "envs", "env"})
# The first of these that a tree has is the default environment.
_PREFERRED: Final = ("dev", "development", "local", "test", "int", "integration", "qa", "staging", "stage")
_ENVIRONMENTS: Final = frozenset({*_PREFERRED, "uat", "preprod", "prod", "production"})
_KUSTOMIZATIONS: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_CONTAINERFILES: Final = ("Containerfile", "Dockerfile")
_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"})
_MOST_FOLDERS = 20_000
_DEEPEST = 8
_ENV = "${SANDBOX_ENV}"


@dataclass
class _Found:
    """One deployable.

    Attributes:
        name: what it is called where no other has that name.
        place: its folder; the nearest Containerfile at or above it is its image's.
        spec: chart, kustomize or manifests.
        by_environment: what is different per environment.
        pattern: the spec with ``${SANDBOX_ENV}``, which says the same as ``by_environment``.
        image_names: references that its manifests or values use.
        ports: of its Kubernetes Service.
    """

    name: str
    place: PurePosixPath
    spec: dict[str, Any]
    by_environment: dict[str, ServiceEnvironment] = field(default_factory=dict)
    pattern: dict[str, Any] | None = None
    image_names: list[str] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)


def detect(root: Path, name_hint: str) -> Project:
    """The project that a tree's layout describes.

    Found are charts (library charts, subcharts and local dependencies of other charts are not services of
    their own), kustomizations that no other refers to, folders of manifests with a workload in them, and
    ``helm-charts/<service>`` with ``helm-values/<service>/<env>-config.yaml``.

    Args:
        root: root of the repository's tree.
        name_hint: the project's name.

    Raises:
        InvalidInput: nothing is found.
    """
    folders = _folders(root)
    charts = _charts(root, folders)
    kustomizations = _kustomizations(root, folders)
    taken = [*(chart.place for chart in charts), *_chart_folders(folders), *_kustomization_folders(folders)]
    found = [*charts, *kustomizations, *_manifest_folders(root, folders, taken)]
    if not found:
        raise InvalidInput(
            "no sandbox.yaml, and nothing to deploy is found",
            why="looked for Chart.yaml, kustomization.yaml and YAML files with a Deployment, StatefulSet, DaemonSet, "
            "Job, CronJob or Pod, outside hidden, example, test and vendor folders",
            hint="write a sandbox.yaml (docs/configuration.md), or name the right folder or repository",
        )
    env = _default_environment(found)
    names = _names(found, name_hint)
    containerfiles = [folder for folder, files in folders.items() if any(name in files for name in _CONTAINERFILES)]
    services = {
        name: _service(item, env, _images(item, name, containerfiles, alone=len(found) == 1))
        for name, item in sorted(zip(names, found, strict=True), key=lambda pair: pair[0])
    }
    return Project(
        api_version="sandbox.dev/v1",
        project=_project_name(name_hint),
        defaults=Defaults(env=env),
        services=services,
    )


def _project_name(hint: str) -> str:
    """The hint where it can be a project's name; else what is nearest to it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", hint).strip("-._")
    return name if re.search(PROJECT_NAME, name) else slug(hint or "project")


def _folders(root: Path) -> dict[PurePosixPath, list[str]]:
    """Every folder that counts, with the names of its files; from the top, in order of names."""
    folders: dict[PurePosixPath, list[str]] = {}
    for place, below, files in os.walk(root, followlinks=False):
        relative = PurePosixPath(Path(place).relative_to(root).as_posix())
        if len(folders) >= _MOST_FOLDERS:
            raise InvalidInput(
                f"the tree has more than {_MOST_FOLDERS} folders: too many to look through", hint="write a sandbox.yaml"
            )
        folders[relative] = sorted(files)
        is_deep = len(relative.parts) >= _DEEPEST
        below[:] = [] if is_deep else sorted(name for name in below if name[0] != "." and name not in _SKIPPED)
    return folders


def _is_in(place: PurePosixPath, folders: Iterable[PurePosixPath]) -> bool:
    return any(place.is_relative_to(folder) for folder in folders)


def _specific_name(place: PurePosixPath) -> str:
    """The nearest folder name that says which service it is; empty where none does."""
    return next((part for part in reversed(place.parts) if part.lower() not in _GENERIC), "")


def _names(found: list[_Found], name_hint: str) -> list[str]:
    """A name for each: its own, else that of its path where two have the same."""
    wanted = [slug(item.name or name_hint or "app", longest=53) for item in found]
    names: list[str] = []
    for item, name in zip(found, wanted, strict=True):
        if wanted.count(name) > 1:
            name = slug("-".join(item.place.parts) or name, longest=53)
        while name in names:
            name = slug(f"{name}-{len(names)}", longest=53)
        names.append(name)
    return names


def _default_environment(found: list[_Found]) -> str:
    known = {env for item in found for env in item.by_environment}
    if not known:
        return Defaults().env
    return next((env for env in _PREFERRED if env in known), min(known))


def _service(item: _Found, env: str, images: tuple[Image, ...]) -> Service:
    everything: dict[str, Any] = {"images": images, "ports": item.ports}
    # The pattern is shorter, but fails where the environment in use has nothing here.
    if item.pattern is not None and env in item.by_environment:
        return Service(**item.pattern, **everything)
    return Service(**item.spec, environments=item.by_environment, **everything)


def _yaml(root: Path, path: PurePosixPath) -> dict[str, Any]:
    """A YAML file's mapping; empty where it is none. Whoever deploys it reports what is wrong with it."""
    try:
        data = load_yaml(root / path).data
    except InvalidInput:
        return {}
    return data if isinstance(data, dict) else {}


# Charts


def _chart_folders(folders: Mapping[PurePosixPath, list[str]]) -> list[PurePosixPath]:
    """Folders with a Chart.yaml that are not inside another chart."""
    outermost: list[PurePosixPath] = []
    for folder, files in folders.items():
        if "Chart.yaml" in files and not _is_in(folder, outermost):
            outermost.append(folder)
    return outermost


def _charts(root: Path, folders: Mapping[PurePosixPath, list[str]]) -> list[_Found]:
    metadata = {folder: _yaml(root, folder / "Chart.yaml") for folder in _chart_folders(folders)}
    used = {
        PurePosixPath(os.path.normpath(folder / str(dependency.get("repository", "")).removeprefix("file://")))
        for folder, chart in metadata.items()
        for dependency in _mappings(chart.get("dependencies"))
        if str(dependency.get("repository", "")).startswith("file://")
    }
    return [
        _chart(root, folders, folder, chart)
        for folder, chart in metadata.items()
        if chart.get("type") != "library" and folder not in used
    ]


def _chart(
    root: Path, folders: Mapping[PurePosixPath, list[str]], folder: PurePosixPath, chart: dict[str, Any]
) -> _Found:
    name = str(chart.get("name") or "") or _specific_name(folder)
    if folder.parent.name == "helm-charts":
        name = folder.name
    values = _yaml(root, folder / "values.yaml")
    found = _Found(name, folder, {"chart": ChartSource(path=str(folder))})
    for pattern in _values_patterns(folder, name):
        environments = dict(_matching_environments(folders, pattern))
        if environments:
            found.by_environment = {env: ServiceEnvironment(values=(path,)) for env, path in environments.items()}
            found.pattern = {"chart": ChartSource(path=str(folder), values=(str(pattern).replace("*", _ENV),))}
            break
    found.image_names = [name for name in [_chart_image(values)] if name]
    service = values.get("service")
    port = service.get("port") if isinstance(service, dict) else None
    if isinstance(port, int) and 0 < port < 65536:
        found.ports = {"http": port}
    return found


def _values_patterns(folder: PurePosixPath, name: str) -> Iterator[PurePosixPath]:
    """Where a chart's values per environment usually are; ``*`` stands for the environment."""
    if folder.parent.name == "helm-charts":
        yield folder.parent.parent / "helm-values" / folder.name / "*-config.yaml"
        yield folder.parent.parent / "helm-values" / folder.name / "*.yaml"
    yield folder / "values" / "*.yaml"
    yield folder / "values-*.yaml"
    yield folder / "values.*.yaml"
    if folder.parts:
        yield folder.parent / "values" / name / "*.yaml"
        yield folder.parent / "values" / "*.yaml"
        yield folder.parent / "values-*.yaml"


def _matching_environments(
    folders: Mapping[PurePosixPath, list[str]], pattern: PurePosixPath
) -> Iterator[tuple[str, str]]:
    before, _, after = pattern.name.partition("*")
    shape = re.compile(re.escape(before) + r"([a-z0-9][a-z0-9-]*)" + re.escape(after), re.ASCII)
    for name in folders.get(pattern.parent, ()):
        match = shape.fullmatch(name)
        if match:
            yield match[1], str(pattern.parent / name)


def _chart_image(values: dict[str, Any]) -> str:
    image = values.get("image")
    if isinstance(image, dict):
        registry, repository = image.get("registry"), image.get("repository")
        if isinstance(repository, str):
            return f"{registry}/{repository}" if isinstance(registry, str) and registry else repository
    return ""


# Kustomizations


def _kustomization_folders(folders: Mapping[PurePosixPath, list[str]]) -> list[PurePosixPath]:
    charts = _chart_folders(folders)
    return [
        folder
        for folder, files in folders.items()
        if any(name in files for name in _KUSTOMIZATIONS) and not _is_in(folder, charts)
    ]


def _kustomizations(root: Path, folders: Mapping[PurePosixPath, list[str]]) -> list[_Found]:
    contents = {
        folder: _yaml(root, folder / next(name for name in _KUSTOMIZATIONS if name in folders[folder]))
        for folder in _kustomization_folders(folders)
    }
    references = {folder: set(_referenced(folder, data)) for folder, data in contents.items()}
    used = set().union(*references.values()) if references else set()
    tops = [folder for folder in contents if folder not in used and contents[folder].get("kind") != "Component"]
    found: list[_Found] = []
    for members in _environment_groups(tops):
        used_folders = set().union(*(_closure(member, references) for member in members))
        documents = [document for folder in sorted(used_folders) for document in _objects(root, folder, folders)]
        item = _Found(_deployable_name(members), members[0], {"kustomize": KustomizeSource(path=str(members[0]))})
        if _are_environments(members):
            variants = {member.name: str(member) for member in members}
            item.spec = {"kustomize": KustomizeSource(path=variants[_first_environment(variants)])}
            item.pattern = {"kustomize": KustomizeSource(path=f"{members[0].parent}/{_ENV}")}
            item.by_environment = {env: ServiceEnvironment(path=path) for env, path in variants.items()}
        item.image_names, item.ports = list(_image_references(documents)), _service_ports(documents)
        found.append(item)
    return found


def _referenced(folder: PurePosixPath, data: dict[str, Any]) -> Iterator[PurePosixPath]:
    for key in ("resources", "bases", "components"):
        listed = data.get(key)
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, str) and "://" not in entry:
                yield PurePosixPath(os.path.normpath(folder / entry))


def _closure(folder: PurePosixPath, references: Mapping[PurePosixPath, set[PurePosixPath]]) -> set[PurePosixPath]:
    seen: set[PurePosixPath] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if place not in seen and place in references:
            seen.add(place)
            waiting.extend(references[place])
    return seen


def _environment_groups(folders: list[PurePosixPath]) -> list[list[PurePosixPath]]:
    """Folders that are one deployable for several environments together; each of the others on its own."""
    by_parent: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for folder in folders:
        by_parent[folder.parent].append(folder)
    groups: list[list[PurePosixPath]] = []
    for members in by_parent.values():
        groups.extend([members] if _are_environments(members) else [[member] for member in members])
    return groups


def _are_environments(members: list[PurePosixPath]) -> bool:
    named = all(member.name in _ENVIRONMENTS for member in members)
    return bool(members[0].parts) and (named or members[0].parent.name in _ENVIRONMENT_FOLDERS)


def _deployable_name(members: list[PurePosixPath]) -> str:
    return _specific_name(members[0].parent if _are_environments(members) else members[0])


def _first_environment(variants: Mapping[str, str]) -> str:
    return next((env for env in _PREFERRED if env in variants), min(variants))


# Folders of manifests


def _manifest_folders(
    root: Path, folders: Mapping[PurePosixPath, list[str]], taken: Iterable[PurePosixPath]
) -> list[_Found]:
    taken = list(taken)
    objects = {
        folder: documents
        for folder in folders
        if not _is_in(folder, taken) and (documents := _objects(root, folder, folders))
    }
    found: list[_Found] = []
    for members in _environment_groups(_outermost(objects)):
        documents = [item for folder in objects for item in objects[folder] if _is_in(folder, members)]
        if not any(document.get("kind") in _WORKLOADS for document in documents):
            continue
        place = members[0]
        # Everything is below the root: there, only the files themselves are meant.
        paths = (str(place),) if place.parts else tuple(_object_files(root, place, folders))
        item = _Found(_deployable_name(members), place, {"manifests": ManifestsSource(paths=paths)})
        if _are_environments(members):
            variants = {member.name: str(member) for member in members}
            item.spec = {"manifests": ManifestsSource(paths=(variants[_first_environment(variants)],))}
            item.pattern = {"manifests": ManifestsSource(paths=(f"{place.parent}/{_ENV}",))}
            item.by_environment = {env: ServiceEnvironment(paths=(path,)) for env, path in variants.items()}
        item.image_names, item.ports = list(_image_references(documents)), _service_ports(documents)
        found.append(item)
    return found


def _outermost(objects: Mapping[PurePosixPath, list[dict[str, Any]]]) -> list[PurePosixPath]:
    """Folders of which no folder above holds objects too; the root does not count as one above."""
    return [
        folder
        for folder in objects
        if not any(above in objects for above in folder.parents if above.parts and above != folder)
    ]


def _object_files(root: Path, folder: PurePosixPath, folders: Mapping[PurePosixPath, list[str]]) -> list[str]:
    return [
        str(folder / name) for name in folders.get(folder, ()) if any(True for _ in _objects_of(root, folder / name))
    ]


def _objects(root: Path, folder: PurePosixPath, folders: Mapping[PurePosixPath, list[str]]) -> list[dict[str, Any]]:
    """The Kubernetes objects in a folder's own files."""
    return [document for name in folders.get(folder, ()) for document in _objects_of(root, folder / name)]


def _objects_of(root: Path, path: PurePosixPath) -> Iterator[dict[str, Any]]:
    if path.suffix not in (".yaml", ".yml") or path.name in _KUSTOMIZATIONS:
        return
    try:
        documents = load_documents(root / path)
    except InvalidInput:
        return
    for document in documents:
        data = document.data
        if (
            isinstance(data, dict)
            and isinstance(data.get("metadata"), dict)
            and "apiVersion" in data
            and "kind" in data
        ):
            yield data


def _image_references(documents: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Images of all containers, without tag or digest, each once."""
    seen: set[str] = set()
    for document in documents:
        spec = pod_spec(document)
        for container in containers(spec) if spec is not None else ():
            image = container.get("image")
            if isinstance(image, str):
                name = re.sub(r"(@sha256:.*|:[^/:]*)$", "", image.partition("@")[0])
                if name not in seen:
                    seen.add(name)
                    yield name


def _service_ports(documents: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Ports of the first Service that has any."""
    for document in documents:
        spec = document.get("spec")
        if document.get("kind") != "Service" or not isinstance(spec, dict):
            continue
        ports = {
            str(port.get("name") or "http"): port["port"]
            for port in _mappings(spec.get("ports"))
            if isinstance(port.get("port"), int) and 0 < port["port"] < 65536
        }
        ports = {name: port for name, port in ports.items() if re.search(PORT_NAME, name)}
        if ports:
            return ports
    return {}


# Images


def _images(item: _Found, name: str, containerfiles: list[PurePosixPath], *, alone: bool) -> tuple[Image, ...]:
    """The image that the nearest Containerfile builds, if the deployable refers to one that may be it."""
    context = _context(item, name, containerfiles, alone=alone)
    if context is None:
        return ()
    names = {name, item.name, context.name, item.place.name} - {""}
    reference = next((image for image in item.image_names if _may_be(image, names)), None)
    if reference is None and len(item.image_names) == 1 and "chart" in item.spec:
        # A chart's values.yaml names its own image, whatever it is called.
        reference = item.image_names[0]
    if reference is None:
        return ()
    try:
        return (Image(name=reference, build=Build(context=str(context))),)
    except ValidationError:
        return ()


def _may_be(image: str, names: set[str]) -> bool:
    last = image.rpartition("/")[2]
    return any(last == name or last.endswith(f"-{name}") for name in names)


def _context(item: _Found, name: str, containerfiles: list[PurePosixPath], *, alone: bool) -> PurePosixPath | None:
    """The folder whose Containerfile is the deployable's."""
    above = [item.place, *(folder for folder in item.place.parents if folder.parts)]
    elsewhere = [folder for folder in containerfiles if folder.name in (name, item.name, item.place.name)]
    # Of the folders above, none that is shared with other deployables: it must name this one or be alone.
    candidates = [*(folder for folder in above if folder in containerfiles), *elsewhere]
    if alone:
        candidates += containerfiles if len(containerfiles) == 1 else [PurePosixPath()]
    return next((folder for folder in candidates if folder in containerfiles), None)


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    yield from (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))
