"""Shared, long-lived environments: where ``environments:`` of sandbox.yaml says that they are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.cluster import objects
from sandbox.cluster.errors import Forbidden
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.objects import ObjectRef
from sandbox.model.sandbox import Sandbox

if TYPE_CHECKING:
    from sandbox.cluster.client import Cluster
    from sandbox.project.config import Project
    from sandbox.provision.target import Target


@dataclass(frozen=True)
class EnvironmentPlace:
    """Where an environment is.

    Attributes:
        target: the kubeconfig context and file to reach it by.
    """

    name: str
    namespace: str
    target: Target


async def find_environment(target: Target, name: str, folder: Path | None = None) -> EnvironmentPlace:
    """Where an environment of the project around a folder is.

    It is read from the folder's own sandbox.yaml, not from the commit that is deployed: a branch does not decide on
    which cluster it lands.

    Args:
        target: what the command line says; its context may not be another one than the file's.
        folder: of a working tree; the current one where not given.

    Raises:
        InvalidInput: there is no such environment, or it is not said where it is.
    """
    return place_of(await asyncio.to_thread(_project, folder or Path.cwd()), target, name)


async def known_environment(target: Target, name: str) -> EnvironmentPlace | None:
    """The same for those who may mean something else by the name: None where no environment is called so.

    Raises:
        InvalidInput: there is such an environment, and it is not said where it is.
    """
    project = await asyncio.to_thread(_project_that_names, name, Path.cwd())
    return place_of(project, target, name) if project is not None and name in project.environments else None


def project_around(folder: Path) -> Project | None:
    """The project around a folder, as its sandbox.yaml or layout is there now; None where there is none.

    Raises:
        InvalidInput: its sandbox.yaml is not what it must be.
    """
    from sandbox.source import git

    try:
        root = git.repository_root(folder)
    except InvalidInput:
        return None
    if not any((root / name).is_file() for name in ("sandbox.yaml", "sandbox.yml")):
        return None
    return _project(folder)


def _project_that_names(name: str, folder: Path) -> Project | None:
    """The project around a folder; None, and nothing slow is imported, where its file does not hold the name at all."""
    file = next(
        (f for up in (folder, *folder.parents) for f in (up / "sandbox.yaml", up / "sandbox.yml") if f.is_file()), None
    )
    try:
        if file is None or name not in file.read_text(encoding="utf-8", errors="replace"):
            return None
        return _project(folder)
    except (OSError, InvalidInput):
        return None


def _project(folder: Path) -> Project:
    # git and pydantic are slow to import, and not needed by those who only name the types.
    from sandbox.project.load import load_project
    from sandbox.source import git

    root = git.repository_root(folder)
    return load_project(root, name_hint=root.name, allow_unknown_needs=True).project


async def as_sandbox(cluster: Cluster, place: EnvironmentPlace) -> Sandbox:
    """An environment as those commands see it that look at a sandbox; it has no owner and no end."""
    try:
        found = await objects.get(cluster, ObjectRef("", "v1", "Namespace", place.namespace))
    except Forbidden:
        # Rights inside of it need not show the namespace itself.
        found = {"metadata": {"name": place.namespace}}
    if found is None:
        raise OperationFailed(
            f"the environment {place.name} has no namespace {place.namespace} in {cluster.context} yet",
            hint=f"`sandbox deploy {place.name}` makes it",
        )
    return replace(Sandbox.of(found, cluster.context), name=place.name, shared=True)


def place_of(project: Project, target: Target, name: str) -> EnvironmentPlace:
    """Where an environment of a project is.

    Raises:
        InvalidInput: there is no such environment, or it is not said where it is.
    """
    from sandbox.project.yamlfile import near

    environment = project.environments.get(name)
    if environment is None:
        known = ", ".join(sorted(project.environments)) or "none"
        raise InvalidInput(
            f"the project {project.project} has no environment {name!r}{near(name, project.environments)}",
            why=f"`environments:` of sandbox.yaml names {known}",
            hint=f"write down where it is: environments: {{{name}: {{context: …, namespace: …}}}}",
        )
    if environment.namespace is None:
        raise InvalidInput(
            f"the environment {name} has no namespace",
            hint=f"add `namespace:` under environments.{name} in sandbox.yaml",
        )
    if environment.context and target.context and environment.context != target.context:
        raise InvalidInput(
            f"the environment {name} is in the context {environment.context}, not in {target.context}",
            why=f"environments.{name}.context of sandbox.yaml says so",
            hint="leave out --context (and SANDBOX_CONTEXT), or take `context:` out of sandbox.yaml",
        )
    context = environment.context or target.context
    return EnvironmentPlace(name, environment.namespace, replace(target, context=context))
