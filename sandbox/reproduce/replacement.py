"""Services of a reproduction at another commit: found, built and rendered as ``up`` does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Record, ServiceLock
from sandbox.project.config import Project
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.identity import Identity
from sandbox.provision.plan import ServicePlan
from sandbox.provision.planning import Planner, Settled
from sandbox.provision.request import UpRequest
from sandbox.provision.selection import Selection
from sandbox.provision.sources import Declared, resolve_own
from sandbox.source.urls import absolute_address, same_repository


@dataclass(frozen=True)
class Replacement:
    """One service at another commit.

    Attributes:
        plan: as rendered for the sandbox.
        repo, ref, commit, subject: where its files are from.
    """

    plan: ServicePlan
    repo: str
    ref: str
    commit: str
    subject: str

    @property
    def line(self) -> str:
        return f"replaced by {self.commit[:12]}: {self.subject}"


@dataclass(frozen=True)
class _Origin:
    """Where a service is declared, and from which commit its files are taken.

    Attributes:
        repo: of the project; None: the one in whose folder the command runs.
        ref: of the project.
        source_ref: of the service's own repository, where that is another one; None: it is not.
    """

    repo: str | None
    ref: str | None
    source_ref: str | None = None


async def replacements(
    planner: Planner,
    wanted: Mapping[str, str],
    record: Record | None,
    identity: Identity,
    *,
    env: str,
    profile: QuotaProfile,
    request: UpRequest,
) -> dict[str, Replacement]:
    """Build and render services at other commits. Writes nothing but images that do not exist yet.

    The project is the one in whose folder the command runs, where it declares the service; else the one that the
    record names.

    Args:
        wanted: ref by service.
        record: the captured environment's newest.
        env: whose values are used.
        request: folder in which the command runs, build arguments, dry run.

    Raises:
        InvalidInput: nobody knows where a service comes from, or there is no such ref or service there.
        Refused, OperationFailed, Unreachable: as ``up``.
    """
    here = await _project_here(planner, request.folder or Path.cwd())
    groups: dict[_Origin, list[str]] = defaultdict(list)
    for name, ref in wanted.items():
        groups[_origin(name, ref, here, record)].append(name)
    found: dict[str, Replacement] = {}
    for number, (origin, names) in enumerate(groups.items()):
        # Trees of one commit would be in each other's way.
        workspace = planner.workspace / f"replace-{number}"
        workspace.mkdir()
        own = Planner(planner.cluster, planner.target, workspace, planner.reporter)
        own.platform = planner.platform
        settled = Settled(env, profile, timedelta(0), None, Selection(deployed=tuple(names)), None)
        order = replace(request, repo=origin.repo, ref=origin.ref)
        refs = {name: wanted[name] for name in names}
        found |= await _at_commit(own, order, settled, refs, identity, from_source=origin.source_ref is not None)
        planner.pull_secret = planner.pull_secret or own.pull_secret
    return found


async def _project_here(planner: Planner, folder: Path) -> Declared | None:
    """The project of the folder's commit; None where there is none."""
    workspace = planner.workspace / "here"
    workspace.mkdir()
    try:
        return await resolve_own(
            folder, None, "HEAD", dirty=False, settings=planner.settings, workspace=workspace, say=lambda _line: None
        )
    except InvalidInput:
        return None


def _origin(name: str, ref: str, here: Declared | None, record: Record | None) -> _Origin:
    """Where a service's commit is looked for.

    Raises:
        InvalidInput: nobody knows.
    """
    entry = record.services.get(name) if record else None
    lock = entry.lock if entry else None
    project = record.lock.project if record else ""
    if here is not None and name in here.project.services:
        source = here.project.services[name].source
        repo = here.own.commit.repo if source is None else absolute_address(source.repo, here.own.commit.repo)
        if not lock or not lock.repo or here.project.project == project or same_repository(repo, lock.repo):
            return _Origin(None, ref) if source is None else _Origin(None, "HEAD", ref)
    if lock is not None and lock.repo:
        return _recorded(lock, ref)
    raise InvalidInput(
        f"nobody knows which repository {name} comes from",
        why="it was not deployed by `sandbox`, so the capture does not say it"
        if record is None
        else "the capture's record does not say it",
        hint="run the command in a working tree of its project",
    )


def _recorded(lock: ServiceLock, ref: str) -> _Origin:
    if not lock.declared_repo or same_repository(lock.declared_repo, lock.repo):
        return _Origin(lock.repo, ref)
    return _Origin(lock.declared_repo, lock.declared_commit, ref)


async def _at_commit(
    planner: Planner,
    request: UpRequest,
    settled: Settled,
    refs: Mapping[str, str],
    identity: Identity,
    *,
    from_source: bool,
) -> dict[str, Replacement]:
    """Services of one project at one commit of it."""
    names = list(refs)
    with planner.reporter.step(f"Resolve {', '.join(f'{name}={ref}' for name, ref in refs.items())}") as step:
        declared = await planner.declared(request)
        _check_declared(names, declared.project, refs)
        if from_source:
            declared = _with_refs(declared, refs)
        sources = await planner.sources(declared, names)
        commits = {name: sources.by_service[name].commit for name in names}
        step.detail(", ".join(f"{name} is {commit.short}: {commit.subject}" for name, commit in commits.items()))
    with planner.reporter.step(f"Images of {', '.join(names)}") as step:
        images = await planner.images(request, settled, sources, step.detail)
    plans = await planner.render(request, settled, sources, identity, images)
    return {
        name: Replacement(plans[name], commits[name].repo, refs[name], commits[name].sha, commits[name].subject)
        for name in names
    }


def _check_declared(names: Sequence[str], project: Project, refs: Mapping[str, str]) -> None:
    for name in names:
        if name not in project.services:
            raise InvalidInput(
                f"the project {project.project} declares no service {name} at {refs[name]}",
                why=f"it has {', '.join(project.services)}",
                hint="name a commit that has it",
            )


def _with_refs(declared: Declared, refs: Mapping[str, str]) -> Declared:
    """A project whose services come from other commits of their own repositories than it says."""
    services = dict(declared.project.services)
    for name, ref in refs.items():
        source = services[name].source
        if source is not None:
            services[name] = services[name].model_copy(update={"source": source.model_copy(update={"ref": ref})})
    project = declared.project.model_copy(update={"services": services})
    return replace(declared, loaded=replace(declared.loaded, project=project))
