"""From what the user asked for to trees of files: the own commit, and those of services in other repositories."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.model.errors import InvalidInput
from sandbox.model.names import slug
from sandbox.model.record import Lock
from sandbox.model.source import Commit
from sandbox.project.config import Project
from sandbox.project.load import LoadedProject, load_project
from sandbox.project.settings import Settings
from sandbox.source import git, manifest
from sandbox.source.command import in_thread

# Names of branches and tags; not what git calculates (HEAD~2, main@{1}), and no commit by its number.
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+#-]*", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{7,64}", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One commit, exported.

    Attributes:
        origin: the repository's folder, or its URL.
        tree: folder with the commit's files.
    """

    commit: Commit
    origin: str
    tree: Path


@dataclass(frozen=True)
class Declared:
    """A project at its commit: what it declares is known before other repositories are asked for their files."""

    own: Source
    loaded: LoadedProject

    @property
    def project(self) -> Project:
        return self.loaded.project


@dataclass(frozen=True)
class Sources(Declared):
    """A project at its commit, and where the files of each of its services are that is wanted.

    Attributes:
        declares: all services that the project names at that commit, also those that a lock leaves out.
    """

    by_service: Mapping[str, Source]
    declared_by: Mapping[str, Source]
    declares: frozenset[str]


async def resolve_own(
    folder: Path | None,
    repo: str | None,
    ref: str | None,
    *,
    dirty: bool,
    settings: Settings,
    workspace: Path,
    say: Callable[[str], None],
) -> Declared:
    """Resolve the ref, export its tree, and read the project in it.

    Args:
        folder: any folder of the working tree; used when no ``repo`` is given.
        repo: URL of a repository, instead of a folder.
        say: is told what a tree lacks, such as a submodule.

    Raises:
        InvalidInput: unknown ref, hostile URL, invalid sandbox.yaml.
        Unreachable: a remote does not answer.
    """
    own = await _own_source(folder, repo, ref, dirty=dirty, settings=settings, workspace=workspace, say=say)
    # What a service needs may come from a base: the selection has the last word on unknown needs.
    loaded = await asyncio.to_thread(
        load_project, own.tree, name_hint=repository_name(own.commit.repo), allow_unknown_needs=True
    )
    return Declared(own, loaded)


async def resolve_others(
    declared: Declared,
    wanted: Collection[str],
    *,
    settings: Settings,
    workspace: Path,
    say: Callable[[str], None],
) -> Sources:
    """Resolve and export the services that a project takes from other repositories, as far as they are wanted.

    Raises:
        InvalidInput: unknown ref, hostile URL.
        Unreachable: a remote does not answer.
    """
    own = declared.own
    found = manifest.origins(declared.project, own.commit.repo)
    names = [name for name in declared.project.services if name in wanted]
    origins = {name: (found[name].repo, found[name].ref) for name in names if name in found}
    others = await _export_all(set(origins.values()), settings, workspace, say)
    by_service = {name: others[origins[name]] if name in origins else own for name in names}
    return Sources(
        own, declared.loaded, by_service, dict.fromkeys(by_service, own), frozenset(declared.project.services)
    )


async def resolve_locked(lock: Lock, *, settings: Settings, workspace: Path, say: Callable[[str], None]) -> Sources:
    """The same for a lock: each service as the commit declared it, from the commit where it lay.

    Raises:
        InvalidInput: a commit is gone, was never pushed, or does not declare the service.
    """
    incomplete = [name for name, service in lock.services.items() if not service.declared_commit or service.dirty]
    if incomplete:
        raise InvalidInput(
            f"the lock cannot be deployed: {', '.join(incomplete)} come from no commit",
            why="they were found running without a record, or were deployed from a dirty tree",
            hint="deploy them from a commit, and make the lock of that",
        )
    declared = {name: (s.declared_repo, s.declared_commit) for name, s in lock.services.items()}
    placed = {name: (s.repo, s.commit) for name, s in lock.services.items()}
    trees = await _export_all({*declared.values(), *placed.values()}, settings, workspace, say)
    loaded = {}
    for origin in set(declared.values()):
        loaded[origin] = await asyncio.to_thread(
            load_project, trees[origin].tree, name_hint=repository_name(origin[0]), allow_unknown_needs=True
        )
    services = {}
    for name, origin in declared.items():
        if name not in loaded[origin].project.services:
            raise InvalidInput(f"{origin[0]} at {origin[1][:12]} declares no service {name}, which the lock names")
        services[name] = loaded[origin].project.services[name]
    own = next((o for o in declared.values() if loaded[o].project.project == lock.project), next(iter(loaded)))
    project = loaded[own].project.model_copy(update={"services": services})
    return Sources(
        as_it_was_called(trees[own], lock, own),
        replace(loaded[own], project=project),
        {name: trees[origin] for name, origin in placed.items()},
        {name: trees[origin] for name, origin in declared.items()},
        frozenset(name for known in loaded.values() for name in known.project.services),
    )


def as_it_was_called(source: Source, lock: Lock, origin: tuple[str, str]) -> Source:
    """A commit by its SHA has no name; the sandbox is called after the one that it was deployed by."""
    refs = [
        s.ref for s in lock.services.values() if (s.repo, s.commit) == origin == (s.declared_repo, s.declared_commit)
    ]
    if not refs or refs[0] == "HEAD" or not _REF.fullmatch(refs[0]) or _SHA.fullmatch(refs[0]):
        return source
    return replace(source, commit=replace(source.commit, ref=refs[0], branch=refs[0]))


async def _own_source(
    folder: Path | None,
    repo: str | None,
    ref: str | None,
    *,
    dirty: bool,
    settings: Settings,
    workspace: Path,
    say: Callable[[str], None],
) -> Source:
    if repo is not None:
        if dirty:
            raise InvalidInput("--dirty needs a working tree", hint="leave out --repo, or leave out --dirty")
        return await _export(repo, ref, settings, workspace, say)
    if dirty and ref is not None:
        raise InvalidInput("--dirty deploys the working tree as it is", hint="leave out --ref, or leave out --dirty")
    root, commit = await in_thread(git.resolve_with_root, folder or Path.cwd(), ref)
    tree = workspace / f"tree-{commit.short}"
    allow = frozenset(settings.git_allow)
    exported = await in_thread(git.export, commit, root, tree, dirty=dirty, allow=allow, say=say)
    return Source(exported, str(root), tree)


async def _export_all(
    origins: Collection[tuple[str, str | None]], settings: Settings, workspace: Path, say: Callable[[str], None]
) -> dict[tuple[str, str | None], Source]:
    ordered = sorted(origins, key=str)
    sources = await asyncio.gather(*(_export(repo, ref, settings, workspace, say) for repo, ref in ordered))
    return dict(zip(ordered, sources, strict=True))


async def _export(
    repo: str, ref: str | None, settings: Settings, workspace: Path, say: Callable[[str], None]
) -> Source:
    commit = await in_thread(git.resolve_remote, repo, ref)
    tree = workspace / f"tree-{slug(repository_name(repo))}-{commit.short}"
    if not tree.exists():
        commit = await in_thread(git.export, commit, repo, tree, allow=frozenset(settings.git_allow), say=say)
    return Source(replace(commit, pushed=True), repo, tree)


def repository_name(repo: str) -> str:
    """What people call a repository: ``https://host/acme/web.git`` → ``web``."""
    return repo.rstrip("/").removesuffix("/.git").removesuffix(".git").replace(":", "/").rpartition("/")[2] or "project"
