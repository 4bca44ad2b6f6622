"""A project: its ``sandbox.yaml``, checked against itself and the tree, or what the tree's layout says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from sandbox.model.errors import InvalidInput
from sandbox.project.config import Project, Service
from sandbox.project.detect import detect
from sandbox.project.validation import raise_problems, validate
from sandbox.project.variables import NAMES, has_variable, say_unknown, unknown_variables
from sandbox.project.yamlfile import KeyPath, LocatedDocument, load_yaml, near

FILE_NAMES = ("sandbox.yaml", "sandbox.yml")

Problem = tuple[KeyPath, str, str]


@dataclass(frozen=True)
class LoadedProject:
    """A project and where it was read.

    Attributes:
        source: from a file, or detected from the tree's layout.
        path: of the file.
        notes: what the user should be told.
    """

    project: Project
    source: Literal["file", "detected"]
    path: Path | None
    notes: list[str] = field(default_factory=list)


def load_project(root: Path, *, name_hint: str, allow_unknown_needs: bool = True) -> LoadedProject:
    """Read the project of a tree.

    Args:
        root: root of the repository's tree.
        name_hint: the project's name where no file gives one, such as the repository's.
        allow_unknown_needs: a base may bring services that are needed and not declared here: they are noted.

    Raises:
        InvalidInput: the file is wrong (with file, line and key), or there is none and nothing is found.
    """
    files = [root / name for name in FILE_NAMES if (root / name).is_file()]
    if len(files) > 1:
        raise InvalidInput(f"there are both {' and '.join(FILE_NAMES)}", hint="keep one of them")
    if not files:
        project = detect(root, name_hint)
        return LoadedProject(project, "detected", None, [_say_detected(project)])
    document = load_yaml(_inside(root, files[0]), shown_as=files[0].name)
    project = validate(Project, document)
    raise_problems(document, [*_semantic_problems(project, document), *_path_problems(project, root)])
    unknown = _unknown_needs(project)
    if not (allow_unknown_needs or project.defaults.base):
        raise_problems(document, [_say_unknown_need(project, path, name) for path, name in unknown])
    notes = [
        f"{path[1]} needs {name}, which is not declared here{near(name, project.services) or ': a base must bring it'}"
        for path, name in unknown
    ]
    return LoadedProject(project, "file", files[0], notes)


def _inside(root: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise InvalidInput(f"{path.name} is a symbolic link out of the repository")
    return path


def _say_detected(project: Project) -> str:
    services = ", ".join(f"{name} ({service.kind} {service.paths[0]})" for name, service in project.services.items())
    return f"no sandbox.yaml; found {services}; `sandbox init` writes it down"


def _semantic_problems(project: Project, document: LocatedDocument) -> Iterator[Problem]:
    """What is wrong between the keys of one file."""
    for path, name in unknown_variables(document.data):
        yield path, say_unknown(name), f"known are {', '.join(sorted(NAMES))}"
    for tool in ("sandbox", "helm", "kubernetes"):
        try:
            SpecifierSet(getattr(project.requires, tool))
        except InvalidSpecifier as error:
            yield ("requires", tool), str(error), "such as '>=3.14' or '>=1.28,<2'"
    yield from _release_problems(project)
    yield from _needs_problems(project)
    for name, service in project.services.items():
        yield from _service_problems(name, service)
    for env, environment in project.environments.items():
        for name in environment.values:
            path = ("environments", env, "values", name)
            if name not in project.services:
                yield path, f"there is no service {name!r}{near(name, project.services)}", ""
            elif project.services[name].chart is None:
                yield path, f"{name} is no chart: it takes no values", ""


def _release_problems(project: Project) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, service in project.services.items():
        if service.chart is None:
            continue
        release = project.release(name)
        if len(release) > 53:
            yield ("services", name), "is too long for a Helm release (53 characters)", "give chart.release"
        elif release in seen:
            path = ("services", name, "chart", "release") if service.chart.release else ("services", name)
            yield path, f"the release {release!r} is that of the service {seen[release]} too", "give chart.release"
        seen.setdefault(release, name)


def _needs_problems(project: Project) -> Iterator[Problem]:
    graph: dict[str, list[str]] = {name: [] for name in project.services}
    for name, service in project.services.items():
        for index, need in enumerate(service.needs):
            path = ("services", name, "needs", index)
            if need.service in [other.service for other in service.needs[:index]]:
                yield path, f"{need.service!r} is needed twice", ""
            if need.service not in project.services:
                continue
            if need.as_ == "mock" and project.services[need.service].mock is None:
                yield path, f"{need.service} has no mock", f"give services.{need.service}.mock an image or manifests"
            if need.as_ == "sandbox":
                graph[name].append(need.service)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib lists a cycle from the needed one to the one that needs it.
        cycle: list[str] = list(reversed(error.args[1]))
        said = " needs ".join(cycle)
        yield ("services", cycle[0], "needs"), f"the needs go in a circle: {said}", "remove one of them"


def _unknown_needs(project: Project) -> list[tuple[KeyPath, str]]:
    return [
        (("services", name, "needs", index), need.service)
        for name, service in project.services.items()
        for index, need in enumerate(service.needs)
        if need.service not in project.services and need.as_ in ("sandbox", "mock")
    ]


def _say_unknown_need(project: Project, path: KeyPath, name: str) -> Problem:
    return (
        path,
        f"there is no service {name!r}{near(name, project.services)}",
        "declare it under services (with its source where it is in another repository), "
        "say `as: shared`, or name what brings it with --base",
    )


def _service_problems(name: str, service: Service) -> Iterator[Problem]:
    path: KeyPath = ("services", name)
    image_names = [image.name for image in service.images]
    for index, image_name in enumerate(image_names):
        if image_name in image_names[:index]:
            yield (*path, "images", index, "name"), f"{image_name!r} is given twice", ""
        if service.chart is None and service.images[index].values is not None:
            yield (*path, "images", index, "values"), "only a chart takes values", ""
    for env, special in service.environments.items():
        place = (*path, "environments", env)
        if service.chart is None and (special.values or special.set):
            yield place, "only a chart takes values", ""
        if service.kustomize is None and special.path is not None:
            yield (*place, "path"), "only a kustomization has a path of its own per environment", ""
        if service.manifests is None and special.paths is not None:
            yield (*place, "paths"), "only manifests have paths of their own per environment", ""
    yield from _smoke_problems(path, service)
    for moment, hooks in (("beforeDeploy", service.hooks.before_deploy), ("afterDeploy", service.hooks.after_deploy)):
        names = [hook.name for hook in hooks]
        for index, hook_name in enumerate(names):
            if hook_name in names[:index]:
                yield (*path, "hooks", moment, index, "name"), f"{hook_name!r} is given twice", ""


def _smoke_problems(path: KeyPath, service: Service) -> Iterator[Problem]:
    smoke = service.smoke
    if smoke is None:
        return
    if smoke.command is not None and smoke.image is None and not service.images:
        yield (*path, "smoke"), "has a command, and nothing says in which image", "give smoke.image"
    if smoke.http is None:
        return
    port = smoke.http.port
    if port is None and not service.ports:
        yield (*path, "smoke", "http"), "nothing says at which port", "give smoke.http.port, or ports"
    if isinstance(port, str) and port not in service.ports:
        yield (*path, "smoke", "http", "port"), f"there is no port {port!r}{near(port, service.ports)}", "see ports"


def _path_problems(project: Project, root: Path) -> Iterator[Problem]:
    """Paths that are not in the tree. Those of other repositories cannot be looked at here."""
    for name, service in project.services.items():
        if service.source is not None:
            continue
        path: KeyPath = ("services", name)
        for place, text, wanted in _declared_paths(service):
            message = _path_problem(root, text, wanted)
            if message:
                yield (*path, *place), message, "paths are relative to the root of the repository"
    for env, environment in project.environments.items():
        for name, files in environment.values.items():
            if name in project.services and project.services[name].source is None:
                for index, text in enumerate(files):
                    message = _path_problem(root, text, "file")
                    if message:
                        yield ("environments", env, "values", name, index), message, ""


def _declared_paths(
    service: Service,
) -> Iterator[tuple[KeyPath, str, Literal["chart", "kustomization", "file", "any", "folder"]]]:
    if service.chart is not None:
        yield ("chart", "path"), service.chart.path, "chart"
        for index, text in enumerate(service.chart.values):
            yield ("chart", "values", index), text, "file"
    if service.kustomize is not None:
        yield ("kustomize", "path"), service.kustomize.path, "kustomization"
    if service.manifests is not None:
        for index, text in enumerate(service.manifests.paths):
            yield ("manifests", "paths", index), text, "any"
    for env, special in service.environments.items():
        for index, text in enumerate(special.values):
            yield ("environments", env, "values", index), text, "file"
        if special.path is not None:
            yield ("environments", env, "path"), special.path, "kustomization"
        for index, text in enumerate(special.paths or ()):
            yield ("environments", env, "paths", index), text, "any"
    if service.mock is not None and service.mock.manifests is not None:
        for index, text in enumerate(service.mock.manifests.paths):
            yield ("mock", "manifests", "paths", index), text, "any"
    for index, image in enumerate(service.images):
        if image.build is not None:
            yield ("images", index, "build", "context"), image.build.context, "folder"
            if image.build.containerfile is not None and not has_variable(image.build.context):
                joined = f"{image.build.context}/{image.build.containerfile}"
                yield ("images", index, "build", "containerfile"), joined, "file"


_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


def _path_problem(root: Path, text: str, wanted: str) -> str:
    """What is wrong with a path of the tree; empty where nothing is, or where a variable decides."""
    if has_variable(text):
        return ""
    normal = os.path.normpath(text)
    if PurePosixPath(normal).parts[:1] == ("..",):
        return f"{text} leaves the repository"
    path = root / normal
    if not path.resolve().is_relative_to(root.resolve()):
        return f"{text} leads out of the repository (a symbolic link)"
    if not path.exists():
        return f"{text} does not exist{_near_path(root, normal)}"
    match wanted:
        case "file" if not path.is_file():
            return f"{text} is not a file"
        case "folder" if not path.is_dir():
            return f"{text} is not a folder"
        case "chart" if not (path / "Chart.yaml").is_file():
            return f"{text} is not a chart: it has no Chart.yaml"
        case "kustomization" if not any((path / name).is_file() for name in _KUSTOMIZATIONS):
            return f"{text} has no kustomization.yaml"
    return ""


def _near_path(root: Path, text: str) -> str:
    """Where the path ends, and what is there instead."""
    there = PurePosixPath()
    for part in PurePosixPath(text).parts:
        folder = root / there
        if not (folder / part).exists():
            names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            return near(part, names) or (f" ({there} has {', '.join(names[:8])})" if names and there.parts else "")
        there /= part
    return ""
