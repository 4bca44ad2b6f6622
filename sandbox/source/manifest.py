"""Several repositories: which commit each service of a project comes from."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sandbox.model.errors import Refused
from sandbox.model.source import Commit
from sandbox.project.config import Project
from sandbox.source.git import resolve_remote
from sandbox.source.urls import absolute_address, is_local, parse_address

Say = Callable[[str], None]
_AT_ONCE: Final = 8


@dataclass(frozen=True, order=True)
class Origin:
    """A repository's address (absolute) and what of it; ref None: its default branch."""

    repo: str
    ref: str | None


def origins(project: Project, own_repo: str, *, refs: Mapping[str, str] | None = None) -> dict[str, Origin]:
    """Where the services come from that are in other repositories than the project.

    Args:
        own_repo: the project's repository, to which relative addresses are relative.
        refs: other refs than the declared ones, by service.

    Raises:
        InvalidInput: not an address.
        Refused: a transport that is not allowed; a path of this machine in a project that is from elsewhere.
    """
    found: dict[str, Origin] = {}
    for name, service in project.services.items():
        if service.source is None:
            continue
        repo = absolute_address(service.source.repo, own_repo)
        # A stranger's sandbox.yaml must not choose which of the user's own repositories are deployed.
        if parse_address(repo).path is not None and not is_local(own_repo):
            raise Refused(
                f"the service {name} comes from {service.source.repo}, a path of this machine",
                why=f"the project itself comes from {own_repo}",
                hint="name its address, or one relative to the project's, such as ../orders.git",
            )
        found[name] = Origin(repo, (refs or {}).get(name, service.source.ref))
    return found


def resolve_sources(
    project: Project, own: Commit, *, refs: Mapping[str, str] | None = None, say: Say = lambda line: None
) -> dict[str, Commit]:
    """The commit of every service: the project's own, or that of its source. Each repository and ref once, in parallel.

    Raises:
        InvalidInput: not an address, or a ref that names no commit.
        Refused: an address that is not allowed.
        Unreachable: a repository cannot be read.
    """
    by_service = origins(project, own.repo, refs=refs)
    wanted = sorted(set(by_service.values()), key=lambda origin: (origin.repo, origin.ref or ""))
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="resolve") as threads:
        # Each thread in a copy of this context: a cancelled call finds the git processes of all of them.
        calls = {
            origin: threads.submit(contextvars.copy_context().run, resolve_remote, origin.repo, origin.ref, say=say)
            for origin in wanted
        }
        commits = {origin: call.result() for origin, call in calls.items()}
    return {name: commits[by_service[name]] if name in by_service else own for name in project.services}
